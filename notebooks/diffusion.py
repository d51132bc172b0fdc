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
# # Text to image: what is drawn when the text encoder has forgotten
#
# **The paper's claim.** Put CLIPErase's text encoder into Stable Diffusion, and the forgotten concept is no longer
# drawn: a detector finds it in almost no picture that asks for it (the paper's rates stand in the table below), and
# other concepts are unaffected.
#
# **What is run here.** A small text-to-image model is trained on pictograms of the prompted concepts, with the text
# encoder of the *original* CLIP, and then never again. Each row puts another text encoder in that place: the original,
# or one that unlearned the concept, by CLIPErase or by `GA text`, gradient ascent on the text tower alone, the unimodal
# method here. CLIPErase changes the image tower too, but only the text tower comes into the pipeline. The noise is the
# same for every row of a seed, so a difference between two pictures is a difference between two encoders. The settings
# are those of the main table, from a search on other concepts (`figures/tuning.md`). Provenance `icons`.
#
# **How this differs from Stable Diffusion.** Sampler, guidance and cross-attention to the text encoder's states are
# the same in kind. But the pictures are small, and diffusion works on their pixels, not in a learnt latent space. The
# generator knows the prompted concepts and nothing else, one drawing of each, nearly upright and dark on light, where
# Stable Diffusion has seen photographs of everything: a prompt that is no longer understood has fewer places to go.
# And the text encoder is that of a compact CLIP, trained from scratch. As there, the encoder in place also reads the
# empty prompt that guidance steers away from, so unlearning can reach every picture that way.
#
# **Who counts.** An independent detector: another compact CLIP, trained on drawings by *other* families than the one
# that the generator learnt, and no part of the unlearning. It names one of the prompted concepts in every picture, the
# nearest, and cannot say "none of them": a picture of nothing still gets a name.

# %% tags=["parameters"]
results = "metrics/icons/results.csv"
arrays = "metrics/icons/diffusion.npz"
publish_to = "figures"

# %%
import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from scipy.stats import binomtest

from cliperase.settings import read_params
from paper.figures import OURS, PAPER, publish_figure, use_style
from paper.ledger import UNAFFECTED_POINTS, judge_others, paper_cells, verdict
from paper.tables import (
    claim,
    claim_above,
    experiment_rows,
    find_root,
    in_order,
    paired_change,
    publish_table,
    runs_of,
    score,
    show,
    summarise_each,
)

use_style()
root = find_root()
params = read_params(root / "params.yaml")
settings = params["diffusion"]
prompt = settings["prompt"]
concepts, forgotten_concepts, methods = settings["concepts"], settings["forgotten"], settings["rows"]
rows = experiment_rows(root / results, "diffusion", split="generated")
samples = np.load(root / arrays)
assert set(rows.concept) == set(forgotten_concepts)
assert set(rows.method) == {"original", *methods}
assert set(samples) == {"original", *(f"{method}/{name}" for method in methods for name in forgotten_concepts)}
(provenance,) = rows.provenance.unique()
seeds = sorted(rows.seed.unique())
pictures = settings["images"] * len(seeds)  # of each prompt and row, all seeds together
print(f"prompts: “{prompt.format(concepts[0])}” and the like for {', '.join(concepts[1:])}")
print("forgotten:", ", ".join(forgotten_concepts), "| seeds:", ", ".join(seeds), "| provenance:", provenance)
print(f"pictures of each prompt and row: {settings['images']} a seed, {pictures} in all,")
print(
    f"of {samples['original'].shape[2]} pixels a side, in {settings['steps']} steps, guidance {settings['guidance']:g}"
)

# %% [markdown]
# ## The detector
#
# Before it judges pictures that were generated, it is measured on test pictures that were drawn: of the family that
# the generator learnt and the detector never saw, and of its own families. How often the right concept is named, in
# percent.

