"""Evaluation: embeddings, zero-shot accuracy, and the cosines that show over-forgetting."""

import numpy as np
import torch

from cliperase.errors import CliperaseError

PROMPT = "a photo of a {}"


@torch.no_grad()
def encode_images(model, images, batch_size=500):
    """(N, 3, H, W) uint8 -> (N, D) embeddings, L2-normalised, on the CPU."""
    chunks = [model.encode_image(images[i : i + batch_size]).float().cpu() for i in range(0, len(images), batch_size)]
    return torch.cat(chunks)


@torch.no_grad()
def encode_texts(model, texts, batch_size=1000):
    """T strings -> (T, D) embeddings, L2-normalised, on the CPU."""
    chunks = [model.encode_text(texts[i : i + batch_size]).float().cpu() for i in range(0, len(texts), batch_size)]
    return torch.cat(chunks)


def zero_shot_accuracy(image_features, class_features, labels):
    """Percent of images whose nearest class prompt is their own.

    `image_features` (N, D), `class_features` (C, D), both L2-normalised; `labels` (N,) in 0…C-1.
    """
    if not len(labels):
        raise CliperaseError("zero-shot accuracy of no images; the split holds none")
    predicted = (image_features @ class_features.T).argmax(dim=1)
    return 100 * (predicted == labels).double().mean().item()


def forgetting_metrics(model, pairs, forgotten, prompt=PROMPT):
    """What forgetting did, on one split. `forgotten` (N,) bool marks the forget set.

    forget_accuracy, retain_accuracy: zero-shot over all classes, in percent. forget_cosine: mean cosine of
    the forgotten images to their own prompt. unrelated_cosine: mean cosine of the forgotten classes'
    prompts to the retain images, which should stay where it was.
    """
    class_features = encode_texts(model, [prompt.format(name) for name in pairs.class_names])
    image_features = encode_images(model, pairs.images)
    kept = ~forgotten
    metrics = {"retain_accuracy": zero_shot_accuracy(image_features[kept], class_features, pairs.labels[kept])}
    if forgotten.any():  # held-out drawings do not exist for every concept
        own = class_features[pairs.labels[forgotten]]
        prompts = class_features[pairs.labels[forgotten].unique()]
        metrics |= {
            "forget_accuracy": zero_shot_accuracy(image_features[forgotten], class_features, pairs.labels[forgotten]),
            "forget_cosine": (image_features[forgotten] * own).sum(dim=1).mean().item(),
            "unrelated_cosine": (image_features[kept] @ prompts.T).mean().item(),
        }
    return metrics


def selection_score(metrics):
    """Harmonic mean of 100 - forget accuracy and retain accuracy: the one number that selects checkpoints
    and hyperparameters, on validation data only. It is low when either forgetting or retention fails."""
    parts = np.array([100 - metrics["forget_accuracy"], metrics["retain_accuracy"]])
    return 0.0 if (parts <= 0).any() else float(2 / (1 / parts).sum())
