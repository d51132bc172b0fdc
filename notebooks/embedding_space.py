# ---
# jupyter:
#   jupytext:
#     formats: py:percent,ipynb
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # What it looks like: the embedding space and the heatmaps, before and after
#
# **The paper's claim.** In a t-SNE of the embeddings the forgotten concept's images and texts move apart
# while the other clusters stay; attention heatmaps lose the forgotten concept and keep the others.
#
# **What is run here.** CLIPErase forgets *apple* (`icons`, the first seed). Test images and the prompts
# "a photo of a …" are embedded by the model before and after; *one* t-SNE and *one* UMAP are fitted to all
# of these points together, so that a place means the same on both sides. The image tower is convolutional:
# the heatmaps are Grad-CAM on its last feature map (4 × 4, drawn smoothly), of the cosine of image and
# prompt. For the ViTs of open_clip, `cliperase/relevance.py` has attention rollout instead: weighted by gradients,
# which is its default, or plain, which is an option. That is code with tests; no trained ViT is run here.

# %% tags=["parameters"]
results = "metrics/icons/results.csv"
arrays = "metrics/icons/embedding_space.npz"
publish_to = "figures"

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.colors import LinearSegmentedColormap

from paper.figures import publish_figure, use_style
from paper.tables import claim, experiment_rows, find_root, publish_table, show

use_style()
root = find_root()
rows = experiment_rows(root / results, "embedding")
space = np.load(root / arrays)
classes, label, is_text = space["classes"], space["label"], space["is_text"]
forgotten = classes[space["forgotten"]]
assert set(rows.concept) == {forgotten}
states = ["before", "after"]
print("concept:", forgotten, "| seed:", *rows[rows.method == "CLIPErase"].seed.unique())
print("provenance:", *rows.provenance.unique())
print(f"points: {(~is_text).sum()} images and {is_text.sum()} prompts, each before and after")

# %% [markdown]
# ## The numbers beside the pictures
#
# Measured in the full embedding space, on all test images, not in the plane. *Cluster purity*: the share of
# an image's ten nearest images that are of its class. *Support in heatmaps*: the sum of the maps, each of an image and
# its own prompt, over the images that are points of the planes below, with before as 100.

# %%
quantities = {
    "cosine": "image and its own prompt, cosine",
    "text_self_cosine": "prompt and the same prompt before, cosine",
    "image_self_cosine": "image and the same image before, cosine",
    "purity": "cluster purity of images, %",
    "relevance": "support in heatmaps, % of before",
}
wide = rows.pivot(index="metric", columns="method", values="value")
table = pd.DataFrame(
    {
        "quantity": text,
        "set": forgotten if group == "forget" else "other classes",
        "before": wide.loc[f"{group}_{metric}", "original"],
        "after": wide.loc[f"{group}_{metric}", "CLIPErase"],
        "provenance": rows.provenance.iloc[0],
    }
    for metric, text in quantities.items()
    for group in ("forget", "retain")
)
publish_table(table, "embedding_space", root / publish_to)
show(table)

# %% [markdown]
# ## The embedding space
#
# Orange: images of the forgotten concept; black star: its prompt; blue line: from the middle of these images to
# the prompt. Every other class has a colour, paler and smaller where it is not named; so many colours are alike, but
# neighbours mostly differ. Plus signs are their prompts. Below each panel stands what was
# measured in the full space: the mean cosine of the forgotten images and their prompt, and the cluster purity.
# Distances between far clusters mean little in either projection.

# %%
APPLE, LINK = "#D55E00", "#0072B2"  # Okabe-Ito vermilion and blue
TINTS = ["#7CC4A8", "#9CC9E8", "#D9A6C2", "#E3C277", "#8FA8C8", "#B5B58A", "#C2A58F", "#A79CC9"]  # pale
wanted = ["Apple logo", "lemon", "bicycle", "hammer", "umbrella", "guitar", "snowflake", "keyboard"]
named = {name: tint for name, tint in zip(wanted, TINTS, strict=True) if name in classes and name != forgotten}
unnamed = [name for name in classes if name not in named and name != forgotten]
PALE = dict(zip(unnamed, sns.husl_palette(len(unnamed), s=0.55, l=0.84), strict=True))
print(f"named: {len(named)} of the {len(classes) - 1} other classes")
backing = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.6}


