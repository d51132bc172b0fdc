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
# # The paper's numbers and ours

# %% tags=["parameters"]
results = "metrics/icons/results.csv"
photographs = "metrics/cifar/results.csv"
power = "metrics/icons/power"
publish_to = "figures/icons/paper_vs_ours"

# %%
import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns

from paper import audits
from paper.figures.changes import MARKS, change_groups, change_of
from paper.figures.style import OURS, PAPER, key, publish_figure, use_style
from paper.ledger import VERDICTS, ledger, paper_cells
from paper.power import PowerStudy
from paper.statistics import in_order, lead, runs_of, summarise, summarise_each, with_gap
from paper.tables import experiment_rows, in_root, publish_table, show, with_intervals
from paper.verdicts import claims, open_with

use_style()
table = ledger({"icons": results, "real-data": photographs})
verdicts = {name: table[f"{name}: verdict"] for name in ("icons", "real-data")}
rows = with_gap(experiment_rows(results, "retention"), retain="trained_accuracy")
metrics = ["forget_accuracy", "trained_accuracy", "bystander_accuracy"]
counts = pd.DataFrame({name: each.value_counts() for name, each in verdicts.items()}).reindex(VERDICTS, fill_value=0)
counts = counts.fillna(0).astype(int)
assert (counts.sum() == len(table)).all()
runs = runs_of(rows)
gains = {name: (runs.loc[name] - runs.loc["original"]).dropna() for name in rows.method.unique() if name != "original"}
gain = pd.DataFrame({name: change.mean() for name, change in gains.items()}).T
LAMBDAS = "CLIPErase, paper's λ"
(rise,) = [cell for cell in paper_cells("main") if (cell["method"], cell["metric"]) == ("CLIPErase", "retain_accuracy")]
tested = {
    "fine-tuning on the retain set alone raises the classes that took part": gain.trained_accuracy["RM"] > 2,
    "classes that took no part do not rise with them": gain.bystander_accuracy["RM"] <= 0,
    "with the paper's λ CLIPErase raises classes that took part by more than 2 points": gain.trained_accuracy[LAMBDAS]
    > 2,
}
open_with(
    "paper_vs_ours",
    rows,
    paper=f"Our sources quote {(table.paper != '–').sum()} of the {len(table)} cells below. One finding needs an "
    f"experiment of its own: retention *rises*, from {rise['baseline']:.2f} to {rise['value']:.2f} %. Does fine-tuning "
    "explain it?",
    here="Of the cells, on icons and on photographs, "
    + ", ".join(f"{counts.icons[name]} and {counts['real-data'][name]}: {name}" for name in VERDICTS)
    + f". Fine-tuning alone (RM) changes classes that took part by {gain.trained_accuracy['RM']:+.1f} points and "
    f"bystanders by {gain.bystander_accuracy['RM']:+.1f}. CLIPErase at the paper's λ changes them by "
    f"{gain.trained_accuracy[LAMBDAS]:+.1f} and {gain.bystander_accuracy[LAMBDAS]:+.1f}.",
    tested=tested,
)

# %% [markdown]
# ## Does fine-tuning explain why retention rises in the paper?
#
# Retain accuracy on test images before (ring) and after (dot), for classes that took part in training and for
# bystanders.

# %%
names = list(in_order(summarise(rows, ["method"], ["average_gap"])).method)[1:]
SIDES = {"trained_accuracy": ("took part", OURS), "bystander_accuracy": ("took no part", PAPER)}
panel = {name: [change_of(rows, metric, name, ink) for metric, (_, ink) in SIDES.items()] for name in names}
labels = {name: [text for text, _ in SIDES.values()] for name in names}
figure, axis = plt.subplots(figsize=(7, 0.62 * len(names) + 0.8))
figure.subplots_adjust(left=0.37, right=0.98, top=0.98, bottom=0.2)
change_groups([axis], {"": panel}, labels, dict(zip(names, names, strict=True)), limits=(30, 107))
key(figure, MARKS, title="zero-shot accuracy on test images, %")
sns.despine(figure, left=True)
publish_figure(figure, "paper_vs_ours", publish_to)

