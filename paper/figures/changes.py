"""Before and after: a ring, a line, a dot, and the number after at the right edge of the panel."""

from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.ticker import FixedLocator

from paper.figures.style import FORGET, KEEP, key, weight_of

RING = {"marker": "o", "color": "0.25", "markerfacecolor": "white", "markersize": 5.5, "markeredgewidth": 1.1}
DOT = {"marker": "o", "color": "0.25", "markersize": 4.5, "markeredgewidth": 0}
SMALL = {"marker": "o", "color": "0.25", "alpha": 0.5, "markersize": 2.6, "markeredgewidth": 0}
DIAMOND = {"marker": "D", "color": "0.25", "markerfacecolor": "none", "markersize": 6.5, "markeredgewidth": 0.9}
MARKS = {"before": RING, "after": DOT, "a run": SMALL}


class Change(NamedTuple):
    """A quantity before and after, in one ink; all in the unit of the axis."""

    ink: str
    before: float
    after: float
    runs: list
    interval: tuple = ()  # (low, high) of `after`
    paper: float | None = None


def change_of(rows, metric, method, ink, interval=(), paper=None):
    """The `Change` of a metric from the original to a method: means over the runs in `rows`."""
    values = rows[rows.metric == metric].groupby("method").value
    before, after = (values.get_group(name) for name in ("original", method))
    return Change(ink, before.mean(), after.mean(), list(after), interval, paper)


def draw_change(axis, y, change):
    """One line of a panel."""
    ink = {"color": change.ink}
    if change.interval:
        axis.plot(change.interval, [y, y], alpha=0.25, linewidth=4.5, solid_capstyle="butt", zorder=1, **ink)
    span = [change.before, change.after]
    axis.plot(span, [y, y], linewidth=1.6, alpha=0.55, solid_capstyle="butt", zorder=2, **ink)
    axis.plot(change.runs, [y] * len(change.runs), linestyle="none", zorder=3, **SMALL | ink)
    axis.plot([change.before], [y], zorder=3, **RING | ink)
    axis.plot([change.after], [y], zorder=4, **DOT | ink)
    if change.paper is not None:
        axis.plot([change.paper], [y], zorder=5, **DIAMOND)
    axis.annotate(f"{change.after:.0f}", (0.985, y), xycoords=("axes fraction", "data"), ha="right", va="center",
                  fontsize=7.5, **ink)  # fmt: skip


def change_panels(axes, panels, heights, limits=(-6, 130), top=None):
    """Panels `{title: [Change]}` in percent side by side, whose lines stand at `heights`, the first on top.

    `limits` of the x axis leave room for the numbers, `top` of the y axis for a heading.
    """
    for axis, (title, changes) in zip(axes, panels.items(), strict=True):
        for y, change in zip(heights, changes, strict=True):
            draw_change(axis, y, change)
        axis.set(xlim=limits, ylim=(max(heights) + 0.4, min(heights) - 0.4 if top is None else top), yticks=[])
        axis.xaxis.set_major_locator(FixedLocator(np.arange(0, 101, 50 if limits[0] < 0 else 10)))
        axis.tick_params(labelsize=8)
        axis.set_title(title, loc="left", fontsize=10, weight=weight_of(title))
        axis.grid(axis="x", color="0.9")


def change_groups(axes, panels, labels, names=None, heads=None, **options):
    """Panels whose lines stand in groups on a band: `panels` {title: {group: [Change of each of its two lines]}}.

    `labels`: {group: [text of each line]}; `names`: {group: text further left}; `heads`: {group: text above it}.
    `options`: see `change_panels`.
    """
    places, y = {}, 0.0
    for group in labels:
        y += 1.0 + (heads is not None and group in heads)
        places[group] = y
    heights = [place + shift for place in places.values() for shift in (-0.2, 0.2)]
    flat = {title: [change for group in labels for change in groups[group]] for title, groups in panels.items()}
    change_panels(axes, flat, heights, **{"top": min(heights) - 0.3 - 0.7 * (heads is not None)} | options)
    shade(axes, [(place - 0.43, place + 0.43) for place in places.values()])
    inks = [change.ink for change in next(iter(flat.values()))]
    texts = [text for pair in labels.values() for text in pair]
    write_beside(axes[0], list(zip(heights, texts, inks, strict=True)))
    room = 12 + 5.2 * max(map(len, texts))
    write_beside(axes[0], [(places[group], text, "0.15") for group, text in (names or {}).items()], room)
    italics = {"style": "italic", "fontsize": 7.5}
    write_beside(axes[0], [(places[group] - 0.72, text, "0.4") for group, text in (heads or {}).items()], **italics)


