"""Weights in parts, for models that are too large for one GPU: torch's `fully_shard` (FSDP2) under torchrun.

Each process holds a part of the weights, gradients and optimizer state of every block of a transformer, and gets the
whole block only while it computes with it. What is no block stays whole everywhere: token embeddings, projections, the
logit scale. Gradients are summed over the processes, as in `parallel.py`, so that a step is that of one process.
"""

import copy
from contextlib import contextmanager
from math import ceil

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from cliperase.errors import CliperaseError
from cliperase.parallel import Placement, processes, shares


def blocks_of(module):
    """[(list of layers, name in it, block)]: what a transformer repeats, as `nn.ModuleList` or `nn.Sequential`."""
    for child in module.children():
        layers = list(child.named_children())
        alike = len(layers) > 1 and len({type(layer) for _, layer in layers}) == 1
        if alike and isinstance(child, nn.ModuleList | nn.Sequential) and any(True for _ in child.parameters()):
            yield from ((child, name, layer) for name, layer in layers)
        else:
            yield from blocks_of(child)


@contextmanager
def in_parts(training):
    """The model of a `PairTraining` with its blocks in parts, afterwards whole again."""
    blocks = list(blocks_of(training.model))
    check(training, blocks)
    training.identity()  # hashes the weights, which only works while they are whole
    training.placement = Parts(blocks)
    if processes() == 1:
        yield
        return
    shells = [shell_of(block) for *_, block in blocks]
    mesh = init_device_mesh(training.model.device.type, (processes(),))
    for *_, block in blocks:
        parts = fully_shard(block, mesh=mesh, reshard_after_forward=True)
        parts.set_gradient_divide_factor(1.0)  # a sum, not a mean
        parts.set_force_sum_reduction_for_comms(True)  # gloo has no sum that multiplies first
    yield
    for shell, (layers, name, block) in zip(shells, blocks, strict=True):
        block.reshard()
        found = {key: value.full_tensor() for key, value in block.named_parameters()}
        shell.load_state_dict(found, strict=False, assign=True)
        setattr(layers, name, shell)


def check(training, blocks):
    """What cannot be done in parts is an error."""
    if not blocks:
        raise CliperaseError("shard divides the blocks of a transformer, and this model has none; leave it out")
    if training.settings.compile:
        raise CliperaseError("shard does not go with compile; leave out one of them")
    if training.movable:
        raise CliperaseError(
            f"shard does not go with {type(training.method).__name__} in these settings, which hold some weights in "
            "place; leave it out"
        )


def shell_of(block):
    """A copy of a block without its weights."""
    empty = {id(p): nn.Parameter(p.to("meta"), requires_grad=p.requires_grad) for p in block.parameters()}
    return copy.deepcopy(block, empty)


class Parts(Placement):
    """Weights some of which are in parts."""

    def __init__(self, blocks):
        self.blocks = [block for *_, block in blocks]

    def parameter_groups(self, parameters):
        """Those in parts and the others: no kernel takes both."""
        parameters, inside = list(parameters), {id(p) for block in self.blocks for p in block.parameters()}
        return [{"params": [p for p in parameters if (id(p) in inside) == part]} for part in (True, False)]

    def image_pieces(self, images, size, counts):
        """As many in every process, because all of them fetch a block together."""
        rows = [sum(part.stop - part.start for part in parts) for parts in zip(*map(shares, counts), strict=True)]
        return images.tensor_split(min(ceil(max(rows) / size), min(rows)) if size else 1)

    def clip(self, parameters, largest):
        parameters = [p for p in parameters if p.grad is not None]
        kinds = [[p for p in parameters if isinstance(p, DTensor) == part] for part in (True, False)]
        norms = [self.to_checkpoint(nn.utils.get_total_norm([p.grad for p in kind])).cpu() for kind in kinds if kind]
        norm = torch.linalg.vector_norm(torch.stack(norms)).item()
        for kind in filter(None, kinds):
            torch._foreach_mul_([p.grad for p in kind], min(1.0, largest / (norm + 1e-6)))

    def replicated(self, parameters):
        return [p for p in parameters if not isinstance(p, DTensor)]

    def to_checkpoint(self, value):
        if isinstance(value, DTensor):
            return value.full_tensor().cpu()
        if isinstance(value, dict):
            return {name: self.to_checkpoint(one) for name, one in value.items()}
        return [self.to_checkpoint(one) for one in value] if isinstance(value, list) else value

    def from_checkpoint(self, value, like):
        if not isinstance(like, DTensor) or not isinstance(value, torch.Tensor) or value.shape != like.shape:
            return value
        return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)

    def local(self, tensors):
        return {name: one.to_local() if isinstance(one, DTensor) else one for name, one in tensors.items()}
