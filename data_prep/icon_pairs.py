"""Render the `icon_pairs` data set: one object and one caption that says its colour and its background's.

    python data_prep/icon_pairs.py --set icon_pairs --output data/icon_pairs

It stands in for CC12M: captions with attributes, no classes. Only glyphs are drawn, because a picture of
OpenMoji has colours that its caption could not name.
"""

from typing import NamedTuple

import numpy as np
from datasets import Dataset
from drawings import (
    all_drawings,
    draw_all,
    image_stream,
    named_colour,
    noun_phrase,
    pick_drawing,
    read_arguments,
    read_table,
    render,
)

from cliperase.data.pairs import features_schema, write_split
from cliperase.data.pictures import as_png
from cliperase.errors import end_in_one_line


class Pair(NamedTuple):
    """One image and what was drawn: class name, colour words, their RGB, source of the drawing."""

    image: np.ndarray  # (size, size, 3) uint8
    name: str
    colour: str
    background: str
    foreground_rgb: np.ndarray
    background_rgb: np.ndarray
    source: str


def make_pair(pools, size, rng):
    """A `Pair` of any class; `pools` is {class name: [[Drawing, ...] per family]}."""
    name = list(pools)[rng.integers(len(pools))]
    drawing = pick_drawing(pools[name], rng)
    colour, foreground_rgb = named_colour(rng)
    background, background_rgb = named_colour(rng, against=foreground_rgb)
    image = render(drawing, foreground_rgb, background_rgb, size, rng)
    return Pair(image, name, colour, background, foreground_rgb, background_rgb, drawing.source)


def caption_of(name, colour, background):
    return f"{noun_phrase(name, colour)} on {noun_phrase('background', background)}"


def monochrome_drawings(table):
    return all_drawings(table, [family for family in table["training_families"] if family != "openmoji"])


def render_split(pools, split, count, size, seed):
    """All `count` rows of one split."""

    def make_row(index):
        pair = make_pair(pools, size, image_stream(seed, "icon_pairs", split, index))
        caption = caption_of(pair.name, pair.colour, pair.background)
        return {"image": as_png(pair.image), "captions": [caption], "source": pair.source}

    return Dataset.from_list(draw_all(make_row, count, f"render {split}"), features=features_schema(None))


def main():
    output, settings = read_arguments(__doc__.splitlines()[0])
    pools = monochrome_drawings(read_table())
    for split, count in settings["images"].items():
        write_split(render_split(pools, split, count, settings["image_size"], settings["seed"]), output, split)


if __name__ == "__main__":
    end_in_one_line(main)
