"""Gradient ascent (GA; Thudi et al. 2022): L = -InfoNCE(Df), the loss that taught the pairs, turned around.

Pairs of one class share their text, so among themselves they have no gradient: the step's retain pairs are further
negatives, held constant. This term is also that of GradDiff and KL-min.
`towers: text` is the unimodal variant that the paper compares with: images only serve as constants.

Settings: the learning rate decides alone. The published code of SalUn (Fan et al. 2024) has it at 1e-4, for 5 epochs of
a classifier; a full-size CLIP bears no more than about 1e-7. Ours is searched for small models (paper/profiles). Their
text tower alone bears a higher rate than both towers.

Known failure: with nothing to hold the rest, retention collapses soon after the learning rate is enough to forget.
"""

from dataclasses import replace
from typing import Literal

from torch import Tensor

from cliperase.batch import Batch, Pairs
from cliperase.losses import info_nce
from cliperase.methods.base import LossMethod


class GradientAscent(LossMethod):
    towers: Literal["both", "text"] = "both"  # `text`: only the text tower and the temperature learn

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        if self.towers == "text":
            batch = replace(batch, forget=replace(batch.forget, image=batch.forget.image.detach()))
        return {"GA": ascent(batch)}


def ascent(batch: Batch) -> Tensor:
    """-InfoNCE of the forget pairs, scalar, in nats.

    Pairs of one forgotten class all share one text: among themselves there is nothing to tell apart and
    no gradient. The negatives are therefore the retain pairs of the step, as constants (detached).
    """
    return -pairs_against(batch, batch.forget, batch.retain)


def pairs_against(batch: Batch, pairs: Pairs, others: Pairs) -> Tensor:
    """InfoNCE of `pairs`, scalar, in nats, with the pairs `others` as further negatives, held constant."""
    negatives = (others.image.detach(), others.text.detach(), others.text_ids)
    return info_nce(pairs.image, pairs.text, batch.logit_scale, pairs.text_ids, negatives=negatives)
