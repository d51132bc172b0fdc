"""The subsets of CLIPErase's three losses, and both readings of its KL, on one concept."""

from typing import ClassVar

from paper.plans.base import Planned, seeds_of
from paper.runs import Run


class Ablation(Planned):
    splits: ClassVar[tuple[str, ...]] = ("validation", "test", "heldout")
    concept: str
    subsets: dict[str, dict]  # row -> what it changes in the settings of CLIPErase

    def plan(self, profile, pairs):
        rows = {"original": self.configured(profile, "original")}
        rows |= {row: self.configured(profile, "CLIPErase", change) for row, change in self.subsets.items()}
        return [
            Run(self.name, row, self.concept, {"concept": self.concept}, seed, **configured)
            for row, configured in rows.items()
            for seed in seeds_of(profile, row)
        ]
