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
# # Beyond: a method that is held against a model that never saw the concept

# %% tags=["parameters"]
results = "metrics/icons/results.csv"
power = "metrics/icons/power"
publish_to = "figures/icons/beyond"

# %%
import pandas as pd

from paper.audits import goal_means, goals
from paper.figures.dots import dot_plot
from paper.figures.style import publish_figure, use_style
from paper.power import PowerStudy
from paper.results import REFERENCES
from paper.tables import experiment_rows, in_root, publish_table, show
from paper.verdicts import claims, open_with

use_style()
rows, main = experiment_rows(results, "audit"), experiment_rows(results, "main")
(provenance,) = rows.provenance.unique()
study = PowerStudy.read(in_root(power))
rivals = ["CLIPErase", "MultiDelete", "SSD", "null space"]
ours = ["unseen", "unseen, twice the steps", "unseen, new tokens"]
order = [*REFERENCES, *ours, *rivals]
reached = goals(rows[rows.method.isin(order)], study)
own, most = reached[ours].sum(), reached[rivals].sum().max()
alone = experiment_rows(results, "efficiency", split="validation").drop_duplicates("method")
seconds = alone.set_index("method").seconds
times = seconds["unseen"] / seconds["CLIPErase"]
tested = {
    "unseen reaches every goal below": reached["unseen"].all(),
    "it reaches more of them than CLIPErase, MultiDelete, SSD and null space": own["unseen"] > most,
    "with twice its steps it reaches more of them than these": own[ours[1]] > most,
    "with new tokens, too, it reaches more of them than these": own[ours[2]] > most,
    "it costs at most twice the time of CLIPErase": times <= 2,
}
few = rows[rows.metric == "linear-probe.image_recall_1_shots"].groupby("method").value.mean()
open_with(
    "beyond",
    rows[rows.method.isin(order)],
    paper="CLIPErase lowers the similarity of the forgotten pairs. The loss for that is least at a cosine of -1.",
    here=f"`unseen` teaches the forgotten pairs what a regression on the retained pairs says of them. It reaches "
    f"{own['unseen']} of {len(reached)} goals, with twice its steps and a falling rate {own[ours[1]]}, with new "
    f"tokens, too, {own[ours[2]]}, the best of the others {most}. From one example a class a probe names "
    f"{few['unseen']:.0f} % of its forgotten images, with twice its steps {few[ours[1]]:.0f} %; of a model that "
    f"never saw them {few['retrain']:.0f} %, of the original {few['original']:.0f} %, after MultiDelete "
    f"{few['MultiDelete']:.0f} %.",
    tested=tested,
)

# %% [markdown]
# ## The picture
#
# Every dot is one run on test images: a concept and a seed. The grey line is the original, the blue region what models
# reach that were trained without the concept. A method should lie in the region, not merely far from the original.

# %%
panels = {
    "linear-probe.image_recall_1_shots": "Few-shot probe,\n1 shot, %",
    "linear-probe.image_recall_8_shots": "Few-shot probe,\n8 shots, %",
    "relearning.area_8_pairs": "Relearning with\n8 pairs, %",
    "reference-gap.forget_cosine": "Cosine to the\nown prompt",
    "reference-gap.retain_accuracy": "Accuracy on the\nrest, %",
}
figure, axes = dot_plot(rows, order, panels=panels, ours=ours)
publish_figure(figure, "beyond", publish_to)

# %% [markdown]
# ## The goals
#
# They were set before the method was. The mean of a figure over runs is held against that of the models of the same
# concept and seed that were retrained, or against the original. `spread`: the mean lies between the two ends of the
# [power study](audit_power.ipynb), which 5 % of the models that never saw their concept pass on each side.

# %%
shown = reached.replace({True: "yes", False: "no"}).infer_objects().rename_axis("goal").reset_index()
publish_table(shown.assign(provenance=provenance), "goals", publish_to)
show(shown)
values = goal_means(rows[rows.method.isin(order)])
show(values.round(2).rename_axis("figure").reset_index())
print(f"seconds of one run alone, unseen over CLIPErase: {times:.2f}")

