"""Gradient ascent (GA): -InfoNCE(Df), the loss that taught the pairs, turned around.

With nothing to hold the rest, retention collapses soon after the learning rate is enough to forget.
"""

from dataclasses import dataclass

from cliperase.losses import info_nce


@dataclass(frozen=True)
class GradientAscent:
    def loss(self, batch):
        return {"GA": ascent(batch)}


def ascent(batch):
    """-InfoNCE of the forget pairs, scalar, in nats.

    Pairs of one forgotten class all share one text: among themselves there is nothing to tell apart and
    no gradient. The negatives are therefore the retain pairs of the step, as constants (detached).
    """
    forget, retain = batch.forget, batch.retain
    negatives = (retain.image.detach(), retain.text.detach(), retain.text_ids)
    return -info_nce(forget.image, forget.text, batch.logit_scale, forget.text_ids, negatives=negatives)