# %% [markdown]
# OpenAI's CLIP had not been trained on CIFAR-100, and the paper's retain set is its training split. So part of
# "retention" may be ordinary fine-tuning on the classes that are kept. One cell speaks against it: FM+RM, which is
# fine-tuning plus forgetting, keeps 73.14, and only with CM does retention rise.
#
# **The test.** `icons_other` holds the same things by other designers, on which our CLIP was not trained either. One
# class is forgotten. In every run a share of the other classes, drawn by the seed, takes *no part*: neither forget nor
# retain set holds them. `RM` is CLIPErase without its other two losses: plain fine-tuning at the same rate. `CLIPErase,
# paper's λ` weighs RM once, FM and CM three times; `CLIPErase` as our search chose. All three have the rate that the
# main table's search chose for CLIPErase. Nothing was searched on these drawings. A class has fewer images here and so
# fewer steps; whether the budget ran out was not recorded. If retention is kept knowledge, classes that took part and
# bystanders fare alike. If it is fine-tuning, only the first rise.

# %%
by_concept = summarise_each(rows, [*metrics, "average_gap"]).groupby("concept", sort=False)
summary = pd.concat([in_order(group) for _, group in by_concept], ignore_index=True)
show(with_intervals(summary, metrics, by=("concept", "method")).assign(provenance=rows.provenance.iloc[0]))

# %% [markdown]
# ### How much of it is fine-tuning
#
# Points risen against the original on the same classes: mean, lowest and highest run.

# %%
for name, change in gains.items():
    told = ["{:+6.2f} ({:+.2f} to {:+.2f})".format(*change[metric].agg(["mean", "min", "max"])) for metric in SIDES]
    print(f"{name:22s}took part {told[0]}   bystanders {told[1]}")
still = runs.forget_accuracy.groupby("method").mean()
print("Still recognised of the class to forget:", ", ".join(f"{still[name]:.1f} % under {name}" for name in gains))
claims(tested)
mean, half, units = lead(runs.loc[LAMBDAS].trained_accuracy, runs.loc["CLIPErase"].trained_accuracy)
print(f"Classes that took part, {LAMBDAS} less CLIPErase: {mean:+.2f} ± {half:.2f} points ({units}, paired).")
cells = [cell for cell in paper_cells("ablation") if cell["metric"] == "retain_accuracy"]
risen = {cell["method"]: cell["value"] - cell["baseline"] for cell in cells}
print(
    f"In the paper retention changes by {risen['FM+RM']:+.2f} points with FM+RM, by {risen['FM+RM+CM']:+.2f} with all."
)

# %% [markdown]
# So fine-tuning on unseen drawings lifts the classes it sees, at the bystanders' cost, but by less than the paper's
# retention rises. It does not explain the paper's 90.99. With FM and CM beside RM, most of that rise is gone here. CM
# holds the student to its teacher's answers, mistakes included; that it is the reason was not tested. In the paper the
# rise comes with CM. That remains open. A reader of such a table should ask for the fine-tuned control and for classes
# that took no part.
#
# ## The ledger
#
# The paper's cells, those that our sources quote and a few more, beside the pictograms (provenance `icons`) and the
# photographs (provenance `real-data`): the mean over all concepts and seeds on test images; of `diffusion`, over the
# seeds, in generated pictures. *Change*: from the original. A `match` says that the level is the same in both. It does
# not say that a number was repeated, because the data and models are others.
#
# `match`: within 2 points, unless one rose from the original and the other fell. `weak match`: in both nothing is left,
# which most rows reach. `same direction`: the change against the original has the paper's sign and at least half its
# size. Where the paper gives no original, the two published methods stand in the paper's order. `differs`: neither. A
# statement without a number is judged by the interval of a change, which may be `not distinguishable` from none. `not
# known to us`: our sources quote no number. `not run`: there is no number of ours.

# %%
publish_table(table, "paper_vs_ours", publish_to)
show(table)

# %% [markdown]
# By verdict:

# %%
for data, each in verdicts.items():
    for name in VERDICTS:
        cells = table[each == name]
        told = [
            f"{experiment} {', '.join(dict.fromkeys(group.method))}"
            for experiment, group in cells.groupby("experiment", sort=False)
        ]
        print(f"{data}, {name}: {len(cells)} ({'; '.join(told) or 'none'})")

# %% [markdown]
# ## Under the audit
#
# The ledger's forgetting is accuracy at one prompt. The [audit](audit.ipynb) asks the same rows on pictograms more than
# that: percent of the runs with each verdict.

# %%
said = audits.verdicts(audits.votes(experiment_rows(results, "audit"), PowerStudy.read(in_root(power))))
shares = audits.shares(said).round(1)
papers = [name for name in dict.fromkeys(cell["method"] for cell in paper_cells("main")) if name in shares.index]
show(shares.loc[list(dict.fromkeys(["original", "retrain", *papers]))].reset_index())
