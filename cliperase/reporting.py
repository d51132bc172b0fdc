"""What the notebooks share: summaries of the results, the paper's ledger beside them, tables, one figure style."""

import math
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
import yaml
from IPython.display import Markdown, display

from cliperase.results import mean_interval, read_results

OURS, PAPER, GUIDE = "#0072B2", "#D55E00", "0.75"  # Okabe-Ito blue and vermilion, told apart by all readers
MATCH_POINTS = 2.0  # |ours - paper| up to which a cell counts as a match
MOVED_POINTS = 1.0  # change against the original from which a direction counts
VERDICTS = ("match", "same direction", "differs", "not run")


def find_root():
    """The repository's folder, from wherever a notebook runs."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "dvc.yaml").is_file():
            return folder
    raise FileNotFoundError(f"no dvc.yaml in {here} or above; open the notebook inside the repository")


def experiment_rows(results, experiment, split="test"):
    """Rows of one experiment on one split."""
    table = read_results(results)
    return table[(table.experiment == experiment) & (table.split == split)]


def summarise(rows, by, metrics):
    """Mean and 95 % t-interval over the runs of each group: columns `<metric>`, `<metric> ±`, and `runs`.

    The unit of the interval is the run (concept × seed for `by=["method"]`).
    """
    groups = []
    for key, group in rows.groupby(by, sort=False):
        record = dict(zip(by, key, strict=True))
        for metric in metrics:
            values = group[group.metric == metric].value
            record[metric], record[f"{metric} ±"] = mean_interval(values) if len(values) else (math.nan, math.nan)
            record["runs"] = len(values)
        groups.append(record)
    return pd.DataFrame(groups)


def paper_cells(experiment):
    """The published cells of one experiment, from the ledger."""
    ledger = yaml.safe_load((find_root() / "figures" / "paper_reference.yaml").read_text())["cells"]
    return [cell for cell in ledger if cell["experiment"] == experiment]


def verdict(ours, paper, our_baseline, paper_baseline):
    """`match`, `same direction` (the change against the original has the paper's sign), `differs`, `not run`."""
    if ours is None or math.isnan(ours):
        return "not run"
    if abs(ours - paper) <= MATCH_POINTS:
        return "match"
    our_change, paper_change = ours - our_baseline, paper - paper_baseline
    moved = abs(our_change) > MOVED_POINTS and abs(paper_change) > MOVED_POINTS
    return "same direction" if moved and our_change * paper_change > 0 else "differs"


def beside_paper(summary, experiment, provenance):
    """Every published cell of the experiment with ours: difference, provenance of ours, verdict."""
    values = summary.set_index("method")
    lines = []
    for cell in paper_cells(experiment):
        if cell.get("value") is None:
            continue
        method, metric = cell["method"], cell["metric"]
        ours = values[metric].get(method) if metric in values else None
        said = verdict(ours, cell["value"], values[metric].get("original"), cell["baseline"])
        lines.append(
            {
                "method": method,
                "metric": metric,
                "paper": cell["value"],
                "ours": None if said == "not run" else ours,
                "difference": None if said == "not run" else ours - cell["value"],
                "provenance of ours": "–" if said == "not run" else provenance,
                "verdict": said,
            }
        )
    return pd.DataFrame(lines)


def with_intervals(summary, metrics, digits=1):
    """The summary as strings `mean ± half-width`, for reading; single runs show no interval."""
    table = summary[["method", "runs"]].copy()
    for metric in metrics:
        pairs = zip(summary[metric], summary[f"{metric} ±"], strict=True)
        table[metric] = [f"{m:.{digits}f}" + ("" if math.isnan(h) else f" ± {h:.{digits}f}") for m, h in pairs]
    return table


def show(table):
    """Display a table as Markdown, the same text on every run, so that nbval can compare it."""
    display(Markdown(markdown(table)))


def markdown(table):
    """A Markdown table: floats with two decimals, gaps as a dash, text as it stands (tabulate would reparse it)."""
    text = table.copy()
    for column in text.select_dtypes("float"):
        text[column] = ["–" if math.isnan(value) else f"{value:.2f}" for value in text[column]]
    right = ["right" if table[column].dtype.kind in "fi" else "left" for column in table]
    return text.to_markdown(index=False, disable_numparse=True, colalign=right)


def publish_table(table, name, folder):
    """Write `<folder>/<name>.csv` and `.md`."""
    folder = Path(folder)
    table.to_csv(folder / f"{name}.csv", index=False, float_format="%.6g", lineterminator="\n")
    (folder / f"{name}.md").write_text(markdown(table) + "\n")


def publish_figure(figure, name, folder):
    """Write `<folder>/<name>.png` and `.svg`, byte-identical for identical data."""
    folder = Path(folder)
    figure.savefig(folder / f"{name}.png", dpi=160, metadata={"Software": None})
    figure.savefig(folder / f"{name}.svg", metadata={"Date": None, "Creator": None})


def use_style():
    sns.set_theme(context="paper", style="ticks", font_scale=1.1)
    plt.rcParams.update({"svg.hashsalt": "cliperase", "figure.dpi": 100, "axes.spines.left": False})


def dot_plot(rows, order, panels, paper=None, reference="original"):
    """One row per method, one panel per metric: every run a dot, the mean a bar, the paper a diamond.

    `panels`: [(metric, title)]. `paper`: {(method, metric): value}. A line marks the reference's mean.
    """
    figure, axes = plt.subplots(1, len(panels), figsize=(3.1 * len(panels), 0.36 * len(order) + 1.5), sharey=True)
    height = {method: len(order) - i for i, method in enumerate(order)}
    for axis, (metric, title) in zip(axes, panels, strict=True):
        for method in order:
            values = rows[(rows.method == method) & (rows.metric == metric)].value
            y = height[method]
            axis.plot(values, [y] * len(values), "o", color=OURS, alpha=0.45, markersize=4.5, mew=0)
            axis.plot([values.mean()], [y], "|", color=OURS, markersize=13, mew=2)
            if (paper or {}).get((method, metric)) is not None:
                axis.plot([paper[method, metric]], [y], "D", mfc="none", color=PAPER, markersize=5.5)
        before = rows[(rows.method == reference) & (rows.metric == metric)].value.mean()
        axis.axvline(before, color=GUIDE, zorder=0, linewidth=1)
        axis.set_title(title, fontsize="medium", loc="left")
        axis.grid(axis="y", color="0.93")
        axis.tick_params(left=False)
    axes[0].set_yticks(list(height.values()), list(height))
    sns.despine(figure, left=True)
    figure.tight_layout()
    return figure, axes
