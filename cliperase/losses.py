"""The losses: pure functions of embeddings. λs and sums belong to the methods, data to the loop.

Shapes: `image_features` and `text_features` are (N, D), L2-normalised, row i of one belongs to row i of
the other. `text_ids` (N,) gives equal numbers to rows with the identical text. `logit_scale` is the
multiplier itself (already exponentiated). Every loss is a scalar, a mean over samples.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from cliperase.errors import CliperaseError

RETENTION_TARGETS = ("identical-texts", "diagonal")
CONSISTENCY_READINGS = ("similarity", "embedding")


def forgetting(image_features: Tensor, text_features: Tensor) -> Tensor:
    """L_FM, CLIPErase's forgetting module: the mean dot product of the true pairs of the forget set.

    Minimising it drives the pairs apart, to -1 at the least: it has no stop at zero.
    """
    return (image_features * text_features).sum(dim=1).mean()


def positive_pairs(text_ids: Tensor, ids: Tensor, targets: str) -> Tensor:
    """(N, M) bool: whether row i, with the text `text_ids` (N,), and column j, with `ids` (M,), belong together."""
    if targets not in RETENTION_TARGETS:
        raise CliperaseError(f"retention targets {targets!r} unknown; choose one of {RETENTION_TARGETS}")
    if targets == "diagonal":
        return torch.eye(len(text_ids), len(ids), dtype=torch.bool, device=ids.device)
    return text_ids[:, None] == ids[None, :]


def info_nce(
    image_features: Tensor,
    text_features: Tensor,
    logit_scale: Tensor | float,
    text_ids: Tensor,
    targets: str = "identical-texts",
    negatives: tuple[Tensor, Tensor, Tensor] | None = None,
) -> Tensor:
    """Symmetric InfoNCE as in CLIP (Radford et al. 2021), in nats, over the N pairs given.

    Each image is classified among the batch's texts and each text among its images. `diagonal` is the
    literal form: the only positive of row i is column i. `identical-texts` spreads the target over all
    pairs with the same text, which would otherwise be false negatives: class prompts repeat in a batch.
    `negatives` (image_features, text_features, text_ids) of M other pairs join the candidates, not the mean.
    """
    images, texts, ids = image_features, text_features, text_ids
    if negatives is not None:
        images, texts, ids = (torch.cat(both) for both in zip((images, texts, ids), negatives, strict=True))
    positives = positive_pairs(text_ids, ids, targets).to(image_features.dtype)
    positives = positives / positives.sum(dim=1, keepdim=True)
    image_to_text = F.cross_entropy(logit_scale * image_features @ texts.T, positives)
    text_to_image = F.cross_entropy(logit_scale * text_features @ images.T, positives)
    return (image_to_text + text_to_image) / 2


def sigmoid_loss(
    image_features: Tensor,
    text_features: Tensor,
    logit_scale: Tensor | float,
    logit_bias: Tensor | float,
    text_ids: Tensor,
    targets: str = "identical-texts",
) -> Tensor:
    """The pairwise sigmoid loss of SigLIP (Zhai et al. 2023, equation 1), in nats, over the N pairs given.

    Each of the N × N pairs of an image and a text is told apart on its own: -log sigmoid(±(logit_scale · cos +
    logit_bias)), plus for pairs that belong together, minus for all others; the sum over N texts, the mean over N
    images. Which pairs belong together is said by `targets`, as in `info_nce`.
    """
    positives = positive_pairs(text_ids, text_ids, targets)
    logits = logit_scale * image_features @ text_features.T + logit_bias
    return -F.logsigmoid(torch.where(positives, logits, -logits)).sum(dim=1).mean()


def retention(
    image_features: Tensor,
    text_features: Tensor,
    logit_scale: Tensor | float,
    text_ids: Tensor,
    targets: str = "identical-texts",
    logit_bias: Tensor | float | None = None,
) -> Tensor:
    """L_RM, CLIPErase's retention module: the loss that the model was trained with, on the retain set.

    That is InfoNCE (the paper prefers it to an MSE), and where there is a `logit_bias` SigLIP's `sigmoid_loss`.
    """
    if logit_bias is not None:
        return sigmoid_loss(image_features, text_features, logit_scale, logit_bias, text_ids, targets)
    return info_nce(image_features, text_features, logit_scale, text_ids, targets)


def squared_error(a: Tensor, b: Tensor) -> Tensor:
    """‖a - b‖² of (N, D) embeddings, summed over dimensions, mean over rows: scalar."""
    return (a - b).square().sum(dim=1).mean()


def kl_divergence(original_logits: Tensor, logits: Tensor) -> Tensor:
    """KL(softmax(original) ‖ softmax(student)) over the last dimension, mean over rows, in nats."""
    return F.kl_div(
        logits.log_softmax(dim=-1),
        original_logits.log_softmax(dim=-1),
        reduction="batchmean",
        log_target=True,
    )


def consistency(
    original: tuple[Tensor, Tensor],
    student: tuple[Tensor, Tensor],
    logit_scale: Tensor | float,
    reading: str = "similarity",
) -> Tensor:
    """L_CM, CLIPErase's consistency module: KL(p_o^img ‖ p_u^img) + KL(p_o^txt ‖ p_u^txt) on the retain set.

    `original` and `student` are (image_features, text_features). The paper leaves open what the
    distributions run over. `similarity`: each row's softmax over the batch of logit-scaled similarities,
    image to text and text to image. `embedding`: softmax over the D dimensions of each embedding.
    `logit_scale` is the original model's in both terms, so that the student cannot pay with temperature; `embedding`
    does without, and the softmax of a unit vector's values is nearly uniform.
    """
    if reading == "embedding":
        image, text = (kl_divergence(o, s) for o, s in zip(original, student, strict=True))
        return image + text
    if reading == "similarity":
        before, after = (logit_scale * image @ text.T for image, text in (original, student))
        return kl_divergence(before, after) + kl_divergence(before.T, after.T)
    raise CliperaseError(f"consistency reading {reading!r} unknown; choose one of {CONSISTENCY_READINGS}")
