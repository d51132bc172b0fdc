"""What makes two texts the same."""

import html
import unicodedata

from cliperase.errors import CliperaseError


def as_read(text):
    """A text as the tokenizers of CLIP read it: composed, HTML's signs undone, single blanks, lower case."""
    plain = html.unescape(html.unescape(unicodedata.normalize("NFC", text)))
    return " ".join(plain.split()).lower()


def check_classes(names, said):
    """Every class has a name, and a prompt that a model can tell from those of the others."""
    numbers = {}
    for number, name in enumerate(names):
        other = numbers.setdefault(as_read(name), number)
        if not as_read(name):
            raise CliperaseError(f"{said}: class {number} has the name {name!r}; give it one")
        if other != number:
            raise CliperaseError(
                f"{said}: classes {other} and {number}, {names[other]!r} and {name!r}, are the same prompt to a model, "
                "which reads lower case and single blanks; merge them or rename one"
            )
