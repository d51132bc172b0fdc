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
#
# **The paper's claim.** When 3, 10, 20 or 30 % of the classes are forgotten together, the retention of gradient
# ascent falls sharply as the ratio grows, gradient ascent and gradient difference forget *worse*, and CLIPErase's
# retention stays near the original. The question here: *does retention hold as the ratio grows?*
#
# **What is run here.** The same ratios with a small CLIP, on the data set that is named below with its provenance.
# Every seed draws its own classes, and its smaller draws are part of its larger ones, so that ratios, and methods, can
# be compared within a seed. The settings are those of forgetting *one* class, at every ratio: they were searched on two
# concepts that no draw contains (`tuning.md` beside the figures). The steps and the forget batch grow with the ratio,
# alike for every row (`experiments.ratios.draws` in `params.yaml`), because many classes share the steps that one class
# had to itself. Checkpoints are selected on validation images; what is shown is the test split.

# %% tags=["parameters"]
results = "metrics/icons/results.csv"
publish_to = "figures"

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from scipy.optimize import isotonic_regression

from paper.figures import OURS, publish_figure, use_style
from paper.ledger import MATCH_POINTS, bears_out, judge_ratios
from paper.tables import (
    claim,
    claim_above,
    experiment_rows,
    find_root,
    in_order,
    paired_change,
    publish_table,
    runs_of,
    score,
    show,
    spread,
    summarise,
    summarise_each,
)

use_style()
root = find_root()
rows = experiment_rows(root / results, "ratios")
metrics = ["forget_accuracy", "retain_accuracy"]
order = in_order(summarise(rows, ["method"], metrics)).method.tolist()
percent = {concept: int(concept.split()[0]) for concept in rows.concept.unique()}
concepts = sorted(percent, key=percent.get)
ratios = [percent[concept] for concept in concepts]
first, last = concepts[0], concepts[-1]
seeds = sorted(rows.seed.unique())
(provenance,) = rows.provenance.unique()
print("ratios:", ", ".join(concepts), "| seeds, each with its own classes:", ", ".join(seeds))
print("provenance:", provenance, "| data:", *rows.dataset.unique(), "| model:", *rows.model.unique())

# %% [markdown]
# ## The table
#
# Zero-shot accuracy among all classes, in percent, mean ± 95 % t-interval over seeds. With so few seeds such an
# interval is wide. *Forget*: test images of the forgotten classes, lower is better. *Retain*: test images of all
# others, which should stay where `original` has them. `original` first, then by the harmonic mean of 100 - forget and
# retain, both averaged over the ratios.

# %%
summary = summarise_each(rows, metrics).set_index(["method", "concept"])
table = pd.DataFrame(
    {"method": method, "accuracy, %": metric.removesuffix("_accuracy")}
    | {
        f"{percent[concept]} %": spread(*summary.loc[(method, concept), [metric, f"{metric} ±"]], digits=1)
        for concept in concepts
    }
    | {"provenance": provenance}
    for metric in metrics
    for method in order
)
numbers = summary.loc[[(method, concept) for concept in concepts for method in order]].reset_index()
publish_table(table, "ratios", root / publish_to, numbers=numbers.assign(provenance=provenance))
show(table)

# %% [markdown]
# ## The picture
#
# Lines join the means, small dots are the seeds, bars the 95 % t-intervals as far as they lie in 0 to 100 %; grey is
# the original model on the same classes. Rows are shifted a little sideways so that they do not hide each other. Drawn
# are the rows that have a colour below, for more could not be told apart; all are in the table.

# %%
INKS = {  # Okabe-Ito; a row keeps its colour wherever it ranks
    "original": "0.5",
    "fine-tune": "#CC79A7",
    "GA": "#D55E00",
    "GradDiff": "#E69F00",
    "KL-min": "#009E73",
    "SSD": "0.15",
    "null space": "#56B4E9",
    "CLIPErase": OURS,
}
drawn = [method for method in order if method in INKS]
assert set(INKS) == set(drawn)


def apart(wanted, gap, low, high):
    """Heights closest to `wanted` (least squares) that keep their order, a distance of `gap`, and low … high."""
    sequence, steps = np.argsort(wanted, kind="stable"), gap * np.arange(len(wanted))
    placed = isotonic_regression(np.asarray(wanted)[sequence] - steps).x.clip(low, high - steps[-1]) + steps
    return placed[np.argsort(sequence, kind="stable")]


