"""Render the `icons` data set: everyday objects as drawn by independent designers.

    python data_prep/icons.py --set icons --output data/icons

Training, validation and test images are different renderings (colour, pose, size, noise) of the training
families' drawings; the split `heldout` renders families that no other split contains. The drawings are
those of `drawings.py`, their classes those of `icons.yaml`. A set may name its `families`, some `classes`,
`drawings: first`, or `style: plain`.
"""

import numpy as np
from datasets import Dataset
from drawings import (
    all_drawings,
    draw_all,
    random_colours,
    read_arguments,
    read_table,
    render,
    render_plain,
)

from cliperase.data.pairs import features_schema, write_split
from cliperase.data.pictures import as_png
from cliperase.errors import CliperaseError, end_in_one_line


def render_split(table, split, per_class, families, templates, size, seed, plain=False):
    """All rows of one split, shuffled. Each image has its own random stream (seed, split, class, index)."""
    split_number = ["train", "validation", "test", "heldout"].index(split)
    names, pools = list(table["classes"]), all_drawings(table, families)
    wanted = [(label, index) for label, name in enumerate(names) if pools[name] for index in range(per_class)]

    def make_row(number):
        label, index = wanted[number]
        name, rng = names[label], np.random.default_rng([seed, split_number, label, index])
        pool = pools[name][index % len(pools[name])]  # every family equally often
        drawing = pool[rng.integers(len(pool))]
        image = render_plain(drawing, size, rng) if plain else render(drawing, *random_colours(rng), size, rng)
        captions = [template.format(name) for template in templates]
        return {"image": as_png(image), "captions": captions, "label": label, "source": drawing.source}

    rows = draw_all(make_row, len(wanted), f"render {split}")
    order = np.random.default_rng([seed, split_number]).permutation(len(rows))
    return Dataset.from_list([rows[i] for i in order], features=features_schema(names))


def narrowed(table, classes=None, drawings="all"):
    """The table with only these classes, and with only the `first` drawing that a family has of each."""
    for name in classes or ():
        if name not in table["classes"]:
            raise CliperaseError(f"data.sets: no class {name!r} in icons.yaml")
    most = 1 if drawings == "first" else None
    chosen = {name: table["classes"][name] for name in classes or table["classes"]}
    kept = {name: {family: names[:most] for family, names in found.items()} for name, found in chosen.items()}
    return {**table, "classes": kept}


def one_of(settings, name, options):
    """The setting of a set; the first option where it has none."""
    found = settings.get(name, options[0])
    if found not in options:
        raise CliperaseError(f"data.sets: {name} is {found!r}; choose {' or '.join(options)}")
    return found


def main():
    output, settings = read_arguments(__doc__.splitlines()[0])
    plain = one_of(settings, "style", ("varied", "plain")) == "plain"
    table = narrowed(read_table(), settings.get("classes"), one_of(settings, "drawings", ("all", "first")))
    for split, per_class in settings["per_class"].items():
        families = "heldout_families" if split == "heldout" else settings.get("families", "training_families")
        rows = render_split(
            table, split, per_class, table[families], settings["templates"], settings["image_size"], settings["seed"],
            plain,
        )  # fmt: skip
        write_split(rows, output, split)


if __name__ == "__main__":
    end_in_one_line(main)
