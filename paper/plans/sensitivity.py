"""How much the weights of CLIPErase's losses matter: a grid of λ_FM and λ_CM, on validation images.

The concepts are those of the search for settings, which are not reported elsewhere; nothing is chosen by this.
"""

from itertools import product
from typing import ClassVar

from pydantic import Field

from paper.plans.base import Planned
from paper.runs import Run


class Sensitivity(Planned):
    splits: ClassVar[tuple[str, ...]] = ("validation",)
    concepts: list[str]
    lambda_fm: list[float] = Field(min_length=2)
    lambda_cm: list[float] = Field(min_length=2)

    def plan(self, profile, pairs):
        grid = {"CLIPErase": {}}  # as it was chosen
        for fm, cm in product(self.lambda_fm, self.lambda_cm):
            grid[f"λ_FM {fm:g}, λ_CM {cm:g}"] = {"lambda_fm": fm, "lambda_cm": cm}
        seed = profile.seeds[0]
        return [
            self.planned(profile, Run(self.name, row, concept, {"concept": concept}, seed, "CLIPErase"), change)
            for row, change in grid.items()
            for concept in self.concepts
        ]


def weights_of(row):
    """(λ_FM, λ_CM) of a row of the grid."""
    return tuple(float(part.split()[1]) for part in row.split(", "))
