"""Which rows each forget rule forgets, by hash, and that no image is in two splits."""

import pandas as pd

from cliperase.data.rules import forget_mask
from cliperase.errors import CliperaseError


def manifest(splits, rules):
    """One row per image: `split, row_hash, forgotten_by`, the names of the rules that forget it, joined by |.

    `splits`: {split: PairSet}; `rules`: {name: rule}. A rule that matches nothing in the held-out split is
    no error there: not every concept has a drawing from another source. An image may stand twice in the test split,
    as in CIFAR-100, if the same rules forget both.
    """
    tables = []
    for split, pairs in splits.items():
        masks = {name: forget_mask(pairs, rule, split != "heldout").tolist() for name, rule in rules.items()}
        by = ["|".join(n for n in rules if masks[n][i]) for i in range(len(pairs))]
        tables.append(pd.DataFrame({"split": split, "row_hash": pairs.row_hashes, "forgotten_by": by}))
    table = pd.concat(tables, ignore_index=True)
    once = table[(table.split != "test") | ~table.duplicated()]
    leaks = once[once.row_hash.duplicated(keep=False)]
    if len(leaks):
        raise CliperaseError(
            f"{leaks.row_hash.nunique()} images occur more than once, the first is {leaks.row_hash.iloc[0]}; "
            "remove duplicates before splitting"
        )
    return table
