"""The main table: every row, one concept at a time."""

from pathlib import Path
from typing import ClassVar

from paper.plans.base import Planned, seeds_of
from paper.runs import Run


class Main(Planned):
    splits: ClassVar[tuple[str, ...]] = ("validation", "test", "heldout")
    concepts: list[str]
    references: list[str]  # rows that are not made by unlearning; nobody here can retrain OpenAI's CLIP

    def run(self, profile, data, model):
        """`model`: the original's folder, or the folder that holds it beside the retrained references."""
        original = Path(model) / "original"
        return super().run(profile, data, original if original.is_dir() else model)

    def plan(self, profile, pairs):
        return [
            Run(self.name, row, concept, {"concept": concept}, seed, **self.configured(profile, row))
            for row in (*self.references, *self.methods)
            for concept in self.concepts
            for seed in seeds_of(profile, row)
        ]
