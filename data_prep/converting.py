"""What the converters share: their options, how pictures are read, and a data set that is written as one."""

import os
import shutil

from tqdm import tqdm

from cliperase.data.limits import BROKEN_PERCENT
from cliperase.data.pairs import SHARD_NAME
from cliperase.data.pictures import PLAIN, Decoding, UnreadablePicture, as_png, read_picture
from cliperase.errors import CliperaseError
from cliperase.files import only_writer

STAGED = ".converting"  # a hidden folder in the output; no file in it is named as one that is read


def add_reading(parser):
    """The options of how pictures are read."""
    parser.add_argument("--ground", default=PLAIN.ground, help="colour that shows where a picture is transparent")
    parser.add_argument(
        "--most-pixels", type=int, default=PLAIN.most_pixels, help="pixels of a picture; a larger one is refused"
    )
    parser.add_argument(
        "--broken-percent", type=float, default=BROKEN_PERCENT, help="of a split's rows; more that are broken stop it"
    )


def decoding_of(arguments):
    """The `Decoding` that the options say."""
    return Decoding(arguments.ground, arguments.most_pixels)


def read_all(files, size, decoding):
    """(the middle squares of the picture files that can be read, images of the schema; {index: why} of the others).

    Without a `size` the files are looked at and stay as they are: None for each.
    """
    squares, reasons = [], {}
    for index, file in enumerate(tqdm(files, desc="read", disable=None)):
        try:
            picture = read_picture(file, size or None, decoding)
            squares.append(as_png(picture) if size else None)
        except UnreadablePicture as error:
            reasons[index] = f"its picture cannot be decoded ({error})"
    return squares, reasons


def write_data_set(splits, output):
    """Write a data set to the folder `output`: all of its splits, or none. What a killed call left is removed.

    `splits`: pairs (split, `datasets.Dataset` of the schema), `train` among them; each is written before the next is
    asked for. Raises CliperaseError where it cannot be written, and what was there before stays.
    """
    staged, counts = output / STAGED, {}
    try:
        output.mkdir(parents=True, exist_ok=True)
        with only_writer(output):
            shutil.rmtree(staged, ignore_errors=True)
            staged.mkdir()
            try:
                for split, rows in splits:
                    rows.to_parquet(staged / split)
                    counts[split] = len(rows)
                move_all(staged, output, counts)
            finally:
                shutil.rmtree(staged, ignore_errors=True)
    except OSError as error:
        raise CliperaseError(f"{output} cannot be written ({error.strerror or error}); name another folder") from None
    for split, count in counts.items():
        print(f"{split}: {count} rows")


def move_all(staged, output, splits):
    """Put the staged `splits` in place of those of the output.

    The old training split goes first and the new one comes last: a kill in between leaves none, which whoever trains is
    told, rather than that of another draw.
    """
    places = {split: output / SHARD_NAME.format(split=split) for split in splits}
    places["train"].unlink(missing_ok=True)
    for split in sorted(splits, key="train".__eq__):
        os.replace(staged / split, places[split])
