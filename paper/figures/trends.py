"""Rows over the share of classes that are forgotten together."""

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns

from paper.figures.labels import name_ends
from paper.figures.style import OURS
from paper.ledger import ratio_of
from paper.results import REFERENCES
from paper.statistics import bounds

INKS = {  # Okabe-Ito; a row keeps its colour wherever it ranks
    "original": "0.5", "fine-tune": "#CC79A7", "GA": "#D55E00", "GradDiff": "#E69F00", "KL-min": "#009E73",
    "MultiDelete": "0.15", "null space": "#56B4E9", "CLIPErase": OURS,
}  # fmt: skip


def trend_plot(rows, summary, inks, panels):
    """One panel per metric: means joined by lines, seeds as small dots, the 95 % intervals as bars within 0 to 100 %.

    `rows`: tidy results; `summary`: index (method, concept), columns `<metric>`, `<metric> low`, `<metric> high`;
    `inks`: {method: colour}, the rows that are drawn; `panels`: [(metric, title)]. Rows are shifted a little sideways
    so that they do not hide each other.
    """
    concepts = sorted(rows.concept.unique(), key=ratio_of)
    ratios = np.array([ratio_of(concept) for concept in concepts])
    shifts = dict(zip(inks, [0, *np.linspace(-0.7, 0.7, len(inks) - 1)], strict=True))
    figure, axes = plt.subplots(1, len(panels), figsize=(7, 3.5))
    figure.subplots_adjust(left=0.06, right=0.87, top=0.84, bottom=0.14, wspace=0.56)
    for axis, (metric, title) in zip(axes, panels, strict=True):
        means = {method: summary.loc[method].loc[concepts, bounds(metric)].to_numpy().T for method in inks}
        runs = rows[(rows.metric == metric) & rows.method.isin(inks)]
        low, high = tens_around(means.values(), runs.value)
        margin = 0.02 * (high - low)
        axis.set(xlim=(0, ratios[-1] + 1.5), ylim=(low - margin, high + margin))
        for method, (mean, least, most) in means.items():
            if method == "original":
                axis.plot(ratios, mean, color=inks[method], linewidth=1.2, linestyle=(0, (4, 2)), zorder=1)
                continue
            draw_trend(axis, ratios + shifts[method], (mean, least, most), inks[method], method == "CLIPErase")
            for place, concept in zip(ratios + shifts[method], concepts, strict=True):
                values = runs[(runs.method == method) & (runs.concept == concept)].value
                axis.plot([place] * len(values), values, "o", color=inks[method], alpha=0.5, markersize=2.6, mew=0)
        ends = {method: (ratios[-1] + shifts[method] + 0.3, means[method][0][-1]) for method in inks}
        name_ends(axis, ends, ratios[-1] + 3.2, inks)
        axis.set_xticks(ratios)
        axis.set_xlabel("classes forgotten together, %")
        axis.set_title(title, loc="left", fontsize="medium")
        axis.grid(axis="y", color="0.93")
        axis.tick_params(left=False)
    sns.despine(figure, left=True)
    return figure, axes


def tens_around(means, values):
    """The multiples of ten, within 0 to 100, around every interval and run: what is drawn is not cut."""
    lows = [values.min(), *(np.fmin(mean, low).min() for mean, low, _ in means)]
    highs = [values.max(), *(np.fmax(mean, high).max() for mean, _, high in means)]
    return max(0, 10 * (min(lows) // 10)), min(100, 10 * -(-max(highs) // 10))


def draw_trend(axis, places, bounds, ink, ours):
    """Means and intervals of one row; ours on top and thicker."""
    mean, low, high = bounds
    axis.vlines(places, low, high, color=ink, alpha=0.35, linewidth=1.1)
    axis.plot(places, mean, "-o", color=ink, linewidth=2.6 if ours else 1.2, markersize=5 if ours else 3.2,
              markeredgecolor="white", mew=0.4, zorder=4 if ours else 3)  # fmt: skip


def curves_plot(curves, inks, title=""):
    """Lines over steps, named at their ends: those of `inks` {method: colour}; the others grey and thin.

    `curves`: steps × methods, in percent.
    """
    figure, axis = plt.subplots(figsize=(6.4, 3.6))
    figure.subplots_adjust(left=0.08, right=0.74, top=0.9, bottom=0.14)
    axis.set(xlim=(0, curves.index[-1]), ylim=(-2, 102), xlabel="steps of training on 8 pairs again")
    axis.set_xticks(curves.index)
    for method in curves.columns.difference(inks):
        axis.plot(curves.index, curves[method], color="0.85", linewidth=0.8, zorder=1)
    for method, ink in inks.items():
        style, width = "--" if method in REFERENCES else "-", 2.4 if method == "unseen" else 1.4
        axis.plot(curves.index, curves[method], style, color=ink, linewidth=width, zorder=3, clip_on=False)
    last = curves.index[-1]
    name_ends(axis, {method: (last, curves[method].iloc[-1]) for method in inks}, 1.06 * last, inks, "unseen")
    axis.set_title(title, loc="left", fontsize="medium")
    axis.grid(axis="y", color="0.93")
    axis.tick_params(left=False)
    sns.despine(figure, left=True)
    return figure
