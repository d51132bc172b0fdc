"""KL minimisation (KL-min; a baseline of Maini et al. 2024): L = -InfoNCE(Df) + β·KL(p_o ‖ p_u) on Dr.

p is the softmax over the batch's logit-scaled similarities, in both directions; in the paper, on language models, over
the next token. What is held is the original's behaviour rather than the labels.

Settings: usual β = 1, the two terms as they are, which is the default. Ours is searched and far above 1
(paper/profiles), because a lower one costs retention (figures/icons/tuning/main.md).

Known failure: like GradDiff it is unbounded below, so in the long run the ascent outweighs any β.
"""

from pydantic import NonNegativeFloat
from torch import Tensor

from cliperase.batch import Batch
from cliperase.methods.base import LossMethod, retain_divergence
from cliperase.methods.gradient_ascent import ascent


class KLMinimisation(LossMethod):
    beta: NonNegativeFloat = 1.0

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        return {"GA": ascent(batch), "KL": self.beta * retain_divergence(batch)}
