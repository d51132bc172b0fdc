"""Names beside lines and points, placed so that they do not cover each other.

adjustText 1.4.0 was tried in their place. With `iter_lim` it gives the same bytes on every run, but worse figures: of
24 settings, 17 left names at the ends of lines overlapping or out of order in one of four panels (`spread_out`: none,
and it is exact); numbers beside marks covered the marks; names on the planes of embeddings covered the forgotten
concept, and took 45 s for a figure that now takes one.
"""

import numpy as np
from scipy.optimize import isotonic_regression

GAPS = (4, 7, 10, 14, 20, 28, 38)  # points between a point and its name
JOINED = 10  # from this gap on a line joins them
ROUNDS = 20
BACKING = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.6}


def spread_out(wanted, gap, low=-np.inf, high=np.inf):
    """Places closest to `wanted` (least squares) that keep their order, a distance of `gap`, and low … high."""
    sequence, steps = np.argsort(wanted, kind="stable"), gap * np.arange(len(wanted))
    placed = isotonic_regression(np.asarray(wanted)[sequence] - steps).x.clip(low, high - steps[-1]) + steps
    return placed[np.argsort(sequence, kind="stable")]


def name_lines(axis, lines):
    """Vertical lines [(percent, name, colour, style)], each named above the panel, the names apart."""
    places = spread_out([value for value, *_ in lines], 14)
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
    """One name as of `name_points`."""
    name_points(axis, [(text, point, style)], standing, loud, quiet)


def name_points(axis, names, standing, loud, quiet):
    """Write `names` [(text, point, style)] beside their points, each where its box hides least: no text, if possible no
    `loud` point, few `quiet` ones. They are placed one by one, then again, until none finds a better place.

    `standing` are the boxes of the texts that stand; the new ones join them. All in pixels, but the points.
    """
    found = [Name(axis, *name) for name in names]
    for _ in range(ROUNDS):
        before = [name.place for name in found]
        for name in found:
            others = [other.box() for other in found if other is not name and other.place is not None]
            name.settle([*standing, *others], loud, quiet)
        if before == [name.place for name in found]:
            break
    standing += [name.box() for name in found]
    for name in found:
        name.join()


class Name:
    """A name beside a point; its `place` is the offset of its middle in points, None before it has one."""

    def __init__(self, axis, text, point, style):
        self.axis, self.point = axis, point
        self.place: tuple[float, float] | None = None
        self.note = axis.annotate(text, point, (0, 0), textcoords="offset points", ha="center", va="center",
                                  bbox=BACKING, zorder=6, **style)  # fmt: skip
        text_box, self.frame = self.note.get_window_extent(), axis.get_window_extent().padded(-3)
        self.extent, half = text_box.padded(5, 2), text_box.size * 72 / axis.figure.dpi / 2
        rays = [(np.cos(turn), np.sin(turn)) for turn in np.arange(16) * np.pi / 8]
        self.near = [(x * (half[0] + gap), y * (half[1] + gap)) for gap in GAPS for x, y in rays]
        self.far = self.near[len(rays) * GAPS.index(JOINED) :]

    def box(self, place=None):
        """Its box in pixels at a place, by default where it stands."""
        return self.extent.translated(*np.array(place or self.place) * self.axis.figure.dpi / 72)

    def settle(self, standing, loud, quiet):
        """Take the place that does least harm."""

        def harm(place):
            box = self.box(place)
            outside = not (self.frame.contains(*box.min) and self.frame.contains(*box.max))
            hidden = 1000 * sum(box.overlaps(other) for other in standing) + 20 * covered(box, loud)
            return 10_000 * outside + hidden + covered(box, quiet) + np.hypot(*place) / 3  # and near its point

        self.place = min(self.near, key=harm)
        self.note.xyann = self.place

    def join(self):
        """A name that stands further off has a line to its point."""
        if self.place in self.far:
            line = {"arrowstyle": "-", "color": "0.6", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 2}
            self.axis.annotate("", self.point, self.place, textcoords="offset points", arrowprops=line, zorder=5)


def covered(box, points):
    """How many of the points (pixels) a box hides."""
    return np.all((points > box.min) & (points < box.max), axis=1).sum()
