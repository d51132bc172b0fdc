"""Gradient ascent (GA): -InfoNCE(Df), the loss that taught the pairs, turned around.

With nothing to hold the rest, retention collapses soon after the learning rate is enough to forget.
`towers: text` is the unimodal variant that the paper compares with: images only serve as constants.
"""

from dataclasses import dataclass, replace

from cliperase.errors import CliperaseError
from cliperase.losses import info_nce

TOWERS = ("both", "text")


@dataclass(frozen=True)
class GradientAscent:
    towers: str = "both"  # or "text": only the text tower and the temperature learn

    def __post_init__(self):
        if self.towers not in TOWERS:
            raise CliperaseError(f"GA: towers {self.towers!r} unknown; choose one of {TOWERS}")

    def loss(self, batch):
        if self.towers == "text":
            batch = replace(batch, forget=replace(batch.forget, image=batch.forget.image.detach()))
        return {"GA": ascent(batch)}


def ascent(batch):
    """-InfoNCE of the forget pairs, scalar, in nats.

    Pairs of one forgotten class all share one text: among themselves there is nothing to tell apart and
    no gradient. The negatives are therefore the retain pairs of the step, as constants (detached).
    """
    return -pairs_against(batch, batch.forget, batch.retain)


def pairs_against(batch, pairs, others):
    """InfoNCE of `pairs`, scalar, in nats, with the pairs `others` as further negatives, held constant."""
    negatives = (others.image.detach(), others.text.detach(), others.text_ids)
    return info_nce(pairs.image, pairs.text, batch.logit_scale, pairs.text_ids, negatives=negatives)
