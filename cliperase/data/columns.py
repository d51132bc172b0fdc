"""Columns under their usual names become the schema: pictures, captions, classes.

Class names are read with blanks for underscores, as in `data_prep/from_hub.py`, and without numbers that all of them
begin with. The class prompt comes before a row's own captions, because evaluation asks with it.
"""

import ast
import re

import datasets
import numpy as np

from cliperase.data.limits import log
from cliperase.data.naming import CAPTIONS, LABELS, NUMBERED, PICTURES, usual
from cliperase.data.pairs import features_schema
from cliperase.data.tables import replaced
from cliperase.data.templates import PROMPT
from cliperase.errors import CliperaseError

NO_NAME = r"n?\d+(\.0)?|\[.*\]"  # of a class: "7", "n02084071", '["dog", "cat"]'


def picture_column(names, said):
    """The column of pictures among `names`, of files that are named by their path."""
    found = usual(names, PICTURES)
    if not found:
        addresses = usual(names, ("url", "image_url"))
        if addresses:
            raise CliperaseError(
                f"{said}: column {addresses[0]!r} holds addresses and nothing is downloaded; fetch the pictures, for "
                "example with img2dataset, and name their files in a column image_path"
            )
        raise CliperaseError(f"{said} has the columns {', '.join(names)}; name that of the pictures {PICTURES[0]}")
    return found[0]


def caption_columns(names, said):
    """The columns of captions: one, or those that are numbered."""
    found = usual(names, CAPTIONS)
    numbered = [name for name in names if re.fullmatch(NUMBERED, name.strip().lower())]
    numbered = sorted(numbered, key=lambda name: int(re.findall(r"\d+", name)[0]))
    if found and (others := found[1:] + numbered):
        log.warning("%s: captions are taken from the column %r and not from %r", said, found[0], others[0])
    return found[:1] or numbered


def as_schema(pictures, columns, class_names, sources, said):
    """N rows as a `datasets.Dataset` of the schema.

    `pictures`: a `datasets.Dataset` with the column `image` alone. `columns`: {name: N values}, of which those that are
    not `is_read` may be None. `class_names`: {column: names} of those that hold numbers of classes. `sources`: N
    strings, where each row is from. `said`: what messages call the data.
    """
    asked, names, of_class = readable(columns, class_names, said)
    cells = zip(*(columns[name] for name in asked), strict=True) if asked else [()] * len(pictures)
    captions = captions_of(cells, names, of_class, [f"{said}, {source}" for source in sources])
    schema = features_schema(names)
    table = pictures.add_column("captions", captions, feature=schema["captions"])
    if names:
        table = table.add_column("label", of_class, feature=schema["label"])
    return table.add_column("source", sources, feature=schema["source"])


def readable(columns, class_names, said):
    """(the columns of captions, class names, the number of each row's class) of `columns` as in `as_schema`."""
    names, of_class = classes(columns, class_names, said)
    asked = caption_columns(list(columns), said)
    if not asked and not names:
        raise CliperaseError(
            f"{said} has neither captions nor classes; it has {', '.join(columns) or 'pictures alone'}, so name a "
            f"column {CAPTIONS[1]} or {LABELS[0]}"
        )
    return asked, names, of_class


def captions_of(cells, names, of_class, places):
    """The captions of N rows, the prompt of a row's class first. `cells`: of each row those of the columns of captions;
    `names`, `of_class`: as of `classes`; `places`: where each row stands."""
    captions = [own_captions(row, place) for row, place in zip(cells, places, strict=True)]
    if not names:
        return captions
    prompts = [PROMPT.format(names[label]) if label in range(len(names)) else None for label in of_class]
    return [[prompt, *(own if any(own) else [])] for prompt, own in zip(prompts, captions, strict=True)]


