"""Embeddings of many images or texts, on the CPU."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from cliperase.errors import CliperaseError
from cliperase.finite import is_finite

if TYPE_CHECKING:
    from cliperase.models.base import ImageTextModel

Text = str | tuple[str, ...]  # a tuple: one text in several wordings, as a class in several templates


@torch.no_grad()
def encode_images(model: "ImageTextModel", images: Tensor, batch_size: int = 100) -> Tensor:
    """(N, 3, H, W) uint8 -> (N, D) embeddings, L2-normalised, on the CPU."""
    chunks = [model.encode_image(images[i : i + batch_size]).float().cpu() for i in range(0, len(images), batch_size)]
    return finite_rows(torch.cat(chunks), "image")


@torch.no_grad()
def encode_texts(model: "ImageTextModel", texts: Sequence[Text], batch_size: int = 250) -> Tensor:
    """T texts -> (T, D) embeddings, L2-normalised, on the CPU; see `averaged`."""
    each = [one for text in texts for one in wordings(text)]
    chunks = [model.encode_text(each[i : i + batch_size]).float().cpu() for i in range(0, len(each), batch_size)]
    return averaged(finite_rows(torch.cat(chunks), "text"), texts)


def wordings(text: Text) -> tuple[str, ...]:
    return (text,) if isinstance(text, str) else text


def averaged(features: Tensor, texts: Sequence[Text]) -> Tensor:
    """(T, D), L2-normalised: of each text the mean over its wordings, whose `features` (W, D) follow each other."""
    if len(features) == len(texts):
        return features
    parts = features.split([len(wordings(text)) for text in texts])
    return torch.stack([part[0] if len(part) == 1 else F.normalize(part.mean(dim=0), dim=0) for part in parts])


def finite_rows(features: Tensor, kind: str) -> Tensor:
    """The same `features` (N, D) of images or texts, if they are finite."""
    if not is_finite(features):
        row = features.isfinite().all(dim=1).logical_not().nonzero()[0].item()
        raise CliperaseError(f"the embedding of {kind} {row} is not finite; look at the model's weights and settings")
    return features


def number_texts(model: "ImageTextModel", texts: list[str]) -> Tensor:
    """(T,) long, equal where the model reads two texts as one: they differ in case, in blanks, or behind its length."""
    return model.token_rows(texts).unique(dim=0, return_inverse=True)[1]
