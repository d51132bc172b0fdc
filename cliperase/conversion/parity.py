"""How near a converted model is to the model that it was made of."""

import torch
import torch.nn.functional as F

from cliperase.errors import CliperaseError

SAMPLE = ("a photo of an apple", "two dogs, one cat", "Über 50 % off")  # whose embeddings must be the same
CLOSE = 1e-5  # of cosines; beyond it the two are not one model


def noise_of(size):
    """(4, 3, height, width) uint8: the pictures whose embeddings must be the same."""
    return torch.randint(0, 256, (4, 3, *size), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


@torch.no_grad()
def embeddings_of(model):
    """{"image": (4, D), "text": (3, D)} of an `ImageTextModel`: of noise, and of `SAMPLE`."""
    return {"image": model.encode_image(noise_of(model.framing.size)), "text": model.encode_text(list(SAMPLE))}


def parity(own, made):
    """The lowest cosine and the largest difference of each of the vectors {name: (…, D)} of two models.

    CliperaseError where they are not the same.
    """
    pairs = {name: (values.cpu().double(), made[name].cpu().double()) for name, values in own.items()}
    cosines = {name: round(F.cosine_similarity(*pair, dim=-1).min().item(), 7) for name, pair in pairs.items()}
    if min(cosines.values()) < 1 - CLOSE:
        raise CliperaseError(f"the converted model differs (lowest cosines {cosines}); its architecture is another one")
    differences = {name: (one - other).abs().max().item() for name, (one, other) in pairs.items()}
    return {"lowest cosines to the original": cosines, "largest differences": differences}
