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
# # Ablation: what each of the three losses contributes

# %% tags=["parameters"]
results = "metrics/icons/results.csv"
publish_to = "figures/icons/ablation"

# %%
import pandas as pd

from paper.figures.dots import ZERO_SHOT, dot_plot
from paper.figures.grids import grid_figure
from paper.figures.style import publish_figure, use_style
from paper.ledger import beside_paper, paper_values
from paper.plans.sensitivity import weights_of
from paper.statistics import lead, runs_of, summarise
from paper.tables import experiment_rows, publish_table, show, with_intervals
from paper.verdicts import claims, open_with

use_style()
rows = experiment_rows(results, "ablation")
(provenance,) = rows.provenance.unique()
FULL, subsets = "FM+RM+CM", ["original", "FM", "RM", "CM", "FM+RM", "FM+CM", "RM+CM", "FM+RM+CM"]
embedding = ["CM/embedding", "FM+CM/embedding", "RM+CM/embedding", "FM+RM+CM/embedding"]
order = subsets + embedding
percent, cosines = ["forget_accuracy", "retain_accuracy"], ["forget_cosine", "unrelated_cosine"]
summary = summarise(rows, ["method"], [*percent, *cosines]).set_index("method").loc[order].reset_index()
mean, paper = summary.set_index("method"), paper_values("ablation")
forget, retain = mean.forget_accuracy, mean.retain_accuracy
papers = {
    "FM alone keeps less than FM+RM, and FM+RM less than all three": retain["FM"] < retain["FM+RM"] < retain[FULL]
}
tested = papers | {
    "every subset with FM forgets, to at most 1 %": all(forget[name] <= 1.0 for name in order if "FM" in name),
    "all three together stay within 1.5 points of the original": retain[FULL] >= retain["original"] - 1.5,
    "no subset rises more than half a point above the original": retain.max() <= retain["original"] + 0.5,
}
steps = [f"{name} keeps {paper[name, 'retain_accuracy']:.2f} %" for name in ("original", "FM", "FM+RM", FULL)]
open_with(
    "ablation",
    rows,
    paper="Forgetting alone (FM) hurts what is kept, retention (RM) repairs it, consistency (CM) completes both: "
    f"{', '.join(steps)}.",
    here=f"Every subset with FM forgets. FM alone keeps {retain['FM']:.1f} %, FM+RM {retain['FM+RM']:.1f} %, all "
    f"three {retain[FULL]:.1f} %, the original {retain['original']:.1f} %.",
    tested=tested,
    unlike={"no subset keeps more than the original": retain.max() <= retain["original"] + 0.5},
)

# %% [markdown]
# ## The picture
#
# Every dot is a run. The grey line is the original model.

# %%
panels = ZERO_SHOT | {"unrelated_cosine": "Prompt · unrelated images\n(cosine)"}  # no retrained model, so no region
figure, axes = dot_plot(rows, order, paper, panels)
publish_figure(figure, "ablation", publish_to)

# %% [markdown]
# ## What is run
#
# All eight subsets of the three losses on one concept, at the settings of the full method. The paper does not say what
# the KL divergence of CM runs over. Both readings are rows: softmax over the batch's similarities (the default), and
# softmax over the embedding's dimensions (`/embedding`). Each reading has the settings that a search of its own chose,
# because their sizes differ by orders of magnitude. Checkpoints are selected on validation images. The tables show the
# test split.

# %%
table = with_intervals(summary, percent, cosines).assign(provenance=provenance)
publish_table(table, "ablation", publish_to, numbers=summary.assign(provenance=provenance))
show(table)

# %% [markdown]
# ## Beside the paper

# %%
show(beside_paper(summary, "ablation", provenance))

# %% [markdown]
# ## The claims, tested

# %%
claims(tested, papers)

# %% [markdown]
# ## Which reading of the KL
#
# The score of the selection, on validation images: 100 less the average gap.

# %%
validation = experiment_rows(results, "ablation", split="validation")
score = summarise(validation, ["method"], ["selection_score"]).set_index("method").selection_score
for name in embedding:
    plain = name.split("/")[0]
    print(f"{plain:9s} similarity {score[plain]:6.2f}   embedding {score[name]:6.2f}   (selection score, validation)")
runs = runs_of(validation).selection_score
better, half, units = lead(runs[FULL], runs[f"{FULL}/embedding"])
print(f"the full method, similarity less embedding: {better:+.2f} ± {half:.2f} ({units}, paired)")
print("better:", "similarity" if better > half else "embedding" if better < -half else "not distinguishable")

# %% [markdown]
# ## How much the weights matter
#
# CLIPErase over a grid of λ_FM and λ_CM, all else as in the main table. Each cell is the mean of the two concepts of
# the search, on validation images, one seed. Nothing was chosen by this grid.

# %%
grid = experiment_rows(results, "sensitivity", split="validation")
if grid.empty:
    print("not run for this profile")
else:
    means = grid.groupby(["method", "metric"]).value.mean().unstack()
    own, means = means.loc["CLIPErase"], means.drop(index="CLIPErase")
    means.index = pd.MultiIndex.from_tuples(map(weights_of, means.index), names=["λ_FM", "λ_CM"])
    shown = {"Forget accuracy, %": means.forget_accuracy, "Average gap, points": 100 - means.selection_score}
    publish_figure(grid_figure({title: one.unstack() for title, one in shown.items()}), "sensitivity", publish_to)
    numbers = means[[*percent, "selection_score"]].reset_index().assign(provenance=provenance)
    publish_table(numbers, "sensitivity", publish_to)
    print(f"with the weights that the search chose: {own.forget_accuracy:.1f} %, gap {100 - own.selection_score:.1f}")

# %% [markdown]
# ## What does not agree with the paper
#
# Printed from the table.

# %%
print(f"FM alone still recognises {paper['FM', 'forget_accuracy']:.2f} % of the forgotten in the paper,", end=" ")
print(f"{forget['FM']:.2f} % here. It keeps {paper['FM', 'retain_accuracy']:.2f} % there, {retain['FM']:.2f} % here.")
steps = [("RM", "FM", "FM+RM"), ("CM", "FM", "FM+CM"), ("RM", "FM+CM", FULL), ("CM", "FM+RM", FULL)]
added = [f"{retain[to] - retain[of]:+.2f} points by {loss} on {of}" for loss, of, to in steps]
print("What each loss adds to retention here:", "; ".join(added) + ".")
print(f"FM+CM, without RM, keeps {retain['FM+CM']:.2f} %, all three {retain[FULL]:.2f} %.")
rise = paper[FULL, "retain_accuracy"] - paper["original", "retain_accuracy"]
print(f"Retention changes by {rise:+.2f} points in the paper, by {retain[FULL] - retain['original']:+.2f} here.")
moved = mean.unrelated_cosine - mean.unrelated_cosine["original"]
print("Accuracy does not show how far the forgotten prompt moves. Its cosine to unrelated images changes by", end=" ")
print(", ".join(f"{moved[name]:+.2f} ({name})" for name in subsets if "FM" in name) + ".")
