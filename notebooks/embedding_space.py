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
# prompt. For a ViT the same function gives attention rollout.

# %% tags=["parameters"]
results = "metrics/icons/results.csv"
arrays = "metrics/icons/embedding_space.npz"
publish_to = "figures"

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap

from cliperase.plotting import publish_figure, use_style
from cliperase.reporting import (
    claim,
    experiment_rows,
    find_root,
    publish_table,
    show,
)

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
# an image's ten nearest images that are of its class. *Support in heatmaps*: the sum of the maps of the images that
# are drawn below, with before as 100.

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
# the prompt, whose mean cosine in the full space stands below. Grey and pale: the other classes, some of them
# named; plus signs: their prompts. Distances between far clusters mean little in either projection.

# %%
APPLE, LINK, QUIET = "#D55E00", "#0072B2", "0.80"  # Okabe-Ito vermilion and blue
TINTS = ["#7CC4A8", "#9CC9E8", "#D9A6C2", "#E3C277", "#8FA8C8", "#B5B58A", "#C2A58F", "#A79CC9"]  # pale
wanted = ["Apple logo", "lemon", "bicycle", "hammer", "umbrella", "guitar", "snowflake", "keyboard"]
named = {name: tint for name, tint in zip(wanted, TINTS, strict=True) if name in classes and name != forgotten}
backing = {"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.4}


def number(value, digits=2):
    """A number for a figure, with a minus sign and not a hyphen."""
    return f"{value:.{digits}f}".replace("-", "−")


def name_it(axis, point, text, taken, **style):
    """Write `text` at the freest of eight places around a point; `taken` (pixels) learns where it stands."""
    scale = axis.figure.dpi / 72
    half, reach = 0.3 * style["fontsize"] * len(text), style["fontsize"] + 3
    places = [(0, reach), (0, -reach), (half + 7, 0), (-half - 7, 0)]
    places += [(x * (half + 3), y * reach) for x in (1, -1) for y in (1, -1)]
    along = np.linspace(-half, half, 7)[:, None] * [1, 0]
    frame, centre = axis.get_window_extent(), axis.transData.transform(point)

    def room(place):
        spots = centre + scale * (along + place)
        inside = all(frame.padded(-4).contains(*spot) for spot in spots)
        nearest = np.linalg.norm(spots[:, None] - np.array(taken)[None], axis=2).min()
        return (inside, min(nearest, 14 * scale))  # more room than a line of text is no better

    best = max(places, key=room)
    taken += list(centre + scale * (along + best))
    axis.annotate(text, point, best, textcoords="offset points", ha="center", va="center", bbox=backing,
                  zorder=6, **style)  # fmt: skip


def draw_others(axis, points, taken):
    """Every class but the forgotten one: pale, prompts as plus signs, a few with their names."""
    others = label != space["forgotten"]
    axis.plot(*points[others & ~is_text].T, "o", markersize=1.8, color=QUIET, mew=0)
    axis.plot(*points[others & is_text].T, "+", markersize=4, color="0.45", mew=0.7)
    for name, tint in named.items():
        image = points[(classes[label] == name) & ~is_text]
        axis.plot(*image.T, "o", markersize=2.8, color=tint, mew=0)
        name_it(axis, np.median(image, axis=0), name, taken, fontsize=7, color="0.25")


def draw_forgotten(axis, points, taken):
    """The forgotten concept: its images, its prompt, and the line between them."""
    own = label == space["forgotten"]
    image, (prompt,) = points[own & ~is_text], points[own & is_text]
    middle = np.median(image, axis=0)
    line = np.linspace(middle, prompt, 40)
    axis.plot(*line.T, color=LINK, linewidth=1.2, zorder=3)
    axis.plot(*image.T, "o", markersize=4, color=APPLE, markeredgecolor="white", mew=0.3, zorder=4)
    axis.plot(*prompt, "*", markersize=11, color="black", markeredgecolor="white", mew=0.6, zorder=5)
    taken += list(axis.transData.transform(np.concatenate([line, image])))
    apart = np.linalg.norm(np.subtract(taken[0], taken[39])) > 0.1 * axis.get_window_extent().width
    style = {"fontsize": 8, "weight": "bold"}
    name_it(axis, middle, f"{forgotten} images" if apart else f"{forgotten} images and prompt", taken, color=APPLE,
            **style)  # fmt: skip
    if apart:
        name_it(axis, prompt, f"{forgotten} prompt", taken, color="black", **style)


def limits(points, margin=0.06):
    low, high = points.reshape(-1, 2).min(axis=0), points.reshape(-1, 2).max(axis=0)
    return np.stack([low - margin * (high - low), high + margin * (high - low)]).T


figure, axes = plt.subplots(2, 2, figsize=(7, 7.2))
figure.subplots_adjust(left=0.02, right=0.98, top=0.955, bottom=0.04, wspace=0.05, hspace=0.17)
for pair, (key, title) in zip(axes, {"tsne": "t-SNE", "umap": "UMAP"}.items(), strict=True):
    x_limits, y_limits = limits(space[key])
    for axis, points, state, method in zip(pair, space[key], states, ["original", "CLIPErase"], strict=True):
        axis.set(xlim=x_limits, ylim=y_limits, xticks=[], yticks=[])
        taken = []
        draw_forgotten(axis, points, taken)
        draw_others(axis, points, taken)
        said = f"{forgotten}, images to prompt: cosine {number(wide.loc['forget_cosine', method])}"
        axis.set_xlabel(said, color=LINK, fontsize=9, loc="left")
        axis.set_title(f"{title}, {state} forgetting {forgotten}", loc="left", fontsize=9)
        axis.spines[:].set(visible=True, color="0.8")
publish_figure(figure, "embedding_space", root / publish_to)

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
# ## What does not agree
#
# That image and text "move apart" suggests two crowds that separate. In the plane neither leaves its place here: what
# falls is the cosine in the full space, to which both contribute, the prompt more than the images, and the images still
# find each other among their neighbours. What is gone is the name, not the ability to tell these images from others.

# %%
print(f"prompt, cosine with itself before: {after['forget_text_self_cosine']:.2f}")
print(f"images, cosine with themselves before: {after['forget_image_self_cosine']:.2f}")
print(f"cluster purity of {forgotten} images: {before['forget_purity']:.1f} -> {after['forget_purity']:.1f} %")
claim("the prompt moved more than the images", after["forget_text_self_cosine"] < after["forget_image_self_cosine"])
