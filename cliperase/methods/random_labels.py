"""Random labels (a baseline of Golatkar et al. 2020): L = γ·CE(Df, wrong captions) + InfoNCE(Dr).

Images of Df are taught a wrong caption, drawn anew each step; Dr is taught as before. The usual form draws labels
from the other classes. For CLIP the classes of a step are the texts of its retain batch, one of which is drawn, and of
its forget batch, which are thus pushed away.

Settings: usual γ = 1, both losses as they are, which is the default. Ours is searched and far below 1
(paper/profiles), because a higher one costs retention (figures/icons/tuning/main.md).

Known failure: the images are pulled to *something*, so forgotten concepts come out as confident errors.
"""

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat
from torch import Tensor

from cliperase.batch import Batch
from cliperase.methods.base import LossMethod, retain_loss
from cliperase.methods.multidelete import other_texts


class RandomLabels(LossMethod):
    gamma: NonNegativeFloat = 1.0  # weight of the wrong captions against retention

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        return {"wrong": self.gamma * wrong_captions(batch), "RM": retain_loss(batch)}


def wrong_captions(batch: Batch) -> Tensor:
    """Cross-entropy of the forget images with a random retain text as their label, scalar, in nats.

    Candidates are the retain texts and the forget texts; all candidates with the drawn text are positives.
    """
    forget, retain = batch.forget, batch.retain
    label = retain.text_ids[other_texts(batch)]
    candidates = torch.cat([retain.text, forget.text])
    ids = torch.cat([retain.text_ids, forget.text_ids])
    positives = (label[:, None] == ids[None, :]).to(forget.image.dtype)
    targets = positives / positives.sum(dim=1, keepdim=True)
    return F.cross_entropy(batch.logit_scale * forget.image @ candidates.T, targets)
