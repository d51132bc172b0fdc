"""What erasing costs beside what it keeps, and where the pipeline spends its time."""

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.ticker import LogLocator, NullLocator

from paper.figures.labels import name_points
from paper.figures.style import FORGET, GUIDE, ink_of, key, weight_of

DEPTH = 10  # points below the best that are drawn to scale; what keeps less stands at the lower edge
EDGE = 1.8  # of a logarithmic axis, between the dearest row and those that never reach the goal
RUN = ["method", "concept", "seed"]


def pareto_plot(costs, kept, panels):
    """One panel for each cost: rows as points, the Pareto front as a line, rows that never reach the goal at the right.

    `costs`: methods × columns, infinity for never. `kept`: percent of each method. `panels`: {column: what the axis
    says}. Points that stand at the lower edge are triangles, and their names have the percent.
    """
    figure, axes = plt.subplots(len(panels), 1, figsize=(7, 4.6 * len(panels)), squeeze=False)
    low, high = kept.max() - DEPTH, kept.max()
    for axis, (column, label) in zip(axes[:, 0], panels.items(), strict=True):
        reached = costs[column][np.isfinite(costs[column])]
        never = EDGE * reached.max()
        axis.set(xscale="log", xlim=(reached.min() / EDGE, never * EDGE), ylim=(low - 1, high + 1.5))
        axis.axvspan(never / EDGE**0.5, never * EDGE, color="0.95", linewidth=0, zorder=0)
        axis.text(never, 1.02, "never", transform=axis.get_xaxis_transform(), ha="center", fontsize=8, color="0.35")
        best = front(costs[column], kept)
        axis.step(costs[column][best], kept[best], where="post", color=GUIDE, linewidth=1.4, zorder=1)
        draw_points(axis, costs[column].clip(upper=never), kept, low, best)
        axis.set_xlabel(label, fontsize=9)
        axis.set_ylabel("retain accuracy, % (higher is better)", fontsize=9)
        ticks = LogLocator(subs=(1, 2, 5)).tick_values(reached.min() / EDGE, reached.max())
        shown = [tick for tick in ticks if reached.min() / EDGE <= tick < never / EDGE**0.5]
        axis.set_xticks(shown, [f"{tick:g}" for tick in shown])
        axis.xaxis.set_minor_locator(NullLocator())
        axis.grid(color="0.94")
        axis.tick_params(labelsize=8, length=0)
    sns.despine(figure, left=True, bottom=True)
    figure.tight_layout(h_pad=2, rect=(0, 0.3 / figure.get_figheight(), 1, 1))
    name_rows(axes[:, 0], costs[list(panels)], kept, low)
    key(figure, {
        "a row": {"marker": "o", "color": "0.25", "markersize": 5},
        "on the Pareto front": {"marker": "o", "color": "0.25", "markersize": 5, "markeredgecolor": FORGET, "mew": 1.8},
        f"keeps less than {low:.0f} %": {"marker": "v", "color": "0.25", "markersize": 5},
    })  # fmt: skip
    return figure, axes[:, 0]


def front(cost, kept):
    """The methods that reach the goal and that no cheaper one, nor one as cheap, keeps more than: cheapest first."""
    found = []
    for method in sorted(cost.index[np.isfinite(cost)], key=lambda name: (cost[name], -kept[name])):
        if not found or kept[method] > kept[found[-1]]:
            found.append(method)
    return found


def draw_points(axis, places, kept, low, best):
    for method, place in places.items():
        edge = {"markeredgecolor": FORGET, "mew": 1.8} if method in best else {"mew": 0}
        mark = "v" if kept[method] < low else "o"
        axis.plot(place, max(kept[method], low), mark, color=ink_of(method), markersize=5, zorder=4, **edge)


def name_rows(axes, costs, kept, low):
    """A name beside each point, when all axes have their final places; one text for those in the lower right corner."""
    for axis, (_, cost) in zip(axes, costs.items(), strict=True):
        cornered = np.isinf(cost) & (kept[cost.index] < low)
        lines = [
            f"{name} ({kept[name]:.1f} %)" for name in kept[cost.index[cornered]].sort_values(ascending=False).index
        ]
        if lines:
            place = (axis.get_xlim()[1] / EDGE**1.5, low - 0.6)
            axis.text(*place, "\n".join(lines), fontsize=7, color="0.25", ha="right", va="bottom")
        cost = cost[~cornered]
        points = [(place, max(kept[name], low)) for name, place in cost.clip(upper=axis.get_xlim()[1] / EDGE).items()]
        names, pixels = [], axis.transData.transform(points)
        for method, point in zip(cost.index, points, strict=True):
            text = method if kept[method] >= low else f"{method} ({kept[method]:.1f} %)"
            style = {"fontsize": 7, "color": ink_of(method), "weight": weight_of(method)}
            names.append((text, point, style))
        name_points(axis, names, [], pixels, pixels)


def minutes(rows, by="experiment", workers=1):
    """Minutes that the runs of each `by` take on so many workers, as a series. `rows`: tidy, of many metrics a run."""
    return rows.drop_duplicates([by, *RUN]).groupby(by).seconds.sum() / 60 / workers


def time_plot(groups):
    """Horizontal bars, the longest of each group first. `groups`: {what it is: (minutes by name, ink)}."""
    size = sum(len(times) for times, _ in groups.values())
    figure, axis = plt.subplots(figsize=(7, 0.24 * size + 1))
    height, names = size, []
    for what, (times, ink) in groups.items():
        times = times.sort_values(ascending=False)
        heights = np.arange(height, height - len(times), -1)
        axis.barh(heights, times, color=ink, height=0.7, label=what)
        for place, value in zip(heights, times, strict=True):
            axis.annotate(f"{value:.1f}", (value, place), (3, 0), textcoords="offset points", va="center", fontsize=7.5)
        height, names = height - len(times), [*names, *times.index]
    axis.set_yticks(np.arange(size, 0, -1), names, fontsize=8)
    axis.set_xlabel("minutes", fontsize=9)
    axis.tick_params(labelsize=8, length=0)
    axis.legend(frameon=False, fontsize=8, loc="lower right")
    sns.despine(figure, left=True)
    figure.tight_layout()
    return figure, axis