# %%
measured = experiment_rows(root / results, "diffusion").query("method == 'detector'")
sources = {"icon_prompts": "the generator's family", "icon_detection": "the detector's own families"}
by_source = measured.pivot(index="metric", columns="dataset", values="value")[list(sources)].rename(columns=sources)
of_concepts = by_source.loc[[f"detector_accuracy@{name}" for name in concepts]].set_axis(concepts)
listed = pd.concat([of_concepts, by_source.loc[["detector_accuracy"]].set_axis(["mean"])])
show(listed.map("{:.1f}".format).rename_axis("concept").reset_index().assign(provenance=measured.provenance.iloc[0]))
sizes = {params["data"]["sets"][name]["per_class"]["test"] for name in sources}
print("test pictures of each concept:", ", ".join(map(str, sizes)))
claim("the detector is right about at least 90 % of either test set", (by_source.loc["detector_accuracy"] >= 90).all())
learnt = of_concepts["the generator's family"]
claim("and about at least 90 % of each concept as the generator learnt it", (learnt >= 90).all())

# %% [markdown]
# ## The table
#
# In percent of pictures. *Forgotten seen*: the forgotten concept is asked for and detected. *Others seen*: another
# concept is asked for and detected, all others together. *Seen unasked*: another concept is asked for, and the
# forgotten one is detected. Sorted by the harmonic mean of 100 - forgotten seen and others seen, the original first.
#
# **Intervals.** A rate is a count, so the pictures of all seeds are pooled and the interval is Wilson's, of a binomial
# proportion, 95 %. It says how far other noise could move the rate. That pictures of one seed share an unlearned
# encoder is not in it: where the encoders of the seeds differ, the true interval is wider. So the lowest and the
# highest seed stand beside it, in the column *by seed*.
#
# **Beside the paper.** `paper` is its rate of the forgotten concept. A `match` is within 2 points, the
# `same direction` a change from before with the paper's sign. Of the original it is only asked whether it matches.

# %%
METRICS = {"detection_rate": 1, "other_detection_rate": len(concepts) - 1, "false_detection_rate": len(concepts) - 1}
each = [f"detection_rate@{name}" for name in concepts]
summary = summarise_each(rows, [*METRICS, *each])
rates = summary.set_index(["method", "concept"])
cells = paper_cells("diffusion")
published = {(cell["method"], cell["concept"]): cell for cell in cells if "value" in cell}


def interval(rate, count):
    """(low, high) of the 95 % Wilson interval of a rate among `count` pictures, all in percent."""
    seen = rate * count / 100
    assert abs(seen - round(seen)) < 0.02, f"{rate} % is no number of {count} pictures"
    found = binomtest(round(seen), count).proportion_ci(method="wilson")
    return 100 * found.low, 100 * found.high


def with_interval(rate, count):
    low, high = interval(rate, count)
    return f"{rate:.1f} ({low:.1f} to {high:.1f})"


def reach(method, concept):
    """The lowest and the highest seed's rate of the forgotten concept."""
    chosen = (rows.method == method) & (rows.concept == concept) & (rows.metric == "detection_rate")
    return f"{rows[chosen].value.min():.1f} to {rows[chosen].value.max():.1f}"


def beside(row):
    """The paper's cell with difference and verdict, dashes where it has none."""
    cell = published.get((row.method, row.concept))
    if cell is None:
        return {"paper": "–", "difference": "–", "verdict": "–"}
    start = (rates.detection_rate["original", row.concept], cell.get("baseline", math.nan))
    said = verdict(row.detection_rate, cell["value"], *start)
    return {
        "paper": f"{cell['value']:g}", "difference": f"{row.detection_rate - cell['value']:+.1f}", "verdict": said
    }  # fmt: skip


def written(row):
    """One row of the table."""
    said = {"forget": row.concept, "method": row.method, "pictures a prompt": pictures}
    names = ["forgotten seen", "others seen", "seen unasked"]
    for name, (metric, prompts) in zip(names, METRICS.items(), strict=True):
        said[name] = with_interval(row[metric], pictures * prompts)
        if metric == "detection_rate":
            said["by seed"] = reach(row.method, row.concept)
    return said | beside(row) | {"provenance": provenance}


