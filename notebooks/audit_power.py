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
# # The power of the audit: which figures tell a model that saw a concept from one that never did?

# %% tags=["parameters"]
power = "metrics/icons/power"
publish_to = "figures/icons/audit_power"

# %%
import pandas as pd

from cliperase.audit.verdict import LEAST_AUC, by_chance, silent
from paper.audits import VERDICTS as KINDS
from paper.figures.style import publish_figure, use_style
from paper.figures.votes import paired_plot, power_plot
from paper.planted import FAILURES
from paper.power import PowerStudy
from paper.tables import in_root, publish_table, show
from paper.verdicts import claims, open_with

use_style()
study = PowerStudy.read(in_root(power))
found, figures = study.power.sort_values("auc", ascending=False, kind="stable"), study.figures
provenance = study.provenance
planted, hiding = list(FAILURES), ["text head projected", "token rows zeroed"]
name = found.probe + "." + found.measure
votes = found[name.isin(study.voting)]
auc, caught = found.auc.set_axis(name), found.set_index(name)
few, usual, spread = "linear-probe.image_recall_1_shots", "reference-gap.forget_accuracy", "linear-probe.image_area_all"
judged, beside_one = study.judged(), study.judged(references=1)
shares = {kind: 100 * judged.verdict.str.startswith(kind).groupby(judged.model).mean() for kind in KINDS}
gone, pushed = shares["Not gone"], shares["Pushed away"]
tested = {
    "the few-shot probe of the images has a vote": auc[few] >= LEAST_AUC,
    "the verdict is *not gone* for every model that saw its concept": gone["saw"] == 100,
    "and for at most a tenth of those that never did, by limits from other seeds": gone["never"] <= 10,
    "at most a tenth of those counts as pushed away": pushed["never"] <= 10,
    "it sees through most of the projected text heads and zeroed tokens": (gone[hiding] > 50).all(),
    "to tell one class from the rest by all examples has no vote": auc[spread] < LEAST_AUC,
    "an unchanged original is caught by every figure with a vote, in most concepts": (votes.nothing >= 60).all(),
}
about = figures.assign(profile="icons", dataset="icons", method=figures.model, model="compact", provenance=provenance)
about = about.assign(seed=about.seed.astype(str))
open_with(
    "audit_power",
    about,
    paper="Forgetting is measured by the accuracy at one prompt, and no probe is tested.",
    here=f"{len(votes)} of {len(found)} figures may vote: they tell models that saw a concept from models that never "
    f"did, with an area of at least {LEAST_AUC}, and say what no other one says. Judged by the models of other seeds, "
    f"{gone['saw']:.0f} % of the models that saw a concept are found, and of those that never did "
    f"{gone['never']:.0f} % are called not gone, {pushed['never']:.0f} % pushed away. Of the projected text heads "
    f"{100 - caught.loc[usual, 'text head projected']:.0f} % pass at the usual prompt; the verdict sees through "
    f"{gone['text head projected']:.0f} %.",
    tested=tested,
)

# %% [markdown]
# ## The picture
#
# For each of five concepts and four seeds there are two models of the same seed, one trained with the concept and one
# without. Every figure of the audit is measured on both. *Area*: how often a model that saw the concept lies on the
# knowing side of one that did not, within a concept, mean over concepts; the interval is a bootstrap over concepts. On
# the right: four edits of an original after which the concept seems gone and is not, or nothing has changed. A figure
# catches one if it lies beyond the limit beside the models that never saw the concept, which 5 % of them pass.

# %%
figure = power_plot(found, planted)
publish_figure(figure, "power", publish_to)
shown = {
    usual: "Accuracy at the prompt, %",
    few: "Few-shot probe, images:\nrecall at 1 shot, %",
    "relearning.area_8_pairs": "Relearning with 8 pairs:\narea, %",
}
figure = paired_plot(figures, shown)
publish_figure(figure, "pairs_of_models", publish_to)

# %% [markdown]
# ## The numbers
#
# `threshold`: beyond it lie 5 % of the models that never saw their concept; `far end`: the same on the other side.
# Both are taken over all concepts, so a concept that is easy to guess makes them wide. `spread`: how far a model that
# never saw its concept lies from the middle of the others of this concept, with 5 % beyond each end. Where there is a
# reference, the limits lie so far from it, and that is what the audits of this repository use. `finds`: percent of the
# models that saw the concept beyond the threshold, or beyond the limit beside references. `least effect`: from the
# reference to that limit. Seconds are those of the whole probe for a pair of models. With four models on each side of a
# concept an area is coarse: it moves in steps of 1/16.

# %%
table = found.rename(columns=lambda column: column.replace("_", " "))
publish_table(table, "power", publish_to)
show(table.drop(columns=["auc low", "auc high", "provenance"]).round(2))

# %% [markdown]
# ## The power of the verdict
#
# An audit counts how many of its figures say that the concept is still known. *Not gone* is said of more than chance
# would bring if the figures were independent, which they are not, and the limits come from few models. So the verdict
# has a power of its own. Here every model of the study is judged by those of the other seeds: limits and reference come
# from them alone. The reference is their middle, or one model in turn. Verdicts are in percent; `votes` and `known` are
# means. By values, because the study keeps no intervals.

# %%
told = []
for reference, one in (("middle of three", judged), ("one model", beside_one)):
    kinds = one.verdict.str.extract(f"^({'|'.join(KINDS)})")[0]
    table = 100 * pd.crosstab(one.model, kinds, normalize="index").reindex(columns=KINDS, fill_value=0.0)
    table = table.join(
        one.groupby("model").agg(judged=("seed", "size"), votes=("votes", "mean"), known=("known", "mean"))
    )
    told.append(table.reset_index().assign(reference=reference))
told = pd.concat(told, ignore_index=True)
publish_table(told.assign(provenance=provenance), "verdict", publish_to)
show(told[["reference", "model", "judged", *KINDS, "votes", "known"]].round(1))
for count in (5, 15, 25, 35):
    print(f"of {count} votes, not gone needs more than {by_chance(count)}")

# %% [markdown]
# ## The claims, tested

# %%
claims(tested)

# %% [markdown]
# ## What this does not show
#
# The thresholds are those of small CLIPs on pictograms and of these concepts. On another model and other data they have
# to be measured again: `make power` says how. A figure without a vote is still shown in an audit, as a finding beside
# the reference.

# %%
for figure, threshold in study.thresholds.items():
    reason = silent(figure, study.known[figure], threshold)
    if reason:
        print(f"{figure} has no vote: {reason}")
