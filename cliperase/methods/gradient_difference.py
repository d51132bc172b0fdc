"""Gradient difference (GradDiff, Liu et al. 2022): -γ·InfoNCE(Df) + α·InfoNCE(Dr); usual γ = α = 1.

The ascent term has no lower bound, so in the long run it outweighs any α.
"""

from dataclasses import dataclass

from cliperase.losses import retention
from cliperase.methods.gradient_ascent import ascent


@dataclass(frozen=True)
class GradientDifference:
    gamma: float = 1.0
    alpha: float = 1.0

    def loss(self, batch):
        r = batch.retain
        return {
            "GA": self.gamma * ascent(batch),
            "RM": self.alpha * retention(r.image, r.text, batch.logit_scale, r.text_ids),
        }