def number(value, digits=2):
    """A number for a figure, with a minus sign and not a hyphen."""
    return f"{value:.{digits}f}".replace("-", "−")


def covered(box, points):
    """How many of the points (pixels) a box hides."""
    return np.all((points > box.min) & (points < box.max), axis=1).sum()


def name_it(axis, point, text, standing, loud, quiet, **style):
    """Write `text` beside a point where its box hides least: no text, if possible no `loud` point, few `quiet` ones.

    `standing` are the boxes of the texts that stand; the new one joins them. All in pixels, but the point.
    """
    note = axis.annotate(text, point, (0, 0), textcoords="offset points", ha="center", va="center", bbox=backing,
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


def draw_others(axis, points):
    """Every class but the forgotten one in its colour, prompts as plus signs; the named ones on top."""
    others = label != space["forgotten"]
    for name, pale in PALE.items():
        axis.plot(*points[(classes[label] == name) & ~is_text].T, "o", markersize=1.9, color=pale, mew=0)
    axis.plot(*points[others & is_text].T, "+", markersize=4, color="0.45", mew=0.7)
    for name, tint in named.items():
        axis.plot(*points[(classes[label] == name) & ~is_text].T, "o", markersize=2.8, color=tint, mew=0)


def draw_forgotten(axis, points):
    """The forgotten concept: its images, its prompt, the line between; its pixels, the two ends of the line first."""
    own = label == space["forgotten"]
    image, (prompt,) = points[own & ~is_text], points[own & is_text]
    line = np.linspace(np.median(image, axis=0), prompt, 40)
    axis.plot(*line.T, color=LINK, linewidth=1.2, zorder=3)
    axis.plot(*image.T, "o", markersize=4, color=APPLE, markeredgecolor="white", mew=0.3, zorder=4)
    axis.plot(*prompt, "*", markersize=11, color="black", markeredgecolor="white", mew=0.6, zorder=5)
    return axis.transData.transform(np.concatenate([line[[0, -1]], line, image]))


def name_all(axis, points, forgotten_pixels):
    """The names of the tinted classes, then those of the forgotten concept, which stand on top."""
    pixels, standing = axis.transData.transform(points), []
    tinted = {name: (classes[label] == name) & ~is_text for name in named}
    loud = np.concatenate([forgotten_pixels, *(pixels[rows] for rows in tinted.values())])
    for name, rows in tinted.items():
        name_it(axis, np.median(points[rows], axis=0), name, standing, loud, pixels, fontsize=7, color="0.25")
    style = {"fontsize": 8, "weight": "bold"}
    middle, prompt = axis.transData.inverted().transform(forgotten_pixels[:2])
    apart = np.linalg.norm(np.subtract(*forgotten_pixels[:2])) > 0.1 * axis.get_window_extent().width
    said = f"{forgotten} images" if apart else f"{forgotten} images and prompt"
    name_it(axis, middle, said, standing, loud, pixels, color=APPLE, **style)
    if apart:
        name_it(axis, prompt, f"{forgotten} prompt", standing, loud, pixels, color="black", **style)


def write_below(axis, method):
    """What was measured in the full space: the cosine in the colour of the line that it belongs to, and the purity."""
    cosine = f"{forgotten}, images to prompt: cosine {number(wide.loc['forget_cosine', method])}"
    own, other = (number(wide.loc[f"{group}_purity", method], 1) for group in ("forget", "retain"))
    axis.set_xlabel(cosine, color=LINK, fontsize=8.5, loc="left")
    purity = f"cluster purity: {forgotten} {own} %, other classes {other} %"
    axis.annotate(purity, (0, 0), (0, -25), xycoords="axes fraction", textcoords="offset points", fontsize=8.5,
                  color="0.25")  # fmt: skip


def limits(points, margin=0.06):
    low, high = points.reshape(-1, 2).min(axis=0), points.reshape(-1, 2).max(axis=0)
    return np.stack([low - margin * (high - low), high + margin * (high - low)]).T


figure, axes = plt.subplots(2, 2, figsize=(7, 7.5))
figure.subplots_adjust(left=0.02, right=0.98, top=0.965, bottom=0.055, wspace=0.05, hspace=0.22)
for pair, (key, title) in zip(axes, {"tsne": "t-SNE", "umap": "UMAP"}.items(), strict=True):
    x_limits, y_limits = limits(space[key])
    for axis, points, state, method in zip(pair, space[key], states, ["original", "CLIPErase"], strict=True):
        axis.set(xlim=x_limits, ylim=y_limits, xticks=[], yticks=[])
        draw_others(axis, points)
        name_all(axis, points, draw_forgotten(axis, points))
        write_below(axis, method)
        axis.set_title(f"{title}, {state} forgetting {forgotten}", loc="left", fontsize=9)
        axis.spines[:].set(visible=True, color="0.8")
publish_figure(figure, "embedding_space", root / publish_to)

# %% [markdown]
# ## How far points move in the plane
#
# From before to after, in percent of the plane's longer side: the median over the points of a kind, and the one that
# moves most.

# %%
own = label == space["forgotten"]
kinds = {
    f"the prompt of {forgotten}": own & is_text,
    f"images of {forgotten}": own & ~is_text,
    "other prompts": ~own & is_text,
    "other images": ~own & ~is_text,
}
planes = {"t-SNE": space["tsne"], "UMAP": space["umap"]}
moved = {}
for plane, points in planes.items():
    side = np.ptp(points.reshape(-1, 2), axis=0).max()
    shift = 100 * np.linalg.norm(points[1] - points[0], axis=1) / side
    moved |= {(plane, kind): shift[chosen] for kind, chosen in kinds.items()}
shifts = pd.DataFrame(
    {"points": kind, "plane": plane, "median, %": np.median(shift), "most, %": shift.max()}
    for (plane, kind), shift in moved.items()
)
show(shifts)

# %% [markdown]
# ## Heatmaps
#
# Orange: what in the image supports its own prompt. Before and after share one scale, the map's maximum before,
# so that lost support is pale; below each map, the cosine of image and prompt. The picture is CC BY-SA 4.0, as it
# shows drawings of OpenMoji.

# %%
HEAT = LinearSegmentedColormap.from_list("support", ["#F4F4F4", "#E69F00", "#D55E00", "#5A2300"])


def overlay(image, heat):
    """The image as a faint grey drawing under its map; (H, W, 3) and (H, W) uint8 -> (H, W, 3) in 0…1."""
    grey = image.mean(axis=2, keepdims=True) / 255
    return HEAT(heat / 255)[..., :3] * (0.55 + 0.45 * grey)


shown_classes = list(dict.fromkeys(space["heatmap_label"].tolist()))
columns = max(np.bincount(space["heatmap_label"]))
figure = plt.figure(figsize=(7, 6.3))
blocks = figure.subfigures(2, -(-len(shown_classes) // 2)).flat
for block, index in zip(blocks, shown_classes, strict=False):
    axes = block.subplots(3, columns, squeeze=False)
    block.subplots_adjust(left=0.14, right=0.99, top=0.91, bottom=0.06, hspace=0.2, wspace=0.06)
    name = classes[index]
    block.suptitle(f"{name}, {'forgotten' if name == forgotten else 'kept'}", fontsize=10, weight="bold",
                   color=APPLE if name == forgotten else "0.2", x=0.14, ha="left")  # fmt: skip
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    for column, shown in enumerate(np.flatnonzero(space["heatmap_label"] == index)):
        image = space["heatmap_images"][shown]
        axes[0, column].imshow(image, interpolation="none")
        for row in (0, 1):
            axis, cosine = axes[row + 1, column], number(space["heatmap_cosine"][row, shown])
            axis.imshow(overlay(image, space["heatmaps"][row, shown]), interpolation="none")
            axis.set_xlabel(f"cosine {cosine}" if column == 0 else cosine, fontsize=7.5, labelpad=1.5)
    for axis, text in zip(axes[:, 0], ["image", *states], strict=True):
        axis.set_ylabel(text, fontsize=8.5)
publish_figure(figure, "embedding_space_heatmaps", root / publish_to)

# %% [markdown]
# ## The claim, tested
#
# Image and prompt of the forgotten concept come apart, and the heatmaps lose it; the other pairs, clusters and
# heatmaps stay.

# %%
before, after = wide["original"], wide["CLIPErase"]
for name in ("forget_cosine", "retain_cosine", "retain_purity", "forget_relevance", "retain_relevance"):
    print(f"{name:17s} {before[name]:7.2f} -> {after[name]:7.2f}")
claim("image and prompt of the forgotten concept come apart", after["forget_cosine"] < before["forget_cosine"] / 2)
claim("the other pairs stay", after["retain_cosine"] > before["retain_cosine"] - 0.1)
claim("the other clusters stay", after["retain_purity"] > before["retain_purity"] - 3)
claim("the heatmaps lose at least half of the forgotten concept", after["forget_relevance"] < 50)
claim("the other heatmaps stay within a quarter", 75 < after["retain_relevance"] < 125)

# %% [markdown]
# ## In the plane, and what does not agree
#
# The paper reads the claim off the plane: images and text of the forgotten concept "move apart". What moves is asked of
# the two planes first, and then of the full space, where it can be measured: each has a cosine with itself before.

# %%
median = shifts.pivot(index="points", columns="plane", values="median, %")
most = shifts.pivot(index="points", columns="plane", values="most, %")
prompt, images, other_prompts, other_images = (median.loc[kind] for kind in kinds)
for plane in planes:
    print(
        f"{plane}: the prompt of {forgotten} moves by {prompt[plane]:.0f} % of the plane, the images of "
        f"{forgotten} by {images[plane]:.1f} %, other prompts by {other_prompts[plane]:.2f} %, "
        f"other images by {other_images[plane]:.2f} % (medians)"
    )
claim("in both planes the forgotten prompt crosses a quarter of the picture or more", (prompt >= 25).all())
claim("in both planes no other point moves half as far as it", (most.drop(prompt.name).max() < prompt / 2).all())
claim("in both planes the forgotten images stay within a tenth of the picture, by the median", (images <= 10).all())
claim("and yet move more than other images do", (images > other_images).all())
claim("other points stay within a fiftieth, by the median", (np.maximum(other_prompts, other_images) <= 2).all())

# %%
text_self, image_self = after["forget_text_self_cosine"], after["forget_image_self_cosine"]
print(f"prompt, cosine with itself before: {text_self:.2f}; other prompts: {after['retain_text_self_cosine']:.2f}")
print(f"images, cosine with themselves before: {image_self:.2f}; others: {after['retain_image_self_cosine']:.2f}")
print(f"cluster purity of {forgotten} images: {before['forget_purity']:.1f} -> {after['forget_purity']:.1f} %")
claim("the prompt moved more than the images, in the full space too", text_self < image_self)
claim("the forgotten images still have mostly each other as neighbours", after["forget_purity"] > 50)
if text_self < image_self and after["forget_purity"] > 50:
    print("So it is not two crowds that separate: the text leaves, and the images stay a cluster.")
    print("What is gone is the name, not the ability to tell these images from others.")
