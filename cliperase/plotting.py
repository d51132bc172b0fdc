"""The figures that several notebooks share, and their one style."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.colors import to_rgb

OURS, PAPER, GUIDE = "#0072B2", "#D55E00", "0.75"  # Okabe-Ito blue and vermilion, told apart by all readers


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


def cut_grid(rows, order, panels, cuts, paper=None, marks=(), ours="CLIPErase", reference="original"):
    """A grid of panels in percent: one row per method, and in it one step per cut (the k of R@k, or of k-way).

    `panels`: rows of [(stem, title)], where `<stem>@<cut>` is a metric. `cuts`: {cut: name}. A dot is the mean,
    paler for the first cuts; the bar behind it reaches from the lowest to the highest run. Full lines are the
    reference, dashed ones `marks` [(stem, value, name)], both named. `paper`: {(method, metric): value}, diamonds.
    """
    size = (7, (0.4 * len(order) + 0.8) * len(panels) + 0.3)
    shape = (len(panels), len(panels[0]))
    figure, axes = plt.subplots(*shape, figsize=size, sharex=True, sharey=True, squeeze=False)
    height = {method: len(order) - i for i, method in enumerate(order)}
    inks = {method: {ours: OURS, reference: "0.6"}.get(method, "0.25") for method in order}
    for axis, (stem, title) in zip(axes.flat, [panel for line in panels for panel in line], strict=True):
        metrics = [f"{stem}@{cut}" for cut in cuts]
        found = rows[rows.metric.isin(metrics)].groupby(["method", "metric"]).value.agg(["mean", "min", "max"])
        for method in order:
            published = [(paper or {}).get((method, metric)) for metric in metrics]
            draw_cuts(axis, found.loc[method].loc[metrics].to_numpy(), height[method], inks[method], published)
        before = found.loc[reference].loc[metrics, "mean"]
        lines = [(value, name, GUIDE, "-") for value, name in zip(before, cuts.values(), strict=True)]
        name_lines(axis, lines + [(value, name, "0.4", "--") for marked, value, name in marks if marked == stem])
        axis.set_title(title, loc="left", fontsize="medium", pad=19)
        axis.set(xlim=(-3, 103), ylim=(0.45, len(order) + 0.55))
        axis.tick_params(left=False)
        axis.xaxis.set_major_formatter("{x:.0f} %")
        for edge in range(1, len(order)):
            axis.axhline(edge + 0.5, color="0.93", lw=0.8, zorder=0)
    name_a_diamond(axes[0, 0])
    axes[0, 0].set_yticks(list(height.values()), list(height))
    for label in [label for axis in axes[:, 0] for label in axis.get_yticklabels() if label.get_text() == ours]:
        label.set(color=OURS, weight="bold")
    sns.despine(figure, left=True)
    figure.tight_layout(h_pad=1.5, w_pad=1.5)
    return figure, axes


def draw_cuts(axis, found, height, ink, published):
    """One method's row of a panel: `found` (cuts, 3) mean, lowest and highest, `published` a number or None each."""
    heights, shades = height + np.linspace(0.24, -0.24, len(found)), np.linspace(0.25, 1, len(found))
    axis.plot(found[:, 0], heights, color=ink, alpha=0.5, lw=0.8)
    for (mean, low, high), y, shade, paper in zip(found, heights, shades, published, strict=True):
        axis.plot([low, high], [y, y], color=ink, alpha=0.3, lw=4, solid_capstyle="round")
        pale = tuple(1 - shade * (1 - np.array(to_rgb(ink))))
        axis.plot(mean, y, "o", markersize=5.5, mfc=pale, mec=ink, mew=1, zorder=3)
        if paper is not None:
            axis.plot(paper, y, "D", mfc="none", mec=PAPER, mew=1.4, markersize=8, zorder=4)


def name_lines(axis, lines, apart=14):
    """Vertical lines [(percent, name, colour, style)], each named above the panel, the names kept `apart`."""
    lines = sorted(lines, key=lambda line: line[0])
    places = spread_out([value for value, *_ in lines], apart)
    for place, (value, name, colour, style) in zip(places, lines, strict=True):
        axis.axvline(value, color=colour, linestyle=style, lw=1, zorder=0)
        axis.text(place, 1.02, name, transform=axis.get_xaxis_transform(), ha="center", fontsize=8, color="0.35")


def spread_out(places, apart):
    """Sorted places moved as little as it takes to stand `apart`: a crowd stays around its middle."""
    groups = []  # (middle, members): members stand `apart` around the middle
    for place in places:
        groups.append((place, 1))
        while len(groups) > 1 and groups[-1][0] - groups[-2][0] < apart * (groups[-1][1] + groups[-2][1]) / 2:
            (right, m), (left, n) = groups.pop(), groups.pop()
            groups.append(((left * n + right * m) / (n + m), n + m))
    return [middle + apart * (i - (size - 1) / 2) for middle, size in groups for i in range(size)]


def name_a_diamond(axis, room=18):
    """Write `paper` beside a diamond of a panel, if it has one: the first with neither dot nor bar in the way."""
    diamonds = [line.get_xydata()[0] for line in axis.lines if line.get_marker() == "D"]
    others = [line.get_xydata() for line in axis.lines if line.get_marker() != "D"]

    def blocked(x, y):
        flat = [points[:, 0] for points in others if (points[:, 1] == y).all()]
        return any(along.max() > x and along.min() < x + room for along in flat)

    if diamonds:
        place = next((place for place in diamonds if not blocked(*place)), diamonds[0])
        backing = {
            "facecolor": "white",
            "edgecolor": "none",
            "pad": 0.5,
        }  # covers guides, and nothing that was measured
        style = {"va": "center", "fontsize": 8, "color": PAPER, "bbox": backing, "zorder": 1}
        axis.annotate("paper", place, (8, 0), textcoords="offset points", **style)
