"""Options that the converters share."""

from cliperase.data.pictures import PLAIN, Decoding


def add_decoding(parser):
    """`--ground` and `--most-pixels`."""
    parser.add_argument("--ground", default=PLAIN.ground, help="colour that shows where a picture is transparent")
    parser.add_argument(
        "--most-pixels", type=int, default=PLAIN.most_pixels, help="pixels of a picture; a larger one is refused"
    )


def decoding_of(arguments):
    """The `Decoding` that the options say; they are taken out of the mapping `arguments`."""
    return Decoding(arguments.pop("ground"), arguments.pop("most_pixels"))
