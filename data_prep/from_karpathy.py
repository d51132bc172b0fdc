"""Bring captions in Karpathy's JSON and a folder of images (Flickr30K, COCO) into the schema.

    python data_prep/from_karpathy.py --captions dataset_flickr30k.json --images images --output data/flickr30k

Every image is cut to its middle square of `--size` pixels. The splits are those of the JSON; `restval` is training.
"""

import argparse
import json
from pathlib import Path

import datasets
from converting import add_reading, decoding_of, read_all, write_data_set

from cliperase.data.limits import leave_out
from cliperase.data.pairs import SHARD_NAME, features_schema, is_captioned
from cliperase.errors import CliperaseError, end_in_one_line, reason_of
from cliperase.files import check_writable

SPLITS = {"train": "train", "restval": "train", "val": "validation", "test": "test"}


def read_captions(path):
    """{split: [(file name, captions)]} of the JSON."""
    try:
        listed = json.loads(Path(path).read_text(encoding="utf-8-sig"))["images"]
        found = [
            (SPLITS[one["split"]], one["filename"], [said["raw"] for said in one["sentences"]], one.get("filepath", ""))
            for one in listed
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CliperaseError(
            f"captions {path} are not in Karpathy's layout ({reason_of(error)}); "
            "give a JSON of images with filename, split and sentences"
        ) from None
    rows = {split: [] for split in ("train", "validation", "test")}
    for split, name, captions, folder in found:
        if not is_captioned(captions):
            raise CliperaseError(f"captions {path}: image {name!r} has none, or a blank one; leave it out or write one")
        rows[split].append((Path(folder) / name, captions))
    empty = [split for split, listed in rows.items() if not listed]
    if empty:
        raise CliperaseError(f"captions {path} have no image of the split {empty[0]!r}")
    return rows


def check_images(rows, folder):
    """All images are there; COCO's file names stand in the folder of their year."""
    missing = [name for listed in rows.values() for name, _ in listed if not (folder / name).is_file()]
    if missing:
        count = sum(len(listed) for listed in rows.values())
        raise CliperaseError(f"{folder} lacks {len(missing)} of {count} images, the first is {missing[0]}; add them")


def read_rows(rows, folder, size, decoding, broken_percent):
    """One split as rows of the schema."""
    paths = [folder / name for name, _ in rows]
    pictures, reasons = read_all(paths, size, decoding)
    leave_out(reasons, len(rows), broken_percent, lambda row: f"image {paths[row]}")
    captions = [captions for row, (_, captions) in enumerate(rows) if row not in reasons]
    return [
        {"image": picture, "captions": said, "source": folder.name}
        for picture, said in zip(pictures, captions, strict=True)
    ]


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--captions", type=Path, required=True, help="JSON file")
    parser.add_argument("--images", type=Path, required=True, help="folder of images")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--size", type=int, default=224, help="pixels a side")
    add_reading(parser)
    given = parser.parse_args(arguments)
    decoding = decoding_of(given)
    if given.size < 1:
        raise CliperaseError(f"--size {given.size}: give pixels a side")
    check_writable(given.output / SHARD_NAME)
    rows = read_captions(given.captions)
    check_images(rows, given.images)
    how = (given.images, given.size, decoding, given.broken_percent)
    found = {split: read_rows(listed, *how) for split, listed in rows.items()}
    schema = features_schema()
    write_data_set(
        ((split, datasets.Dataset.from_list(listed, features=schema)) for split, listed in found.items()), given.output
    )


if __name__ == "__main__":
    end_in_one_line(main)
