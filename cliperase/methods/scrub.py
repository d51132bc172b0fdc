"""SCRUB (Kurmanji et al. 2023): a student that disobeys its teacher on Df and obeys it on Dr.

L = InfoNCE(Dr) + α·KL(p_o ‖ p_u) on Dr - μ·KL(p_o ‖ p_u) on Df, the last only in the first `forget_share` of the steps;
what follows repairs. p is the softmax over logit-scaled similarities: for a forget image over its own text and the
retain texts of the step, which are constants there.

Settings: the published code takes both in turn each epoch, with α = 0.5 and μ = 1 on its small sets, the forget term in
the first 3 of 10 epochs. Here both are in one step, as every row has the same number of steps, and the forget term is
in the first half. Ours are searched (paper/profiles): more weight on the KL of Dr, less on that of Df.

Known failure: sensitive to the length of the forget phase. Too short forgets too little, too long damages the rest.
"""

import torch
from pydantic import Field, NonNegativeFloat

from cliperase.losses import consistency, kl_divergence, retention
from cliperase.methods.base import LossMethod


class SCRUB(LossMethod):
    mu: NonNegativeFloat = 1.0
    alpha: NonNegativeFloat = 1.0
    forget_share: float = Field(default=0.5, ge=0, le=1)  # of the steps, from the first

    def loss(self, batch):
        before, after = batch.original_retain, batch.retain
        kl = consistency((before.image, before.text), (after.image, after.text), batch.original_logit_scale)
        terms = {
            "RM": retention(after.image, after.text, batch.logit_scale, after.text_ids),
            "KL": self.alpha * kl,
        }
        if batch.step < self.forget_share * batch.steps:
            terms["disobey"] = -self.mu * forget_divergence(batch)
        return terms


def forget_divergence(batch):
    """KL(p_o ‖ p_u) of the forget images, scalar, in nats, mean over images."""
    before = choices(batch.original_forget, batch.original_retain.text)
    after = choices(batch.forget, batch.retain.text.detach())
    return kl_divergence(batch.original_logit_scale * before, batch.original_logit_scale * after)


def choices(forget, texts):
    """(N, 1 + M) cosines of each image with its own text and with M others."""
    own = (forget.image * forget.text).sum(dim=1, keepdim=True)
    return torch.cat([own, forget.image @ texts.T], dim=1)
