"""The figures that several notebooks share, and their one style."""

import io
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.colors import to_rgb
from matplotlib.ticker import MaxNLocator

from paper.tables import COMPARE

OURS, PAPER, GUIDE = "#0072B2", "#D55E00", "0.75"  # Okabe-Ito blue and vermilion, told apart by all readers


def publish_figure(figure, name, folder):
    """Write `<folder>/<name>.png` and `.svg`, byte-identical for identical data.

    Where `reporting.COMPARE` is set nothing is written: pictures are drawn, and theirs must be there.
    """
    for kind, options in {"png": {"dpi": 160, "metadata": {"Software": None}},
                          "svg": {"metadata": {"Date": None, "Creator": None}}}.items():  # fmt: skip
        path = Path(folder) / f"{name}.{kind}"
        if os.environ.get(COMPARE):
            assert path.is_file(), f"{path} is missing; run `dvc repro`"
        figure.savefig(io.BytesIO() if os.environ.get(COMPARE) else path, format=kind, **options)


def use_style():
    sns.set_theme(context="paper", style="ticks", font_scale=1.1)
    plt.rcParams.update({"svg.hashsalt": "cliperase", "figure.dpi": 100, "axes.spines.left": False})


def dot_plot(rows, order, panels, paper=None, reference="original", ours=("CLIPErase", "FM+RM+CM")):
    """One row per method, one panel per metric: every run a dot, the mean a bar, the paper a diamond.

    `panels`: [(metric, title)]. `paper`: {(method, metric): value}. A line marks the reference's mean. An axis spans
    the runs (see `crowd`); a mean or a published value beyond it is a triangle at the edge, with its number.
    """
    size = (7, 0.27 * len(order) + 1.1)
    figure, axes = plt.subplots(1, len(panels), figsize=size, sharey=True, squeeze=False)
    height = {method: len(order) - i for i, method in enumerate(order)}
    for axis, (metric, title) in zip(axes[0], panels, strict=True):
        runs = rows[(rows.metric == metric) & rows.method.isin(order)]
        frame_runs(axis, runs, reference)
        before = runs[runs.method == reference].value.mean()
        name_lines(axis, [(before, reference if axis is axes[0, 0] else "", GUIDE, "-")])
        for method in order:
            published = (paper or {}).get((method, metric))
            values = runs[runs.method == method].value.to_numpy()
            draw_runs(axis, values, height[method], ink_of(method, ours, reference), published)
        axis.set_title(title, fontsize=8, loc="left", pad=16)
    axes[0, 0].set_yticks(list(height.values()), list(height))
    axes[0, 0].set_ylim(0.4, len(order) + 0.6)
    embolden(axes[0, 0], ours)
    sns.despine(figure, left=True)
    figure.tight_layout(w_pad=1.2)
    name_marks(axes[0], {"|": ("mean", "0.25"), "o": ("a run", "0.25"), "D": ("paper", PAPER)})
    if any(line.get_marker() in "<>" for axis in axes[0] for line in axis.lines):
        figure.text(0.01, 0.012, "◀ ▶ beyond the axis: value", fontsize=7.5, color="0.4")
    return figure, axes[0]


def ink_of(method, ours, reference):
    """Blue for our method, and two greys: colours say whose number it is, never which of the others."""
    return OURS if method in ours else "0.6" if method == reference else "0.25"


def embolden(axis, names):
    """The labels of these rows in bold blue."""
    for label in axis.get_yticklabels():
        if label.get_text() in names:
            label.set(color=OURS, weight="bold")


