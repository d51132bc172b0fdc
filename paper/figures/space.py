"""The embedding space in two planes, before and after, and the heatmaps that go with it."""

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap

from paper.figures.labels import name_point
from paper.figures.style import FORGET, OURS, number

TINTS = ["#7CC4A8", "#9CC9E8", "#D9A6C2", "#E3C277", "#8FA8C8", "#B5B58A", "#C2A58F", "#A79CC9"]  # pale
HEAT = LinearSegmentedColormap.from_list("support", ["#F4F4F4", "#E69F00", "#D55E00", "#5A2300"])
STATES = {"before": "original", "after": "CLIPErase"}
TURN = np.linspace(0, 2 * np.pi, 12)  # the star of the prompt is wider than a point
PLANES = {"tsne": "t-SNE", "umap": "UMAP"}


class Plane:
    """The points of one panel and what is known of them. `space`: the arrays of `paper.embedding_space`."""

    def __init__(self, axis, points, space, named):
        self.axis, self.points, self.is_text = axis, points, space["is_text"]
        self.names, self.forgotten = space["classes"][space["label"]], space["classes"][space["forgotten"]]
        self.tints = dict(zip(named, TINTS, strict=False))

    def images(self, name):
        return self.points[(self.names == name) & ~self.is_text]

    def prompts(self, name):
        return self.points[(self.names == name) & self.is_text]

    def draw_others(self):
        """Every class but the forgotten one in its colour, prompts as plus signs; the named ones on top."""
        unnamed = [name for name in dict.fromkeys(self.names) if name not in self.tints and name != self.forgotten]
        for name, pale in zip(unnamed, sns.husl_palette(len(unnamed), s=0.55, l=0.84), strict=True):
            self.axis.plot(*self.images(name).T, "o", markersize=1.9, color=pale, mew=0)
        others = self.points[self.is_text & (self.names != self.forgotten)]
        self.axis.plot(*others.T, "+", markersize=4, color="0.45", mew=0.7)
        for name, tint in self.tints.items():
            self.axis.plot(*self.images(name).T, "o", markersize=2.8, color=tint, mew=0)

    def draw_forgotten(self):
        """Its images, its prompt, the line between. Returns the line's points, images first."""
        images, (prompt,) = self.images(self.forgotten), self.prompts(self.forgotten)
        line = np.linspace(np.median(images, axis=0), prompt, 40)
        self.axis.plot(*line.T, color=OURS, linewidth=1.2, zorder=3)
        self.axis.plot(*images.T, "o", markersize=4, color=FORGET, markeredgecolor="white", mew=0.3, zorder=4)
        self.axis.plot(*prompt, "*", markersize=11, color="black", markeredgecolor="white", mew=0.6, zorder=5)
        return line

    def name_all(self, line):
        """The names of the tinted classes, then those of the forgotten concept, which stand on top."""
        to_pixels, standing = self.axis.transData.transform, []
        quiet = to_pixels(self.points)
        halo = to_pixels(line[-1]) + 9 * np.stack([np.cos(TURN), np.sin(TURN)], axis=1)
        marked = [line, *(self.images(name) for name in (self.forgotten, *self.tints))]
        loud = np.concatenate([to_pixels(np.concatenate(marked)), halo])
        for name in self.tints:
            middle = np.median(self.images(name), axis=0)
            name_point(self.axis, middle, name, standing, loud, quiet, fontsize=7, color="0.25")
        apart = np.linalg.norm(np.subtract(*to_pixels(line[[0, -1]]))) > 0.1 * self.axis.get_window_extent().width
        texts = {"images": (line[0], FORGET), "prompt": (line[-1], "black")}
        for what, (point, ink) in texts.items() if apart else [("images and prompt", (line[0], FORGET))]:
            name_point(self.axis, point, f"{self.forgotten} {what}", standing, loud, quiet, fontsize=8, color=ink,
                       weight="bold")  # fmt: skip


