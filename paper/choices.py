"""Join the searches of a profile into its `tuning.csv`, and publish their summaries with the choice of each row.

The score of a candidate is the selection score on validation images, averaged over the search concepts. It cannot
tell just enough forgetting from certain forgetting, because both recognise none of a few dozen images. So the choice
follows the one-standard-error rule (Breiman et al. 1984): of the candidates whose score is within one standard error of
the best, take the one that moved its forgotten pairs furthest apart. One row has another rule: `fine-tune retention` is
the candidate of fine-tune that keeps the retain set best. The score rewards forgetting, and this control must not.
"""

import argparse
from pathlib import Path

import pandas as pd
import yaml

from cliperase.errors import end_in_one_line
from cliperase.metrics.tasks import MATCHING, RETRIEVAL, ZERO_SHOT
from cliperase.settings import parse_yaml
from paper.params import read_profile
from paper.results import read_results, write_table
from paper.search import searches_of
from paper.tables import publish_table

TASKS = {"main": ZERO_SHOT, "pairs": MATCHING, "retrieval": RETRIEVAL, "blip": ZERO_SHOT}


def summarise_search(table, search, task):
    """One line per candidate: settings, validation means over the search concepts, and whether it is chosen.

    `table`: tidy results, `method` is `<row> <number>`. `search`: the `Search`. `task` names the metrics.
    """
    metrics = ["selection_score", task.forget, task.retain, "forget_cosine", "unrelated_cosine"]
    means = table.pivot_table(index="method", columns="metric", values="value")[metrics]
    lines = [
        {"method": row, "candidate": number, "settings": one_line(settings), **means.loc[f"{row} {number}"]}
        for row, listed in sorted(search.candidates.items())
        for number, settings in enumerate(listed)
    ]
    error = search.standard_error
    groups = [choose(group, error) for _, group in pd.DataFrame(lines).groupby("method", sort=False)]
    return pd.concat(groups, ignore_index=True)


def retention_control(summary, task):
    """The lines of fine-tune once more, as the row that is chosen by what it keeps."""
    control = summary[summary.method == "fine-tune"].assign(method="fine-tune retention")
    settings = [parse_yaml(line, "the settings of a candidate") for line in control.settings]
    control["settings"] = [one_line({"method": "fine-tune", **one}) for one in settings]
    return mark(control, control[task.retain].idxmax())


def choose(group, error):
    """By the one-standard-error rule; of equals the first."""
    good = group[group.selection_score >= group.selection_score.max() - error]
    return mark(group, good.forget_cosine.idxmin())


def mark(group, index):
    return group.assign(chosen=["yes" if one == index else "" for one in group.index])


def one_line(settings):
    return yaml.safe_dump(settings, default_flow_style=True, width=1000).strip()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="icons")
    parser.add_argument("--parts", required=True, type=Path, help="folder with the table of each searched experiment")
    parser.add_argument("--output", required=True, type=Path)
    parser.add_argument("--publish-to", required=True, type=Path)
    arguments = parser.parse_args()
    profile = read_profile(arguments.profile)
    searches = {name: one for one in searches_of(profile.profile).values() for name in one.experiments}
    tables = {name: read_results(arguments.parts / f"{name}.csv") for name in TASKS if name in searches}
    summaries = {name: summarise_search(table, searches[name], TASKS[name]) for name, table in tables.items()}
    write_table(pd.concat(tables.values(), ignore_index=True), arguments.output)
    publish(summaries, arguments.publish_to, {"split": "validation", "provenance": profile.provenance})


def publish(found, folder, said):
    """The summaries `{task: table}` as tables with the columns `said`; those of captions in one."""
    tables = {}
    if "main" in found:
        classes = found.pop("main")
        tables["tuning"] = pd.concat([classes, retention_control(classes, ZERO_SHOT)], ignore_index=True)
    if "blip" in found:
        tables["tuning_blip"] = found.pop("blip")
    for name, summary in tables.items():
        publish_table(summary.rename(columns={"selection_score": "score"}).assign(**said), name, folder)
    if found:
        captions = pd.concat([without_classes(name, summary) for name, summary in found.items()], ignore_index=True)
        publish_table(captions.assign(**said), "tuning_captions", folder)


def without_classes(name, summary):
    """A summary whose columns do not depend on the task, which is named beside them."""
    task = TASKS[name]
    summary = summary.rename(columns={"selection_score": "score", task.forget: "forget", task.retain: "retain"})
    summary.insert(0, "task", name)
    return summary.assign(measured=f"{task.forget}, {task.retain}")


if __name__ == "__main__":
    end_in_one_line(main)
