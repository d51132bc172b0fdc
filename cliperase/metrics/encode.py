"""Embeddings of many images or texts, on the CPU."""

import torch


@torch.no_grad()
def encode_images(model, images, batch_size=100):
    """(N, 3, H, W) uint8 -> (N, D) embeddings, L2-normalised, on the CPU."""
    chunks = [model.encode_image(images[i : i + batch_size]).float().cpu() for i in range(0, len(images), batch_size)]
    return torch.cat(chunks)


@torch.no_grad()
def encode_texts(model, texts, batch_size=250):
    """T strings -> (T, D) embeddings, L2-normalised, on the CPU."""
    chunks = [model.encode_text(texts[i : i + batch_size]).float().cpu() for i in range(0, len(texts), batch_size)]
    return torch.cat(chunks)


def number_texts(model, texts):
    """(T,) long, equal where the model reads two texts as one: they differ in case, in blanks, or behind its length."""
    return model.token_rows(texts).unique(dim=0, return_inverse=True)[1]
