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
    "encoder-swap.forget_accuracy_image_tower": "its images, old texts, %",
    "encoder-swap.forget_accuracy_text_tower": "old images, its texts, %",
    "linear-probe.image_recall_1_shots": "few-shot probe, 1 shot, %",
    "linear-probe.image_recall_8_shots": "few-shot probe, 8 shots, %",
    "relearning.area_8_pairs": "relearning, 8 pairs, %",
    "membership.area_loss": "membership by loss, AUC",
    "image-attack.success": "image attack, %",
    "text-attack.success": "text attack, %",
    "quantisation.forget_accuracy_4_bits": "at 4 bits, %",
}
lines = beside(rows[rows.metric.str.replace(r" (low|high)$", "", regex=True).isin(list(shown))])
said = lines.pivot_table(index="method", columns="figure", values="vote", aggfunc="first")[list(shown)]
means = rows.pivot_table(index="method", columns="metric", values="value")
curve = curves(rows)
more, less, alike = ((said == kind).sum(axis=1) for kind in (MORE, LESS, ALIKE))
rest = said.index.drop(list(REFERENCES))
order = [*REFERENCES, *alike[rest].sort_values(ascending=False, kind="stable").index]
few, many = "linear-probe.image_recall_1_shots", "linear-probe.image_recall_8_shots"
prompt, again = "reference-gap.forget_accuracy", "relearning.area_8_pairs"
rivals = ["MultiDelete", "SSD", "null space"]
tested = {
    "the retrained model and the original are told apart by more than half of the figures": (
        more["original"] > len(shown) / 2
    ),
    "after MultiDelete, SSD and null space a probe finds more in the images than in the retrained model": (
        (said.loc[rivals, few] == MORE).all()
    ),
    "after CLIPErase it finds no more, from one or eight examples a class": (
        (said.loc["CLIPErase", [few, many]] != MORE).all()
    ),
    "after unseen it finds no more": (said.loc["unseen", [few, many]] != MORE).all(),
    "the apple comes back no faster after CLIPErase than it is learnt by the retrained model": (
        said.loc["CLIPErase", again] != MORE
    ),
    "of all methods unseen has most figures as of the retrained model": alike[rest].idxmax() == "unseen",
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
    f"{alike['CLIPErase']} as of that model, MultiDelete {alike['MultiDelete']}, unseen {alike['unseen']}.",
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
show(curve.T.loc[order].round(0).reset_index())

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
# So there are no thresholds here, no votes, and no verdict. No row was searched for this question.
