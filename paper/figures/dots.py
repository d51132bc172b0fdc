"""One row per method: every run a dot, the paper's numbers beside them."""

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.colors import to_rgb
from matplotlib.ticker import MaxNLocator

from paper.figures.labels import name_lines
from paper.figures.style import GUIDE, MEAN, PAPER, PUBLISHED, REGION, RUN, embolden, ink_of, key, number

FOOT = 0.3  # inches for the key
ZERO_SHOT = {  # metrics of class tasks and the titles of their panels
    "forget_accuracy": "Forget accuracy, %\n(lower is better)",
    "retain_accuracy": "Retain accuracy, %\n(higher is better)",
    "unrelated_cosine": "Prompt · unrelated images\n(cosine; best in the region)",
}


def dot_plot(rows, order, paper=None, panels=ZERO_SHOT, ours=("CLIPErase", "FM+RM+CM"), region=True):
    """One panel per metric: every run a dot, the mean a bar, the paper a diamond.

    `panels`: {metric: title}. `paper`: {(method, metric): value}. A line marks the original's mean, a `region` what
    retrained models reach. An axis spans the runs (see `crowd`); a mean or a published value beyond it is a triangle at
    the edge, with its number.
    """
    size = (7, 0.27 * len(order) + 1.1 + FOOT)
    figure, axes = plt.subplots(1, len(panels), figsize=size, sharey=True, squeeze=False)
    height = {method: len(order) - i for i, method in enumerate(order)}
    for axis, (metric, title) in zip(axes[0], panels.items(), strict=True):
        runs = rows[(rows.metric == metric) & rows.method.isin(order)]
        found = {method: (paper or {}).get((method, metric)) for method in order}
        frame_runs(axis, runs, [value for value in found.values() if value is not None])
        retrained = runs[runs.method == "retrain"].value
        if region and len(retrained):
            axis.axvspan(retrained.min(), retrained.max(), color=REGION, linewidth=0, zorder=0)
        before = runs[runs.method == "original"].value.mean()
        name_lines(axis, [(before, "original" if axis is axes[0, 0] else "", GUIDE, "-")])
        for method in order:
            values = runs[runs.method == method].value.to_numpy()
            draw_runs(axis, values, height[method], ink_of(method, ours), found[method])
        axis.set_title(title, fontsize=8, loc="left", pad=16)
    axes[0, 0].set_yticks(list(height.values()), list(height))
    axes[0, 0].set_ylim(0.4, len(order) + 0.6)
    embolden(axes[0, 0], ours)
    sns.despine(figure, left=True)
    figure.tight_layout(w_pad=1.2, rect=(0, FOOT / size[1], 1, 1))
    beyond = {"beyond the axis, with its value": {"marker": "<", "color": "0.25", "markersize": 5}}
    drawn = {line.get_marker() for axis in axes[0] for line in axis.lines}
    retrained = (
        {"retrained": {"marker": "s", "color": REGION, "markersize": 8}} if region and "retrain" in order else {}
    )
    marks = {"a run": RUN, "mean": MEAN} | ({"paper": PUBLISHED} if paper else {})
    key(figure, marks | retrained | (beyond if drawn & {"<", ">"} else {}))
    return figure, axes[0]


def frame_runs(axis, runs, published):
    """The empty panel of `runs`: limits, ticks, light rows. A wide side holds the numbers of what lies beyond it."""
    margin, wide = 0.06, 0.24
    rows = crowd(runs.groupby("method").value.agg(["min", "max"]), "original")
    low, high = rows["min"].min(), rows["max"].max()
    room = margin * (high - low) or margin
    values = [*published, *runs.groupby("method").value.mean()]
    left = wide if min(values) < low - room else margin
    right = wide if max(values) > high + room else margin
    axis.set_xlim(low - room * left / margin, high + room * right / margin)
    axis.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axis.tick_params(labelsize=8)
    axis.tick_params(axis="y", left=False, labelsize=8.5)
    axis.grid(axis="y", color="0.93")


def crowd(extents, reference):
    """The rows that share an axis: all, unless a few stand so far off that they would squeeze the others into a line.

    `extents`: lowest and highest run of each method, columns `min` and `max`. Far off is beyond a gap of more than
    half of everything, a few is a quarter of the rows. The reference is always on the axis.
    """
    values = np.unique(extents)
    gaps = np.diff(values)
    if len(gaps) < 2 or gaps.max() <= gaps.sum() / 2:
        return extents
    middle = values[gaps.argmax() :][:2].mean()
    below, above = extents["max"] < middle, extents["min"] > middle
    few = below if below.sum() < above.sum() else above
    if not (below | above).all() or few.mean() > 0.25 or few.get(reference, False):
        return extents
    return extents[~few]


