"""Gradient difference (GradDiff; Liu et al. 2022): L = -γ·InfoNCE(Df) + α·InfoNCE(Dr).

Settings: usual γ = α = 1, which are the defaults. Ours (paper/profiles) keep α = 1. γ is searched and far below 1,
because a higher one costs retention (figures/icons/tuning/main.md).

Known failure: the ascent term has no lower bound, so in the long run it outweighs any α.
"""

from pydantic import NonNegativeFloat
from torch import Tensor

from cliperase.batch import Batch
from cliperase.methods.base import LossMethod, retain_loss
from cliperase.methods.gradient_ascent import ascent


class GradientDifference(LossMethod):
    gamma: NonNegativeFloat = 1.0
    alpha: NonNegativeFloat = 1.0

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        return {"GA": self.gamma * ascent(batch), "RM": self.alpha * retain_loss(batch)}
