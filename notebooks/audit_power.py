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
from cliperase.audit.verdict import LEAST_AUC, by_chance
from paper.figures.style import publish_figure, use_style
from paper.figures.votes import paired_plot, power_plot
from paper.planted import FAILURES
from paper.power import PowerStudy
from paper.tables import in_root, publish_table, show
from paper.verdicts import claims, open_with

use_style()
study = PowerStudy(in_root(power))
found, figures = study.power.sort_values("auc", ascending=False, kind="stable"), study.figures
provenance = study.provenance
planted, hiding = list(FAILURES), ["text head projected", "token rows zeroed"]
votes = found[found.auc >= LEAST_AUC]
name = found.probe + "." + found.measure
auc, caught = found.auc.set_axis(name), found.set_index(name)
few, usual, spread = "linear-probe.image_recall_1_shots", "reference-gap.forget_accuracy", "linear-probe.image_area_all"
counts, limit = study.known_votes(), by_chance(len(votes))
gone = 100 * (counts.known > limit).groupby(counts.model).mean()
tested = {
    "the few-shot probe of the images has a vote": auc[few] >= LEAST_AUC,
    "the verdict is *not gone* for every model that saw its concept": gone["saw"] == 100,
    "and for at most a fifth of those that never did": gone["never"] <= 20,
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
    here=f"{len(votes)} of {len(found)} figures tell models that saw a concept from models that never did, with an "
    f"area of at least {LEAST_AUC}. The few-shot probe of the images does ({auc[few]:.2f}). Of the projected text "
    f"heads {100 - caught.loc[usual, 'text head projected']:.0f} % pass at the usual prompt; the verdict sees through "
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
# would bring if the figures were independent, which they are not. So the verdict has a power of its own: here are the
# counts of the models of this study, and how often the verdict would be *not gone*.

# %%
told = counts.groupby("model", sort=False).known.agg(["count", "min", "median", "max"])
told["not gone, %"] = gone
told = told.rename(columns={"count": "models"}).rename_axis("model").reset_index()
publish_table(told.assign(provenance=provenance), "verdict", publish_to)
show(told)
print(f"not gone: more than {limit} of {len(votes)} figures")

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
none = found[found.auc < LEAST_AUC]
print("No vote:", ", ".join(f"{line.probe}.{line.measure} ({line.auc:.2f})" for line in none.itertuples()) or "none")