RANK = {"forget": "detection_rate", "retain": "other_detection_rate"}
ranked = [in_order(summary[summary.concept == name], **RANK) for name in forgotten_concepts]
table = pd.DataFrame(written(row) for part in ranked for _, row in part.iterrows())
publish_table(table, "diffusion", root / publish_to)
show(table)

# %% [markdown]
# ## Beside the paper: the others
#
# "Others unaffected" has no number. The change of *others seen* is paired by seed, which share their noise: mean ± 95 %
# t-interval over seeds. It bears the paper out where the whole interval lies within the margin printed below.

# %%
MARGIN = UNAFFECTED_POINTS
change = {
    (method, name): paired_change(
        rows,
        "other_detection_rate",
        {"concept": name, "method": "original"},
        {"concept": name, "method": method},
    )
    for method in methods
    for name in forgotten_concepts
}
show(judge_others(rows).drop(columns="metric").assign(provenance=provenance))
print(f"margin: {MARGIN:g} points")

# %% [markdown]
# ## The pictures
#
# Nothing is chosen: the first pictures of the seeds in turn, all that are kept of the forgotten concept and the first
# of every other. In a column the noise is the same, and only the text encoder differs, which is another one for each
# seed.

# %%
STEP, GAP, ROOM = 1.07, 0.4, 1.75  # of a picture's side: from one to the next, between groups, over a block


def put(axis, picture, x, y):
    """One picture (H, W, 3), its upper left corner at (x, y)."""
    axis.imshow(picture, extent=(x, x + 1, y + 1, y), interpolation="none")
    axis.add_patch(plt.Rectangle((x, y), 1, 1, fill=False, edgecolor="0.85", linewidth=0.5))


def draw_block(axis, forgotten, top):
    """The rows of one forgotten concept. Returns the x and the y where the block ends."""
    place, others = concepts.index(forgotten), [name for name in concepts if name != forgotten]
    start = settings["shown"] * STEP + GAP
    axis.text(0, top - 0.78, f"forget {forgotten}", fontsize=10, weight="bold", color=PAPER)
    axis.text(0, top - 0.2, f"“{settings['prompt'].format(forgotten)}”", fontsize=8, color=PAPER)
    for number, name in enumerate(others):
        axis.text(start + number * STEP + 0.3, top - 0.12, name, fontsize=7.5, rotation=35, rotation_mode="anchor")
    for line, method in enumerate(["original", *methods]):
        grid, y = samples[method if method == "original" else f"{method}/{forgotten}"], top + line * STEP
        weight = "bold" if method == "CLIPErase" else "normal"
        axis.text(-0.2, y + 0.5, method, ha="right", va="center", fontsize=9, weight=weight)
        for number in range(settings["shown"]):
            put(axis, grid[place, number], number * STEP, y)
        for number, name in enumerate(others):
            put(axis, grid[concepts.index(name), 0], start + number * STEP, y)
    return start + len(others) * STEP, top + (1 + len(methods)) * STEP


LEFT, width = 2.3, 7  # room for the names of rows, in pictures; inches
figure = plt.figure(figsize=(width, width))
axis = figure.add_axes((0, 0, 1, 1))
bottom = 0.0
for forgotten in forgotten_concepts:
    right, bottom = draw_block(axis, forgotten, bottom + ROOM)
axis.set(xlim=(-LEFT, right + 0.45), ylim=(bottom + 0.1, 0.3), aspect="auto")
axis.axis("off")
figure.set_size_inches(width, width * (bottom - 0.2) / (LEFT + right + 0.45))  # pictures stay square
publish_figure(figure, "diffusion", root / publish_to)

