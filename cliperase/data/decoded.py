"""The pictures of a split as one tensor, decoded once and kept."""

import contextlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import datasets
import torch
from torch import Tensor

from cliperase.cache import MOST, kept
from cliperase.data.pictures import PLAIN, VERSION, UnreadablePicture, pixels_of, read_picture
from cliperase.errors import CliperaseError

if TYPE_CHECKING:
    from cliperase.models.framing import Framing

WORTH_A_FILE = 3_000_000  # bytes of decoded pictures


def decoded_images(
    encoded: Sequence[bytes | Path], row_hashes: list[str], framing: "Framing | None" = None
) -> tuple[Tensor, Tensor]:
    """N picture files -> the M that can be read, (M, 3, H, W) uint8, and which they are, (N,) bool.

    Pictures of several sizes, or that take more memory than is kept, are brought to one by `framing`. So are those that
    have its size already: a model would take them as framed. Every stage and every worker reads the same ones, so they
    are kept.
    """
    folder = Path(datasets.config.HF_DATASETS_CACHE) / "cliperase-images"
    kind = f"decoded pictures {VERSION} {PLAIN}"
    as_they_are = partial(decode_images, encoded, most=MOST if framing else None)
    try:
        tensors = kept(folder, kind, row_hashes, as_they_are, least=WORTH_A_FILE)
        if framing and tuple(tensors["images"].shape[-2:]) == tuple(framing.size):
            return framing(tensors["images"]), tensors["readable"]
    except NeedSize:
        if framing is None:
            raise
        framed = partial(decode_images, encoded, framing)
        tensors = kept(folder, f"{kind} {framing!r}", row_hashes, framed, least=WORTH_A_FILE)
    return tensors["images"], tensors["readable"]


class NeedSize(CliperaseError):
    """Pictures that do not fit into one tensor, or into memory, as they are."""


def decode_images(
    encoded: Sequence[bytes | Path], framing: "Framing | None" = None, most: int | None = None
) -> dict[str, Tensor]:
    """Picture files, of one size or brought to it -> {"images": …, "readable": …} of `decoded_images`.

    `most`: bytes of pixels; more are a `NeedSize`, as several sizes are.
    """
    decoded, readable = [], torch.zeros(len(encoded), dtype=torch.bool)
    for row, one in enumerate(encoded):
        with contextlib.suppress(UnreadablePicture):
            picture = pixels_of(read_picture(one))
            decoded.append(framing(picture) if framing else picture)
            readable[row] = True
            if most and len(encoded) * decoded[-1].nbytes > most:
                raise NeedSize  # without words, because who gives `most` has a `framing`
            if decoded[-1].shape != decoded[0].shape:
                (_, height, width), (_, high, wide) = decoded[0].shape, decoded[-1].shape
                raise NeedSize(f"images of 2 sizes, {width} × {height} and {wide} × {high}; make them one size")
    images = torch.stack(decoded) if decoded else torch.zeros((0, 3, 1, 1), dtype=torch.uint8)
    return {"images": images.contiguous(), "readable": readable}
