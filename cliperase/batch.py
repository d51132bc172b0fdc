"""The embeddings that a method gets at one step."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Pairs:
    """Aligned embeddings: `image` and `text` (N, D), L2-normalised; `text_ids` (N,), equal for equal texts."""

    image: torch.Tensor
    text: torch.Tensor
    text_ids: torch.Tensor


@dataclass(frozen=True)
class Batch:
    """The student's embeddings of a forget and a retain batch, and the original model's of the same rows.

    Pretraining has no forget set, and neither pretraining nor a method that replaces the data has an original. What
    there is not is None, whatever the hint says, because no method there asks for it.

    `original_logit_scale` is the original's temperature as a multiplier. `logit_bias`: that of the student where it was
    trained with SigLIP's sigmoid loss, else None. `generator` is the loop's seeded
    source of randomness; `step` counts from 0 to `steps` - 1. `forget_share`: the forget rows' share of all training
    rows, in 0…1; None where the rows are streamed and nobody has counted them. `forget_steps`: as many steps from the
    first show every forgotten class; 0 where the data have no classes.
    """

    forget: Pairs
    retain: Pairs
    original_forget: Pairs
    original_retain: Pairs
    logit_scale: torch.Tensor
    original_logit_scale: torch.Tensor
    step: int
    steps: int
    generator: torch.Generator
    forget_share: float | None = None
    logit_bias: torch.Tensor | None = None
    forget_steps: int = 0
