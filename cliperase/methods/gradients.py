"""Mean gradients over several batches, for methods that choose weights by their importance."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from cliperase.batch import Batch
from cliperase.methods.base import Batches
from cliperase.models.base import ImageTextModel


def mean_over_batches(
    model: ImageTextModel, loss: Callable[[Batch], Tensor], batch: Batches, count: int, power: int = 1
) -> dict[str, Tensor]:
    """{parameter name: mean over `count` batches of the gradient of `loss(batch(i))`, to the `power`}.

    Power 2 is the diagonal of the empirical Fisher matrix, estimated on batch means. Parameters that the
    loss does not reach get zeros; frozen ones are left out. Leaves no gradient behind.
    """
    names, parameters = zip(*trainable(model), strict=True)
    total = [torch.zeros_like(p) for p in parameters]
    for index in range(count):
        found = torch.autograd.grad(loss(batch(index)), parameters, allow_unused=True)
        for t, gradient in zip(total, found, strict=True):
            if gradient is not None:
                t += gradient.detach() ** power / count
    return dict(zip(names, total, strict=True))


def trainable(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """The parameters that are not frozen, with their names."""
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
