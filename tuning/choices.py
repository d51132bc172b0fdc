"""Join the searches into metrics/icons/tuning.csv, and publish their summary with the choice of each method.

The choice is the candidate with the highest selection score on validation images, averaged over the search
concepts; of equals the first.
"""

from pathlib import Path

import pandas as pd

from cliperase.reporting import publish_table
from cliperase.results import write_table

SEARCHES, JOINED = Path("artifacts/icons/tuning"), Path("metrics/icons/tuning.csv")


def summarise_search(table):
    """One line per candidate: settings, validation means over the search concepts, and whether it is chosen."""
    by = ["method", "candidate", "settings"]
    columns = ["score", "forget_accuracy", "retain_accuracy", "unrelated_cosine"]
    means = table.groupby(by, sort=False)[columns].mean().reset_index()
    best = means.groupby("method").score.transform("idxmax")
    means["chosen"] = ["yes" if index == chosen else "" for index, chosen in zip(means.index, best, strict=True)]
    return means


def main():
    table = pd.concat([pd.read_csv(path) for path in sorted(SEARCHES.glob("*.csv"))], ignore_index=True)
    write_table(table, JOINED)
    publish_table(summarise_search(table).assign(split="validation", provenance="icons"), "tuning", "figures")


if __name__ == "__main__":
    main()
