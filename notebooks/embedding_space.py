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

# %% tags=["parameters"]
results = "metrics/icons/results.csv"
arrays = "metrics/icons/embedding_space.npz"
publish_to = "figures/icons/embedding_space"

# %%
import numpy as np
import pandas as pd

from paper.figures.space import PLANES, heatmap_figure, plane_figure
from paper.figures.style import publish_figure, use_style
from paper.tables import experiment_rows, in_root, publish_table, show
from paper.verdicts import claims, open_with

use_style()
rows, space = experiment_rows(results, "embedding"), np.load(in_root(arrays))
classes, own, is_text = space["classes"], space["label"] == space["forgotten"], space["is_text"]
forgotten = classes[space["forgotten"]]
assert set(rows.concept) == {forgotten}
wide = rows.pivot(index="metric", columns="method", values="value")
before, after = wide["original"], wide["CLIPErase"]
KINDS = {
    f"the prompt of {forgotten}": own & is_text,
    f"images of {forgotten}": own & ~is_text,
    "other prompts": ~own & is_text,
    "other images": ~own & ~is_text,
}
moved = {}  # in percent of the plane's longer side
for key, plane in PLANES.items():
    shift = np.linalg.norm(space[key][1] - space[key][0], axis=1) / np.ptp(space[key].reshape(-1, 2), axis=0).max()
    moved |= {(plane, kind): 100 * shift[chosen] for kind, chosen in KINDS.items()}
prompt, images, other_prompts, other_images = (
    pd.Series({plane: np.median(moved[plane, kind]) for plane in PLANES.values()}) for kind in KINDS
)
furthest = pd.Series({plane: max(moved[plane, kind].max() for kind in list(KINDS)[1:]) for plane in PLANES.values()})
tested = {
    "image and prompt of the forgotten concept come apart": after["forget_cosine"] < before["forget_cosine"] / 2,
    "the other pairs stay": after["retain_cosine"] > before["retain_cosine"] - 0.1,
    "the other clusters stay": after["retain_purity"] > before["retain_purity"] - 3,
    "the heatmaps lose at least half of the forgotten concept": after["forget_relevance"] < 50,
    "the other heatmaps stay within a quarter": 75 < after["retain_relevance"] < 125,
}
in_plane = {
    "in both planes the forgotten prompt crosses a quarter of the picture or more": (prompt >= 25).all(),
    "in both planes no other point moves half as far as it": (furthest < prompt / 2).all(),
    "in both planes the forgotten images stay within a tenth of the picture, by the median": (images <= 10).all(),
    "and yet move more than other images do": (images > other_images).all(),
    "other points stay within a fiftieth, by the median": (np.maximum(other_prompts, other_images) <= 2).all(),
}
text_self, image_self = after["forget_text_self_cosine"], after["forget_image_self_cosine"]
in_space = {
    "the prompt moved more than the images, in the full space too": text_self < image_self,
    "the forgotten images still have mostly each other as neighbours": after["forget_purity"] > 50,
}
open_with(
    "embedding_space",
    rows,
    paper="In a t-SNE the forgotten concept's images and texts move apart while the other clusters stay. Attention "
    "heatmaps lose the forgotten concept and keep the others.",
    here=f"The cosine of {forgotten}'s images and prompt falls from {before['forget_cosine']:.2f} to "
    f"{after['forget_cosine']:.2f}, and its heatmaps keep {after['forget_relevance']:.0f} % of their support, others "
    f"{after['retain_relevance']:.0f} %. The prompt leaves (cosine with itself before {text_self:.2f}); the images "
    f"stay a cluster ({image_self:.2f}, purity {after['forget_purity']:.0f} %).",
    tested=tested | in_plane | in_space,
)

# %% [markdown]
# ## The embedding space
#
# Vermilion: images of the forgotten concept. Star: its prompt. Blue line: from the middle of these images to the
# prompt. Every other class has a colour, paler where it is not named; plus signs are the prompts. Below each panel
# stands what was measured in the full space. Distances between far clusters mean little in either projection.

# %%
NAMED = ["Apple logo", "lemon", "bicycle", "hammer", "umbrella", "guitar", "snowflake", "keyboard"]
named = [name for name in NAMED if name in classes]  # other data have other classes
publish_figure(plane_figure(space, wide, named), "embedding_space", publish_to)

# %% [markdown]
# ## Heatmaps
#
# What in the image supports its own prompt. Before and after share one scale, so that lost support is pale. Below each
# map: the cosine of image and prompt. The picture is CC BY-SA 4.0, because it shows drawings of OpenMoji.

# %%
publish_figure(heatmap_figure(space), "embedding_space_heatmaps", publish_to)

# %% [markdown]
# ## What is run
#
# CLIPErase forgets one concept, with the first seed. Test images and the prompts "a photo of a …" are embedded by the
# model before and after. *One* t-SNE and *one* UMAP are fitted to all of these points together, so that a place means
# the same on both sides. The image tower is convolutional: the heatmaps are Grad-CAM on its last feature map (4 × 4,
# drawn smoothly), of the cosine of image and prompt.
#
# **The table.** Measured in the full embedding space, on all test images. *Cluster purity*: the share of an image's ten
# nearest images that are of its class. *Support in heatmaps*: the sum of the maps over the images that are points of
# the planes, with before as 100.

# %%
quantities = {
    "cosine": "image and its own prompt, cosine",
    "text_self_cosine": "prompt and the same prompt before, cosine",
    "image_self_cosine": "image and the same image before, cosine",
    "purity": "cluster purity of images, %",
    "relevance": "support in heatmaps, % of before",
}
table = pd.DataFrame(
    {"quantity": text, "set": name, "before": before[f"{group}_{metric}"], "after": after[f"{group}_{metric}"]}
    for metric, text in quantities.items()
    for group, name in {"forget": forgotten, "retain": "other classes"}.items()
).assign(provenance=rows.provenance.iloc[0])
publish_table(table, "embedding_space", publish_to)
show(table)

# %% [markdown]
# ## The claims, tested
#
# Image and prompt of the forgotten concept come apart, and the heatmaps lose it; the other pairs, clusters and heatmaps
# stay.

# %%
claims(tested, papers=tested)

# %% [markdown]
# The paper reads its claim off the plane. How far the points move there, in percent of the plane's longer side:

# %%
show(pd.DataFrame(
    {"points": kind, "plane": plane, "median, %": np.median(shift), "most, %": shift.max()}
    for (plane, kind), shift in moved.items()
))  # fmt: skip
claims(in_plane)

# %% [markdown]
# And in the full space, where each point has a cosine with itself before:

# %%
print(f"prompt, cosine with itself before: {text_self:.2f}; other prompts: {after['retain_text_self_cosine']:.2f}")
print(f"images, cosine with themselves before: {image_self:.2f}; others: {after['retain_image_self_cosine']:.2f}")
print(f"cluster purity of {forgotten} images: {before['forget_purity']:.1f} -> {after['forget_purity']:.1f} %")
claims(in_space)
