"""What the notebooks share: summaries of the results, the paper's ledger beside them, tables, one figure style."""

import math
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import yaml
from IPython.display import Markdown, display

from cliperase.results import mean_interval, read_results

OURS, PAPER, GUIDE = "#0072B2", "#D55E00", "0.75"  # Okabe-Ito blue and vermilion, told apart by all readers
MATCH_POINTS = 2.0  # |ours - paper| up to which a cell counts as a match
MOVED_POINTS = 1.0  # change against the original from which a direction counts
VERDICTS = ("match", "same direction", "differs", "not distinguishable", "not run")
OF_STATEMENT = {True: "same direction", False: "differs", None: "not distinguishable"}  # see `bears_out`


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


def unit_of_interval(rows):
    """What the runs are independent samples of: concepts where there are several, else seeds."""
    return "concept" if rows.concept.nunique() > 1 else "seed"


def summarise(rows, by, metrics):
    """Mean, 95 % t-interval and worst run of each group: columns `<metric>`, `<metric> ±`, `<metric> worst`, `runs`.

    Runs of one unit (see `unit_of_interval`) are averaged first, so that seeds do not pass for more concepts.
    """
    unit, groups = unit_of_interval(rows), []
    for key, group in rows.groupby(by, sort=False):
        record = dict(zip(by, key, strict=True))
        for metric in metrics:
            runs = group[group.metric == metric]
            values = runs.groupby(unit).value.mean()
            record[metric], record[f"{metric} ±"] = mean_interval(values) if len(values) else (math.nan, math.nan)
            record[f"{metric} worst"] = worst(metric, runs.value)
            record["runs"] = len(runs)
        groups.append(record)
    return pd.DataFrame(groups)


def summarise_each(rows, metrics):
    """`summarise` of every concept and method, one concept at a time: the intervals are over seeds."""
    concepts = rows.groupby("concept", sort=False)
    return pd.concat([summarise(group, ["concept", "method"], metrics) for _, group in concepts], ignore_index=True)


def worst(metric, values):
    """The least favourable run: the highest of what should fall, else the lowest."""
    return values.max() if metric.startswith("forget") else values.min()


def score(summary, forget="forget_accuracy", retain="retain_accuracy"):
    """Harmonic mean of 100 - forget and retain, in percent: the rule that sorts tables."""
    parts = np.stack([100 - summary[forget], summary[retain]]).clip(min=1e-9)
    return 2 / (1 / parts).sum(axis=0)


def in_order(summary, references=("original", "retrain"), **metrics):
    """Sorted by rule: references first, then by `score`, best first."""
    reference = summary.method.isin(references)
    ranks = [references.index(m) if r else len(references) for m, r in zip(summary.method, reference, strict=True)]
    return (
        summary.assign(rank=ranks, score=score(summary, **metrics))
        .sort_values(["rank", "score"], ascending=[True, False], kind="stable")
        .drop(columns=["rank", "score"])
        .reset_index(drop=True)
    )


def compare(rows, ours, metric, others):
    """Paired comparison of `ours` with other rows over the units they share: mean difference, 95 % interval, p.

    Two-sided paired t-test over units (seeds averaged first), p adjusted by Holm for the number of rows.
    `better` says ours or theirs only where the adjusted p is below 0.05.
    """
    from scipy.stats import ttest_rel

    unit = unit_of_interval(rows)
    wide = rows[rows.metric == metric].pivot_table(index=unit, columns="method", values="value")
    lines = []
    for other in others:
        difference = wide[ours] - wide[other]
        mean, half = mean_interval(difference)
        p = 1.0 if difference.std() == 0 else float(ttest_rel(wide[ours], wide[other]).pvalue)
        lines.append({"against": other, "pairs": len(difference), "difference": mean, "±": half, "p": p})
    table = pd.DataFrame(lines).sort_values("p", kind="stable").reset_index(drop=True)
    table["p (Holm)"] = (table.p * (len(table) - table.index)).cummax().clip(upper=1)
    sign = 1 if metric.startswith("retain") else -1
    significant = table["p (Holm)"] < 0.05
    table["better"] = np.where(~significant, "", np.where(sign * table.difference > 0, ours, table.against))
    return table.drop(columns="p")


def paired_change(rows, metric, before, after):
    """(mean, half-width of the 95 % t-interval) of a metric's change between two selections, paired by seed.

    `before`, `after`: {column: value}. A reference that is a single model is paired with every seed.
    """
    start, end = (
        rows[(rows.metric == metric) & (rows[list(chosen)] == list(chosen.values())).all(axis=1)]
        .set_index("seed", verify_integrity=True)
        .value
        for chosen in (before, after)
    )
    return mean_interval(end - (start.item() if len(start) == 1 else start))


def bears_out(mean, half, expected, margin=MATCH_POINTS):
    """Does a change with its interval bear out that a metric `falls`, `rises` or `stays`? True, False or None.

    A direction: the whole interval lies on its side of zero, or on the other. `stays`: the whole interval lies
    within ± `margin` points, or wholly outside. None: the interval allows both, or there is a single run.
    """
    low, high = mean - half, mean + half
    if expected == "falls":
        low, high = -high, -low
    yes, no = (low > 0, high < 0)
    if expected == "stays":
        yes, no = (-margin <= low and high <= margin, low > margin or high < -margin)
    return True if yes else False if no else None


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


def with_intervals(summary, percent, cosines=(), by="method"):
    """The summary as strings `mean ± half-width` to read: one decimal for percent, two for cosines."""
    table = summary[[by, "runs"]].copy()
    for metric in (*percent, *cosines):
        digits = 1 if metric in percent else 2
        pairs = zip(summary[metric], summary[f"{metric} ±"], strict=True)
        table[metric] = [spread(mean, half, digits) for mean, half in pairs]
    return table


def spread(mean, half, digits):
    """`mean ± half-width`; a single run shows no interval, a metric that was not measured a dash."""
    if math.isnan(mean):
        return "–"
    return f"{mean:.{digits}f}" + ("" if math.isnan(half) else f" ± {half:.{digits}f}")


def mark_best(table, summary, column, forget="forget_accuracy", most=1.0, references=("original", "retrain")):
    """Bold the highest `column` among the rows that forget: mean forget metric at most `most` percent."""
    able = summary[(summary[forget] <= most) & ~summary.method.isin(references)]
    if len(able):
        row = able[column].idxmax()
        table.loc[row, column] = f"**{table.loc[row, column]}**"
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