# %% [markdown]
# ## The rates
#
# How often each concept is detected in the pictures that ask for it, from the original (ring) to after unlearning
# (dot, all seeds together; bar: its 95 % Wilson interval; small dots: the seeds). Vermilion: the concept to forget,
# which should go to zero. Blue: the others, which should stay in their rings.


# %%
def draw_rate(axis, method, forgotten, name, y):
    """One concept before and after; the number stands left of everything."""
    ink, metric = (PAPER if name == forgotten else OURS), f"detection_rate@{name}"
    before, after = (rates[metric][row, forgotten] for row in ("original", method))
    low, high = interval(after, pictures)
    values = rows[(rows.method == method) & (rows.concept == forgotten) & (rows.metric == metric)].value
    axis.plot([low, high], [y, y], color=ink, alpha=0.25, linewidth=4.5, solid_capstyle="butt", zorder=1)
    axis.plot([before, after], [y, y], color=ink, linewidth=1.1, alpha=0.6, solid_capstyle="butt", zorder=2)
    axis.plot(values, [y] * len(values), "o", color=ink, alpha=0.55, markersize=2.4, mew=0, zorder=3)
    axis.plot([before], [y], "o", mfc="white", color=ink, markersize=5.2, mew=1.0, zorder=3)
    axis.plot([after], [y], "o", color=ink, markersize=4.2, mew=0, zorder=4)
    left = min(low, values.min(), before - 2)
    weight = "bold" if name == forgotten else "normal"
    axis.annotate(f"{after:.0f}", (left, y), (-3.5, 0), textcoords="offset points", ha="right", va="center",
                  fontsize=7.5, color=ink, weight=weight, zorder=5)  # fmt: skip


panels = [(forgotten, method) for forgotten in forgotten_concepts for method in methods]
figure, axes = plt.subplots(1, len(panels), figsize=(7, 0.235 * len(concepts) + 1.1), sharey=True)
figure.subplots_adjust(left=0.105, right=0.985, top=0.88, bottom=0.145, wspace=0.08)
for axis, (forgotten, method) in zip(axes, panels, strict=True):
    for y, name in enumerate(concepts):
        if name == forgotten:
            axis.axhspan(y - 0.46, y + 0.46, color="0.95", linewidth=0, zorder=0)
        draw_rate(axis, method, forgotten, name, y)
    axis.set(xlim=(-24, 106), ylim=(len(concepts) - 0.4, -0.6), xticks=[0, 50, 100])
    axis.set_yticks(range(len(concepts)), concepts)
    axis.tick_params(axis="x", labelsize=8)
    axis.tick_params(axis="y", left=False, labelsize=8.5)
    axis.set_title(method, loc="left", fontsize=9, weight="bold" if method == "CLIPErase" else "normal")
    axis.grid(axis="x", color="0.9")
    if method == methods[0]:
        axis.annotate(f"forget {forgotten}", (0, 1), (0, 20), xycoords="axes fraction", textcoords="offset points",
                      fontsize=10, weight="bold", color=PAPER)  # fmt: skip
figure.text(0.545, 0.02, "pictures in which the concept is detected, %      ○ before      ● after", ha="center",
            fontsize=9)  # fmt: skip
sns.despine(figure, left=True)
publish_figure(figure, "diffusion_rates", root / publish_to)

# %% [markdown]
# ## The claim, tested: it is drawn before
#
# Only what is drawn can vanish. Every prompt, read by the original text encoder, gives pictures of its concept.

# %%
starts = rates.loc["original"].loc[forgotten_concepts, each]
assert (starts.nunique() == 1).all()  # one model, the same noise: the same pictures, whatever is to be forgotten
before = starts.iloc[0].set_axis(concepts)
print(before.map(lambda rate: with_interval(rate, pictures)).to_string())
claim("before, every concept is detected in at least 85 % of its pictures", (before >= 85).all())

# %% [markdown]
# ## The claim, tested: it is not drawn after
#
# The limit is the higher of the paper's two rates.

