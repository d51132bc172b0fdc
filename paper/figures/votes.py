"""The audit: how well each figure tells models apart, and what it says of each method."""

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.colors import to_rgb

from cliperase.audit.verdict import KNOWN, LEAST_AUC, PUSHED
from paper.figures.style import GUIDE, OURS, PAPER, RUN, embolden, key, number
from paper.power import NEVER, SAW

KNOWS, AWAY, NEITHER = PAPER, "#56B4E9", "white"  # vermilion and sky blue of Okabe and Ito
SAID = {KNOWN: ("still known", KNOWS), PUSHED: ("pushed away", AWAY)}
DEEPEST = 0.75  # of an ink, where all runs say the same: the numbers must stay legible


def power_plot(found, planted):
    """One line for each figure of `found`, a table of `power.powers`: its area under the ROC curve with the interval,
    and beside it which of the `planted` failures it catches, in percent."""
    names = [f"{line.probe}: {line.measure}".replace("_", " ") for line in found.itertuples()]
    height = 0.2 * len(found) + 1.2
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(7.4, height), width_ratios=(1.7, len(planted) / 2), layout="constrained"
    )
    rows = np.arange(len(found))[::-1] + 0.5
    ink = [OURS if auc >= LEAST_AUC else "0.6" for auc in found.auc]
    left.hlines(rows, found["auc low"], found["auc high"], color=ink, linewidth=1.5)
    left.scatter(found.auc, rows, color=ink, s=22, zorder=3)
    left.axvline(LEAST_AUC, color=GUIDE, linestyle="--")
    left.axvline(0.5, color=GUIDE)
    left.set_yticks(rows, names, fontsize=7.5)
    left.set_ylim(0, len(found))
    left.tick_params(axis="y", left=False)
    left.set_title("Area under the ROC curve\n(dashed: the least for a vote)", fontsize=8, loc="left")
    sns.heatmap(
        found[planted].iloc[::-1], ax=right, cmap=sns.light_palette(KNOWS, as_cmap=True), vmin=0, vmax=150, cbar=False,
        annot=True, fmt=".0f", annot_kws={"size": 6.5, "color": "0.15"}, linewidths=0.5, yticklabels=False,
    )  # fmt: skip
    right.set_xticklabels([name.replace(" ", "\n") for name in planted], rotation=0, fontsize=7)
    right.set_title("Planted failures caught, %", fontsize=8, loc="left")
    right.set_ylim(0, len(found))
    right.tick_params(length=0)
    sns.despine(figure, left=True)
    return figure


def votes_plot(voted, order, columns, marks=SAID, neither="as never known, or no vote"):
    """A line for each method in `order`, a column for each figure in `columns` {figure: title}: the mean of the runs.

    `marks` {vote: (what the key says, ink)}: a number stands on the ink of what the runs say, the darker, the more of
    them say so. `neither`: what the key says of white.
    """
    figure, axis = plt.subplots(figsize=(0.62 * len(columns) + 1.9, 0.26 * len(order) + 1.9), layout="constrained")
    grouped = voted.groupby(["method", "figure"])
    shares = {kind: grouped.vote.agg(lambda votes, kind=kind: (votes == kind).mean()) for kind in marks}
    means = grouped["value"].mean()
    paint = np.ones((len(order), len(columns), 3))
    for i, method in enumerate(order):
        for j, name in enumerate(columns):
            at = (method, name)
            if at not in means.index:
                continue
            paint[i, j] = blend({ink: shares[kind][at] for kind, (_, ink) in marks.items()})
            text = number(means[at], 0 if abs(means[at]) >= 10 else 2)
            axis.text(j, i, text, ha="center", va="center", fontsize=7, color="0.1")
    axis.imshow(paint, aspect="auto")
    axis.set_xticks(range(len(columns)), columns.values(), fontsize=7.5, rotation=90)
    axis.xaxis.tick_top()
    axis.set_yticks(range(len(order)), order, fontsize=8.5)
    axis.tick_params(length=0)
    axis.set_xticks(np.arange(len(columns)) - 0.5, minor=True)
    axis.set_yticks(np.arange(len(order)) - 0.5, minor=True)
    axis.grid(which="minor", color="white", linewidth=1.5)
    axis.tick_params(which="minor", length=0)
    embolden(axis, ("CLIPErase", "unseen"))
    sns.despine(figure, left=True, bottom=True)
    square = {"marker": "s", "markersize": 8}
    key(figure, {text: square | {"color": ink, "markeredgecolor": "0.7"}
                 for text, ink in [*marks.values(), (neither, NEITHER)]},
        loc="outside lower center", bbox_to_anchor=None)  # fmt: skip
    return figure


def blend(shares):
    """White, and of each ink in `shares` {ink: share of the runs} as much as there is."""
    colour = np.ones(3)
    for ink, share in shares.items():
        colour -= DEEPEST * share * (1 - np.array(to_rgb(ink)))
    return colour.clip(0, 1)


def paired_plot(figures, names):
    """One panel for each figure in `names` {figure: title}: the models that never saw a concept, and those that did,
    a dot for each. `figures`: the table of `power.measure_power`."""
    never, saw = (RUN | {"color": ink, "alpha": 0.8} for ink in ("0.45", KNOWS))
    figure, axes = plt.subplots(1, len(names), figsize=(2.3 * len(names), 2.5), layout="constrained")
    for axis, (name, title) in zip(axes, names.items(), strict=True):
        probe, measure = name.split(".")
        rows = figures[(figures.probe == probe) & (figures.measure == measure)]
        concepts = sorted(rows.concept.unique())
        for shift, (model, mark) in zip((-0.15, 0.15), ((NEVER, never), (SAW, saw)), strict=True):
            own = rows[rows.model == model]
            heights = [concepts.index(one) + shift for one in own.concept]
            axis.plot(own["value"], heights, linestyle="none", **mark)
        axis.set_yticks(range(len(concepts)), concepts if axis is axes[0] else [""] * len(concepts), fontsize=8)
        axis.set_title(title, fontsize=8, loc="left")
        axis.tick_params(axis="y", left=False)
    sns.despine(figure, left=True)
    key(figure, {"never saw it": never, "saw it": saw}, loc="outside lower center", bbox_to_anchor=None)
    return figure
