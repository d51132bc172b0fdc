"""Which training pictures are held out where data have no validation split, in memory or streamed."""

from math import ceil

from cliperase.data.limits import log
from cliperase.data.pairs import is_captioned, row_hash
from cliperase.errors import CliperaseError

# Of the training pictures: percent, the most, and without classes the fewest, because matching needs 17 captions.
HELD_OUT, MOST_HELD, FEWEST_HELD = 20, 2000, 50


def hash_of_row(file, captions):
    """The `row_hash` of a row that may be held out; None for one that lacks its picture or a caption: it stays in
    training, where it is counted."""
    return row_hash(file) if file and is_captioned(captions) else None


def held_out(hashes, labels, name):
    """The row hashes of the pictures that are held out of N training rows.

    Of each class, or of all, they are the `HELD_OUT` percent of pictures whose hashes come first, rounded up. The share
    is smaller where that is more than `MOST_HELD`, and where it still is, the largest classes give fewer. Without
    classes it is `FEWEST_HELD`, or a third of a small set, where that is more. `hashes`: N of `hash_of_row`; `labels`:
    N numbers of classes, or None; `name`: what messages call the data.
    """
    classes = {}
    for one, label in zip(hashes, hashes if labels is None else labels, strict=True):
        if one is not None:
            classes.setdefault(one, None if labels is None else label)
    groups = {}
    for one in sorted(classes):
        groups.setdefault(classes[one], []).append(one)
    share = min(HELD_OUT / 100, MOST_HELD / max(1, len(classes)))
    fewest = 0 if labels is not None else min(FEWEST_HELD, len(classes) // 3)
    drawn = [
        ranked
        for group in groups.values() if len(group) > 1
        for ranked in enumerate(group[: max(fewest, ceil(share * len(group)))])
    ]  # fmt: skip
    drawn = {one for _, one in sorted(drawn)[:MOST_HELD]}  # the first of every class before the second of any
    if not drawn:
        few = f"its {len(classes)} pictures with captions are too few"
        if labels is not None and classes:
            few = f"each of its {len(groups)} classes has one picture, too few"
        raise CliperaseError(
            f"data {name!r} has no validation split, and {few} to hold one out; add more, or a validation split"
        )
    held = sum(one in drawn for one in hashes)
    log.warning(
        "data %r has no validation split: %d of %d training rows are held out for it, by hash of the picture",
        name, held, len(hashes),
    )  # fmt: skip
    return drawn