def draw_runs(axis, values, y, ink, published):
    """One method's row of a panel: `values` of its runs, `published` a number or None."""
    low, high = axis.get_xlim()
    mean, beyond = values.mean() if len(values) else np.nan, []
    if low <= mean <= high:
        axis.plot(values, [y] * len(values), linestyle="none", **RUN | {"color": ink})
        axis.plot([mean], [y], **MEAN | {"color": ink})
    elif len(values):
        beyond.append((mean, ink, ink))
    if published is not None and low <= published <= high:
        axis.plot([published], [y], clip_on=False, **PUBLISHED)
    elif published is not None:
        beyond.append((published, PAPER, "none"))
    draw_beyond(axis, sorted(mark for mark in beyond if mark[0] < low), y, at_left=True)
    draw_beyond(axis, sorted((mark for mark in beyond if mark[0] > high), reverse=True), y, at_left=False)


def draw_beyond(axis, marks, y, at_left):
    """What lies beyond an edge, outermost first: triangles on the edge that point there, the numbers above the row.

    `marks`: [(value, colour, face colour)].
    """
    low, high = axis.get_xlim()
    edge, inwards, shape, align = (low, 1, "<", "left") if at_left else (high, -1, ">", "right")
    for place, (value, ink, face) in enumerate(marks):
        x = edge + 0.05 * place * inwards * (high - low)
        axis.plot([x], [y], shape, mfc=face, mec=ink, markersize=5, mew=1.2, clip_on=False)
        offset = inwards * (24 * place - 2)
        axis.annotate(number(value), (edge, y), (offset, 4.5), textcoords="offset points", fontsize=7, color=ink,
                      ha=align)  # fmt: skip


def cut_grid(rows, order, panels, cuts, paper=None, marks=()):
    """A grid of panels in percent: one row per method, and in it one step per cut (the k of R@k, or of k-way).

    `panels`: rows of [(stem, title)], where `<stem>@<cut>` is a metric. `cuts`: {cut: name}. A dot is the mean,
    paler for the first cuts; the bar behind it reaches from the lowest to the highest run. Full lines are the
    original, dashed ones `marks` [(stem, value, name)], both named. `paper`: {(method, metric): value}, diamonds.
    """
    size = (7, (0.4 * len(order) + 0.8) * len(panels) + 0.3 + FOOT)
    shape = (len(panels), len(panels[0]))
    figure, axes = plt.subplots(*shape, figsize=size, sharex=True, sharey=True, squeeze=False)
    height = {method: len(order) - i for i, method in enumerate(order)}
    for axis, (stem, title) in zip(axes.flat, [panel for line in panels for panel in line], strict=True):
        metrics = [f"{stem}@{cut}" for cut in cuts]
        found = rows[rows.metric.isin(metrics)].groupby(["method", "metric"]).value.agg(["mean", "min", "max"])
        for method in order:
            published = [(paper or {}).get((method, metric)) for metric in metrics]
            ink = ink_of(method)
            draw_cuts(axis, found.loc[method].loc[metrics].to_numpy(), height[method], ink, published)
        before = found.loc["original"].loc[metrics, "mean"]
        lines = [(value, name, GUIDE, "-") for value, name in zip(before, cuts.values(), strict=True)]
        name_lines(axis, lines + [(value, name, "0.4", "--") for marked, value, name in marks if marked == stem])
        axis.set_title(title, loc="left", fontsize="medium", pad=19)
        axis.set(xlim=(-3, 103), ylim=(0.45, len(order) + 0.55))
        axis.tick_params(left=False)
        axis.xaxis.set_major_formatter("{x:.0f} %")
        for edge in range(1, len(order)):
            axis.axhline(edge + 0.5, color="0.93", lw=0.8, zorder=0)
    axes[0, 0].set_yticks(list(height.values()), list(height))
    for axis in axes[:, 0]:
        embolden(axis, ["CLIPErase"])
    sns.despine(figure, left=True)
    figure.tight_layout(h_pad=1.5, w_pad=1.5, rect=(0, FOOT / size[1], 1, 1))
    key(figure, dict(zip(cuts.values(), cut_marks("0.25", len(cuts)), strict=True)) | {
        "paper": PUBLISHED, "lowest to highest run": {"linestyle": "-", "color": "0.25", "alpha": 0.3, "linewidth": 4}
    })  # fmt: skip
    return figure, axes


def cut_marks(ink, count):
    """The dots of a row, from pale to full."""
    shades = [tuple(1 - shade * (1 - np.array(to_rgb(ink)))) for shade in np.linspace(0.25, 1, count)]
    return [{"marker": "o", "markersize": 5.5, "color": ink, "markerfacecolor": shade} for shade in shades]


def draw_cuts(axis, found, height, ink, published):
    """One method's row of a panel: `found` (cuts, 3) mean, lowest and highest, `published` a number or None each."""
    heights = height + np.linspace(0.24, -0.24, len(found))
    marks = cut_marks(ink, len(found))
    for (mean, low, high), y, mark, paper in zip(found, heights, marks, published, strict=True):
        axis.plot([low, high], [y, y], color=ink, alpha=0.3, lw=4, solid_capstyle="round")
        axis.plot(mean, y, zorder=3, **mark)
        if paper is not None:
            axis.plot(paper, y, zorder=4, **PUBLISHED | {"markersize": 8})