# %%
limit = max(cell["value"] for (method, _), cell in published.items() if method == "CLIPErase")
left = rates.detection_rate["CLIPErase"][forgotten_concepts].rename_axis(None)
print(left.map(lambda rate: with_interval(rate, pictures)).to_string())
claim(f"after CLIPErase, either forgotten concept is detected in at most {limit:g} %", (left <= limit).all())

# %% [markdown]
# ## The claim, tested: the others are
#
# On average over the other concepts. Single concepts follow at the end: with so few pictures of each, one of them
# moves by points when a few pictures do.

# %%
moved = pd.Series({name: change["CLIPErase", name][0] for name in forgotten_concepts})
print(moved.map("{:+.1f} points".format).to_string())
claim(f"under CLIPErase, others seen stays within {MARGIN:g} points of before", (moved.abs() <= MARGIN).all())

# %% [markdown]
# ## The claim, tested: the unimodal method does worse
#
# It leaves more of the forgotten concept, or less of the others, or both: its harmonic mean of 100 - forgotten seen and
# others seen is the lower one; the difference is paired by run, and the interval speaks of
# these concepts only.

# %%
scores = score(rates, **RANK).unstack("method").loc[forgotten_concepts, ["original", *methods]]
show(scores.map("{:.1f}".format).rename_axis("forget", axis=0).rename_axis(None, axis=1).reset_index())
runs = runs_of(rows)
claim_above(runs, "GA text", **RANK)

# %% [markdown]
# ## What does not agree
#
# The sentences are printed from the tables. Three things bear on the claim beyond the paper's rates. *What would a
# guess give?* The detector always names one of the prompted concepts, so a picture of nothing counts as the forgotten
# one now and then. *Is any single concept hurt*, behind a mean that is not? *And do the seeds agree?* What is drawn in
# place of the forgotten concept was not counted; the pictures above show some of it.

# %%
drawn = before.mean()
if (before < 85).any():
    print(
        f"The generator draws what it is asked for in only {drawn:.1f} % of its pictures before anything is forgotten:"
    )
    print("it draws too badly, and a rate near zero afterwards says little, here and in the ledger.")
print(f"A detector that guesses names the forgotten concept in {100 / len(concepts):.1f} % of pictures.")
for name in forgotten_concepts:
    low, high = interval(left[name], pictures)
    side = "below" if high < limit else "above" if low > limit else "on both sides of"
    print(f"CLIPErase, {name}: {left[name]:.1f} %, interval {low:.1f} to {high:.1f} %, {side} the paper's {limit:g} %;")
    runs = rows[(rows.method == "CLIPErase") & (rows.concept == name) & (rows.metric == "detection_rate")].value
    print(f"  the seeds reach from {runs.min():.1f} to {runs.max():.1f} %.")
    unasked = rates.false_detection_rate.unstack("concept").loc[["original", *methods], name]
    print(f"  Seen unasked: {', '.join(f'{method} {rate:.1f} %' for method, rate in unasked.items())}.")
for method in methods:
    for name in forgotten_concepts:
        steps = (rates.loc[(method, name), each].set_axis(concepts) - before).drop(name).astype(float)
        far = steps[steps.abs() > MARGIN].sort_values()
        told = ", ".join(f"{other} {step:+.1f}" for other, step in far[:4].items()) + ("; …" if len(far) > 4 else "")
        print(
            f"{method}, {name} forgotten: others that change by more than {MARGIN:g} points: {len(far)} of {len(steps)}"
        )
        if told:
            print(f"  {told}")
for method in methods:
    forgets = (rates.detection_rate[method][forgotten_concepts] <= limit).all()
    keeps = all(abs(change[method, name][0]) <= MARGIN for name in forgotten_concepts)
    told = [f"the forgotten at most {limit:g} %", f"the others within {MARGIN:g} points"]
    kept = [text for text, holds in zip(told, (forgets, keeps), strict=True) if holds]
    print(f"{method}, of the two limits tested above, meets: {' and '.join(kept) or 'neither'}.")
