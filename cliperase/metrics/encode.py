"""Embeddings of many images or texts, on the CPU."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cliperase.errors import CliperaseError
from cliperase.finite import is_finite

if TYPE_CHECKING:
    from cliperase.models.base import ImageTextModel


@torch.no_grad()
def encode_images(model: "ImageTextModel", images: Tensor, batch_size: int = 100) -> Tensor:
    """(N, 3, H, W) uint8 -> (N, D) embeddings, L2-normalised, on the CPU."""
    chunks = [model.encode_image(images[i : i + batch_size]).float().cpu() for i in range(0, len(images), batch_size)]
    return finite_rows(torch.cat(chunks), "image")


@torch.no_grad()
def encode_texts(model: "ImageTextModel", texts: list[str], batch_size: int = 250) -> Tensor:
    """T strings -> (T, D) embeddings, L2-normalised, on the CPU."""
    chunks = [model.encode_text(texts[i : i + batch_size]).float().cpu() for i in range(0, len(texts), batch_size)]
    return finite_rows(torch.cat(chunks), "text")


def finite_rows(features: Tensor, kind: str) -> Tensor:
    """The same `features` (N, D) of images or texts, if they are finite."""
    if not is_finite(features):
        row = features.isfinite().all(dim=1).logical_not().nonzero()[0].item()
        raise CliperaseError(f"the embedding of {kind} {row} is not finite; look at the model's weights and settings")
    return features


def number_texts(model: "ImageTextModel", texts: list[str]) -> Tensor:
    """(T,) long, equal where the model reads two texts as one: they differ in case, in blanks, or behind its length."""
    return model.token_rows(texts).unique(dim=0, return_inverse=True)[1]
