"""Null space (Mishra et al. 2025; the projection is that of Ravfogel et al. 2020): head ← head·(I - strength·U·Uᵀ).

Closed form, in the text head. The columns of U are orthonormal and span what is distinctive of the forgotten texts:
each text's embedding without its part along m, the direction of the retain texts' mean. Taking out all of an embedding
would leave its text without a direction, a division of noise by noise; so it keeps what every text has. U holds one
direction for each forgotten text. `rank` takes fewer: first the direction of the texts' mean, then the largest
principal directions of what is left of them. At rank 1 several texts have one direction together, and hardly move.

Settings: a projection has strength 1, which is the default. Ours is searched (paper/profiles); several classes on
photographs are an older row, at rank 1. Below 1 a part of the texts stays, above it they are turned round. `batches`
batches tell the texts, and more where these do not show every forgotten class. Captions are a sample: one that is in no
batch stays.

Known failure: every text goes through the edited head, so texts that share the removed directions move too. Captions
that all differ may span the whole space; they need a `rank`. Images keep their place, and a linear probe finds the
concept in them as before.
"""

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor

from cliperase.errors import CliperaseError
from cliperase.methods.base import Batches, EditMethod, Validate, all_classes
from cliperase.models.base import ImageTextModel

SAME = 1e-3  # of the largest singular value: below it, two texts' embeddings differ by rounding only


class NullSpace(EditMethod):
    strength: NonNegativeFloat = 1.0
    batches: PositiveInt = 8  # batches whose texts are seen; more where these do not show every forgotten class
    rank: PositiveInt | None = None  # directions that are taken out; None: one for each forgotten text

    @torch.no_grad()
    def apply(self, model: ImageTextModel, batch: Batches, validate: Validate | None = None) -> None:
        seen = all_classes(batch, self.batches)
        forget, retain = (torch.cat([getattr(b, name).text for b in seen]) for name in ("forget", "retain"))
        removed = projection(forget, retain.mean(dim=0), self.rank)
        identity = torch.eye(len(removed), device=removed.device)
        model.multiply_text_head(identity - self.strength * removed)


def projection(forget: Tensor, common: Tensor, rank: int | None = None) -> Tensor:
    """(D, D) orthogonal projection on what is distinctive of the texts `forget` (N, D), beside `common` (D,)."""
    first = distinctive(forget.mean(dim=0), common)
    removed = torch.outer(first, first)
    if rank == 1:
        return removed
    common = F.normalize(common, dim=0)
    rest = forget - torch.outer(forget @ common, common)
    largest = torch.linalg.matrix_norm(rest, 2)
    _, sizes, directions = torch.linalg.svd(rest - rest @ removed, full_matrices=False)
    others = directions[sizes > SAME * largest]
    if rank is None and len(others) + 1 >= forget.shape[1] - 1:
        raise CliperaseError(
            f"null space: the forget texts span all {forget.shape[1]} dimensions; give a rank, such as 1"
        )
    others = others[: None if rank is None else rank - 1]
    return removed + others.T @ others


def distinctive(forget: Tensor, retain: Tensor) -> Tensor:
    """(D,) unit vector: the part of `forget` (D,) that is orthogonal to `retain` (D,)."""
    common = F.normalize(retain, dim=0)
    rest = forget - common * (forget @ common)
    if rest.norm() < 1e-4 * forget.norm():
        raise CliperaseError(
            "null space: forget and retain texts point the same way, so there is nothing to remove; choose another rule"
        )
    return F.normalize(rest, dim=0)
