"""Summaries of the results and the tables that notebooks show and publish."""

import math
import os
from pathlib import Path

import numpy as np
import pandas as pd
from IPython.display import Markdown, display

from cliperase.metrics.tasks import harmonic_mean
from paper.results import REFERENCES, mean_interval, read_results

COMPARE = "CLIPERASE_COMPARE"  # set by `make test`: notebooks that are checked must not change what they are to match


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


def runs_of(rows):
    """A table of runs: indexed by method, concept and seed, a column for each metric."""
    return rows.pivot_table(index=["method", "concept", "seed"], columns="metric", values="value")


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
    """The rule that sorts tables, and selects checkpoints, for each row: see `tasks.harmonic_mean`."""
    return pd.Series(harmonic_mean(summary[forget], summary[retain]), index=summary.index)


def in_order(summary, references=REFERENCES, **metrics):
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
        shared = wide[[ours, other]].dropna()
        difference = shared[ours] - shared[other]
        mean, half = mean_interval(difference)
        if difference.std() == 0:  # the test divides by it
            p = 1.0 if mean == 0 else 0.0
        else:
            p = float(ttest_rel(shared[ours], shared[other]).pvalue)
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


def lead(ours, theirs):
    """(mean, half-width of the 95 % t-interval, `"5 concepts"`) of `ours - theirs`, Series by concept and seed.

    Paired by concept, seeds averaged first, where there are three concepts or more; else by run, and with two concepts
    the interval speaks of these two only.
    """
    difference, unit = (ours - theirs).dropna(), "runs"
    if difference.index.unique("concept").size > 2:
        difference, unit = difference.groupby("concept").mean(), "concepts"
    return (*mean_interval(difference), f"{len(difference)} {unit}")


def claim_above(runs, theirs, forget="forget_accuracy", retain="retain_accuracy", ours="CLIPErase"):
    """Print by how much `ours` leads in the harmonic mean of each run, and whether the interval says so.

    `runs`: see `runs_of`, with a column for each of the two metrics.
    """
    mean, half, pairs = lead(*(score(runs.loc[method], forget, retain) for method in (ours, theirs)))
    print(f"harmonic mean of each run, {ours} less {theirs}: {mean:+.2f} ± {half:.2f} (paired, {pairs})")
    claim(f"{ours} stands above {theirs}, and the interval lies above zero", mean - half > 0)


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


def with_ranges(summary, rows, directions, columns):
    """A line per method and direction, each number `mean (lowest to highest run)` with one decimal.

    For two or three units, where a t-interval says little: with two it has one degree of freedom and spans the
    scale. `directions`: {part of a metric's name: text}; `columns`: {column: metric with {} for the direction}.
    """
    extent = rows.groupby(["method", "metric"]).value.agg(["min", "max"])
    lines = []
    for record in summary.to_dict("records"):
        for direction, text in directions.items():
            line = {"method": record["method"], "direction": text, "runs": record["runs"]}
            for column, template in columns.items():
                metric = template.format(direction)
                low, high = extent.loc[record["method"], metric]
                line[column] = f"{record[metric]:.1f} ({low:.1f} to {high:.1f})"
            lines.append(line)
    return pd.DataFrame(lines)


def per_concept(rows, order, metrics):
    """Mean over seeds of each concept, one decimal: columns `<name>, <concept>` for `metrics` {metric: name}."""
    table = pd.DataFrame({"method": order})
    for metric, name in metrics.items():
        wide = rows[rows.metric == metric].pivot_table(index="method", columns="concept", values="value")
        for concept in wide:
            table[f"{name}, {concept}"] = [f"{value:.1f}" for value in wide[concept].reindex(order)]
    return table


def mark_best(table, summary, column, forget="forget_accuracy", most=1.0, references=REFERENCES):
    """Bold the highest `column` among the rows that forget: mean forget metric at most `most` percent."""
    able = summary[(summary[forget] <= most) & ~summary.method.isin(references)]
    if len(able):
        row = able[column].idxmax()
        table.loc[row, column] = f"**{table.loc[row, column]}**"
    return table


def claim(text, holds):
    """Print whether a claim holds here. nbval compares the line, so a verdict that changes fails the check."""
    print(f"{'holds' if holds else 'DOES NOT HOLD'}: {text}")


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


def publish_table(table, name, folder, numbers=None):
    """Write `<folder>/<name>.md`, to be read, and `.csv`: the table's `numbers`, where it shows them as text.

    Where `COMPARE` is set nothing is written, and what is there must be the same.
    """
    numbers = table if numbers is None else numbers
    texts = {"md": markdown(table) + "\n", "csv": numbers.to_csv(index=False, float_format="%.6g", lineterminator="\n")}
    for kind, text in texts.items():
        path = Path(folder) / f"{name}.{kind}"
        if not os.environ.get(COMPARE):
            path.write_text(text)
        elif not path.is_file() or path.read_text() != text:
            raise AssertionError(f"{path} is not what this notebook publishes; run `dvc repro`")
