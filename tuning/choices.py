"""Join the searches into metrics/icons/tuning.csv, and publish their summaries with the choice of each row.

The score of a candidate is the selection score on validation images, averaged over the search concepts. It cannot
tell who forgot just enough from who forgot for certain, since both name none of a few dozen images. So the choice is
made with the one-standard-error rule (Breiman et al. 1984): of the candidates whose score is within one standard
error of the best, the one that moved its forgotten pairs furthest apart. One row has a rule of its own:
`fine-tune retention` is the candidate of fine-tune that keeps the retain set best, for the score rewards forgetting,
and the control for retention must not.
"""

from pathlib import Path

import pandas as pd
import yaml

from cliperase.reporting import publish_table
from cliperase.results import read_results, write_table
from cliperase.tasks import MATCHING, RETRIEVAL, ZERO_SHOT

SEARCHES, JOINED = Path("artifacts/icons/tuning"), Path("metrics/icons/tuning.csv")
STANDARD_ERROR = 0.2  # of the score: about half that of a retain accuracy of 96 % on 3,000 images
TASKS = {"main": ZERO_SHOT, "pairs": MATCHING, "retrieval": RETRIEVAL, "blip": ZERO_SHOT}
LISTS = {
    "main": "tuning/search.yaml",
    "pairs": "tuning/captions.yaml",
    "retrieval": "tuning/captions.yaml",
    "blip": "tuning/blip.yaml",
}
SAID = {"split": "validation", "provenance": "icons"}


def summarise_search(table, candidates, task):
    """One line per candidate: settings, validation means over the search concepts, and whether it is chosen.

    `table`: tidy results, `method` is `<row> <number>`. `candidates`: {row: [settings]}. `task` names the metrics.
    """
    metrics = ["selection_score", task.forget, task.retain, "forget_cosine", "unrelated_cosine"]
    means = table.pivot_table(index="method", columns="metric", values="value")[metrics]
    lines = [
        {"method": row, "candidate": number, "settings": one_line(settings), **means.loc[f"{row} {number}"]}
        for row, listed in sorted(candidates.items())
        for number, settings in enumerate(listed)
    ]
    groups = [choose(group) for _, group in pd.DataFrame(lines).groupby("method", sort=False)]
    return pd.concat(groups, ignore_index=True)


def retention_control(summary, task):
    """The lines of fine-tune once more, as the row that is chosen by what it keeps."""
    control = summary[summary.method == "fine-tune"].assign(method="fine-tune retention")
    control["settings"] = [one_line({"method": "fine-tune", **yaml.safe_load(line)}) for line in control.settings]
    return mark(control, control[task.retain].idxmax())


def choose(group):
    """By the one-standard-error rule; of equals the first."""
    good = group[group.selection_score >= group.selection_score.max() - STANDARD_ERROR]
    return mark(group, good.forget_cosine.idxmin())


def mark(group, index):
    return group.assign(chosen=["yes" if one == index else "" for one in group.index])


def one_line(settings):
    return yaml.safe_dump(settings, default_flow_style=True, width=1000).strip()


def read_search(task, candidates):
    return pd.concat([read_results(SEARCHES / task / f"{row}.csv") for row in sorted(candidates)], ignore_index=True)


def main():
    candidates = {task: yaml.safe_load(Path(path).read_text())["candidates"] for task, path in LISTS.items()}
    tables = {task: read_search(task, candidates[task]) for task in TASKS}
    write_table(pd.concat(tables.values(), ignore_index=True), JOINED)
    found = {name: summarise_search(tables[name], candidates[name], task) for name, task in TASKS.items()}
    classes, blip = found.pop("main"), found.pop("blip")
    classes = pd.concat([classes, retention_control(classes, ZERO_SHOT)], ignore_index=True)
    for name, summary in (("tuning", classes), ("tuning_blip", blip)):
        publish_table(summary.rename(columns={"selection_score": "score"}).assign(**SAID), name, "figures")
    captions = pd.concat([without_classes(name, summary) for name, summary in found.items()], ignore_index=True)
    publish_table(captions.assign(**SAID), "tuning_captions", "figures")


def without_classes(name, summary):
    """A summary whose columns do not depend on the task, which is named beside them."""
    task = TASKS[name]
    summary = summary.rename(columns={"selection_score": "score", task.forget: "forget", task.retain: "retain"})
    summary.insert(0, "task", name)
    return summary.assign(measured=f"{task.forget}, {task.retain}")


if __name__ == "__main__":
    main()