def draw_row(axis, method, metric, shift):
    """Mean, interval and seeds of one row at every ratio."""
    ours, ink = method == "CLIPErase", INKS[method]
    means = summary.loc[method].loc[concepts]
    mean, half = means[metric].to_numpy(), means[f"{metric} ±"].to_numpy()
    places = np.array(ratios) + shift
    if method == "original":
        axis.plot(places, mean, color=ink, linewidth=1.2, linestyle=(0, (4, 2)), zorder=1)
        return
    axis.vlines(places, (mean - half).clip(0), (mean + half).clip(None, 100), color=ink, alpha=0.35, linewidth=1.1)
    for place, concept in zip(places, concepts, strict=True):
        values = rows[(rows.method == method) & (rows.concept == concept) & (rows.metric == metric)].value
        axis.plot([place] * len(values), values, "o", color=ink, alpha=0.5, markersize=2.6, mew=0)
    axis.plot(places, mean, "-o", color=ink, linewidth=2.6 if ours else 1.2, markersize=5 if ours else 3.2,
              markeredgecolor="white", mew=0.4, zorder=4 if ours else 3)  # fmt: skip


seen, points = summary.loc[drawn], rows[rows.method.isin(drawn)]


def floor_of(metric):
    """The multiple of ten below every interval and run: what is drawn is not cut."""
    ends = [*(seen[metric] - seen[f"{metric} ±"]).dropna(), points[points.metric == metric].value.min()]
    return max(0, 10 * (min(ends) // 10))


def top_of(metric):
    """The multiple of ten above every interval and run."""
    ends = [*(seen[metric] + seen[f"{metric} ±"]).dropna(), points[points.metric == metric].value.max()]
    return min(100, 10 * -(-max(ends) // 10))


def label_ends(axis, metric, shifts):
    """Each row's name beside the end of its line, moved up or down only as far as its neighbours demand."""
    ends = [summary.loc[(method, last), metric] for method in drawn]
    low, high = axis.get_ylim()
    gap = 0.062 * (high - low)
    for method, end, height in zip(drawn, ends, apart(ends, gap, low, high), strict=True):
        axis.annotate(
            method, (ratios[-1] + shifts[method] + 0.3, end), (ratios[-1] + 3.2, height), color=INKS[method],
            fontsize=8.5, va="center", weight="bold" if method == "CLIPErase" else "normal", annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": INKS[method], "linewidth": 0.6, "relpos": (0, 0.5), "shrinkB": 1},
        )  # fmt: skip


figure, axes = plt.subplots(1, 2, figsize=(7, 3.5))
figure.subplots_adjust(left=0.06, right=0.87, top=0.84, bottom=0.14, wspace=0.56)
titles = ["Forget accuracy, %\n(lower is better)", "Retain accuracy, %\n(should stay with the original)"]
shifts = dict(zip(drawn, np.append(0, np.linspace(-0.7, 0.7, len(drawn) - 1)), strict=True))
for axis, metric, title in zip(axes, metrics, titles, strict=True):
    floor = 0 if metric == "forget_accuracy" else floor_of(metric)
    margin = 0.02 * (top_of(metric) - floor)
    axis.set(xlim=(0, ratios[-1] + 1.5), ylim=(floor - margin, top_of(metric) + margin))
    for method in drawn:
        draw_row(axis, method, metric, shifts[method])
    label_ends(axis, metric, shifts)
    axis.set_xticks(ratios)
    axis.set_xlabel("classes forgotten together, %")
    axis.set_title(title, loc="left", fontsize="medium")
    axis.grid(axis="y", color="0.93")
    axis.tick_params(left=False)
sns.despine(figure, left=True)
publish_figure(figure, "ratios", root / publish_to)

# %% [markdown]
# ## Beside the paper
#
# The ledger holds these statements without numbers, so each is judged by a rule. *Falls* and *gets worse*: the change
# from the smallest to the largest ratio, paired by seed; the `same direction` where its whole 95 % interval lies on
# the paper's side of zero, `differs` where it lies on the other, else `not distinguishable`. *Stays near the
# original*: the difference from the original on the same classes at the largest ratio; the whole interval within a
# margin, wholly outside, or neither. The rule says nothing of "sharply": the size of a change stands beside it.


# %%
def at(method, concept):
    return {"method": method, "concept": concept}


print(f"margin of 'near': {MATCH_POINTS:g} points")
judged = judge_ratios(rows).assign(**{"provenance of ours": provenance})
show(judged)

# %% [markdown]
# ## Does retention hold as the ratio grows?
#
# Retain accuracy less the original's on the same classes, in points, paired by seed. A row *holds* at the largest
# ratio by the rule for "stays near" above, else it *falls* or *rises*. What a row still names of the forgotten classes
# stands beside it, for who forgets nothing retains everything.

# %%
ANSWERS = ["holds", "falls", "rises", "cannot be told"]


def answer(mean, half):
    """One of `ANSWERS` for a difference from the original."""
    return {True: "holds", False: "falls" if mean < 0 else "rises", None: "cannot be told"}[
        bears_out(mean, half, "stays")
    ]


lines = []
for method in order[1:]:
    changes = [paired_change(rows, "retain_accuracy", at("original", c), at(method, c)) for c in concepts]
    told = {f"{percent[c]} %": f"{mean:+.1f} ± {half:.1f}" for c, (mean, half) in zip(concepts, changes, strict=True)}
    named = summary.forget_accuracy[method, last]
    told |= {f"forget accuracy at {percent[last]} %": named, "retention": answer(*changes[-1])}
    lines.append({"method": method, **told})
held = pd.DataFrame(lines)
show(held)
for said in ANSWERS:
    chosen = held[held.retention == said]
    names = [f"{row.method} (still names {row.iloc[-2]:.1f} % of the forgotten)" for _, row in chosen.iterrows()]
    print(f"At {last} retention {said}:", ", ".join(names) or "no row")

# %% [markdown]
# ## The claim behind the claim: does CLIPErase forget at every ratio?
#
# Retention is only worth something beside forgetting. Steps and forget batch grow with the ratio, but less than it: at
# the largest each forgotten class is still seen less often than a single one would be. The paper trains for 20 epochs,
# so that its steps grow with the data. What this budget gives is counted, not asserted.

# %%
forget = summary.forget_accuracy.unstack().loc[order, concepts]
print(forget.loc["CLIPErase"].map("{:.2f} %".format).to_string())
failed = [concept for concept in concepts if forget.loc["CLIPErase", concept] > 5.0]
print("CLIPErase still names more than 5 % of the forgotten at:", ", ".join(failed) or "no ratio")
claim("CLIPErase forgets at every ratio", not failed)

# %% [markdown]
# ## The claim, tested: its retention stays near the original's at every ratio

# %%
retain = summary.retain_accuracy.unstack().loc[order, concepts]
change = retain - retain.loc["original"]
print(change.loc["CLIPErase"].map("{:+.2f} points".format).to_string())
near = (change.loc["CLIPErase"].abs() <= MATCH_POINTS).all()
claim(f"CLIPErase's mean retention is within {MATCH_POINTS:g} points of the original's at every ratio", near)

# %% [markdown]
# ## Both at once
#
# Harmonic mean of 100 - forget and retain accuracy, the mean that also selects checkpoints, of each run, and averaged
# over seeds. It is low for a row that keeps everything because it forgets nothing, as for one that forgets everything.
# Whether CLIPErase is ahead of gradient ascent at the largest ratio is asked of the difference within a seed, where
# the classes are the same, with its 95 % t-interval.

# %%
runs = runs_of(rows)
both = score(runs).groupby(["method", "concept"]).mean().unstack().loc[order[1:], concepts]
show(both.rename(columns=lambda concept: f"{percent[concept]} %").reset_index())
best = both[last].idxmax()
print(f"highest mean at {last}: {best}, {both.loc[best, last]:.1f}")
claim_above(runs.xs(last, level="concept", drop_level=False), "GA")

# %% [markdown]
# ## What does not agree
#
# The sentences are printed from the tables above. A checkpoint is the best compromise that validation saw, so that
# what a method loses of forgetting it may gain in retention, and a statement about one of them can fail for that
# reason; the harmonic mean of both says which way a row went as a whole. The steps grow less than the number of
# classes, so that each is drawn less often the more of them there are.

# %%
disagreeing = judged[judged.verdict != "same direction"]
for _, line in disagreeing.iterrows():
    print(f"{line.method}, {line.metric}: the paper says '{line.paper}'; here {line.ours}, {line.verdict}.")
if not len(disagreeing):
    print("Every statement of the ledger has its direction here.")
rising = [method for method in order[1:] if change.loc[method, last] > 0]
print("Mean retention at the largest ratio is above the original's in:", ", ".join(rising) or "no row")
