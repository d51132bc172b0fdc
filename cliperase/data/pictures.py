"""From a picture file to pixels in RGB: the only place where pictures are decoded."""

import contextlib
import io
import warnings
from dataclasses import dataclass

import numpy as np
import torch
from PIL import ExifTags, Image, ImageColor, ImageOps, UnidentifiedImageError

from cliperase.errors import CliperaseError, reason_of

VERSION = 2  # of what is done here; caches of pixels are keyed by it
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # `most_pixels` is an error instead

TURNS = {  # EXIF orientation -> what undoes it
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class UnreadablePicture(ValueError):
    """A file that is no picture. The message is the reason, in one line."""


@dataclass(frozen=True)
class Decoding:
    """How pictures become RGB. `ground`: the colour, as Pillow writes it, that shows where a picture is transparent.

    `most_pixels`: a picture of more is refused, because a file of a few kilobytes can fill the memory. Beyond
    `PIL.Image.MAX_IMAGE_PIXELS` × 2 Pillow refuses, too.
    """

    ground: str = "white"
    most_pixels: int = 2**26  # 8192 × 8192

    def __post_init__(self):
        try:
            ImageColor.getrgb(self.ground)
        except ValueError:
            raise CliperaseError(f"ground {self.ground!r} is no colour; give one such as white or #808080") from None
        if self.most_pixels < 1:
            raise CliperaseError(f"most_pixels is {self.most_pixels}; give at least 1")


PLAIN = Decoding()


def read_picture(file, size=None, decoding=PLAIN):
    """A picture file, bytes or path -> PIL image in RGB; with `size`, its middle square of `size` × `size` pixels.

    Transparency shows `decoding.ground`, EXIF's orientation is applied, grey of 16 or 32 bits is scaled to 8.
    """
    try:
        with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file) as picture:
            if picture.width * picture.height > decoding.most_pixels:
                raise ValueError(
                    f"{picture.width} × {picture.height} pixels are more than most_pixels={decoding.most_pixels}"
                )
            picture.load()
            rgb = upright(on_ground(shallow(picture), decoding.ground), picture)
        return rgb if size is None else ImageOps.fit(rgb, (size, size), Image.Resampling.BICUBIC)
    except UnidentifiedImageError:  # its message is a memory address
        reason = "the file is empty" if file == b"" else "no known format of pictures"
        raise UnreadablePicture(reason) from None
    except Exception as error:  # every format has exceptions of its own
        raise UnreadablePicture(reason_of(error)) from None


def upright(rgb, picture):
    """`rgb` as the EXIF orientation of the `picture` that it comes from says it is to be seen."""
    with contextlib.suppress(Exception):  # broken EXIF data say nothing
        return rgb.transpose(TURNS[picture.getexif()[ExifTags.Base.Orientation]])
    return rgb


def on_ground(picture, ground):
    """RGB of a picture; where it is transparent, `ground` shows and not the colour that lies hidden there."""
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    below = Image.new("RGBA", picture.size, ground)
    return Image.alpha_composite(below, picture.convert("RGBA")).convert("RGB")


def shallow(picture):
    """A picture of 8 bits a channel; only grey ones come with more. Pillow's own conversion cuts them off at 255."""
    if picture.mode not in ("I", "F") and not picture.mode.startswith("I;16"):
        return picture
    values = np.asarray(picture)
    transparent = picture.info.get("transparency")
    grey = Image.fromarray(np.rint(shares(values, picture) * 255).astype(np.uint8))
    if transparent is not None:
        grey.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return grey


def shares(values, picture):
    """The values of a deep grey picture as shares of white, in 0…1, as its format defines white."""
    if picture.mode == "F":
        if not (values.min() >= 0 and values.max() <= 1):  # so that NaN is caught
            raise ValueError(f"float values from {values.min()} to {values.max()}; scale them to 0…1")
        return values
    tags = picture.tag_v2 if picture.format == "TIFF" else {}
    bits, signed = tags.get(258, (16,))[0], tags.get(339, (1,))[0] == 2
    if bits == 32 and not signed:
        values = values.view(np.uint32)  # Pillow has no unsigned kind
    white = 2 ** (bits - signed) - 1
    if bits == 32 and values.max() < 2**16:
        white = 2**16 - 1  # 16 bits, stored in 32: against 32 bits they would all be black
    if values.min() < 0 or values.max() > white:
        raise ValueError(f"grey values from {values.min()} to {values.max()} of a white of {white}; write it anew")
    found = values / white
    return 1 - found if tags.get(262) == 0 else found


def pixels_of(picture):
    """PIL image in RGB -> (3, H, W) uint8."""
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


def as_png(picture):
    """A picture, PIL image or (H, W, 3) uint8, as an image of the schema: a PNG file."""
    encoded = io.BytesIO()
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(encoded, "PNG")
    return {"bytes": encoded.getvalue(), "path": None}
