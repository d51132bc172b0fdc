"""The main table: every row, one concept at a time."""

from typing import ClassVar

from paper.plans.base import Planned


class Main(Planned):
    splits: ClassVar[tuple[str, ...]] = ("validation", "test", "heldout")
    concepts: list[str]
    references: list[str]  # rows that are not made by unlearning; nobody here can retrain OpenAI's CLIP

    def plan(self, profile, pairs):
        return [
            self.planned(profile, row, concept, {"concept": concept}, seed)
            for row in (*self.references, *self.methods)
            for concept in self.concepts
            for seed in self.seeds(profile, row)
        ]
