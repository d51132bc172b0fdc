"""Several processes on one batch, started by `torchrun`: each encodes a share of the images, all get all embeddings.

A contrastive loss needs every pair of the batch, so embeddings are gathered, as open_clip does. Every process draws the
same rows and computes the same loss; only the encoding of the images is divided, and the gradients of the shares are
summed. The step is the same as with one process, up to the order of sums, and no setting depends on the number of
processes.
"""

import os

import torch
import torch.distributed as dist

from cliperase.errors import CliperaseError


def join_processes():
    """Join the processes that torchrun started, on its GPU where there is one. Without torchrun nothing happens."""
    if int(os.environ.get("WORLD_SIZE", 1)) > 1 and not dist.is_initialized():
        if torch.cuda.is_available():
            rank, cards = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
            if rank >= cards:
                raise CliperaseError(f"process {rank + 1} of torchrun has no GPU; give --nproc-per-node={cards}")
            torch.cuda.set_device(rank)
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")


def leave_processes():
    """Let the processes go their own ways: what the first one does from here on, it does alone. All ask together.

    It is for the end of a program, because torchrun's store does not let the same processes join again.
    """
    if dist.is_initialized():
        dist.destroy_process_group()


def processes():
    return dist.get_world_size() if dist.is_initialized() else 1


def is_first():
    """Whether this process writes files and shows progress."""
    return not dist.is_initialized() or dist.get_rank() == 0


def share(count):
    """The slice of `count` rows that this process encodes; shares differ by one row at most."""
    return shares(count)[dist.get_rank() if dist.is_initialized() else 0]


def shares(count):
    """The slices of all processes, in order."""
    size = processes()
    return [slice(rank * count // size, (rank + 1) * count // size) for rank in range(size)]


def gather(features, count):
    """The shares (n, D) of all processes, in order: (count, D), without gradient."""
    if processes() == 1:
        return features
    lengths = [part.stop - part.start for part in shares(count)]
    padded = features.new_zeros(max(lengths), features.shape[1])
    padded[: len(features)] = features
    found = [torch.empty_like(padded) for _ in range(processes())]
    dist.all_gather(found, padded)
    return torch.cat([part[:length] for part, length in zip(found, lengths, strict=True)])


class Placement:
    """What a loop does with weights, by where they lie. Here each process has all; `sharding.Parts` divides them."""

    def parameter_groups(self, parameters):
        """What an optimizer takes."""
        return parameters

    def image_pieces(self, images, size, counts):
        """This process's images of batches of `counts` rows, `size` at a time; 0: all at once."""
        return images.split(size or len(images) or 1)

    def clip(self, parameters, largest):
        """Scale all gradients so that their norm together is at most `largest`."""
        torch.nn.utils.clip_grad_norm_(parameters, largest)

    def replicated(self, parameters):
        """The list of those whose gradients `sum_gradients` has to add up."""
        return list(parameters)

    def to_checkpoint(self, value):
        """A `value` of tensors, mappings and lists as it goes into a checkpoint. All processes must ask together."""
        return value

    def from_checkpoint(self, value, like):
        """What this process has of a `value` from a checkpoint, where it has `like` of the same."""
        return value

    def local(self, tensors):
        """{name: what this process has of it}."""
        return tensors


def sum_gradients(parameters):
    """Add up each gradient over the processes, in place; a parameter without one anywhere is left so."""
    if processes() == 1:
        return
    present = torch.tensor([float(p.grad is not None) for p in parameters], device=parameters[0].device)
    dist.all_reduce(present)
    for parameter, count in zip(parameters, present.tolist(), strict=True):
        if count:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            dist.all_reduce(parameter.grad)


def gather_objects(mine) -> list:
    """What each process has, in order."""
    if processes() == 1:
        return [mine]
    found = [None] * processes()
    dist.all_gather_object(found, mine)
    return found


def wait_for_all():
    """Wait until all processes are here."""
    if dist.is_initialized():
        dist.barrier()
