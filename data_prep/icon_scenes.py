"""Render the `icon_scenes` data set: two to four objects in one picture, and five captions of it.

    python data_prep/icon_scenes.py --set icon_scenes --output data/icon_scenes

It stands in for Flickr30K: no classes, captions that differ in wording, order and in what they leave out. A
scene is a square of 2 × 2 cells of `image_size`; each object lies in a cell of its own, so none overlap.
"""

from typing import NamedTuple

import numpy as np
from datasets import Dataset
from drawings import (
    add_noise,
    all_drawings,
    draw_all,
    image_stream,
    named_colour,
    noun_phrase,
    paste_drawing,
    pick_drawing,
    plain_image,
    read_arguments,
    read_table,
)

from cliperase.data.pairs import features_schema, write_split
from cliperase.data.pictures import as_png
from cliperase.errors import end_in_one_line

SHARES = (0.6, 0.95)  # an object's side as a share of its cell
DARKEST = 64  # least value of a background's channels: the black outlines of OpenMoji must show


class Thing(NamedTuple):
    """One object of a scene. `colour` is the word of its colour, None where the drawing has several of its own."""

    name: str
    colour: str | None
    rgb: np.ndarray | None
    source: str


class Scene(NamedTuple):
    image: np.ndarray  # (2 × size, 2 × size, 3) uint8
    things: list
    background_rgb: np.ndarray


def make_scene(pools, size, rng):
    """A `Scene` of distinct classes; `pools` is {class name: [[Drawing, ...] per family]}, `size` a cell's side."""
    background = rng.integers(DARKEST, 256, 3)
    image = plain_image(2 * size, background)
    count = rng.integers(2, 5)
    classes = rng.choice(len(pools), count, replace=False)
    cells = rng.choice(4, count, replace=False)
    things = []
    for name, cell in zip([list(pools)[i] for i in classes], cells, strict=True):
        drawing = pick_drawing(pools[name], rng)
        word, rgb = (None, None) if drawing.has_colours else named_colour(rng, against=background)
        paste_drawing(image, drawing, rgb, (cell % 2 * size, cell // 2 * size, size), SHARES, rng)
        things.append(Thing(name, word, rgb, drawing.source))
    return Scene(add_noise(image, rng), things, background)


def enumerate_things(phrases):
    """`a key`, `a key and a lock`, `a key, a lock and a bed`."""
    *first, last = phrases
    return f"{', '.join(first)} and {last}" if first else last


def captions_of(things, rng):
    """Five captions, each true and each naming at least two of the things in an order of its own."""

    def phrases(least, most, coloured):
        count = min(rng.integers(least, most + 1), len(things))
        chosen = [things[i] for i in rng.permutation(len(things))[:count]]
        return [noun_phrase(thing.name, (coloured and thing.colour) or "") for thing in chosen]

    leader, *others = phrases(4, 4, coloured=False)
    return [
        enumerate_things(phrases(4, 4, coloured=True)),
        f"a picture of {enumerate_things(phrases(2, 4, coloured=False))}",
        f"{leader} with {enumerate_things(others)}",
        " near ".join(phrases(2, 2, coloured=True)),
        f"{enumerate_things(phrases(2, 3, coloured=False))} together",
    ]


def render_split(pools, split, count, size, seed):
    """All `count` rows of one split; `size` is the side of a cell."""

    def make_row(index):
        rng = image_stream(seed, "icon_scenes", split, index)
        scene = make_scene(pools, size, rng)
        source = "+".join(thing.source for thing in scene.things)
        return {"image": as_png(scene.image), "captions": captions_of(scene.things, rng), "source": source}

    return Dataset.from_list(draw_all(make_row, count, f"render {split}"), features=features_schema(None))


def main():
    output, settings = read_arguments(__doc__.splitlines()[0])
    table = read_table()
    pools = all_drawings(table, table["training_families"])
    for split, count in settings["images"].items():
        write_split(render_split(pools, split, count, settings["image_size"], settings["seed"]), output, split)


if __name__ == "__main__":
    end_in_one_line(main)
