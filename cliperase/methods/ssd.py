"""Selective synaptic dampening (SSD; Foster et al. 2024): where F_f > α·F_D, θ ← θ·min(1, λ·F_D/F_f). No training.

F_f is a weight's importance for the forget set, F_D that for the data: the squared gradient of InfoNCE, averaged over
batches; D is sampled by the retain batches, in pieces of the forget batch's size. Scalars such as logit_scale are
skipped: dampening the temperature changes every answer.

Settings: usual α = 10, λ = 1, which are the defaults. Ours are searched (paper/profiles). α is higher, because at 10 a
small model loses what classes share (figures/icons/tuning/tuning.md). λ is lower on the pictograms.

Known failure: no α is right for all concepts; too low erases what others share, too high forgets nothing.
"""

from dataclasses import replace

import torch
from pydantic import NonNegativeFloat, PositiveInt

from cliperase.methods.base import EditMethod
from cliperase.methods.gradient_ascent import ascent, pairs_against
from cliperase.methods.gradients import mean_over_batches


class SSD(EditMethod):
    alpha: NonNegativeFloat = 10.0
    dampening: NonNegativeFloat = 1.0  # λ
    batches: PositiveInt = 20

    @torch.no_grad()
    def apply(self, model, batch, validate=None):
        with torch.enable_grad():
            forget = mean_over_batches(model, ascent, batch, self.batches, power=2)
            data = mean_over_batches(model, retain_loss, batch, self.batches, power=2)
        for name, parameter in model.named_parameters():
            if parameter.ndim == 0:
                continue
            important = forget[name] > self.alpha * data[name]
            factor = (self.dampening * data[name] / forget[name]).clamp(max=1)
            parameter.copy_(torch.where(important, parameter * factor, parameter))


def retain_loss(batch):
    """InfoNCE of as many retain pairs as there are forget pairs, against the rest of the retain batch."""
    size, retain = len(batch.forget.text_ids), batch.retain
    part = [replace(retain, image=retain.image[s], text=retain.text[s], text_ids=retain.text_ids[s])
            for s in (slice(size), slice(size, None))]  # fmt: skip
    return pairs_against(batch, *part)
