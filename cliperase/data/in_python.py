"""Rows in Python: pictures, captions and classes of a data set of torch, a data frame, or any iterable."""

import operator
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas
import torch
from PIL import Image, ImageOps

from cliperase.data.columns import picture_column
from cliperase.data.pictures import as_png
from cliperase.errors import CliperaseError, reason_of

TO_RGB = ("CMYK", "YCbCr", "LAB", "HSV", "RGBX")  # modes that PNG does not have


def listed(data, name):
    """(pictures, {column: cells}, places) of an iterable of (picture, captions), (picture, captions, label), (picture,
    number of a class) where the data set has `classes`, or of mappings by usual names."""
    pictures, columns, places, classes = [], {}, [], classes_of(data)
    for number, row in enumerate(each(data)):
        place = f"data {name!r}, row {number}"
        cells = cells_of(row, classes, place)
        pictures.append(picture_of(cells.pop(picture_column(list(cells), place)), place))
        places.append(f"row {number}")
        if number and set(cells) != set(columns):
            raise CliperaseError(f"{place} has other names than row 0, {', '.join(map(str, cells))}; give all the same")
        for key, value in cells.items():
            columns.setdefault(key, []).append(value)
    if not pictures:
        raise CliperaseError(f"data {name!r} hold no row")
    return pictures, columns, places


def each(data):
    """The rows of a data set of torch, which is indexed and need not end when it is iterated, of a data frame, or of
    an iterable."""
    if isinstance(data, torch.utils.data.Dataset) and not isinstance(data, torch.utils.data.IterableDataset):
        try:
            # pyrefly: ignore[bad-argument-type] – a data set without a length is told below
            return (data[number] for number in range(len(data)))
        except TypeError:
            raise CliperaseError(f"data set {type(data).__name__} has no length; define __len__") from None
    if isinstance(data, pandas.DataFrame):
        # pyrefly: ignore[bad-argument-type] – the hints of pandas lack None
        return data.astype(object).where(data.notna(), None).to_dict("records")
    if isinstance(data, Iterable):
        return data
    raise CliperaseError(f"data are {type(data).__name__}; give a folder, a data set, or an iterable of rows")


def classes_of(data):
    """The names of the classes that data sets of torchvision have, also behind a subset; [] where there are none."""
    while data is not None:
        names = getattr(data, "classes", None)
        if isinstance(names, list | tuple) and names:
            return [one if isinstance(one, str) else str(one[0]) for one in names]  # ImageNet has several for each
        data = getattr(data, "dataset", None)
    return []


def cells_of(row, classes, place):
    """{name: cell} of a row."""
    if isinstance(row, tuple | list) and len(row) in (2, 3):
        named = ("image", "captions", "label")
        if len(row) == 2 and is_number(row[1]):
            row, named = (row[0], class_named(operator.index(row[1]), classes, place)), ("image", "label")
        row = dict(zip(named, row, strict=False))
    if not isinstance(row, Mapping):
        raise CliperaseError(f"{place} is {type(row).__name__}; give (picture, captions) or a mapping")
    return {str(key): value for key, value in row.items()}


def is_number(value):
    """Whether a value is a whole number, of Python, numpy or torch."""
    if isinstance(value, np.ndarray | torch.Tensor):
        return value.ndim == 0 and "int" in str(value.dtype)
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def class_named(number, classes, place):
    if not 0 <= number < len(classes):
        known = f"the data set has {len(classes)} `classes`" if classes else "the data set has no list `classes`"
        raise CliperaseError(f"{place} has the class {number}, and {known}; give the name of the class or a caption")
    return classes[number]


def picture_of(picture, place):
    """A picture as an image of the schema: a PIL image, array or tensor, known by its PNG file; bytes or a path."""
    if isinstance(picture, np.ndarray | torch.Tensor):
        picture = from_array(picture, place)
    if isinstance(picture, Image.Image):
        try:
            upright = ImageOps.exif_transpose(picture)
            return as_png(upright.convert("RGB") if upright.mode in TO_RGB else upright)
        except (OSError, ValueError) as error:
            raise CliperaseError(f"{place}: its picture cannot be read ({reason_of(error)}); leave it out") from None
    if isinstance(picture, bytes):
        return {"bytes": picture, "path": None}
    if isinstance(picture, str | Path):
        return {"bytes": None, "path": str(Path(picture).absolute())}
    raise CliperaseError(
        f"{place}: its picture is {type(picture).__name__}; give a PIL image, an array, a tensor, bytes or a path"
    )


def from_array(picture, place):
    """The PIL image of a tensor (C, H, W) or an array (H, W, C) or (H, W), of bytes or of floats from 0 to 1."""
    values = picture.numpy(force=True) if isinstance(picture, torch.Tensor) else picture
    if isinstance(picture, torch.Tensor) and values.ndim == 3:
        values = values.transpose(1, 2, 0)
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[:, :, 0]
    if not (values.ndim == 2 or (values.ndim == 3 and values.shape[2] in (3, 4))) or 0 in values.shape:
        raise CliperaseError(
            f"{place}: its picture has the shape {tuple(picture.shape)}; give tensors (C, H, W) or arrays (H, W, C)"
        )
    if values.dtype.kind == "f":
        if not (values.min() >= 0 and values.max() <= 1):  # so that NaN is caught
            raise CliperaseError(
                f"{place}: its picture has values from {values.min():.3g} to {values.max():.3g}; give it before it is "
                "normalised, in 0…1"
            )
        values = np.rint(values * 255).astype(np.uint8)
    if values.dtype != np.uint8:
        raise CliperaseError(f"{place}: its picture is of {values.dtype}; give bytes (uint8) or floats in 0…1")
    return Image.fromarray(values)
