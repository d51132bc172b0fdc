"""One cache, of tensors that take long to compute: decoded pictures, a model's embeddings."""

import contextlib
import hashlib
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from cliperase.errors import CliperaseError
from cliperase.files import whole_file

VERSION = 1  # of these files
MOST = 2_000_000_000  # bytes of tensors that a disk is asked to take

# Why not joblib.Memory: loading 25,000×3×32×32 uint8 (77 MB) and 25,000×128 float32 (13 MB) takes, disk not counted,
#   joblib                    22 ms and 3.3 ms, a copy of its own in every process
#   joblib, mmap_mode="r"     0.6 ms and 0.6 ms, arrays that cannot be written
#   safetensors, mapped       0.6 ms and 0.3 ms, 69 ms and 8 ms with the hash checked, pages shared by all processes
# joblib checks nothing, so that a flipped bit gives other results without a word, and it unpickles, which runs code.


def kept(folder, kind, parts, compute, least=0):
    """The tensors {name: tensor} that `compute()` gives, kept in `folder` and memory-mapped from there.

    `kind`: what they are and the version of how they are made; `parts`: strings, all that they follow from; `least`:
    bytes that are worth a file. A file that is not whole is made again. A cache that cannot be written is no error. The
    folder may be deleted at any time.
    """
    name = hashlib.sha256("\n".join([str(VERSION), kind, *parts]).encode()).hexdigest()[:32]
    path = Path(folder) / f"{name}.safetensors"
    tensors = read(path)
    if tensors is None:
        tensors = compute()
        if least <= sum(tensor.nbytes for tensor in tensors.values()) <= MOST:
            with contextlib.suppress(CliperaseError), whole_file(path) as partial:
                save_file(tensors, partial, {"sha256": digest(tensors)})
    return tensors


def read(path):
    """The tensors of a file that is whole, else None."""
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 – it is no mapping
            return tensors if (file.metadata() or {}).get("sha256") == digest(tensors) else None
    except Exception:  # not there, or damaged: a header can be wrong in as many ways as it has bytes
        return None


def digest(tensors):
    """SHA-256 of names, kinds, shapes and values."""
    hashed = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        hashed.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        hashed.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())
    return hashed.hexdigest()
