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
# # The audit: which methods pass, and which probes do they fail?

# %% tags=["parameters"]
results = "metrics/icons/results.csv"
power = "metrics/icons/power"
publish_to = "figures/icons/audit"

# %%
from cliperase.audit.verdict import KNOWN, NEVER_KNOWN, PUSHED
from paper.audits import shares, tally, verdicts, votes
from paper.figures.style import publish_figure, use_style
from paper.figures.votes import votes_plot
from paper.power import PowerStudy
from paper.results import REFERENCES
from paper.tables import experiment_rows, in_root, publish_table, show
from paper.verdicts import claims, open_with

use_style()
rows = experiment_rows(results, "audit")
(provenance,) = rows.provenance.unique()
study = PowerStudy.read(in_root(power))
voted = votes(rows, study)
counted = tally(voted)
order, said = list(counted.index), verdicts(voted)
gone, pushed, known = (shares(said)[kind] for kind in ("No trace", "Pushed away", "Not gone"))
shots = voted[voted.figure == "linear-probe.image_recall_1_shots"]
few, still = shots.groupby("method")["value"].mean(), (shots.vote == KNOWN).groupby(shots.method).mean() * 100
rivals = ["MultiDelete", "SSD", "null space"]
tested = {
    "the audit finds the concept in every original": known["original"] == 100,
    "and in at most a fifth of the models retrained without it": known["retrain"] <= 20,
    "a few-shot probe of the images finds it in most models of MultiDelete, SSD and null space": (
        still[rivals] > 50
    ).all(),
    "no trace is left in most models of CLIPErase": gone["CLIPErase"] > 50,
    "no trace is left in most models of unseen": gone["unseen"] > 50,
    "in the steps of the main table, of all methods unseen has most votes as of a model that never knew": (
        counted[NEVER_KNOWN].drop([*REFERENCES, "unseen, twice the steps", "unseen, new tokens"]).idxmax() == "unseen"
    ),
}
open_with(
    "audit",
    rows,
    paper="CLIPErase forgets: the images are no longer recognised at the prompt, and the rest is kept.",
    here=f"By the figures whose power was measured, the concept is still known in {known['CLIPErase']:.0f} % of the "
    f"models of CLIPErase, and was pushed away in another {pushed['CLIPErase']:.0f} %; in the original the probe names "
    f"{few['original']:.0f} % of its images from one example a class, after CLIPErase {few['CLIPErase']:.0f} %, after "
    f"MultiDelete {few['MultiDelete']:.0f} %, after unseen {few['unseen']:.0f} %, in a model that never saw it "
    f"{few['retrain']:.0f} %.",
    tested=tested,
)

# %% [markdown]
# ## The picture
#
# Every row of the main table, audited on test images: four concepts, three seeds. A number is the mean of a figure. It
# stands on vermilion where its interval lies beyond the threshold of the [power study](audit_power.ipynb), so that the
# concept is still known, and on blue where it lies beyond the far end, further from knowing than models that never did:
# the concept was pushed away, which is a trace of its own. The darker, the more of the runs say so; grey mixes both.
# The columns are the figures that may vote. A figure abstains where the originals do not pass its limit either, and
# where the images are too few to tell the model from them. The methods are sorted by how many of their votes are as of
# a model that never knew.

# %%
figures = set(voted.figure)
columns = {
    name: name.replace(".", ": ").replace("_", " ").replace("-", " ") for name in study.voting if name in figures
}
figure = votes_plot(voted, order, columns)
publish_figure(figure, "votes", publish_to)

# %% [markdown]
# ## The verdicts
#
# Votes in percent of all votes of a method, and verdicts in percent of its runs. A verdict is *not gone* where more
# figures say "still known" than chance lets do in 19 of 20 models that never knew it; *pushed away* likewise.

# %%
cost = rows.pivot_table(index="method", columns="metric", values="value")["reference-gap.retain_accuracy"]
table = counted.rename(columns={KNOWN: "votes: known", PUSHED: "votes: pushed away", NEVER_KNOWN: "votes: never known"})
table = table.assign(**{"not gone": known, "pushed away": pushed, "no trace": gone, "retain accuracy": cost})
table = table.loc[order].round(1).reset_index().assign(provenance=provenance)
publish_table(table, "verdicts", publish_to)
show(table)

# %% [markdown]
# ## What the probes say, by question
#
# Means over all runs. *Few-shot*: a linear classifier on the frozen image embeddings, from one and eight examples of
# each class. *Relearning*: training on eight pairs of the concept, mean recognised over the steps.

# %%
asked = {
    "reference-gap.forget_accuracy": "at the prompt, %",
    "reference-gap.forget_cosine": "cosine to the prompt",
    "reference-gap.unrelated_cosine": "prompt to other images",
    "linear-probe.image_recall_1_shots": "few-shot 1, %",
    "linear-probe.image_recall_8_shots": "few-shot 8, %",
    "relearning.area_8_pairs": "relearning, %",
    "quantisation.forget_accuracy_4_bits": "at 4 bits, %",
}
means = rows.pivot_table(index="method", columns="metric", values="value")[list(asked)].rename(columns=asked)
show(means.loc[order].round(2).reset_index())

# %% [markdown]
# ## The claims, tested

# %%
claims(tested)

# %% [markdown]
# ## What this does not show
#
# No row was searched for this question. All settings were chosen by accuracy, and `unseen` alone was made with the
# audit in view. So a verdict says what these models are, and not what a method could do.
#
# The thresholds come from models of seeds 1 to 4 and five concepts; the audited originals have the seeds 0 to 2, so two
# of three retrained models helped to set them, and the third did not. Apple is left out: its logo shares the word.

# %%
unknown = said[(said.method == "retrain") & (said.seed == "0")]
for line in unknown.itertuples():
    print(f"retrained without {line.concept}, seed 0, which set no threshold: {line.verdict}")