def changes_figure(panels, metrics, methods, paper=None):
    """A panel for each table of `panels` {title: rows}, a group for each method, a line for each of two metrics.

    `metrics`: {metric: (text, colour)}; `paper`: {title: {(method, metric): value}}.
    """
    width, height = 2.4 + 2.3 * len(panels), 1.1 + 0.45 * len(methods)
    figure, axes = plt.subplots(1, len(panels), figsize=(width, height), squeeze=False)
    figure.subplots_adjust(left=1.4 / width, right=0.99, top=1 - 0.3 / height, bottom=0.65 / height, wspace=0.06)
    groups = {
        title: {
            method: [
                change_of(rows, metric, method, ink, paper=(paper or {}).get(title, {}).get((method, metric)))
                for metric, (_, ink) in metrics.items()
            ]
            for method in methods
        }
        for title, rows in panels.items()
    }
    labels = {method: [text for text, _ in metrics.values()] for method in methods}
    change_groups(axes[0], groups, labels, names={method: method for method in methods})
    sns.despine(figure, left=True)
    return figure, axes[0]


def shade(axes, spans):
    """Bands behind the lines that belong together."""
    for axis in axes:
        for low, high in spans:
            axis.axhspan(low, high, color="0.965", linewidth=0, zorder=0)


def write_beside(axis, labels, room=5, **style):
    """Labels [(y, text, colour)] on the left of a panel, `room` points away."""
    for y, text, ink in labels:
        axis.annotate(
            text,
            (0, y),
            (-room, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            ha="right",
            va="center",
            color=ink,
            **{"fontsize": 8.5, "weight": weight_of(text)} | style,
        )


def names_figure(own, others, label):
    """A panel of bars for each forgotten concept: how often images of it are called by its name, and by others.

    `own`: percent by concept and seed; `others`: columns concept, seed, name, value. The four most frequent other
    names have a bar; a run that does not list a name counts as zero.
    """
    concepts, shown = own.index.unique("concept"), 4
    figure, axes = plt.subplots(1, len(concepts), figsize=(7, 2.2), squeeze=False)
    figure.subplots_adjust(left=0.2, right=0.98, top=0.9, bottom=0.24, wspace=1.0)
    for axis, concept in zip(axes[0], concepts, strict=True):
        wide = others[others.concept == concept].pivot(index="seed", columns="name", values="value")
        wide = wide.reindex(own[concept].index).fillna(0.0)
        wide = wide[wide.mean().sort_values(ascending=False, kind="stable").index[:shown]]
        bars = [(concept, own[concept], FORGET), *((name, wide[name], KEEP) for name in wide)]
        rest = 100 - sum(values.mean() for _, values, _ in bars)
        for y, (name, values, ink) in enumerate([*bars, ("anything else", None, "0.4")]):
            share = rest if values is None else values.mean()
            axis.barh(y, share, height=0.62, color=ink, alpha=0.45, linewidth=0)
            write_beside(axis, [(y, f"{name}  {share:.0f}", ink)], room=4)
            if values is not None:
                axis.plot(values, [y] * len(values), linestyle="none", **SMALL | {"color": ink})
        axis.set(xlim=(0, 100), ylim=(len(bars) + 0.5, -0.5), yticks=[])
        axis.tick_params(labelsize=8)
        axis.set_title(f"forget {concept}", fontsize=9, color=FORGET)
    figure.text(0.59, 0.02, label, ha="center", fontsize=8.5)
    sns.despine(figure, left=True)
    return figure


def rates_figure(changes, concepts, label):
    """Every concept before and after: `changes` {forgotten concept: {method: [Change of each of the concepts]}}."""
    block, foot, head = 0.2 * len(concepts), 0.75, 0.55  # inches: a row of panels, the room below all, and above each
    height = (block + head) * len(changes) + foot
    methods = len(next(iter(changes.values())))
    figure, axes = plt.subplots(len(changes), methods, figsize=(7, height), squeeze=False)
    figure.subplots_adjust(left=0.105, right=0.99, top=1 - head / height, bottom=foot / height, wspace=0.06,
                           hspace=head / block + 0.08)  # fmt: skip
    for group, (forgotten, panels) in zip(axes, changes.items(), strict=True):
        write_beside(group[0], [(y, name, "0.15") for y, name in enumerate(concepts)])
        change_panels(group, panels, range(len(concepts)))
        shade(group, [(concepts.index(forgotten) - 0.46, concepts.index(forgotten) + 0.46)])
        group[0].annotate(f"forget {forgotten}", (0, 1), (0, 20), xycoords="axes fraction", textcoords="offset points",
                          fontsize=10, weight="bold", color=FORGET)  # fmt: skip
    key(figure, MARKS, title=label)
    sns.despine(figure, left=True)
    return figure
