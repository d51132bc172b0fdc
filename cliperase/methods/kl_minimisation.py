"""KL minimisation (KL-min): -InfoNCE(Df) + β·KL(p_o ‖ p_u) on Dr; usual β = 1.

p is the softmax over the batch's logit-scaled similarities, in both directions. Like GradDiff it is
unbounded below, but it holds the original's behaviour rather than the labels.
"""

from dataclasses import dataclass

from cliperase.losses import consistency
from cliperase.methods.gradient_ascent import ascent


@dataclass(frozen=True)
class KLMinimisation:
    beta: float = 1.0

    def loss(self, batch):
        original, student = batch.original_retain, batch.retain
        kl = consistency((original.image, original.text), (student.image, student.text), batch.original_logit_scale)
        return {"GA": ascent(batch), "KL": self.beta * kl}
