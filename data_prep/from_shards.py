"""Bring the first pairs of a large data set's shards into the schema: CC12M as img2dataset wrote it.

    python data_prep/from_shards.py --shards cc12m --output data/cc12m

The splits are those of the shards: see `cliperase.data.shards`. Every image is cut to its middle square of `--size`
pixels.
"""

import argparse
from pathlib import Path

import datasets
from converting import add_reading, decoding_of, write_data_set

from cliperase.data.pairs import SHARD_NAME, features_schema
from cliperase.data.pictures import as_png
from cliperase.data.shards import Decoder, samples_of, shards_of
from cliperase.errors import CliperaseError, end_in_one_line
from cliperase.files import check_writable
from cliperase.models.framing import Resized


def first_rows(shards, most, decoder, source):
    """The first `most` readable pairs of the `shards`, or all of them, as rows of the schema."""
    rows = []
    for sample in samples_of(shards):
        captions = decoder.captions(sample)
        picture = None if captions is None else decoder.picture(sample)
        if picture is not None:
            image = as_png(picture.permute(1, 2, 0).numpy())
            rows.append({"image": image, "captions": captions, "source": source})
        if len(rows) == most:
            break
    decoder.tell()
    return rows


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shards", type=Path, required=True, help="folder of tar files")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--most", type=int, default=50_000, help="pairs to train on")
    parser.add_argument("--most-measured", type=int, default=10_000, help="pairs to validate and to test on, each")
    parser.add_argument("--size", type=int, default=224, help="pixels a side")
    add_reading(parser)
    given = parser.parse_args(arguments)
    for name in ("most", "most_measured", "size"):
        if getattr(given, name) < 1:
            raise CliperaseError(f"--{name.replace('_', '-')} {getattr(given, name)}: give at least 1")
    check_writable(given.output / SHARD_NAME)
    framing, decoding = Resized((given.size, given.size)), decoding_of(given)

    def table(split):
        decoder = Decoder(framing, given.broken_percent, decoding)
        most = given.most if split == "train" else given.most_measured
        rows = first_rows(shards_of(given.shards, split), most, decoder, given.shards.name)
        return datasets.Dataset.from_list(rows, features=features_schema())

    write_data_set(((split, table(split)) for split in ("train", "validation", "test")), given.output)


if __name__ == "__main__":
    end_in_one_line(main)
