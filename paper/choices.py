"""Publish the table of a search, with the choice of each row.

The score of a candidate is the selection score (`tasks.Task.score`) on validation images, averaged over the concepts
that it forgot. The best one is chosen; of equals the first. Where a search has two rounds, only candidates of the
second can be. One row has another rule: `fine-tune retention` is the candidate of fine-tune that keeps the retain set
best. The score rewards forgetting, and this control must not.

    python -m paper.choices --profile icons --adopt

writes the published choices to `profiles/chosen/`, from where the experiments take them. It is not part of the stage,
because the experiments would depend on the searches, and `make reproduce` would run them.
"""

import argparse
from pathlib import Path

import pandas as pd
import yaml

from cliperase.errors import end_in_one_line
from cliperase.files import whole_file
from cliperase.metrics.tasks import MATCHING, RETRIEVAL, ZERO_SHOT
from cliperase.settings import parse_yaml
from paper.params import CHOSEN, read_profile
from paper.rates import DRAWN
from paper.results import read_results
from paper.search import CONTROL, read_search
from paper.tables import WHOLE_BUDGET, publish_table

TASKS = {
    "main": ZERO_SHOT, "ratios": ZERO_SHOT, "blip": ZERO_SHOT, "pairs": MATCHING, "retrieval": RETRIEVAL,
    "diffusion": DRAWN,
}  # fmt: skip


def summarise_search(table, search, task):
    """One line per candidate: settings, validation means over the search concepts, and whether it is chosen.

    `table`: tidy results, `method` is `<row> <number>`. `search`: the `Search`. `task` names the metrics. `at edge`:
    settings at an edge of their range. `ran out`: runs whose last checkpoint was the best.
    """
    metrics = ["selection_score", task.forget, task.retain, "forget_cosine", "unrelated_cosine"]
    means = table.pivot_table(index="method", columns="metric", values="value")[metrics]
    runs = table.groupby("method").concept.nunique()
    last = table[(table.metric == "used_budget") & (table.value >= WHOLE_BUDGET)].groupby("method").size()
    lines = []
    for row, listed in sorted(search.listed().items()):
        for number, settings in enumerate(listed):
            name = f"{row} {number}"
            line = {"method": row, "candidate": number, "settings": one_line(settings), **means.loc[name]}
            line |= {
                "runs": runs[name],
                "ran out": last.get(name, 0),
                "at edge": ", ".join(search.at_edge(row, settings)),
            }
            lines.append(line)
    groups = [choose(group) for _, group in pd.DataFrame(lines).groupby("method", sort=False)]
    return pd.concat(groups, ignore_index=True)


def retention_control(summary, task):
    """The lines of fine-tune once more, as the row that is chosen by what it keeps."""
    control = summary[summary.method == "fine-tune"].assign(method=CONTROL)
    settings = [parse_yaml(line, "the settings of a candidate") for line in control.settings]
    control["settings"] = [one_line({"method": "fine-tune", **one}) for one in settings]
    return mark(control, control[task.retain].idxmax())


def choose(group):
    """The best mean score of those that were in every round; of equals the first."""
    return mark(group, group[group.runs == group.runs.max()].selection_score.idxmax())


def mark(group, index):
    return group.assign(chosen=["yes" if one == index else "" for one in group.index])


def one_line(settings):
    return yaml.safe_dump(settings, default_flow_style=True, allow_unicode=True, width=1000).strip()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="icons")
    parser.add_argument("--experiment", default="main", help="whose search it is")
    parser.add_argument("--table", type=Path, help="the search's, if it is not the one in metrics/<profile>/tuning")
    parser.add_argument("--adopt", action="store_true", help="write all published choices to profiles/chosen")
    parser.add_argument("--publish-to", type=Path, help="folder of the published tables")
    arguments = parser.parse_args()
    folder = arguments.publish_to or Path("figures") / arguments.profile / "tuning"
    if arguments.adopt:
        adopt(folder, CHOSEN / f"{arguments.profile}.yaml")
        return
    profile, name = read_profile(arguments.profile), arguments.experiment
    table = read_results(arguments.table or Path("metrics") / arguments.profile / "tuning" / f"{name}.csv")
    lines = lines_of(name, table, read_search(profile, name))
    publish_table(lines.assign(split="validation", provenance=profile.provenance), name, folder)


def lines_of(experiment, table, search):
    """The summary of one experiment, with columns that do not depend on its task, which is named beside them."""
    task = TASKS[experiment]
    summary = summarise_search(table, search, task)
    if "fine-tune" in search.listed():
        summary = pd.concat([summary, retention_control(summary, task)], ignore_index=True)
    summary = summary.rename(columns={"selection_score": "score", task.forget: "forget", task.retain: "retain"})
    return summary.assign(measured=f"{task.forget}, {task.retain}")


def chosen_settings(path):
    """{row: settings} that the published table at `path` chose."""
    lines = pd.read_csv(path, keep_default_na=False).query("chosen == 'yes'")
    return {row: parse_yaml(text, f"settings of {row}") for row, text in zip(lines.method, lines.settings, strict=True)}


def adopt(folder, path):
    """Write the choices of the tables in `folder` to the file `path`."""
    head = "# What the searches chose, written by `python -m paper.choices --adopt`. Do not edit.\n"
    with whole_file(path) as partial:
        chosen = {table.stem: chosen_settings(table) for table in sorted(folder.glob("*.csv"))}
        text = yaml.safe_dump(chosen, sort_keys=False, width=1000, default_flow_style=None, allow_unicode=True)
        partial.write_text(head + text)


if __name__ == "__main__":
    end_in_one_line(main)
