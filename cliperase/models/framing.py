"""How pictures of any size come to the size that an image tower takes: resized, cut to the middle, padded."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from cliperase.errors import CliperaseError

RESIZE_MODES = ("shortest", "longest", "squash")
INTERPOLATIONS = ("bicubic", "bilinear", "random")  # random: while open_clip trains; it measures with bicubic


class Framing(ABC):
    """A callable: (…, 3, H, W) uint8 in 0…255 or float in 0…1 -> (…, 3, *size) in the same range.

    It acts once on a picture, because some framings would enlarge it each time. What reads pictures from files with a
    framing (`cliperase.data`) gives none of `size` that was not framed; models take those as they are.
    `size`: (height, width). The `repr` tells everything, because caches of pictures and embeddings are keyed by it.
    """

    size: tuple[int, int]

    @abstractmethod
    def __call__(self, images: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Resized(Framing):
    """As open_clip prepares a picture for measuring (`open_clip.image_transform_v2`).

    `mode`: `shortest` fits the shorter side and cuts the longer one to the middle, `longest` fits the longer side and
    pads the shorter one with grey of the value `fill`, 0…255, and `squash` gives up the proportions.
    """

    size: tuple[int, int]  # pyrefly: ignore[bad-override] – nobody assigns it, so that it may be frozen here
    mode: str = "shortest"
    interpolation: str = "bicubic"
    fill: int = 0

    def __call__(self, images: Tensor) -> Tensor:
        keeps_ratio = self.mode == "shortest" and self.size[0] != self.size[1]  # open_clip forgets the setting there
        bilinear = self.interpolation == "bilinear" and not keeps_ratio
        kind = InterpolationMode.BILINEAR if bilinear else InterpolationMode.BICUBIC
        images = resize(images, self.before_cutting(*images.shape[-2:]), kind)
        return centre(images, self.size, self.fill if images.dtype == torch.uint8 else self.fill / 255)

    def before_cutting(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) to which a picture of these sides is resized; rounded as open_clip does it."""
        if self.mode == "squash":
            return self.size
        if self.mode == "shortest" and self.size[0] == self.size[1]:
            short, side = min(height, width), self.size[0]
            return side * height // short, side * width // short
        ratios = height / self.size[0], width / self.size[1]
        ratio = max(ratios) if self.mode == "longest" else min(ratios)
        return max(1, round(height / ratio)), max(1, round(width / ratio))


def resize(images: Tensor, size: tuple[int, int], interpolation: InterpolationMode) -> Tensor:
    """(…, 3, H, W) -> (…, 3, *size), smoothed where it shrinks, in the same range.

    uint8 stays uint8: on a CPU torch then rounds between the two directions, as Pillow does. Under 2 % of the values
    differ from Pillow's by one of 256 levels; a quarter do where Pillow begins with the other direction, which it does
    in small pictures only. With floats or on a GPU torch does not round there, and a fifth differ by a level or more.
    """
    if tuple(images.shape[-2:]) == tuple(size):
        return images
    images = functional.resize(images, list(size), interpolation=interpolation, antialias=True)
    return images if images.dtype == torch.uint8 else images.clamp(0, 1)  # bicubic goes beyond the range


def centre(images: Tensor, size: tuple[int, int], fill: float) -> Tensor:
    """The middle (…, 3, *size) of pictures; where they are smaller, `fill` is around them."""
    down, right = (max(0, wanted - side) for wanted, side in zip(size, images.shape[-2:], strict=True))
    if down or right:
        images = functional.pad(images, [right // 2, down // 2, right - right // 2, down - down // 2], fill=fill)
    return functional.center_crop(images, list(size))


class Processed(Framing):
    """As an image processor of transformers prepares a picture: `processor` resizes it and cuts or pads it.

    CliperaseError where its settings do not lead to one size.
    """

    def __init__(self, processor: Any) -> None:
        self.processor, self.crops = processor, bool(processor.do_center_crop)
        final = processor.crop_size if self.crops else processor.size if processor.do_resize else None
        if final is None or not (final.height and final.width) or processor.do_pad:
            raise CliperaseError(
                "the image processor leads to no fixed size; give its size or crop_size a height and a width"
            )
        self.size = (final.height, final.width)

    def __repr__(self) -> str:
        return self.processor.to_json_string()

    def __call__(self, images: Tensor) -> Tensor:
        processor = self.processor
        if processor.do_resize:
            resized = processor.resize(images, size=processor.size, resample=processor.resample)
            as_it_is = images.dtype == torch.uint8 or resized.shape == images.shape
            images = resized if as_it_is else resized.clamp(0, 1)  # bicubic goes beyond the range
        return processor.center_crop(images, processor.crop_size) if self.crops else images
