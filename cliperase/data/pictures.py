"""From a picture file to pixels: the only place where pictures are decoded."""

import io

import numpy as np
import torch
from PIL import Image, ImageOps

from cliperase.errors import CliperaseError, reason_of

VERSION = 1  # of what is done here; caches of pixels are keyed by it


class UnreadablePicture(ValueError):
    """Bytes that are no picture. The message is the reason, in one line."""


def read_picture(encoded, size=None):
    """A picture file, bytes or path -> PIL image in RGB; with `size`, its middle square of `size` × `size` pixels."""
    try:
        picture = Image.open(io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded).convert("RGB")
        return picture if size is None else ImageOps.fit(picture, (size, size), Image.BICUBIC)
    except Exception as error:  # every image format has exceptions of its own
        raise UnreadablePicture(reason_of(error)) from None


def pixels_of(picture):
    """PIL image in RGB -> (3, H, W) uint8."""
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


def as_png(picture):
    """A picture, PIL image or (H, W, 3) uint8, as an image of the schema: a PNG file."""
    encoded = io.BytesIO()
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(encoded, "PNG")
    return {"bytes": encoded.getvalue(), "path": None}


def resized(encoded, size, name):
    """The middle square of a picture file as an image of the schema, `size` pixels a side. `name` is for the error."""
    try:
        return as_png(read_picture(encoded, size))
    except UnreadablePicture as error:
        raise CliperaseError(f"{name} cannot be read ({error}); copy it again or leave it out") from None
