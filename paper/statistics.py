"""Means, intervals and comparisons of runs, from tidy results."""

import math
from itertools import product

import numpy as np
import pandas as pd

from cliperase.audit.intervals import share_interval
from paper.results import REFERENCES, mean_interval


def runs_of(rows):
    """A table of runs: indexed by method, concept and seed, a column for each metric."""
    return rows.pivot_table(index=["method", "concept", "seed"], columns="metric", values="value")


def unit_of_interval(rows):
    """What the runs are independent samples of: concepts where there are several, else seeds."""
    return "concept" if rows.concept.nunique() > 1 else "seed"


def summarise(rows, by, metrics):
    """Mean, 95 % interval and worst run of each group: columns `<metric>`, `<metric> low`, `<metric> high`, `<metric>
    worst`, `runs`.

    Runs of one unit (see `unit_of_interval`) are averaged first, so that seeds do not pass for more concepts, and a
    method that gives the same for every seed counts once. See `interval` for the intervals.
    """
    unit, groups = unit_of_interval(rows), []
    for key, group in rows.groupby(by, sort=False):
        record = dict(zip(by, key, strict=True))
        for metric in metrics:
            runs = group[group.metric == metric]
            values = runs.groupby(unit).value.mean()
            mean = values.mean() if len(values) else math.nan
            record |= zip(bounds(metric), (mean, *interval(values, images_of(group, metric))), strict=True)
            record[f"{metric} worst"] = worst(metric, runs.value)
            record["runs"] = len(runs)
        groups.append(record)
    return pd.DataFrame(groups)


def bounds(metric):
    """The columns of a summary that hold a mean and its interval."""
    return [metric, f"{metric} low", f"{metric} high"]


def summarise_each(rows, metrics):
    """`summarise` of every concept and method, one concept at a time: the intervals are over seeds."""
    concepts = rows.groupby("concept", sort=False)
    return pd.concat([summarise(group, ["concept", "method"], metrics) for _, group in concepts], ignore_index=True)


def images_of(rows, metric):
    """How many different images are behind an accuracy of the forget or the retain rows; None where nobody counted.

    Seeds are measured on the same images, and so are the retain rows of every concept, but for its own.
    """
    side = metric.split("_")[0]
    counted = rows[rows.metric == f"{side}_images"].groupby("concept").value.max()
    if not metric.split("@")[0].endswith("accuracy") or not len(counted):
        return None
    return int(counted.sum() if side == "forget" else counted.max())


def interval(values, images=None):
    """(low, high) of the 95 % interval of a mean; nan where nothing can be said.

    `values`: one for each independent unit. Of three units and more the interval is the bootstrap's: the middle 95 % of
    the means of all ways to draw as many units with replacement. Of a percentage among `images` it is at least the
    exact binomial interval (Clopper and Pearson 1934), because no spread among units is no certainty: 0 of 80 images
    may be 4 %.
    """
    values = np.asarray(values, dtype=float)
    low, high = np.percentile(bootstrapped_means(values), [2.5, 97.5]) if len(values) > 2 else (math.nan, math.nan)
    if images:
        # hits are rounded, because a mean over seeds need not be a whole number of them
        exact = share_interval(round(values.mean() * images / 100), images)
        low, high = np.fmin(low, exact[0]), np.fmax(high, exact[1])
    return float(low), float(high)


def bootstrapped_means(values):
    """The means of resamples: of all that there are, or of 10,000 where there are more."""
    count = len(values)
    if count <= 5:
        return values[list(product(range(count), repeat=count))].mean(axis=1)
    return values[np.random.default_rng(0).integers(count, size=(10_000, count))].mean(axis=1)


def worst(metric, values):
    """The least favourable run: the highest of what should be low, else the lowest."""
    return values.max() if metric.startswith(("forget", "average_gap")) else values.min()


def same_of(runs, method):
    """The rows of a reference, `original` or `retrain`, one for each run in `runs`: of its concept and seed, or of its
    concept where there is only one seed of the reference."""
    own = runs.loc[method]
    first = own.groupby("concept").first()
    found = [own.loc[tuple(key)] if tuple(key) in own.index else first.loc[key[0]] for _, *key in runs.index]
    return pd.DataFrame(found, index=runs.index)


def with_gap(rows, forget="forget_accuracy", retain="retain_accuracy", to_retrained=True):
    """The rows, and for each run the row `average_gap`, in points: what tables are sorted by, and rows compared by.

    It is the average gap of the unlearning literature (SalUn, Fan et al. 2024) over two metrics, to a model that was
    retrained without the forget set. Where there is none, or not `to_retrained`, it is the gap to the best result there
    can be, as `tasks.Task.score` has it: nothing forgotten is found, and of the rest no less than the original finds.
    """
    runs = runs_of(rows[rows.metric.isin([forget, retain])])
    if to_retrained and "retrain" in runs.index.unique("method"):
        reference = same_of(runs, "retrain")
        gaps = [(runs[metric] - reference[metric]).abs() for metric in (forget, retain)]
    else:
        gaps = [runs[forget], (same_of(runs, "original")[retain] - runs[retain]).clip(lower=0)]
    values = ((gaps[0] + gaps[1]) / 2).rename("value").reset_index()
    about = rows.drop_duplicates(["method", "concept", "seed"]).drop(columns=["metric", "value", "unit"])
    more = about.merge(values, on=["method", "concept", "seed"]).assign(metric="average_gap", unit="points")
    return pd.concat([rows, more[rows.columns]], ignore_index=True)


def in_order(summary):
    """References first, then by the average gap, smallest first."""
    reference = summary.method.isin(REFERENCES)
    ranks = [REFERENCES.index(m) if r else len(REFERENCES) for m, r in zip(summary.method, reference, strict=True)]
    return (
        summary.assign(rank=ranks)
        .sort_values(["rank", "average_gap"], kind="stable")
        .drop(columns="rank")
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
    sign = 1 if metric.startswith("retain") else -1  # of a gap, as of the forget set, less is better
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
    hits = rate * count / 100
    assert abs(hits - round(hits)) < 0.02, f"{rate} % is no number of {count} images"
    return share_interval(round(hits), count, "wilson")
