"""SCRUB (Kurmanji et al. 2023): a student that disobeys its teacher on Df and obeys it on Dr.

In turns: maximise KL(p_o ‖ p_u) on Df, L = -μ·KL; then minimise L = InfoNCE(Dr) + α·KL(p_o ‖ p_u) on Dr. Only the first
`forget_share` of the rounds have the first turn; what follows repairs. p is the softmax over logit-scaled similarities
at a `temperature` T, its KL times T²: for a forget image over its own text and the retain texts of the step, which are
constants there.

Settings: the published code takes T = 2, α = 0.5 and μ = 1 on its small sets, and maximises in the first 3 of 10
epochs; these are the defaults. A turn there is an epoch of its set. Here a round is a tenth of the steps and each turn
half of it, because every row has the same number of steps. α and μ are searched (paper/profiles).

Known failure: sensitive to the length of the forget phase. Too short forgets too little, too long damages the rest.
"""

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor

from cliperase.batch import Batch, Pairs
from cliperase.losses import kl_divergence
from cliperase.methods.base import LossMethod, retain_divergence, retain_loss


class SCRUB(LossMethod):
    mu: NonNegativeFloat = 1.0
    alpha: NonNegativeFloat = 0.5
    temperature: PositiveFloat = 2.0
    rounds: PositiveInt = 10
    forget_share: float = Field(default=0.3, ge=0, le=1)  # of the rounds, from the first

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        number, place = divmod(batch.step * self.rounds, batch.steps)  # the round, and how far it is, of `steps`
        maximises = number < self.forget_share * self.rounds and 2 * place < batch.steps
        return self.disobey(batch) if maximises else self.obey(batch)

    def obey(self, batch: Batch) -> dict[str, Tensor]:
        kl = retain_divergence(batch, temperature=self.temperature)
        return {"RM": retain_loss(batch), "KL": self.alpha * (self.temperature**2 * kl)}

    def disobey(self, batch: Batch) -> dict[str, Tensor]:
        return {"disobey": -self.mu * (self.temperature**2 * forget_divergence(batch, self.temperature))}


def forget_divergence(batch: Batch, temperature: float = 1.0) -> Tensor:
    """KL(p_o ‖ p_u) of the forget images, scalar, in nats, mean over images."""
    before = choices(batch.original_forget, batch.original_retain.text)
    after = choices(batch.forget, batch.retain.text.detach())
    scale = batch.original_logit_scale / temperature
    return kl_divergence(scale * before, scale * after)


def choices(forget: Pairs, texts: Tensor) -> Tensor:
    """(N, 1 + M) cosines of each image with its own text and with M others."""
    own = (forget.image * forget.text).sum(dim=1, keepdim=True)
    return torch.cat([own, forget.image @ texts.T], dim=1)
