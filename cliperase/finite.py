"""Numbers are finite or refused. No comparison with NaN is true: a broken model would pass for one that forgot."""

from cliperase.errors import CliperaseError


def check_finite(tensors, whose, remedy):
    """Raise CliperaseError that names the first of `tensors`, {name: tensor}, that holds NaN or an infinity."""
    for name, tensor in tensors.items():
        if not is_finite(tensor):
            raise CliperaseError(f"{whose}: {name} is not finite; {remedy}")


def is_finite(tensor):
    """Whether all numbers are. The sum is the cheapest look: one pass, and only its own overflow needs another."""
    return not tensor.is_floating_point() or bool(tensor.sum().isfinite()) or bool(tensor.isfinite().all())
