"""Each row once, with the machine to itself: seconds and peak memory."""

from typing import ClassVar

from paper.plans.base import Planned


class Efficiency(Planned):
    alone: ClassVar[bool] = True
    splits: ClassVar[tuple[str, ...]] = ("validation",)  # what the rows are worth, `main` says
    concept: str

    def plan(self, profile, pairs):
        seed, rule = profile.seeds[0], {"concept": self.concept}
        return [self.planned(profile, row, self.concept, rule, seed) for row in self.methods]
