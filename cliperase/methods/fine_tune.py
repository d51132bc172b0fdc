"""Fine-tune: L_RM on the retain set, nothing on the forget set.

Forgets weakly if at all. It is the control for retention that *rises*: what this row gains is training,
not unlearning.
"""

from dataclasses import dataclass

from cliperase.losses import retention


@dataclass(frozen=True)
class FineTune:
    def loss(self, batch):
        r = batch.retain
        return {"RM": retention(r.image, r.text, batch.logit_scale, r.text_ids)}
