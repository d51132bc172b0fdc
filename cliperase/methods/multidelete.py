"""MultiDelete (Cheng & Amiri 2023), for two-tower models: L = decoupling + multimodal + unimodal, each with a weight.

Modality decoupling on Df: mean (s_u(x, t) - s_o(x, t'))², the student's similarity pulled to the original's with
another text t', drawn from the retain batch. As published it runs over all images x and texts t of the batch, the whole
similarity matrix, and counts twice, once for each direction; `decoupling_over: pairs` runs over the true pairs, and
counts once. Multimodal and unimodal knowledge retention on Dr: ‖f_u - f_o‖² of the fusion, image and text embeddings,
which stay where the original has them. CLIP has no fusion module; the elementwise product stands for it, because its
sum is the similarity. Squared errors are summed over dimensions, averaged over samples.

Settings: the published code adds the three with equal weights, which is the default, but averages squared errors over
dimensions too. Ours keep 1 for decoupling and multimodal; the weight of unimodal is searched (paper/profiles) and is
far above 1 on pictograms. Flickr8k's row is older and has decoupling over pairs.

Known failure: the target is only as good as its shuffle. Shuffled within the forget set, as in the published code, the
pairs of one class stay true pairs, and the loss then holds what it should forget; hence `other_texts`.
"""

from typing import Literal

import torch
from pydantic import NonNegativeFloat
from torch import Tensor

from cliperase.batch import Batch
from cliperase.errors import CliperaseError
from cliperase.losses import squared_error
from cliperase.methods.base import LossMethod


class MultiDelete(LossMethod):
    decoupling: NonNegativeFloat = 1.0
    multimodal: NonNegativeFloat = 1.0
    unimodal: NonNegativeFloat = 1.0
    decoupling_over: Literal["matrix", "pairs"] = "matrix"

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        before, after = batch.original_retain, batch.retain
        fusion = squared_error(after.image * after.text, before.image * before.text)
        unimodal = squared_error(after.image, before.image) + squared_error(after.text, before.text)
        return {
            "decoupling": self.decoupling * (over_pairs if self.decoupling_over == "pairs" else over_matrix)(batch),
            "multimodal": self.multimodal * fusion,
            "unimodal": self.unimodal * unimodal,
        }


def over_pairs(batch: Batch) -> Tensor:
    """The decoupling loss over the true pairs, scalar."""
    similarity = (batch.forget.image * batch.forget.text).sum(dim=1)
    return (similarity - similarity_to_others(batch)).square().mean()


def over_matrix(batch: Batch) -> Tensor:
    """The decoupling loss over all images and texts of the forget batch, scalar, of both directions.

    A drawn text meets all images, so it is no forget pair's own.
    """
    target = batch.original_forget.image @ batch.original_retain.text[other_texts(batch, of_any=True)].T
    return 2 * (batch.forget.image @ batch.forget.text.T - target).square().mean()


def similarity_to_others(batch: Batch) -> Tensor:
    """(N,) the original's similarity of each forget image with a random text that is not its own."""
    return (batch.original_forget.image * batch.original_retain.text[other_texts(batch)]).sum(dim=1)


def other_texts(batch: Batch, of_any: bool = False) -> Tensor:
    """(N,) for each forget pair a random row of the retain batch whose text is not its own, or `of_any` forget pair.

    Texts come from the retain batch: shuffling within the forget set would leave true pairs, because
    all pairs of a forgotten class share their text.
    """
    allowed = batch.forget.text_ids[:, None] != batch.retain.text_ids[None, :]
    if of_any:
        allowed = allowed.all(dim=0).expand_as(allowed)
    if not allowed.any(dim=1).all():
        raise CliperaseError("the retain batch holds no text unlike the forget texts; enlarge retain_batch")
    other = torch.multinomial(allowed.float().cpu(), 1, generator=batch.generator)[:, 0]
    return other.to(batch.forget.text_ids.device)