def frame_runs(axis, runs, reference, margin=0.06):
    """The empty panel of `runs`: its limits, its ticks and light rows."""
    rows = crowd(runs.groupby("method").value.agg(["min", "max"]), reference)
    low, high = rows["min"].min(), rows["max"].max()
    room = margin * (high - low) or margin
    axis.set_xlim(low - room, high + room)
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
        axis.plot(values, [y] * len(values), "o", color=ink, alpha=0.4, markersize=4, mew=0)
        axis.plot([mean], [y], "|", color=ink, markersize=11, mew=2)
    elif len(values):
        beyond.append((mean, ink, ink))
    if published is not None and low <= published <= high:
        axis.plot([published], [y], "D", mfc="none", color=PAPER, markersize=5, mew=1.2, clip_on=False)
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
        number, offset = f"{value:.2f}".replace("-", "−"), inwards * (24 * place - 2)
        axis.annotate(number, (edge, y), (offset, 4.5), textcoords="offset points", fontsize=7, color=ink, ha=align)


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
    for axis, (stem, title) in zip(axes.flat, [panel for line in panels for panel in line], strict=True):
        metrics = [f"{stem}@{cut}" for cut in cuts]
        found = rows[rows.metric.isin(metrics)].groupby(["method", "metric"]).value.agg(["mean", "min", "max"])
        for method in order:
            published = [(paper or {}).get((method, metric)) for metric in metrics]
            ink = ink_of(method, [ours], reference)
            draw_cuts(axis, found.loc[method].loc[metrics].to_numpy(), height[method], ink, published)
        before = found.loc[reference].loc[metrics, "mean"]
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
        embolden(axis, [ours])
    sns.despine(figure, left=True)
    figure.tight_layout(h_pad=1.5, w_pad=1.5)
    name_marks([axes[0, 0]], {"D": ("paper", PAPER)})
    return figure, axes


def write_number(axis, value, y, others, ink, room=17):
    """A mark's number: on its left if none of the marks `others` stands within `room` there, else above it."""
    free = not any(value - room < other < value - 1 for other in others)
    place = {"xytext": (-5, 0), "ha": "right", "va": "center"} if free else {"xytext": (0, 4), "ha": "center"}
    axis.annotate(f"{value:.0f}", (value, y), textcoords="offset points", fontsize=7.5, color=ink, zorder=5, **place)


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


def name_marks(axes, names, fontsize=8):
    """Name each kind of mark once, in whichever panel has room: `names` {marker: (text, colour)}.

    Beside the first mark that stands alone and has nothing in the way, else beside one in a heap of marks, else
    beside the first; on its right, if possible. Only once the layout stands: a text needs room in points.
    """
    for marker, (text, colour) in names.items():
        marks = [
            (axis, line, point)
            for axis in axes
            for line in axis.lines
            if line.get_marker() == marker
            for point in line.get_xydata()
        ]
        spots = [(*mark, side) for side in (1, -1) for mark in marks]
        room = 0.6 * fontsize * len(text) + 10
        free = [spot for clear in (4, -4) for spot in spots if not blocked(*spot, room, clear)]
        for axis, _, point, side in (free or spots)[:1]:
            backing = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}  # covers guides, nothing measured
            style = {"va": "center", "fontsize": fontsize, "color": colour, "bbox": backing, "zorder": 1}
            align = "left" if side > 0 else "right"
            axis.annotate(text, point, (8 * side, 0), textcoords="offset points", ha=align, **style)


def blocked(axis, own, point, side, room, clear):
    """Would a text of `room` points beside a mark of the line `own` meet the panel's edge, or what is in its row?

    `clear` points are kept on the other side, so that it is plain which mark is named; less than zero leaves out
    what is that close to the mark.
    """
    x, y = point
    left, right = axis.get_xlim()
    unit = (right - left) / axis.get_window_extent().width * axis.figure.dpi / 72  # of the data, for one point
    low, high = sorted((x - side * clear * unit, x + side * room * unit))
    spans = [span for line in axis.lines for span in spans_in_row(line, y) if (line, *span) != (own, x, x)]
    to_data = axis.transData.inverted()
    named = [text.get_window_extent() for text in axis.texts if getattr(text, "xy", (0, None))[1] == y]
    spans += [tuple(to_data.transform(box.get_points())[:, 0]) for box in named]
    outside = high > right if side > 0 else low < left
    return outside or any(start < high and end > low for start, end in spans)


def spans_in_row(line, y):
    """What a line of the plot covers at the height `y`, [(from, to)]: its marks, or all between its ends."""
    along, heights = line.get_data()
    if not len(along) or not np.all(heights == y):
        return []
    return [(x, x) for x in along] if line.get_linestyle() == "None" else [(min(along), max(along))]
