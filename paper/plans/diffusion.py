"""A text-to-image model reads with the unlearned text encoder: what does it still draw?"""

import json
from typing import ClassVar

import pandas as pd
from pydantic import Field, model_validator

from paper.code import DRAWING
from paper.diffusion import DrawnPlace, detector_rows
from paper.plans.base import Planned
from paper.results import COLUMNS, REFERENCES
from paper.runs import Run, open_bench


class Diffusion(Planned):
    splits: ClassVar[tuple[str, ...]] = ("validation",)  # what selects the checkpoint; pictures are of no split
    concepts: list[str] = Field(min_length=1)  # that are drawn
    forgotten: list[str] = Field(min_length=1)  # of these, one at a time
    pipeline: str  # a Stable Diffusion pipeline: folder or hub name
    detector: str  # see `paper.diffusion.create_detector`
    measured_on: list[str] = Field(default=[])  # data sets whose test split measures the detector
    prompt: str
    images: int = Field(ge=1)  # of each concept, for each row and seed
    steps: int = Field(ge=1)
    guidance: float
    batch: int = Field(ge=1)  # pictures at a time
    threshold: float = Field(ge=0, le=1)  # confidence that counts as seen, for an object detector
    shown: int = Field(ge=1)  # pictures of each concept, of the first seed, that are kept for the notebook
    generator_training: dict = Field(default={})
    detector_training: dict = Field(default={})

    @model_validator(mode="after")
    def names_agree(self):
        absent = [name for name in self.forgotten if name not in self.concepts]
        if absent:
            raise ValueError(f"{absent[0]!r} is forgotten but not among the concepts; add it to them")
        references = [row for row in self.methods if row in REFERENCES]
        if references:
            raise ValueError(f"row {references[0]!r} is no method; the original is drawn in any case")
        if self.prompt.count("{}") != 1:
            raise ValueError(f"prompt is {self.prompt!r}; write {{}} where the concept goes")
        return self

    def plan(self, profile, pairs):
        """The original is drawn with the noise of every seed."""
        return [
            self.planned(profile, Run(self.name, row, concept, {"concept": concept}, seed, row))
            for row in ("original", *self.methods)
            for concept in self.forgotten
            for seed in profile.seeds
        ]

    def place(self, profile, data, model, splits):
        asked = json.dumps({name: getattr(self, name) for name in DRAWING})
        return DrawnPlace(**vars(super().place(profile, data, model, splits)), asked=asked)

    def run(self, profile, data, model):
        """The table, and pictures of the first seed, whose models are made again: a kept run has no pictures."""
        table, _ = super().run(profile, data, model)
        bench = open_bench(self.place(profile, data, model, self.splits))
        runs = [run for run in self.plan(profile, None) if run.seed == profile.seeds[0]]
        measured = pd.DataFrame(detector_rows(bench, self.measured_on), columns=COLUMNS)
        return pd.concat([measured, table], ignore_index=True), bench.shown(runs, self.shown)