def classes(columns, class_names, said) -> tuple[list[str], list]:
    """(class names, the number of each row's class, None where it has none); ([], []) where there are no classes.

    Of several columns the first that `are_names` counts: a model cannot be asked for numbers.
    """
    found = usual(columns, LABELS)
    if not found:
        return [], []
    column = next((one for one in found if one in class_names or are_names(columns[one])), found[0])
    values = columns[column]
    if column in class_names:
        return without_numbers([name.replace("_", " ") for name in class_names[column]], said), values
    if not are_names(values):
        strange = next(one for one in values if not are_names([one]))
        if not caption_columns(list(columns), said):
            raise CliperaseError(
                f"{said}: {column!r} holds {strange!r}, which is no name of a class; give each row one name"
            )
        log.warning("%s: %r holds %r, which is no name of a class, and is not used", said, column, strange)
        return [], []
    texts = [one if one is None else one.replace("_", " ").strip() or None for one in values]
    named = [one for one in texts if one is not None]
    names = sorted(set(named))
    number = {name: i for i, name in enumerate(names)}
    return without_numbers(names, said), [number.get(one) for one in texts]


def without_numbers(names, said):
    """The names of classes without the number before each, as CUB's folders have it: `001.Black_footed_Albatross`.

    Numbers only count if zeros make all equally long, or if they go up from 0 or 1. "3 Musketeers", "7 up" keep theirs.
    """
    found = [one for one in (re.fullmatch(r"(\d+)[. -]+(\D.*)", name) for name in names) if one]
    if not 2 <= len(names) == len(found):
        return names
    digits, short = [one[1] for one in found], [one[2] for one in found]
    numbers = sorted(map(int, digits))
    padded = len({len(one) for one in digits}) == 1 and any(one.startswith("0") for one in digits)
    upwards = numbers[0] in (0, 1) and numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    if len(set(short)) < len(names) or not (padded or upwards):
        return names
    log.warning("%s: the numbers before the names of classes are left out: %r is %r", said, names[0], short[0])
    return short


def are_names(values):
    """Whether a column holds names of classes: texts, some of which may be missing. Numbers are none, nor are
    WordNet's, which are ImageNet's folders, nor lists that are written as text."""
    return all(one is None or (isinstance(one, str) and not re.fullmatch(NO_NAME, one.strip())) for one in values)


def own_captions(values, place):
    """The captions that a row's cells hold: texts, lists of texts, or lists of {"raw": text} as in Karpathy's files.

    Of several cells the blank ones are dropped, because rows have different numbers of captions.
    """
    found = [text for value in values for text in texts_of(value, place)]
    return [text for text in found if text and text.strip()] if len(values) > 1 else found


def texts_of(value, place):
    """The texts of one cell."""
    if isinstance(value, str) and value.lstrip()[:2] in ("['", '["'):  # a list, written as text
        try:
            value = ast.literal_eval(value.strip())
        except (SyntaxError, ValueError):
            raise CliperaseError(
                f"{place}: the caption {value[:40]!r} begins like a list and is none; correct it"
            ) from None
    listed = value if isinstance(value, list | tuple | np.ndarray) else [value]
    texts = [one.get("raw") if isinstance(one, dict) else one for one in listed]
    strange = next((one for one in texts if not isinstance(one, str | None)), None)
    if strange is not None:
        raise CliperaseError(f"{place}: the caption is {strange!r}, not text; give text or a list of texts")
    half = next((one for one in texts if one and not is_unicode(one)), None)
    if half is not None:
        raise CliperaseError(f"{place}: the caption {half!r} holds half of a character; correct it")
    return texts


def is_unicode(text):
    """Whether a text can be written: names of files and JSON may hold halves of characters."""
    return not any("\ud800" <= one <= "\udfff" for one in text)


def unified(tables, name):
    """{split: table}, the classes of all splits in one list: a split may lack some of them."""
    listed = {split: table.features["label"].names for split, table in tables.items() if "label" in table.features}
    if listed and len(listed) < len(tables):
        without = min(set(tables) - set(listed))
        raise CliperaseError(
            f"data {name!r}: split {min(listed)!r} has classes and split {without!r} has none; add them"
        )
    names = sorted({name for one in listed.values() for name in one})
    if len(names) == 1:
        raise CliperaseError(
            f"data {name!r} has the one class {names[0]!r}, and nothing to tell it from; give more classes, or captions"
        )
    if len({tuple(names) for names in listed.values()}) < 2:
        return tables
    return {split: renumbered(table, names) for split, table in tables.items()}


def renumbered(table, names):
    """A table with the class numbers of `names`."""
    number = {i: names.index(name) for i, name in enumerate(table.features["label"].names)}
    labels = [number.get(label, label) for label in table["label"][:]]
    return replaced(table, "label", labels, datasets.ClassLabel(names=names))
