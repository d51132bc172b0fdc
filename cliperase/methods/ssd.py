"""Selective synaptic dampening (SSD; Foster et al. 2024): where F_f > α·F_D, θ ← θ·min(1, λ·F_D/F_f). No training.

F_f is a weight's importance for the forget set, F_D that for the data: the squared gradient of InfoNCE, averaged over
batches of equal size. D is the whole training set, Df included: F_D = w·F_f + (1 - w)·F_r, where w is the share of Df
in D and F_r the importance for Dr. The published code reads D in this order too, first Dr, then Df. Scalars such as
logit_scale are skipped: dampening the temperature changes every answer.

`importance_of: retain` takes D = Dr. A token that only Df uses then has F_D = 0, and its embedding is erased whatever α
is. The row of several classes on photographs is older and was made so.

Settings: usual α = 10, λ = 1, which are the defaults. Ours are searched (paper/profiles). For one class α is higher,
because at 10 a small model loses what classes share (figures/icons/tuning/main.md); λ is lower everywhere.

Known failure: no α is right for all concepts; too low erases what others share, too high forgets nothing. From α = 1/w
on nothing can be dampened, because F_D is at least w·F_f.
"""

from dataclasses import replace
from typing import Literal

import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor

from cliperase.batch import Batch
from cliperase.errors import CliperaseError
from cliperase.methods.base import Batches, EditMethod, Validate
from cliperase.methods.gradient_ascent import ascent, pairs_against
from cliperase.methods.gradients import mean_over_batches, trainable
from cliperase.models.base import ImageTextModel


class SSD(EditMethod):
    alpha: NonNegativeFloat = 10.0
    dampening: NonNegativeFloat = 1.0  # λ
    batches: PositiveInt = 20
    importance_of: Literal["all", "retain"] = "all"  # what D is: all training rows, or the retain set

    @torch.no_grad()
    def apply(self, model: ImageTextModel, batch: Batches, validate: Validate | None = None) -> None:
        with torch.enable_grad():
            forget = mean_over_batches(model, ascent, batch, self.batches, power=2)
            data = mean_over_batches(model, equal_retain_loss, batch, self.batches, power=2)
        if self.importance_of == "all":
            share = share_of_forget(batch)
            data = {name: share * forget[name] + (1 - share) * value for name, value in data.items()}
        for name, parameter in trainable(model):
            if parameter.ndim == 0 or name.endswith(("logit_scale", "logit_bias")):  # SigLIP's are of shape (1,)
                continue
            important = forget[name] > self.alpha * data[name]
            factor = (self.dampening * data[name] / forget[name]).clamp(max=1)
            parameter.copy_(torch.where(important, parameter * factor, parameter))


def share_of_forget(batch: Batches) -> float:
    share = batch(0).forget_share
    if share is None:
        raise CliperaseError("SSD: nobody knows how many rows these shards hold; set importance_of=retain")
    return share


def equal_retain_loss(batch: Batch) -> Tensor:
    """InfoNCE of as many retain pairs as there are forget pairs, against the rest of the retain batch."""
    size, retain = len(batch.forget.text_ids), batch.retain
    part = [replace(retain, image=retain.image[s], text=retain.text[s], text_ids=retain.text_ids[s])
            for s in (slice(size), slice(size, None))]  # fmt: skip
    return pairs_against(batch, *part)
