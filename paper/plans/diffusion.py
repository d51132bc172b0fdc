"""A text-to-image model reads with the unlearned text encoder: what does it still draw?"""

from pydantic import Field, model_validator

from cliperase.unlearning import Recipe
from paper.diffusion import run_diffusion
from paper.plans.base import Experiment
from paper.results import REFERENCES


class Diffusion(Experiment):
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
    shown: int = Field(ge=1)  # pictures of each concept that are kept for the notebook
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

    def run(self, profile, data, model):
        for row in self.methods:  # a wrong setting is told now, not after an hour of generating
            configured = self.configured(profile, row)
            Recipe.of(configured["method"], configured["settings"])
        return run_diffusion(self, profile, data, model)
