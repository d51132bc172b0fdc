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
# # Pairs: forgetting where there are captions and no classes

# %% tags=["parameters"]
results = "metrics/icons/results.csv"
publish_to = "figures/icons/pairs"

# %%
from paper.figures.dots import cut_grid, dot_plot
from paper.figures.style import publish_figure, use_style
from paper.ledger import beside_paper, few_rows, paper_values
from paper.statistics import in_order, runs_of, same_of, summarise, with_gap
from paper.tables import experiment_rows, extent, per_concept, publish_ranges, show
from paper.verdicts import above, claim_above, claims, open_with

use_style()
task = {"forget": "forget_matching_accuracy@16", "retain": "retain_matching_accuracy@16"}  # mean of both directions
forget, retain = task.values()
rows = with_gap(experiment_rows(results, "pairs"), **task, to_retrained=False)
(provenance,) = rows.provenance.unique()
chance = 100 / 16
summary = in_order(summarise(rows, ["method"], sorted(set(rows.metric))))
few = few_rows(summary, "pairs")
order, mean, runs, paper = list(summary.method), summary.set_index("method"), runs_of(rows), paper_values("pairs")
ours, before = runs.loc["CLIPErase"], same_of(runs, "original").loc["CLIPErase"]
loss = (before[retain] - ours[retain]).max()
tested = {
    "every run of CLIPErase is at or below a guess on the forget set": ours[forget].max() <= chance,
    "every run keeps the retain set within 2 points": loss <= 2,
}
open_with(
    "pairs",
    rows,
    paper=f"On CC12M, accuracy is {paper['CLIPErase', forget]:.2f} % on the forget set and "
    f"{paper['CLIPErase', retain]:.2f} % on the retain set; with gradient difference {paper['GradDiff', forget]:.2f} "
    f"/ {paper['GradDiff', retain]:.2f} %. The paper does not say what this accuracy is. 97 % fits matching among 16.",
    here=f"Matched among 16, CLIPErase reaches {mean[forget]['CLIPErase']:.2f} / {mean[retain]['CLIPErase']:.2f} %, "
    f"gradient difference {mean[forget]['GradDiff']:.2f} / {mean[retain]['GradDiff']:.2f} %, the original "
    f"{mean[forget]['original']:.2f} / {mean[retain]['original']:.2f} %. A guess is {chance:.2f} %.",
    tested=tested | above(runs, "GradDiff"),
)

# %% [markdown]
# ## The picture
#
# Every dot is one run: a concept and a seed. The grey line is the original. `retrain` never saw the word. Most of its
# models find the partner more often than a guess does. The colours in "a red apple on a yellow background" are still
# true of the image; so these models tell little of the word, and no row is ranked by them. Below a guess (6.25 %) image
# and caption are further apart than strangers: a trace of what was forgotten.

# %%
everyone = {
    forget: "Forget, 16-way, %\n(lower is better)",
    retain: "Retain, 16-way, %\n(higher is better)",
    "retain_matching_accuracy@all": "Retain, among all, %\n(higher is better)",
}
figure, axes = dot_plot(rows, order, paper, everyone, region=False)
publish_figure(figure, "all_rows", publish_to)

# %% [markdown]
# Both directions, for the paper's rows and the best one. Grey lines: the original. Dashed: a guess among 16. The
# paper's number stands in both directions, because the paper names none.

# %%
directions = {"image_to_text": "image to text", "text_to_image": "text to image"}
sides = {"forget": "Forget ↓", "retain": "Retain ↑"}
in_both = {
    (method, metric.replace("matching", way)): paper[method, metric] for method, metric in paper for way in directions
}
panels = [
    [(f"{side}_{way}_accuracy", f"{title}, {text}") for side, title in sides.items()]
    for way, text in directions.items()
]
guesses = [(f"forget_{way}_accuracy", chance, "chance") for way in directions]
figure, axes = cut_grid(rows, few, panels, {"16": "k = 16", "all": "all"}, in_both, guesses)
publish_figure(figure, "pairs", publish_to)

# %% [markdown]
# ## What is run
#
# `icon_pairs` in the role of CC12M: one object and one caption such as "a red bicycle on a yellow background". What is
# forgotten is a caption pattern: *apple*, but not the Apple logo; and *bicycle*. `original` is the compact CLIP trained
# on with these captions, one for each seed. `retrain` saw the word neither as a class nor in a caption. Each row has
# settings of its own, chosen among equally many candidates on validation images of four other words
# (`figures/icons/tuning/`). Checkpoints are selected on validation images by this same task.
#
# **k-way matching.** An image must score its own caption above k - 1 captions of other rows, and a caption its own
# image. With k = 16 they are drawn among all rows of another caption, the same for every model. With "all" the whole
# test split competes, and any row of the same caption counts as right.
#
# **The table.** Percent of test rows that find their partner: the mean, and in brackets the lowest and the highest run.
# Two concepts are too few for an interval. The original and the retrained models come first, then the order is by the
# average gap, in points: of the forget set to zero, of the retain set to the original, where it is lower (16-way, both
# directions). `budget ran out`: runs whose last checkpoint was the best, so that more steps might do better.

# %%
cuts = {"16": "k = 16", "all": "all rows"}
columns = {f"{side}, {label}": f"{side}_{{}}_accuracy@{k}" for k, label in cuts.items() for side in sides}
readable = publish_ranges(results, "pairs", summary, directions, columns, publish_to)
show(readable[readable.method.isin(few)].reset_index(drop=True))

# %% [markdown]
# 16-way, by concept:

# %%
show(per_concept(rows, order, {metric: side for side, metric in task.items()}))

# %% [markdown]
# ## Beside the paper
#
# A `match` is within 2 points, a `weak match` too, but in both nothing is left. Our sources give no number before
# unlearning, so `same direction` means the same order of CLIPErase and GradDiff, by more than 1 point in both and at
# least half the paper's difference. Levels depend on how alike the captions are.

# %%
show(beside_paper(summary, "pairs", provenance=provenance))

# %% [markdown]
# ## The claims, tested
#
# It forgets, it keeps, and its average gap, which sorts the table, is smaller than gradient difference's, paired by
# run. The interval speaks of these concepts and of this budget only.

# %%
print(f"runs: {len(ours)}; highest forget accuracy, 16-way: {ours[forget].max():.2f} %; a guess: {chance:.2f} %")
print(f"largest loss of retain accuracy, 16-way: {loss:.2f} points")
claims(tested)
claim_above(runs, "GradDiff")

# %% [markdown]
# ## What does not agree, and what the paper does not show

# %%
never = runs.loc["retrain"]
for metric in (forget, retain, "forget_matching_accuracy@all", "retain_matching_accuracy@all"):
    print(f"Retrained models, {metric}: {extent(never[metric])}")
below = mean[forget][mean[forget] < chance]
print(f"Below a guess ({chance:.2f} %):", ", ".join(f"{name} {value:.2f} %" for name, value in below.items()) + ".")
told = [f"{mean.unrelated_cosine[name]:.2f} under {name}" for name in ("original", "CLIPErase", "MultiDelete")]
print(f"Cosine of forgotten captions to unrelated images: {', '.join(told)}.")