# %% [markdown]
# ## Where no retrained model was measured
#
# Goals for many classes, for generated pictures and for BLIP's matching head need a retrained model beside them, and
# these experiments have none. So here are the figures alone: means in percent, lower is better.

# %%
elsewhere = (
    ("an apple is drawn", "diffusion", "generated", "detection_rate", "apple"),
    ("a bicycle is drawn", "diffusion", "generated", "detection_rate", "bicycle"),
    ("BLIP's head matches the forgotten", "blip", "test", "forget_itm_accuracy@16", None),
    ("of 30 % of the classes, recognised", "ratios", "test", "forget_accuracy", "30 % of classes"),
)
lines = []
for asked, experiment, split, metric, concept in elsewhere:
    found = experiment_rows(results, experiment, split=split)
    found = found[(found.metric == metric) & (found.concept == concept if concept else True)]
    lines.append(found.groupby("method").value.mean().rename(asked))
table = pd.DataFrame(lines)[["original", "CLIPErase", "MultiDelete", "unseen"]].round(1)
show(table.rename_axis("asked").reset_index())

# %% [markdown]
# ## What was tried
#
# On validation images of dog and umbrella, which are not reported, one seed, in the steps of the main table where
# nothing else is said. The first tries, by which the weights and the depth were fixed, were made on the same two
# concepts, some of them on their test images; this table is a new run of them. A first version, without stretch and
# without the names that fit no image better, was audited on the reported concepts; that it stood off there led to both.
# How they were set was decided on dog and umbrella. *Twice the steps* also has a falling rate, which no search chose.
# Two later rows, decided there too, add to it; they were made after the audit had shown that a probe still tells the
# forgotten names apart. *Any caption* draws one of an image's captions for each step. *New tokens* does so, too, and
# first draws the embeddings of the tokens anew that only the forgotten texts use, so that a name is as strange as a
# word that was never taught.
#
# Seven rows leave the targets of `unseen` as they are and take its steps in another way
# ([paper/tried.py](../paper/tried.py) has the formulas). Their settings were looked at on dog alone.
#
# | row | how a step is taken | from |
# |---|---|---|
# | bargained | it goes as far along the gradient of forgetting as along that of retention | MUNBa |
# | projected | the gradient of forgetting loses what stands against that of retention | PCGrad |
# | primal-dual | retention weighs more for as long as its loss is above the original's and a slack | PDU |
# | flat | forgetting has the gradient of the worst place nearby | SAM |
# | invariant | a penalty on how much the loss of retention changes with a factor of the logits | ILU |
#
# In a CLIP that factor is its temperature, which pretraining has learnt, so the penalty is small from the beginning.
# The primal-dual weight keeps more and leaves the few-shot probe more. The others change little.

# %%
leads = experiment_rows(results, "leads", split="validation")
kept = {
    "reference-gap.forget_accuracy": "forget accuracy",
    "reference-gap.retain_accuracy": "retain accuracy",
    "linear-probe.image_recall_1_shots": "few-shot 1",
    "linear-probe.image_recall_8_shots": "few-shot 8",
    "linear-probe.text_recall_1_shots": "of names",
    "relearning.area_8_pairs": "relearning",
    "reference-gap.forget_cosine": "cosine to own",
    "reference-gap.unrelated_cosine": "to others",
}
table = leads[leads.metric.isin(list(kept))].pivot_table(index="method", columns="metric", values="value", sort=False)
table = table[list(kept)].rename(columns=kept).assign(seconds=leads.groupby("method").seconds.mean())
table = table.round(2).rename_axis("method").reset_index().assign(provenance=provenance)
publish_table(table, "leads", publish_to)
show(table)

# %% [markdown]
# ## The claims, tested

# %%
claims(tested, {})

# %% [markdown]
# ## What limits it
#
# The regression foresees what its features show. It was run on pictograms and in classes; several classes at once,
# captions, photographs and BLIP are other experiments.

# %%
for name in ours:
    print(f"Goals missed by {name}:", "; ".join(reached.index[~reached[name]]) or "none")
