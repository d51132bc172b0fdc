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
# # Main results: forgetting one concept
#
# **The paper's claim.** CLIPErase brings zero-shot accuracy on the forget set to zero and leaves the retain
# set at least where it was, while ENMN destroys the retain set and gradient difference pays for forgetting
# with retention (CIFAR-100, OpenAI CLIP).
#
# **What is run here.** The `icons` data set and a compact CLIP that is pretrained from scratch, so every
# number below carries the provenance `icons` and none is a measurement of the paper's models. Concepts
# are forgotten one at a time; each row's settings come from six candidates on validation images of other
# concepts (`figures/tuning.md`). The budget was not quite equal: CLIPErase alone was also tried by hand, and
# two rows had their candidates widened once (`DECISIONS.md`). Checkpoints are selected on validation images;
# what is shown is the test split. `original` and `retrain` are single models, every other row is concepts × seeds.

# %% tags=["parameters"]
results = "metrics/icons/results.csv"
publish_to = "figures"

# %%
from cliperase.reporting import (
    beside_paper,
    dot_plot,
    experiment_rows,
    find_root,
    paper_cells,
    publish_figure,
    publish_table,
    show,
    summarise,
    use_style,
    with_intervals,
)

use_style()
root = find_root()
rows = experiment_rows(root / results, "main")
metrics = ["forget_accuracy", "retain_accuracy"]
order = ["original", "retrain", "fine-tune", "GA", "GradDiff", "KL-min", "ENMN", "MultiDelete", "CLIPErase"]
concepts = sorted(rows.concept.unique())
print("concepts:", ", ".join(concepts), "| seeds:", ", ".join(sorted(rows[rows.method == "CLIPErase"].seed.unique())))
print("provenance:", ", ".join(rows.provenance.unique()))

# %% [markdown]
# ## The table
#
# Zero-shot accuracy in percent on test images, mean ± 95 % t-interval over runs. Forget accuracy should be
# low, retain accuracy where `original` and `retrain` have it. `unrelated_cosine` is the mean cosine of the
# forgotten prompt to the images of all *other* classes: forgetting should not move it.

# %%
summary = summarise(rows, ["method"], [*metrics, "forget_cosine", "unrelated_cosine"])
summary = summary.set_index("method").loc[order].reset_index()
readable = with_intervals(summary, metrics).merge(
    with_intervals(summary, ["forget_cosine", "unrelated_cosine"], digits=2).drop(columns="runs"), on="method"
)
readable["provenance"] = "icons"
publish_table(readable, "main_results", root / publish_to)
show(readable)

# %% [markdown]
# ## The picture
#
# Every dot is one run (concept and seed), the bar their mean, the diamond the paper's published number,
# the grey line the original model.

# %%
published = {(cell["method"], cell["metric"]): cell.get("value") for cell in paper_cells("main")}
panels = [
    ("forget_accuracy", "Forget accuracy, %\n(lower is better)"),
    ("retain_accuracy", "Retain accuracy, %\n(higher is better)"),
    ("unrelated_cosine", "Prompt · unrelated images\n(cosine; should not move)"),
]
figure, axes = dot_plot(rows, order, panels, published)
publish_figure(figure, "main_results", root / publish_to)

# %% [markdown]
# ## Beside the paper
#
# A cell is a `match` within 2 points, the `same direction` when its change against the original has the
# paper's sign, else it `differs`. The paper's original is the one of its ablation: 86.08 / 72.85.

# %%
show(beside_paper(summary, "main", provenance="icons"))

# %% [markdown]
# ## The claim, asserted
#
# For every concept and seed: CLIPErase's forget accuracy is at most 1 %, and its retain accuracy is at
# most 1.5 points below the original's.

# %%
accuracies = rows[rows.metric.isin(metrics)]
runs = accuracies.pivot_table(index=["method", "concept", "seed"], columns="metric", values="value")
ours = runs.loc["CLIPErase"]
before = runs.loc["original"].droplevel("seed")
drop = before.retain_accuracy - ours.retain_accuracy
print(f"runs: {len(ours)}")
print(f"worst forget accuracy: {ours.forget_accuracy.max():.2f} %")
print(f"worst loss of retain accuracy: {drop.max():.2f} points ({' '.join(drop.idxmax()[:1])})")
assert (ours.forget_accuracy <= 1.0).all()
assert (drop <= 1.5).all()
assert summary.set_index("method").retain_accuracy["CLIPErase"] > summary.set_index("method").retain_accuracy["ENMN"]

# %% [markdown]
# ## The same, per concept

# %%
per_concept = runs.groupby(["method", "concept"]).mean().unstack("concept").loc[order].round(1)
per_concept.columns = [f"{metric.split('_')[0]}, {concept}" for metric, concept in per_concept.columns]
show(per_concept.reset_index())

# %% [markdown]
# ## What does not agree, and what the paper does not show
#
# Computed, not remembered: the sentences below are printed from the table.

# %%
mean = summary.set_index("method")
change = mean.retain_accuracy - mean.retain_accuracy["original"]
cell = next(c for c in paper_cells("main") if (c["method"], c["metric"]) == ("CLIPErase", "retain_accuracy"))
rise = cell["value"] - cell["baseline"]
print(f"Retention changes by {rise:+.2f} points in the paper; here CLIPErase changes it by {change['CLIPErase']:+.2f}")
print(f"and fine-tuning alone, at the rate that the same search picked, by {change['fine-tune']:+.2f}.")
unseen = runs.loc["retrain"].forget_accuracy.groupby("concept").mean()
print(f"The retrained reference still names {unseen.max():.1f} % of the {unseen.idxmax()} images it never saw;")
print("a method that brings this to zero forgets more than never having learnt it would.")
best = mean.loc[["GA", "GradDiff", "KL-min", "ENMN", "MultiDelete"]]
forgot = best[best.forget_accuracy <= 1.0]
if len(forgot):
    name = forgot.retain_accuracy.idxmax()
    print(f"The best baseline among those that forget (≤ 1 %) is {name}, at {forgot.retain_accuracy[name]:.2f} %")
    print(f"retain accuracy against CLIPErase's {mean.retain_accuracy['CLIPErase']:.2f} %.")
print(
    f"Over-forgetting: the forgotten prompt's cosine to unrelated images goes from "
    f"{mean.unrelated_cosine['original']:.2f} to {mean.unrelated_cosine['CLIPErase']:.2f} under CLIPErase,"
)
print(
    f"{mean.unrelated_cosine['MultiDelete']:.2f} under MultiDelete; "
    f"a model that never saw the concept has {mean.unrelated_cosine['retrain']:.2f}."
)
