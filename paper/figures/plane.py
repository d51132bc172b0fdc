"""Forgetting against retention: every row a point, the retrained models a region."""

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.patches import Rectangle

from paper.figures.labels import name_points
from paper.figures.style import GUIDE, REGION, ink_of, weight_of

X, Y = "forget_accuracy", "retain_accuracy"
CORNER = 5  # points on each side of the best that the second panel shows
ROOM = 0.08  # of an axis, beyond the outermost mean


def plane_plot(rows, order):
    """Two panels: all rows, and those near the best corner. A point is a row's mean over concepts and seeds, a thin dot
    the mean of one concept. The region is what the retrained models reach, one value for each concept.

    `rows`: tidy results with the metrics `forget_accuracy` and `retain_accuracy`.
    """
    found = rows[rows.metric.isin([X, Y]) & rows.method.isin(order)]
    concepts = found.pivot_table(index=["method", "concept"], columns="metric", values="value")
    means = concepts.groupby("method").mean().loc[order]
    best = means[Y].max()
    near = means[(means[X] <= CORNER) & (means[Y] >= best - CORNER)]
    figure, axes = plt.subplots(1, 2, figsize=(7, 3.6))
    figure.subplots_adjust(left=0.08, right=0.99, top=0.9, bottom=0.14, wspace=0.2)
    for axis, shown, title in ((axes[0], means, "All rows"), (axes[1], near, "Near the best corner")):
        span = [(shown[metric].min(), shown[metric].max()) for metric in (X, Y)]
        room = [ROOM * (high - low) + 0.3 for low, high in span]
        axis.set_xlim(span[0][0] - room[0], span[0][1] + room[0])
        axis.set_ylim(span[1][0] - room[1], span[1][1] + room[1])
        draw_region(axis, concepts)
        draw_rows(axis, concepts, shown)
        axis.set_xlabel("forget accuracy, % (lower is better)", fontsize=9)
        axis.set_title(title, loc="left", fontsize=9)
        axis.grid(color="0.94")
        axis.tick_params(labelsize=8, length=0)
    axes[0].set_ylabel("retain accuracy, % (higher is better)", fontsize=9)
    sns.despine(figure, left=True, bottom=True)
    name_rows(axes[0], means.drop(near.index))
    name_rows(axes[1], near.drop("retrain", errors="ignore"))  # it has the region
    return figure, axes


def draw_region(axis, concepts):
    """The rectangle that holds the retrained models of all concepts, at least half a point wide."""
    if "retrain" not in concepts.index.unique("method"):
        return
    own = concepts.loc["retrain"]
    low, high = own.min().to_numpy(), own.max().to_numpy()
    middle, half = (low + high) / 2, np.maximum((high - low) / 2, 0.25)
    axis.add_patch(Rectangle(middle - half, *(2 * half), facecolor=REGION, edgecolor="none", zorder=0))


def draw_rows(axis, concepts, shown):
    for method in shown.index:
        ink = ink_of(method)
        each = concepts.loc[method]
        axis.plot(each[X], each[Y], "o", color=ink, alpha=0.25, markersize=2.5, mew=0, zorder=2)
        axis.plot(*shown.loc[method, [X, Y]], "o", color=ink, markersize=6 if method == "CLIPErase" else 4.5, zorder=4)
    axis.axhline(shown[Y].get("original", np.nan), color=GUIDE, linewidth=0.9, zorder=1)


def name_rows(axis, points):
    """A name beside each point."""
    names, pixels = [], axis.transData.transform(points[[X, Y]].to_numpy())
    for method, (x, y) in points[[X, Y]].iterrows():
        style = {"fontsize": 7.5, "color": ink_of(method), "weight": weight_of(method)}
        names.append((method, (x, y), style))
    name_points(axis, names, [], pixels, pixels)
