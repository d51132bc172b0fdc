"""Embeddings of many images or texts, on the CPU."""

import torch

from cliperase.errors import CliperaseError
from cliperase.finite import is_finite


@torch.no_grad()
def encode_images(model, images, batch_size=100):
    """(N, 3, H, W) uint8 -> (N, D) embeddings, L2-normalised, on the CPU."""
    chunks = [model.encode_image(images[i : i + batch_size]).float().cpu() for i in range(0, len(images), batch_size)]
    return finite_rows(torch.cat(chunks), "image")


@torch.no_grad()
def encode_texts(model, texts, batch_size=250):
    """T strings -> (T, D) embeddings, L2-normalised, on the CPU."""
    chunks = [model.encode_text(texts[i : i + batch_size]).float().cpu() for i in range(0, len(texts), batch_size)]
    return finite_rows(torch.cat(chunks), "text")


def finite_rows(features, kind):
    """The same `features` (N, D) of images or texts, if they are finite."""
    if not is_finite(features):
        row = features.isfinite().all(dim=1).logical_not().nonzero()[0].item()
        raise CliperaseError(f"the embedding of {kind} {row} is not finite; look at the model's weights and settings")
    return features


def number_texts(model, texts):
    """(T,) long, equal where the model reads two texts as one: they differ in case, in blanks, or behind its length."""
    return model.token_rows(texts).unique(dim=0, return_inverse=True)[1]
