"""Bring an image data set of the hub's layout into the schema: a name on the hub, or a local folder of parquet files.

    python data_prep/from_hub.py --source uoft-cs/cifar100 --label fine_label --validation 5000 --output data/cifar100
    python data_prep/from_hub.py --source path/to/flickr8k --captions caption --output data/flickr8k

With `--label` the captions are made from the class names by the templates; with `--captions` they are the data
set's own. `--local FOLDER` takes a data set of the hub from the folder of its last name in FOLDER. Rows of one caption
each that show the same image become one. Else a training image that also stands in another split, or twice, is left
out: CIFAR-100 has a few of both.
"""

import argparse
import hashlib
import re
import sys
from functools import partial
from pathlib import Path

import datasets
import numpy as np
from converting import add_reading, decoding_of, read_all, write_data_set

from cliperase.data.limits import BROKEN_PERCENT, leave_out
from cliperase.data.pairs import NO_CAPTION, is_captioned, one_row_a_picture
from cliperase.data.tables import place_of, read_table
from cliperase.data.templates import PROMPT
from cliperase.data.words import check_classes
from cliperase.errors import CliperaseError
from cliperase.program import quiet_libraries

ROW = "row of the source"  # a column, "<split> <row>", that messages name it by until the split is written
TEMPLATES = (PROMPT, "{}", "a drawing of a {}")  # the first is what evaluation asks with


def find_source(source, local):
    """The folder in `local`, where that is given, that holds what the hub calls `source`."""
    if not local:
        return source
    folder = Path(local) / Path(source).name
    if not folder.is_dir():
        raise CliperaseError(
            f"{local!r} holds no folder {folder.name!r}; it is to have the parquet files of {source!r}"
        )
    return str(folder)


def read_split(source, split):
    """One split as a `datasets.Dataset`, its pictures in the column `image`, not decoded."""
    table = read_table(source, split)
    pictures = [name for name, feature in table.features.items() if isinstance(feature, datasets.Image)]
    if len(pictures) != 1:
        raise CliperaseError(f"{source!r} has {len(pictures)} columns of images in {table.column_names}; it needs one")
    renamed = table if pictures[0] == "image" else table.rename_column(pictures[0], "image")
    names = [f"{split} {number}" for number in range(len(renamed))]  # which stay when rows are left out
    return renamed.cast_column("image", datasets.Image(decode=False)).add_column(ROW, names)


def place(table, source, row):
    """Where a row stood in the source, for a message."""
    split, number = table[ROW][row].split()
    return place_of(source, split, int(number))


def with_captions(table, source, label=None, captions=None, broken_percent=BROKEN_PERCENT):
    """The columns of the schema, and `ROW`; captions from class names, or the data set's own (see `own_captions`)."""
    if label:
        names, said = class_captions(table, source, label)
    else:
        said = own_captions(table, source, captions)
    kept = table.select_columns(["image", ROW, *([label] if label else [])])
    if label:
        kept = kept if label == "label" else kept.rename_column(label, "label")
        kept = kept.cast_column("label", datasets.ClassLabel(names=names))
    kept = kept.add_column("captions", said, feature=datasets.List(datasets.Value("string")))
    kept = kept.add_column("source", [Path(source).name] * len(kept), feature=datasets.Value("string"))
    kept = kept.select_columns(["image", "captions", *(["label"] if label else []), "source", ROW])
    blank = {row: NO_CAPTION for row, texts in enumerate(said) if not is_captioned(texts)}
    leave_out(blank, len(kept), broken_percent, partial(place, kept, source))
    kept = kept.select([row for row in range(len(kept)) if row not in blank]) if blank else kept
    return kept if label else together(kept, source)


def together(table, source):
    """The rows, those of one picture made one with all their captions: a caption a row is a common layout."""
    said = table["captions"][:]
    rows = one_row_a_picture(range(len(table)), digests(table, source), said)
    if len(rows) == len(table):
        return table
    print(f"{len(table)} rows show {len(rows)} pictures; each becomes one row with all its captions")
    feature = table.features["captions"]
    merged = table.select(rows).remove_columns("captions")
    merged = merged.add_column("captions", [said[row] for row in rows], feature=feature)
    return merged.select_columns(table.column_names)


def class_captions(table, source, label):
    """(class names, captions of each row) of a column of classes."""
    feature = table.features[known_column(table, source, label)]
    if not isinstance(feature, datasets.ClassLabel):
        raise CliperaseError(f"column {label!r} of {source!r} is {feature}, not a ClassLabel with names")
    names, labels = [one.replace("_", " ") for one in feature.names], table[label][:]
    check_classes(names, f"column {label!r} of {source!r}")
    known = range(len(names))
    nameless = next((row for row, i in enumerate(labels) if i not in known), None)  # None, -1, or beyond the last
    if nameless is not None:
        raise CliperaseError(
            f"{place(table, source, nameless)} has {labels[nameless]} in {label!r}, which is none of its {len(names)} "
            "classes; leave it out"
        )
    return names, [[template.format(names[i]) for template in TEMPLATES] for i in labels]


