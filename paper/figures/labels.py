"""Names beside lines and points, placed so that they do not cover each other.

adjustText 1.4.0 was tried in their place. With `iter_lim` it gives the same bytes on every run, but worse figures: of
24 settings, 17 left names at the ends of lines overlapping or out of order in one of four panels (`spread_out`: none,
and it is exact); numbers beside marks covered the marks; names on the planes of embeddings covered the forgotten
concept, and took 45 s for a figure that now takes one.
"""

import numpy as np
from scipy.optimize import isotonic_regression

BACKING = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.6}


def spread_out(wanted, gap, low=-np.inf, high=np.inf):
    """Places closest to `wanted` (least squares) that keep their order, a distance of `gap`, and low … high."""
    sequence, steps = np.argsort(wanted, kind="stable"), gap * np.arange(len(wanted))
    placed = isotonic_regression(np.asarray(wanted)[sequence] - steps).x.clip(low, high - steps[-1]) + steps
    return placed[np.argsort(sequence, kind="stable")]


def name_lines(axis, lines, gap=14):
    """Vertical lines [(percent, name, colour, style)], each named above the panel, the names `gap` apart."""
    places = spread_out([value for value, *_ in lines], gap)
    for place, (value, name, colour, style) in zip(places, lines, strict=True):
        axis.axvline(value, color=colour, linestyle=style, lw=1, zorder=0)
        axis.text(place, 1.02, name, transform=axis.get_xaxis_transform(), ha="center", fontsize=8, color="0.35")


def name_ends(axis, ends, x, inks, bold="CLIPErase"):
    """Names `{name: (x, y) where its line ends}` in a column at `x`, joined to the ends."""
    low, high = axis.get_ylim()
    gap = (
        12 * (high - low) * axis.figure.dpi / 72 / axis.get_window_extent().height
    )  # 12 points, in the unit of the axis
    heights = spread_out([y for _, y in ends.values()], gap, low, high)
    for (name, end), height in zip(ends.items(), heights, strict=True):
        axis.annotate(
            name, end, (x, height), color=inks[name], fontsize=8.5, va="center", annotation_clip=False,
            weight="bold" if name == bold else "normal",
            arrowprops={"arrowstyle": "-", "color": inks[name], "linewidth": 0.6, "relpos": (0, 0.5), "shrinkB": 1},
        )  # fmt: skip


def name_point(axis, point, text, standing, loud, quiet, **style):
    """Write `text` beside a point where its box hides least: no text, if possible no `loud` point, few `quiet` ones.

    `standing` are the boxes of the texts that stand; the new one joins them. All in pixels, but the point.
    """
    note = axis.annotate(text, point, (0, 0), textcoords="offset points", ha="center", va="center", bbox=BACKING,
                         zorder=6, **style)  # fmt: skip
    size = note.get_window_extent().size * 72 / axis.figure.dpi / 2
    rays = [(np.cos(turn), np.sin(turn)) for turn in np.arange(16) * np.pi / 8]
    places = [(x * (size[0] + gap), y * (size[1] + gap)) for gap in (4, 7, 10, 14) for x, y in rays]
    frame = axis.get_window_extent().padded(-3)

    def boxed(place):
        note.xyann = place
        return note.get_window_extent().padded(2)

    def harm(place):
        box = boxed(place)
        outside = not (frame.contains(*box.min) and frame.contains(*box.max))
        hidden = 1000 * sum(box.overlaps(other) for other in standing) + 20 * covered(box, loud)
        return 10_000 * outside + hidden + covered(box, quiet) + np.hypot(*place) / 3  # and near its point

    standing.append(boxed(min(places, key=harm)))


def covered(box, points):
    """How many of the points (pixels) a box hides."""
    return np.all((points > box.min) & (points < box.max), axis=1).sum()
