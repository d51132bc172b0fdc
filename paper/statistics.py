"""Means, intervals and comparisons of runs, from tidy results."""

import math

import numpy as np
import pandas as pd

from cliperase.metrics.tasks import harmonic_mean
from paper.results import REFERENCES, mean_interval


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


def change_from_original(rows, metric, method, concept):
    """`paired_change` of a metric from the original to a method, both on the same concept."""
    start, end = ({"concept": concept, "method": name} for name in ("original", method))
    return paired_change(rows, metric, start, end)


def lead(ours, theirs):
    """(mean, half-width of the 95 % t-interval, `"5 concepts"`) of `ours - theirs`, Series by concept and seed.

    Paired by concept, seeds averaged first, where there are three concepts or more; else by run, and with two concepts
    the interval speaks of these two only.
    """
    difference, unit = (ours - theirs).dropna(), "runs"
    if difference.index.unique("concept").size > 2:
        difference, unit = difference.groupby("concept").mean(), "concepts"
    return (*mean_interval(difference), f"{len(difference)} {unit}")


def wilson(rate, count):
    """(low, high) of the 95 % Wilson interval of a rate among `count` images, all in percent."""
    from scipy.stats import binomtest

    hits = rate * count / 100
    assert abs(hits - round(hits)) < 0.02, f"{rate} % is no number of {count} images"
    interval = binomtest(round(hits), count).proportion_ci(method="wilson")
    return 100 * interval.low, 100 * interval.high