def own_captions(table, source, name):
    """The captions of each row: in the column `name`, strings or lists of them, or in columns `name_0`, `name_1`, …"""
    numbered = [column for column in table.column_names if re.fullmatch(rf"{re.escape(name)}_\d+", column)]
    if name not in table.column_names and numbered:
        rows = zip(*(table[column][:] for column in numbered), strict=True)
    else:
        rows = table[known_column(table, source, name)][:]
    said = [list(row) if isinstance(row, (list, tuple)) else [row] for row in rows]
    for number, row in enumerate(said):
        if not all(isinstance(text, str | None) for text in row):
            raise CliperaseError(f"{place(table, source, number)} has a caption in {name!r} that is no text")
    return said


def known_column(table, source, name):
    if name not in table.column_names:
        raise CliperaseError(f"{source!r} has no column {name!r}; it has {', '.join(table.column_names)}")
    return name


def digests(table, source):
    rows = table.with_format("arrow")[:]["image"].to_pylist()
    gap = next((number for number, row in enumerate(rows) if row is None or row["bytes"] is None), None)
    if gap is not None:
        raise CliperaseError(f"{place(table, source, gap)} holds no picture, or only its path; embed the files")
    return [hashlib.sha256(row["bytes"]).hexdigest() for row in rows]


def without_leaks(splits, source):
    """{split: Dataset} without training and validation rows whose image is seen before, the test split first."""
    seen, clean = set(), {}
    for split in ("test", "validation", "train"):
        keep = []
        for i, digest in enumerate(digests(splits[split], source)):
            if split == "test" or digest not in seen:
                keep.append(i)
            seen.add(digest)
        clean[split] = splits[split].select(keep)
        if len(keep) < len(splits[split]):
            print(f"{split}: {len(splits[split]) - len(keep)} images left out that occur elsewhere or twice")
    return clean


def hold_out(table, count, seed):
    """(training, validation): `count` rows drawn by seed, at most half of all."""
    if not 0 < count <= len(table) // 2:
        raise CliperaseError(f"--validation {count}: give 1 to {len(table) // 2} of the {len(table)} training rows")
    order = np.random.default_rng(seed).permutation(len(table))
    return table.select(sorted(order[count:])), table.select(sorted(order[:count]))


def readable_rows(table, source, size, decoding, broken_percent):
    """The rows whose picture can be decoded; with a `size`, cut to its middle square and made so many pixels wide."""
    files = [row["bytes"] for row in table.with_format("arrow")[:]["image"].to_pylist()]
    squares, reasons = read_all(files, size, decoding)
    leave_out(reasons, len(table), broken_percent, partial(place, table, source))
    kept = table.select([row for row in range(len(table)) if row not in reasons]) if reasons else table
    if not size:
        return kept
    resized = kept.remove_columns("image").add_column("image", squares, feature=kept.features["image"])
    return resized.select_columns(kept.column_names)


def convert(asked):
    """Write train, validation and test of the schema to `asked.output`; `asked` are the options of `main`.

    Without `validation` the source has that split.
    """
    if bool(asked.label) == bool(asked.captions):
        raise CliperaseError("give --label, a column of classes, or --captions, a column of captions")
    if asked.size < 0:
        raise CliperaseError(f"--size {asked.size}: give pixels a side, or nothing to keep the pictures as they are")
    source, output, decoding = find_source(asked.source, asked.local), asked.output, decoding_of(asked)
    if Path(source).resolve() == output.resolve():
        raise CliperaseError(f"{str(output)!r} is the source itself; name another folder")
    names = ("train", "test") if asked.validation else ("train", "validation", "test")
    how = (source, asked.label, asked.captions, asked.broken_percent)
    splits = {split: with_captions(read_split(source, split), *how) for split in names}
    if asked.validation:
        splits["train"], splits["validation"] = hold_out(splits["train"], asked.validation, asked.seed)
    splits = without_leaks(splits, source)
    how = (source, asked.size, decoding, asked.broken_percent)
    splits = {split: readable_rows(table, *how) for split, table in splits.items()}  # before the first is written
    kind = datasets.Image()
    write_data_set(
        ((split, table.remove_columns(ROW).cast_column("image", kind)) for split, table in splits.items()), output
    )


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", required=True, help="name on the hub, or folder")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--label", help="column of classes")
    parser.add_argument("--captions", help="column of captions")
    parser.add_argument(
        "--validation", type=int, default=0, help="training rows to hold out, if there is no such split"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=int, default=0, help="pixels a side, if the pictures are to be made smaller")
    parser.add_argument("--local", help="folder with the data sets of the hub, each in a folder of its last name")
    add_reading(parser)
    quiet_libraries()
    try:
        convert(parser.parse_args(arguments))
    except CliperaseError as error:
        print(f"from_hub: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
