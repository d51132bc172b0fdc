"""The main table: every row, one concept at a time."""

from typing import ClassVar

from paper.plans.base import Planned
from paper.runs import Run


class Main(Planned):
    splits: ClassVar[tuple[str, ...]] = ("validation", "test", "heldout")
    concepts: list[str]
    references: list[str]  # rows that are not made by unlearning; nobody here can retrain OpenAI's CLIP

    def plan(self, profile, pairs):
        return [
            self.planned(profile, Run(self.name, row, concept, {"concept": concept}, seed, row))
            for row in (*self.references, *self.methods)
            for concept in self.concepts
            for seed in self.seeds(profile, row)
        ]
