"""Estimates with 95 % intervals: exact ones of shares (Clopper and Pearson 1934), bootstrap ones of means."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binomtest

RESAMPLES, SLOW_RESAMPLES = 1000, 100  # slow: where each draw computes a statistic anew
TAILS = (2.5, 97.5)  # percentiles


@dataclass(frozen=True)
class Estimate:
    """A number, its 95 % interval where there is one, and how many cases (images, texts, models) are behind it."""

    value: float
    low: float | None
    high: float | None
    count: int


def share_of(hits: ArrayLike) -> Estimate:
    """Percent of `hits` (N,) bool that are true, with the exact interval."""
    hits = np.asarray(hits, dtype=bool)
    return Estimate(100 * float(hits.mean()), *share_interval(int(hits.sum()), len(hits)), len(hits))


def share_interval(hits: int, count: int, method: str = "exact") -> tuple[float, float]:
    """(low, high) of the 95 % interval of `hits` among `count`, in percent: the exact one, or "wilson"."""
    interval = binomtest(hits, count).proportion_ci(method=method)
    return 100 * float(interval.low), 100 * float(interval.high)


def mean_of(values: ArrayLike) -> Estimate:
    """The mean of `values` (N,); the interval is that of a bootstrap over them."""
    values = np.asarray(values, dtype=np.float64)
    return mean_of_table(values[None])


def mean_of_table(table: ArrayLike) -> Estimate:
    """The mean of `table` (R, N); rows and columns are resampled, each for itself.

    Rows may be draws of a training set and columns test images. Where cell (i, j) says whether positive i scores above
    negative j (a tie is ½), the mean is the area under the ROC curve. A single row is not resampled.
    """
    table = np.asarray(table, dtype=np.float64)
    value, count = float(table.mean()), table.shape[1]
    if count < 2:
        return Estimate(value, None, None, count)
    rng = np.random.default_rng(0)
    rows, columns = (rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES) / n for n in table.shape)
    low, high = np.percentile(((rows @ table) * columns).sum(axis=1), TAILS)
    return Estimate(value, min(float(low), value), max(float(high), value), count)


def area_of(positive: ArrayLike, negative: ArrayLike) -> Estimate:
    """Area under the ROC curve of two sets of scores (P,) and (N,): how often a positive is above a negative."""
    positive, negative = (np.asarray(scores, dtype=np.float64) for scores in (positive, negative))
    difference = positive[:, None] - negative[None]
    return mean_of_table((difference > 0) + 0.5 * (difference == 0))


def bootstrap(statistic: Callable[[NDArray[np.int64]], float], count: int) -> Estimate:
    """What `statistic(rows)` gives for the numbers of `count` rows; the interval is that of resampled rows."""
    rng, value = np.random.default_rng(0), float(statistic(np.arange(count)))
    drawn = [float(statistic(rng.integers(count, size=count))) for _ in range(SLOW_RESAMPLES)]
    low, high = np.percentile(drawn, TAILS)
    return Estimate(value, min(float(low), value), max(float(high), value), count)


def exactly(value: float) -> Estimate:
    """A figure of the whole model, which no sampling blurs: its interval is the number itself."""
    return Estimate(float(value), float(value), float(value), 1)


def envelope(estimates: Sequence[Estimate]) -> Estimate | None:
    """Several models as one: the mean, and from the lowest to the highest end of their intervals; None of none."""
    if not estimates:
        return None
    lows, highs = ([getattr(one, end) for one in estimates if getattr(one, end) is not None] for end in ("low", "high"))
    value = sum(one.value for one in estimates) / len(estimates)
    return Estimate(value, min(lows, default=None), max(highs, default=None), sum(one.count for one in estimates))
