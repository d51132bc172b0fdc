"""The subsets of CLIPErase's three losses, for both readings of its KL, on one concept."""

from typing import ClassVar

from paper.plans.base import Planned
from paper.runs import Run


class Ablation(Planned):
    splits: ClassVar[tuple[str, ...]] = ("validation", "test", "heldout")
    concept: str
    subsets: dict[str, dict]  # row -> what it changes in the settings of CLIPErase, or of the row that `of` names

    def plan(self, profile, pairs):
        about = (self.concept, {"concept": self.concept})
        seeds = self.seeds(profile, "original")
        runs = [self.planned(profile, Run(self.name, "original", *about, seed, "original")) for seed in seeds]
        for row, subset in self.subsets.items():
            change = {name: value for name, value in subset.items() if name != "of"}
            of = subset.get("of", "CLIPErase")
            runs += [self.planned(profile, Run(self.name, row, *about, seed, of), change) for seed in profile.seeds]
        return runs
