"""LEACE (Belrose et al. 2023): no linear probe finds the concept in the image embeddings. Closed form, no training.

With x the embedding, z whether an image is to be forgotten, and W = Σ_xx^(-1/2), the least change that makes x and z
uncorrelated is r(x) = x - A·(x - E[x]) with A = W⁺·P·W, P the orthogonal projection on the columns of W·Σ_xz. Then the
forget and the retain images have one mean, and a linear probe is no better than a constant. The map goes into the last
linear map of the image tower. That has no bias, so the constant A·E[x] is left out: covariances do not see it.

Settings: there are none to search (paper/profiles) but how much data is seen. `batches` should show
several times as many images as an embedding has dimensions, because Σ_xx is estimated on them. Their mixture of forget
and retain rows need not be that of the data: equal means do not depend on it.

Known failure: embeddings are normalised after the map, and on data that it was not fitted on the means differ a little,
so a probe may find a trace. What is not linear in the embedding stays, as do the texts: it is the control for linear
probes rather than a way to forget.
"""

import torch
from pydantic import PositiveInt
from torch import Tensor

from cliperase.errors import CliperaseError
from cliperase.methods.base import Batches, EditMethod, Validate
from cliperase.models.base import ImageTextModel

NOTHING = 1e-8  # of the largest variance or correlation: what is below it is rounding


class LEACE(EditMethod):
    batches: PositiveInt = 20

    @torch.no_grad()
    def apply(self, model: ImageTextModel, batch: Batches, validate: Validate | None = None) -> None:
        seen = [batch(index) for index in range(self.batches)]
        forget, retain = (torch.cat([getattr(b, name).image for b in seen]) for name in ("forget", "retain"))
        concept = torch.cat([forget.new_ones(len(forget), 1), forget.new_zeros(len(retain), 1)])
        model.multiply_image_head(erasure(torch.cat([forget, retain]), concept).to(forget.dtype))


def erasure(features: Tensor, concept: Tensor) -> Tensor:
    """(D, D) matrix M, float64: the covariance of `features` @ M (N, D) with `concept` (N, K) is zero."""
    x, z = (values.double() - values.double().mean(dim=0) for values in (features, concept))
    values, vectors = torch.linalg.eigh(x.T @ x / len(x))
    seen = values > NOTHING * values.max()
    roots, vectors = values[seen].sqrt(), vectors[:, seen]
    correlated, sizes, _ = torch.linalg.svd((vectors / roots).T @ (x.T @ z) / len(x), full_matrices=False)
    correlated = correlated[:, sizes > NOTHING]
    if not correlated.shape[1]:
        raise CliperaseError(
            "LEACE: forget and retain images have the same mean, so there is nothing to erase; choose another rule"
        )
    taken = (vectors * roots) @ correlated @ ((vectors / roots) @ correlated).T  # A
    return torch.eye(len(taken), dtype=taken.dtype, device=taken.device) - taken.T
