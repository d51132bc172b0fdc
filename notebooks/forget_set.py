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
# # Forget set: when one does not know exactly what to forget

# %% tags=["parameters"]
results = "metrics/icons/results.csv"
publish_to = "figures/icons/forget_set"

# %%
import pandas as pd

from paper.statistics import runs_of
from paper.tables import experiment_rows, publish_table, show
from paper.verdicts import claims, open_with

rows = experiment_rows(results, "proposal", split="train")
(provenance,) = rows.provenance.unique()
runs = runs_of(rows)
ways = ["sentence", "examples", "sentence and examples"]
mean = runs.groupby("method")[["precision_rate", "recall_rate"]].mean().loc[ways]
worst = runs.groupby(["method", "concept"])[["precision_rate", "recall_rate"]].mean().groupby("method").min().loc[ways]
tested = {
    "a sentence finds at least 90 % of the rows, on average": mean.recall_rate["sentence"] >= 90,
    "and at least 90 % of what it proposes belongs": mean.precision_rate["sentence"] >= 90,
    "examples beside the sentence help both": (mean.loc["sentence and examples"] >= mean.loc["sentence"]).all(),
}
open_with(
    "forget_set",
    rows,
    paper="The forget set must be known exactly: the paper's fourth limitation.",
    here=f"From a word or a sentence, {mean.precision_rate['sentence']:.0f} % of the proposed rows belong and "
    f"{mean.recall_rate['sentence']:.0f} % of what belongs is proposed; from five pictures "
    f"{mean.precision_rate['examples']:.0f} and {mean.recall_rate['examples']:.0f} %; from both "
    f"{mean.precision_rate[ways[2]]:.0f} and {mean.recall_rate[ways[2]]:.0f} %.",
    tested=tested,
)

# %% [markdown]
# ## What is looked for
#
# `cliperase propose` scores every training row and proposes those above a cut-off, which a mixture of normal
# distributions gives. A first rule, always two distributions, was given up when it proposed 3,707 rows for bicycle,
# which is reported here. The present one was chosen on six concepts that are not. *Precision*: percent of the proposed
# rows that belong. *Recall*: percent of the rows that belong and are proposed. The labels say what belongs. Five
# example pictures are drawn from validation images; each seed draws others. Mean over seeds.

# %%
table = runs.groupby(["concept", "method"])[["precision_rate", "recall_rate"]].mean().unstack("method")
columns = {f"{name}: {way}": table[f"{name}_rate", way] for way in ways for name in ("precision", "recall")}
images = runs.groupby("concept").forget_images.max().astype(int)
numbers = pd.DataFrame({"rows": images, **columns}).rename_axis("looked for").reset_index()
publish_table(numbers.assign(provenance=provenance), "forget_set", publish_to)
show(numbers.assign(provenance=provenance))

# %% [markdown]
# How many rows are proposed, the mean over seeds. What the model reads as a word of two senses brings both along.

# %%
show(runs.groupby(["concept", "method"]).proposed_images.mean().unstack("method")[ways].round().reset_index())

# %% [markdown]
# ## The claims, tested
#
# The limits of 90 % are ours. They were set before this table, and after that look at bicycle.

# %%
claims(tested, {})

# %% [markdown]
# ## Where it goes wrong
#
# The lowest mean over the things that were looked for.

# %%
show(worst.reset_index())
