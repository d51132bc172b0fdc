"""What the converters share: their options, and pictures that are read before anything is written."""

from tqdm import tqdm

from cliperase.data.limits import BROKEN_PERCENT
from cliperase.data.pictures import PLAIN, Decoding, UnreadablePicture, as_png, read_picture


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
