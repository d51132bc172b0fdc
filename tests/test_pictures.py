"""Pictures of every kind become RGB as a viewer, or the specification of their format, shows them."""

import struct
import zlib

import numpy as np
import pytest
from inputs import RAMP, pixels, saved, tiff
from PIL import Image

from cliperase.data.pictures import Decoding, UnreadablePicture
from cliperase.errors import CliperaseError


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "PA", "L", "RGB"])
def test_transparency_of_every_kind_shows_the_ground(mode):
    """Left half transparent above a hidden colour, right half opaque black."""
    picture = Image.new("RGBA", (8, 8), (0, 0, 0, 255))
    picture.paste((90, 90, 90, 0), (0, 0, 4, 8))
    if mode == "P":
        file = saved(picture.quantize(), "PNG")
    elif mode == "PA":
        file = saved(picture.quantize(), "GIF", transparency=picture.quantize().getpixel((0, 0)))
    elif mode in ("L", "RGB"):  # one value stands for transparent
        file = saved(picture.convert(mode), "PNG", transparency=90 if mode == "L" else (90, 90, 90))
    else:
        file = saved(picture.convert(mode), "PNG")
    found = pixels(file)
    assert (found[:, :4] == 255).all()
    assert (found[:, 4:] == 0).all()


def test_half_transparent_is_half_the_ground():
    file = saved(Image.new("RGBA", (2, 2), (0, 0, 0, 128)), "WEBP", lossless=True)
    assert np.unique(pixels(file)).tolist() == [127]
    assert np.unique(pixels(file, ground="black")).tolist() == [0]


@pytest.mark.parametrize(
    ("values", "sample_format"),
    [
        (RAMP, 1),
        ((RAMP // 2).astype(np.int16), 2),
        (RAMP.astype(np.uint32) * 65537, 1),
        (RAMP.astype(np.int32) * 32768, 2),
        (RAMP.astype(np.uint32), 1),  # 16 bits stored in 32
        ((RAMP / 65535).astype(np.float32), 3),
    ],
)
def test_deep_grey_is_scaled_to_256_levels(values, sample_format):
    found = pixels(tiff(values, sample_format))
    assert len(np.unique(found)) == 256
    assert found.mean() == pytest.approx(127.5, abs=0.1)
    assert found[0, 0, 0] == 0
    assert found[-1, -1, 0] == 255


def test_white_is_zero_where_a_tiff_says_so():
    assert np.array_equal(pixels(tiff(RAMP, 1, black=0)), 255 - pixels(tiff(RAMP, 1)))


def test_deep_grey_may_be_transparent_and_turned():
    picture = Image.fromarray(RAMP)
    exif = Image.Exif()
    exif[0x112] = 8
    assert np.array_equal(pixels(saved(picture, exif=exif)), np.rot90(pixels(saved(picture))))
    chunks = saved(picture)
    transparent = b"tRNS" + struct.pack(">H", 0)
    added = struct.pack(">I", 2) + transparent + struct.pack(">I", zlib.crc32(transparent))
    place = chunks.index(b"IDAT") - 4
    found = pixels(chunks[:place] + added + chunks[place:])
    assert found[0, 0].tolist() == [255, 255, 255]  # the only pixel of value 0
    assert np.array_equal(found[0, 1:], pixels(chunks)[0, 1:])


@pytest.mark.parametrize("values", [RAMP.astype(np.float32), np.full((4, 4), np.nan, np.float32)])
def test_floats_beyond_0_to_1_are_refused(values):
    with pytest.raises(UnreadablePicture, match=r"float values from .*; scale them to 0…1"):
        pixels(tiff(values, 3))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_every_orientation_is_undone(orientation, kind):
    """A picture, stored in each of the eight ways, is the same one."""
    upright = np.zeros((16, 24, 3), np.uint8)
    upright[:8, :12], upright[8:, :12], upright[:8, 12:] = (250, 0, 0), (0, 250, 0), (0, 0, 250)
    undone = {1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud,
              5: lambda a: a.transpose(1, 0, 2), 6: np.rot90,
              7: lambda a: np.rot90(a.transpose(1, 0, 2), 2), 8: lambda a: np.rot90(a, -1)}  # fmt: skip
    exif = Image.Exif()
    exif[0x112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(undone[orientation](upright)))
    found = pixels(saved(stored, kind, exif=exif, **({"quality": 100} if kind in ("JPEG", "WEBP") else {})))
    assert found.shape == upright.shape
    assert np.abs(found.astype(int) - upright)[2:6, 2:10].max() < 30
    assert np.abs(found.astype(int) - upright)[2:6, 14:22].max() < 30
    assert np.abs(found.astype(int) - upright)[10:14, 2:10].max() < 30


def test_broken_exif_is_no_reason_to_refuse_a_picture():
    file = saved(Image.new("RGB", (4, 4), (9, 9, 9)), exif=b"Exif\0\0" + bytes(range(200, 240)))
    assert np.unique(pixels(file)).tolist() == [9]


def test_too_many_pixels_are_refused_before_they_are_decoded():
    file = saved(Image.new("1", (13_000, 13_000)), "PNG")
    assert len(file) < 30_000
    with pytest.raises(UnreadablePicture, match="13000 × 13000 pixels are more than most_pixels=67108864"):
        pixels(file)
    with pytest.raises(UnreadablePicture, match="4 × 4 pixels are more than most_pixels=15"):
        pixels(saved(Image.new("RGB", (4, 4))), most_pixels=15)
    with pytest.raises(CliperaseError, match="'whiet' is no colour"):
        Decoding(ground="whiet")
    with pytest.raises(CliperaseError, match="most_pixels is 0; give at least 1"):
        Decoding(most_pixels=0)


def test_plain_pictures_are_what_pillow_gives():
    rng = np.random.default_rng(0)
    for mode, shape in (("RGB", (8, 8, 3)), ("L", (8, 8)), ("CMYK", (8, 8, 4))):
        picture = Image.fromarray(rng.integers(0, 256, shape).astype(np.uint8), mode)
        kind = "TIFF" if mode == "CMYK" else "PNG"
        assert np.array_equal(pixels(saved(picture, kind)), np.asarray(picture.convert("RGB")))
