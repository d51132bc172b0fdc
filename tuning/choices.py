"""Join the searches into metrics/icons/tuning.csv, and publish their summary with the choice of each row.

The choice is the candidate with the highest selection score on validation images, averaged over the search
concepts; of equals the first. One row has a rule of its own: `fine-tune retention` is the candidate of fine-tune
that keeps the retain set best, for the score rewards forgetting, and the control for retention must not.
"""

from pathlib import Path

import pandas as pd
import yaml

from cliperase.reporting import publish_table
from cliperase.results import read_results, write_table

SEARCHES, JOINED = Path("artifacts/icons/tuning"), Path("metrics/icons/tuning.csv")
METRICS = ["selection_score", "forget_accuracy", "retain_accuracy", "unrelated_cosine"]


def summarise_search(table, candidates):
    """One line per candidate: settings, validation means over the search concepts, and whether it is chosen.

    `table`: tidy results, `method` is `<row> <number>`. `candidates`: {row: [settings]}.
    """
    means = table.pivot_table(index="method", columns="metric", values="value")[METRICS]
    lines = [
        {"method": row, "candidate": number, "settings": one_line(settings), **means.loc[f"{row} {number}"]}
        for row, listed in sorted(candidates.items())
        for number, settings in enumerate(listed)
    ]
    summary = pd.DataFrame(lines)
    control = summary[summary.method == "fine-tune"].assign(method="fine-tune retention")
    control["settings"] = [one_line({"method": "fine-tune", **yaml.safe_load(line)}) for line in control.settings]
    groups = [mark(group, "selection_score") for _, group in summary.groupby("method", sort=False)]
    return pd.concat([*groups, mark(control, "retain_accuracy")], ignore_index=True)


def mark(group, by):
    return group.assign(chosen=["yes" if index == group[by].idxmax() else "" for index in group.index])


def one_line(settings):
    return yaml.safe_dump(settings, default_flow_style=True, width=1000).strip()


def main():
    candidates = yaml.safe_load(Path("tuning/search.yaml").read_text())["candidates"]
    table = pd.concat([read_results(SEARCHES / f"{row}.csv") for row in sorted(candidates)], ignore_index=True)
    write_table(table, JOINED)
    summary = summarise_search(table, candidates).rename(columns={"selection_score": "score"})
    publish_table(summary.assign(split="validation", provenance="icons"), "tuning", "figures")


if __name__ == "__main__":
    main()
