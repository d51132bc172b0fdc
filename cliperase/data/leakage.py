"""Pictures that stand on two sides of a run: what is measured was learnt, or what is forgotten is taught again.

A picture is known by its file, the row hash. Rows of one picture and one caption each are one row before
(`pairs.one_row_a_picture`); rows of several captions, or with classes, are not, and a rule may match one of them only.
"""

from cliperase.data.pairs import PairSet
from cliperase.data.source import TrainingRows

SIDES = {  # name in the report -> what is said of the pictures
    "training_and_validation": "{count} pictures stand in the training and in the validation split, the first is "
    "{first}: validation then measures pictures that were learnt; take them out of one of the splits",
    "forget_and_retain": "{count} pictures stand in the forget set and in the retain set, the first is {first}: what "
    "is to be forgotten is then also kept; leave one row of each picture out, or make all its rows match the rule",
}


def pictures_on_two_sides(validation: PairSet, training: TrainingRows) -> dict[str, dict[str, str]]:
    """{key of `SIDES`: {row hash: source} of the pictures that stand on both sides}; {} where rows are streamed."""
    if not isinstance(training.retain, PairSet):
        return {}
    forget, retain = set(training.forget.row_hashes), set(training.retain.row_hashes)
    return {
        "training_and_validation": among(validation, forget | retain),
        "forget_and_retain": among(training.forget, retain),
    }


def among(pairs: PairSet, hashes: set[str]) -> dict[str, str]:
    """{row hash: source} of those pictures of `pairs` that are among the `hashes`, in order."""
    rows = zip(pairs.row_hashes, pairs.sources, strict=True)
    return {one: source for one, source in rows if one in hashes}


def told(found: dict[str, dict[str, str]]) -> list[str]:
    """A line for each of the `SIDES` that pictures were found on."""
    lines = []
    for sides, pictures in found.items():
        if pictures:
            row, source = next(iter(pictures.items()))
            first = f"{row} of {source!r}" if source else row
            lines.append(SIDES[sides].format(count=len(pictures), first=first))
    return lines
