"""Quantisation: does the concept come back when the weights are rounded to few bits?

Small changes of the weights are lost in rounding, and with them what unlearning did. It is published as an attack
(RAZOR 2026, FO-ZO 2026; for language models Zhang et al. 2025). Here it is simulated: every weight of two dimensions or
more is rounded to 2^bits - 1 even levels between minus and plus the largest of its output channel; the model then
computes in full precision.

What it does not show: how a certain runtime rounds, which may treat activations, groups and outliers otherwise. At 4
bits a small model suffers as a whole: `retain_…` tells whether it still works.
"""

import copy
from functools import cache
from typing import Annotated

import torch
from pydantic import Field

from cliperase.audit.base import Known, Probe, compared
from cliperase.audit.case import Subject, found_by
from cliperase.audit.intervals import share_of


class Quantisation(Probe):
    asked = "Does the concept come back when the weights are rounded to 8 or 4 bits?"
    figures = "forget_ and retain_accuracy of the model with rounded weights. Without rounding: see the reference gap."
    means = "A forget accuracy that rises with rounding: unlearning was a change too small to last."
    limits = (
        "The rounding is simulated, of weights only. Where the retained accuracy breaks down as well, it says nothing."
    )
    source = (
        "RAZOR (2026) and FO-ZO (2026); Catastrophic Failure of LLM Unlearning via Quantization (Zhang et al., 2025)"
    )

    bits: list[Annotated[int, Field(ge=2, le=16)]] = Field(default=[8, 4], min_length=1)

    def run(self, case):
        split, found = case.test, []
        groups: dict[str, tuple[torch.Tensor, Known]] = {
            "forget": (split.forgotten, "above"),
            "retain": (~split.forgotten, None),
        }
        for bits in self.bits:
            rounded = cache(lambda subject, bits=bits: Subject(quantised(subject.model, bits), subject.name))

            def accuracy(subject, rows, rounded=rounded):
                return share_of(found_by(rounded(subject), split, rows))

            for group, (rows, known) in groups.items():
                name = f"{group}_accuracy_{bits}_bits"
                found.append(compared(case, name, "%", lambda s, rows=rows, of=accuracy: of(s, rows), known))
        return found


@torch.no_grad()
def quantised(model, bits):
    """A copy of the model whose weights are rounded, each output channel by a scale of its own."""
    model, levels = copy.deepcopy(model), 2 ** (bits - 1) - 1
    for weight in model.parameters():
        if weight.dim() > 1:
            scale = weight.abs().amax(dim=tuple(range(1, weight.dim())), keepdim=True).clamp(min=1e-12) / levels
            weight.copy_((weight / scale).round() * scale)
    return model
