"""SalUn (Fan et al. 2024): θ_u = m ⊙ (θ_o + Δθ) + (1 - m) ⊙ θ_o, random labels on the weights that matter for Df.

1. Saliency mask m: the share `keep` of the weights with the largest |∇L(Df)| at the original model; weights
without any gradient (words that no caption has) are not counted. 2. Random labels on masked weights. The other
weights are put back after every step, since weight decay and momentum would move them.

Settings: usual share one half, which is the default. Ours is searched (paper/profiles), as is γ, which is far below 1
as for random labels.

Known failure: what random labels do to the embedding, with a smaller reach.
"""

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from cliperase.errors import CliperaseError
from cliperase.methods.base import Batches
from cliperase.methods.gradient_ascent import ascent
from cliperase.methods.gradients import mean_over_batches
from cliperase.methods.random_labels import RandomLabels
from cliperase.models.base import ImageTextModel


class SalUn(RandomLabels):
    keep: float = Field(default=0.5, gt=0, le=1)  # share of the weights that may move
    batches: PositiveInt = 8  # forget batches that the saliency is averaged over

    def restrict(self, model: ImageTextModel, batch: Batches) -> dict[str, Tensor]:
        """{parameter name: mask of the weights that may move}; the loop puts all others back."""
        saliency = mean_over_batches(model, ascent, batch, self.batches)
        sizes = torch.cat([gradient.abs().flatten() for gradient in saliency.values()])
        reached = sizes[sizes > 0].sort(descending=True).values
        if not len(reached):
            raise CliperaseError("SalUn: the forget loss has no gradient in any weight; give a trained model")
        threshold = reached[max(1, round(self.keep * len(reached))) - 1]
        return {name: gradient.abs() >= threshold for name, gradient in saliency.items()}
