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
# # Ratios: forgetting more and more classes together

# %% tags=["parameters"]
results = "metrics/icons/results.csv"
publish_to = "figures/icons/ratios"

# %%
from paper.figures.grids import grid_figure
from paper.figures.style import publish_figure, use_style
from paper.figures.trends import INKS, trend_plot
from paper.ledger import MATCH_POINTS, judge_ratios, ratio_of, retention_by_concept
from paper.statistics import in_order, runs_of, summarise, summarise_each, with_gap
from paper.tables import experiment_rows, intervals_by_concept, out_of_budget, publish_table, show
from paper.verdicts import above, claim_above, claims, open_with

use_style()
rows = with_gap(experiment_rows(results, "ratios"))
(provenance,) = rows.provenance.unique()
metrics = ["forget_accuracy", "retain_accuracy"]
order = in_order(summarise(rows, ["method"], ["average_gap"])).method.tolist()
concepts = sorted(rows.concept.unique(), key=ratio_of)
last, percent = concepts[-1], {concept: f"{ratio_of(concept)} %" for concept in concepts}
summary = summarise_each(rows, metrics).set_index(["method", "concept"])
forget, retain = (summary[metric].unstack().loc[order, concepts] for metric in metrics)
change = retain - retain.loc["original"]
at_last = runs_of(rows[rows.concept == last])
judged = judge_ratios(rows).drop(columns="change").assign(**{"provenance of ours": provenance})
borne_out, against = ((judged.verdict == said).sum() for said in ("same direction", "differs"))
stays = (change.loc["CLIPErase"].abs() <= MATCH_POINTS).all()
papers = {f"CLIPErase's mean retention is within {MATCH_POINTS:g} points of the original's at every ratio": stays}
tested = {"CLIPErase forgets at every ratio": (forget.loc["CLIPErase"] <= 5.0).all()} | papers
still, moved = (", ".join(map(form, table.loc["CLIPErase"]))
                for form, table in (("{:.1f}".format, forget), ("{:+.1f}".format, change)))  # fmt: skip
open_with(
    "ratios",
    rows,
    paper="When 3 to 30 % of the classes are forgotten together, gradient ascent's retention falls sharply, gradient "
    "ascent and gradient difference forget worse as the ratio grows, and CLIPErase's retention stays near the "
    "original.",
    here=f"With {', '.join(percent.values())} of the classes forgotten, CLIPErase still recognises {still} % of their "
    f"test images. Accuracy on the rest changes by {moved} points. Of the paper's {len(judged)} statements the "
    f"intervals over seeds bear out {borne_out} and contradict {against}; the rest cannot be told.",
    tested=tested | above(at_last, "GA"),
)

# %% [markdown]
# ## The picture
#
# Lines join the means. Small dots are the seeds, bars the 95 % intervals. Dashed: the original model on the same
# classes. The second figure has all rows, the smallest average gap first: means over the seeds.

# %%
titles = ["Forget accuracy, %\n(lower is better)", "Retain accuracy, %\n(should stay with the original)"]
drawn = {method: INKS[method] for method in order if method in INKS}
publish_figure(trend_plot(rows, summary, drawn, list(zip(metrics, titles, strict=True)))[0], "ratios", publish_to)
shown = {"Forget accuracy, %": forget, "Retain accuracy, %": retain}
shares = {"columns": "share of the classes that is forgotten"}
shown = {title: table.rename(columns=percent).rename_axis(**shares) for title, table in shown.items()}
publish_figure(grid_figure(shown), "all_rows", publish_to)

# %% [markdown]
# ## What is run
#
# Every seed draws its own classes. Its smaller draws are part of its larger ones, so that ratios and methods can be
# compared within a seed. Every row makes as many passes over the forget set at every ratio, in batches that grow with
# it. Checkpoints are selected on validation images.
#
# On pictograms every row has a search of its own for several classes: twelve candidates forget 10 % of the classes, the
# best three also 3, 20 and 30 %. No draw here contains these classes. The runs on photographs are older: their settings
# are those of one class, and their steps grow less than the number of classes.
#
# **The table.** Zero-shot accuracy on test images among all classes, in percent, mean with a 95 % interval (bootstrap
# over seeds). *Forget*: images of the forgotten classes. *Retain*: images of all others. The original comes first, then
# the order is by the average gap over the ratios, in points: of the forget set to zero, of the retain set to the
# original, where it is lower.

# %%
table = intervals_by_concept(summary, metrics, order, percent).assign(provenance=provenance)
numbers = summary.loc[[(method, concept) for concept in concepts for method in order]].reset_index()
publish_table(table, "ratios", publish_to, numbers=numbers.assign(provenance=provenance))
show(table)

# %% [markdown]
# **Did the budget run out?** In so many runs the last checkpoint was the best. With more passes such a row might stand
# elsewhere. Rows that take no steps are left out. On photographs this was not recorded.

# %%
ran_out = out_of_budget(experiment_rows(results, "ratios", split="validation"))
if len(ran_out):
    show(ran_out.reindex(order).dropna().reset_index())

# %% [markdown]
# ## Beside the paper
#
# The paper's statements have no numbers, so a rule judges each. *Falls*, *gets worse*: the change from the smallest to
# the largest ratio, paired by seed. *Stays near the original*: the difference from the original at the largest ratio,
# with a margin of 2 points. `same direction`: the whole 95 % interval bears the paper out. `differs`: the whole
# interval speaks against it. Else `not distinguishable`.

# %%
show(judged)

# %% [markdown]
# ## Does retention hold as the ratio grows?
#
# Retain accuracy less the original's on the same classes, in points, paired by seed. `retention` judges the largest
# ratio by the rule above. Forget accuracy stands beside it, because a row that forgets nothing retains everything.
# A row has one setting for all ratios. On pictograms SSD's changes no weight at 30 %: as published, it can do nothing
# where α is above the inverse of the share. That is this setting, not the method.

# %%
kept = retention_by_concept(rows, order[1:], percent)
kept.insert(len(kept.columns) - 1, f"forget accuracy at {percent[last]}", list(forget[last][1:]))
show(kept)

# %% [markdown]
# ## The claims, tested
#
# Retention is only worth something beside forgetting. At every ratio CLIPErase should recognise at most 5 % of the
# forgotten images. At the largest ratio its average gap should be smaller than gradient ascent's. The table shows the
# average gap, averaged over seeds.

# %%
gaps = runs_of(rows).average_gap.groupby(["method", "concept"]).mean().unstack().loc[order[1:], concepts]
show(gaps.rename(columns=percent).reset_index())
print(f"smallest average gap at {last}: {gaps[last].idxmin()}, {gaps[last].min():.1f} points")
claims(tested, papers)
claim_above(at_last, "GA")

# %% [markdown]
# ## What does not agree
#
# A checkpoint is the best compromise on validation images. What a method loses of forgetting it may gain in retention,
# so a statement about one of the two can fail for that reason.

# %%
print("Mean retention at the largest ratio is above the original's in:", end=" ")
print(", ".join(method for method in order[1:] if change.loc[method, last] > 0) or "no row")