def plane_figure(space, numbers, named):
    """Two planes, before and after. `numbers`: metrics by method; `named`: the classes with a tint and a name."""
    forgotten = space["classes"][space["forgotten"]]
    figure, axes = plt.subplots(2, 2, figsize=(7, 7.5))
    figure.subplots_adjust(left=0.02, right=0.98, top=0.965, bottom=0.055, wspace=0.05, hspace=0.22)
    for pair, (plane, title) in zip(axes, PLANES.items(), strict=True):
        x_limits, y_limits = limits(space[plane])
        for axis, points, (state, method) in zip(pair, space[plane], STATES.items(), strict=True):
            axis.set(xlim=x_limits, ylim=y_limits, xticks=[], yticks=[])
            panel = Plane(axis, points, space, named)
            panel.draw_others()
            panel.name_all(panel.draw_forgotten())
            write_below(axis, forgotten, numbers[method])
            axis.set_title(f"{title}, {state} forgetting {forgotten}", loc="left", fontsize=9)
            axis.spines[:].set(visible=True, color="0.8")
    return figure


def write_below(axis, forgotten, measured):
    """What was measured in the full space: the cosine in the colour of the line that it belongs to, and the purity."""
    cosine = f"{forgotten}, images to prompt: cosine {number(measured['forget_cosine'])}"
    own, other = (number(measured[f"{group}_purity"], 1) for group in ("forget", "retain"))
    axis.set_xlabel(cosine, color=OURS, fontsize=8.5, loc="left")
    purity = f"cluster purity: {forgotten} {own} %, other classes {other} %"
    axis.annotate(purity, (0, 0), (0, -25), xycoords="axes fraction", textcoords="offset points", fontsize=8.5,
                  color="0.25")  # fmt: skip


def limits(points, margin=0.06):
    """One frame for both states."""
    low, high = points.reshape(-1, 2).min(axis=0), points.reshape(-1, 2).max(axis=0)
    return np.stack([low - margin * (high - low), high + margin * (high - low)]).T


def heatmap_figure(space):
    """Images and their maps before and after, a block for each class, the forgotten one first."""
    classes, labels = space["classes"], space["heatmap_label"]
    shown = list(dict.fromkeys(labels.tolist()))
    figure = plt.figure(figsize=(7, 6.6))
    upper, foot = figure.subfigures(2, 1, height_ratios=(6.3, 0.3))
    for block, index in zip(upper.subfigures(2, -(-len(shown) // 2)).flat, shown, strict=False):
        forgotten = index == space["forgotten"]
        block.subplots_adjust(left=0.14, right=0.99, top=0.91, bottom=0.06, hspace=0.2, wspace=0.06)
        block.suptitle(f"{classes[index]}, {'forgotten' if forgotten else 'kept'}", fontsize=10, weight="bold",
                       color=FORGET if forgotten else "0.2", x=0.14, ha="left")  # fmt: skip
        draw_heatmaps(block, space, np.flatnonzero(labels == index), max(np.bincount(labels)))
    bar = figure.colorbar(ScalarMappable(cmap=HEAT), cax=foot.add_axes((0.42, 0.55, 0.3, 0.3)), ticks=[0, 1],
                          orientation="horizontal")  # fmt: skip
    bar.set_ticklabels(["none", "the map's maximum before"])
    bar.ax.tick_params(labelsize=8, length=0)
    bar.ax.set_ylabel("support  ", rotation=0, ha="right", va="center", fontsize=8.5)
    bar.outline.set_visible(False)
    return figure


def draw_heatmaps(block, space, rows, columns):
    """The images `rows` of one class: the image, the map before, the map after, each with its cosine."""
    axes = block.subplots(1 + len(STATES), columns, squeeze=False)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    for column, row in enumerate(rows):
        image = space["heatmap_images"][row]
        axes[0, column].imshow(image, interpolation="none")
        for state, axis in enumerate(axes[1:, column]):
            cosine = number(space["heatmap_cosine"][state, row])
            axis.imshow(overlay(image, space["heatmaps"][state, row]), interpolation="none")
            axis.set_xlabel(f"cosine {cosine}" if column == 0 else cosine, fontsize=7.5, labelpad=1.5)
    for axis, text in zip(axes[:, 0], ["image", *STATES], strict=True):
        axis.set_ylabel(text, fontsize=8.5)


def overlay(image, heat):
    """The image as a faint grey drawing under its map; (H, W, 3) and (H, W) uint8 -> (H, W, 3) in 0…1."""
    grey = image.mean(axis=2, keepdims=True) / 255
    return HEAT(heat / 255)[..., :3] * (0.55 + 0.45 * grey)
