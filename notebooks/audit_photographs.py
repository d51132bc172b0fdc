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
# # The audit on photographs: every row beside a model that never saw an apple

# %% tags=["parameters"]
results = "metrics/icons/results.csv"
publish_to = "figures/icons/audit_photographs"

# %%
import pandas as pd

from cliperase.audit.verdict import LESS, MORE
from paper.audits import ALIKE, beside, curves
from paper.figures.style import OURS, publish_figure, use_style
from paper.figures.trends import curves_plot
from paper.figures.votes import AWAY, KNOWS, votes_plot
from paper.results import REFERENCES
from paper.tables import experiment_rows, publish_table, show
from paper.verdicts import claims, open_with

use_style()
rows = experiment_rows(results, "audit")
(provenance,) = rows.provenance.unique()
shown = {
    "reference-gap.forget_accuracy": "at the prompt, %",
    "other-words.template_worst": "best other template, %",
    "reference-gap.forget_cosine": "cosine to the prompt",
    "linear-probe.image_recall_1_shots": "few-shot probe, 1 shot, %",
    "linear-probe.image_recall_8_shots": "few-shot probe, 8 shots, %",
    "relearning.area_8_pairs": "relearning, 8 pairs, %",
    "membership.area_loss": "membership by loss, AUC",
    "image-attack.success": "image attack, %",
    "text-attack.success": "text attack, %",
    "quantisation.forget_accuracy_4_bits": "at 4 bits, %",
}
lines = beside(rows)
lines = lines[lines.figure.isin(list(shown))]
said = lines.pivot_table(index="method", columns="figure", values="vote", aggfunc="first")[list(shown)]
means = rows.pivot_table(index="method", columns="metric", values="value")
curve = curves(rows, pairs=8)
more, less, alike = ((said == kind).sum(axis=1) for kind in (MORE, LESS, ALIKE))
rest = said.index.drop(list(REFERENCES))
order = [*REFERENCES, *alike[rest].sort_values(ascending=False, kind="stable").index]
prompt, few = "reference-gap.forget_accuracy", "linear-probe.image_recall_1_shots"
again = "relearning.area_8_pairs"
rivals = ["MultiDelete", "SSD", "null space"]
nearer = (means[few] - means.loc["retrain", few]).abs() < (means[few] - means.loc["original", few]).abs()
told = [prompt, "other-words.template_worst", "image-attack.success", "quantisation.forget_accuracy_4_bits"]
tested = {
    "more than half of the figures tell the original from the retrained model": more["original"] > len(shown) / 2,
    "at the prompt, in another template, under attack and at 4 bits CLIPErase knows no more than the retrained model": (
        (said.loc["CLIPErase", told] != MORE).all()
    ),
    "CLIPErase leaves the prompt as near to its images as the retrained model, not further": (
        said.loc["CLIPErase", "reference-gap.forget_cosine"] == ALIKE
    ),
    "after CLIPErase the apple comes back as fast as the retrained model learns it, not slower": (
        said.loc["CLIPErase", again] == ALIKE
    ),
    "after MultiDelete, SSD and null space the 1-shot probe is nearer to the original than to the retrained model": (
        not nearer[rivals].any()
    ),
    "after CLIPErase it is nearer to the retrained model": nearer["CLIPErase"],
    "after unseen it is nearer to the retrained model": nearer["unseen"],
}
open_with(
    "audit_photographs",
    rows,
    paper="CLIPErase forgets: the images are no longer recognised at the prompt, and the rest is kept.",
    here=f"At the prompt CLIPErase names {means.loc['CLIPErase', prompt]:.0f} % of the apples, the original "
    f"{means.loc['original', prompt]:.0f} %. From one example a class a probe of the image embeddings names "
    f"{means.loc['original', few]:.0f} % in the original, {means.loc['CLIPErase', few]:.0f} % after CLIPErase, "
    f"{means.loc['MultiDelete', few]:.0f} % after MultiDelete, {means.loc['unseen', few]:.0f} % after unseen, and "
    f"{means.loc['retrain', few]:.0f} % in a model that never saw one. Of {len(shown)} figures CLIPErase has "
    f"{alike['CLIPErase']} as of that model, MultiDelete {alike['MultiDelete']}, unseen {alike['unseen']}. One "
    "concept and one run a row; no row was searched for this question.",
    tested=tested,
)

# %% [markdown]
# ## The picture
#
# Every row of the main table with its settings, on CIFAR-100's test images: one concept, apple, and one run. A number
# stands on vermilion where its interval lies above that of the model that was trained without apples, so that something
# is left; on blue where it lies below, so that it was pushed further away than in a model that never knew. The methods
# are sorted by how many figures cannot be told from that model's.

# %%
marks = {MORE: ("more than the retrained model", KNOWS), LESS: ("less", AWAY)}
figure = votes_plot(lines, order, shown, marks, neither="not told apart")
publish_figure(figure, "figures", publish_to)

# %% [markdown]
# ## Relearning
#
# Eight apples and a batch of other images are trained on again, at one learning rate for every model. What a retrained
# model learns in these steps, any model may; what comes back faster was hidden and not removed.

# %%
inks = {"original": "0.5", "retrain": "#009E73", "null space": "#56B4E9", "SSD": "#E69F00", "MultiDelete": "0.15",
        "CLIPErase": "#D55E00", "unseen": OURS}  # fmt: skip
figure = curves_plot(curve, inks, title="Forgotten test images recognised, %")
publish_figure(figure, "relearning", publish_to)
show(curve.T.loc[order].rename(columns="{} steps".format).round(0).astype(int).reset_index())

# %% [markdown]
# ## Which tower forgot
#
# Accuracy on apples with one tower of the unlearned model beside the other one of the original. High with the new image
# tower: only the texts have moved. A retrained model has a space of its own, so it is left out.

# %%
towers = {"image": "new images, old texts, %", "text": "old images, new texts, %"}
swapped = {name: means[f"encoder-swap.forget_accuracy_{tower}_tower"] for tower, name in towers.items()}
unlearned = [method for method in order if method != "retrain"]
show(pd.DataFrame(swapped).loc[unlearned].round(0).astype(int).reset_index())

# %% [markdown]
# ## Figure by figure
#
# How many figures lie above, below, or cannot be told from the retrained model's; and accuracy on the other classes.

# %%
table = more.to_frame("more").assign(less=less, alike=alike, **{name: means[figure] for figure, name in shown.items()})
table["retain accuracy, %"] = means["reference-gap.retain_accuracy"]
table = table.loc[order].round(2).reset_index().assign(provenance=provenance)
publish_table(table, "figures", publish_to)
show(table)

# %% [markdown]
# ## The claims, tested

# %%
claims(tested)

# %% [markdown]
# ## What this does not show
#
# One concept, one run a row, one retrained model. The intervals say how sure a figure is of these 100 test images, and
# nothing of another training: how far retrained models differ was measured on [pictograms](../audit_power.ipynb) only.
# So there are no thresholds here, no votes, and no verdict. The few-shot probe's intervals are wide, because a single
# example of a class decides much: *nearer* in the claims compares means.
