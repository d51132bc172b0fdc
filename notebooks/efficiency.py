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
# # Efficiency: what a step costs, what the pipeline costs, what erasing costs

# %% tags=["parameters"]
results = "metrics/icons/results.csv"
tuning = "metrics/icons/tuning"
steps = "benchmarks/results/steps.csv"
growth = "benchmarks/results/growth.csv"
publish_to = "figures/icons/efficiency"

# %%
import math

import pandas as pd

from cliperase.settings import read_params
from paper.figures.costs import front, minutes, pareto_plot, time_plot
from paper.figures.style import OURS, publish_figure, use_style
from paper.results import read_results
from paper.tables import experiment_rows, in_root, publish_table, show
from paper.verdicts import claims, open_with

use_style()
step = pd.read_csv(in_root(steps))
step = step.pivot_table(index=["case", "batch"], columns="quantity", values="value", sort=False)
bare = step["over bare with teacher"].fillna(step["over bare"])
alone, main = experiment_rows(results, "efficiency", split="validation"), experiment_rows(results, "main")
(provenance,) = alone.provenance.unique()
costs = alone[alone.metric.str.contains("_to_")].pivot(index="method", columns="metric", values="value")
kept = main[main.metric == "retain_accuracy"].groupby("method").value.mean()[costs.index]
goal = experiment_rows(results, "main", split="validation").query(
    f"method == 'retrain' and metric == 'forget_accuracy' and concept == '{alone.concept.iloc[0]}'"
)
before_all = math.nan if goal.empty else goal.sort_values("seed").value.iloc[0]
ours = "CLIPErase"
best = {name: front(costs[f"seconds_to_{name}"], kept) for name in ("retrained", "one_percent")}
slower, memory = step["plain loop over library"], step["peak over bare"]
waiting = pd.read_csv(in_root(growth)).dropna(subset=["waiting_percent"]).set_index("measured").waiting_percent
tested = {
    "a step takes at most 1.05 times the bare one, in every case": bare.max() <= 1.05,
    "the plain loop takes at least 3 times as long as the library's, in every case": slower.min() >= 3,
    "its peak of memory is at most 1.15 times the bare step's, in every case": memory.max() <= 1.15,
    "ten times the data raise the peak by at most 5 %, in every case": step["tenfold peak over peak"].max() <= 1.05,
    "a stream keeps a step waiting for at most 5 % of its time": waiting.max() <= 5,
    "no row that comes sooner to the retrained model's accuracy keeps more than CLIPErase": ours in best["retrained"],
    "nor one that comes sooner to one percent": ours in best["one_percent"],
}
open_with(
    "efficiency",
    alone,
    paper="None of its tables that are repeated here is about cost.",
    here=f"A step takes {bare.min():.2f} to {bare.max():.2f} times the bare one, the plain loop {slower.min():.1f} to "
    f"{slower.max():.1f} times as long as the library. Until one percent CLIPErase takes "
    f"{costs.seconds_to_one_percent[ours]:.1f} seconds. On the Pareto front are, cheapest first, "
    f"{', '.join(best['one_percent'])}; {(costs.seconds_to_one_percent == math.inf).sum()} of {len(costs)} rows do not "
    "get there within their steps and two points of loss.",
    tested=tested,
)

# %% [markdown]
# ## A step
#
# `make bench` measured it with random weights; `benchmarks/results/steps.md` says what bare, plain and peak are.
# Milliseconds are of the machine that it ran on; the ratios are what counts. `with teacher`: the rows of a stream come
# once, so the original has to read them in every step, and here the bare step does so, too.

# %%
columns = {
    "library step": "a step, ms",
    "over bare": "over bare",
    "over bare with teacher": "with teacher",
    "plain loop over library": "plain loop over it",
    "library peak": "peak, MB",
    "peak over bare": "peak over bare's",
    "tenfold peak over peak": "tenfold data: peak over",
}
show(step[list(columns)].rename(columns=columns).reset_index())
print("of a step's time:", ", ".join(f"{name} {share:.1f} %" for name, share in waiting.items()))

# %% [markdown]
# ## The pipeline
#
# Minutes that the runs of `make reproduce` and of `make tune` spend on unlearning with validation, on two workers;
# those of `efficiency` run alone. That a model is measured on test images afterwards is not in it.

# %%
table = read_results(in_root(results))
apart = table.experiment == "efficiency"
spent = pd.concat([minutes(table[~apart], workers=2), minutes(table[apart])])
searches = pd.concat([pd.read_csv(path).assign(search=path.stem) for path in sorted(in_root(tuning).glob("*.csv"))])
searched = minutes(searches, "search", workers=2)
searched.index = "search " + searched.index
groups = {"make reproduce": (spent[spent > 0], OURS), "make tune": (searched, "0.6")}
figure, axis = time_plot(groups)
publish_figure(figure, "pipeline", publish_to)
timed = ("-m paper experiment ", "-m paper tune ")  # commands whose runs write down their seconds
stages = read_params(in_root("dvc.yaml"))["stages"].items()
untimed = [name for name, stage in stages if not any(command in str(stage) for command in timed)]
print(f"make reproduce: {spent.sum():.0f} minutes in runs; make tune: {searched.sum():.0f}")
print("Stages whose time nobody wrote down:", ", ".join(sorted(untimed)))
print("Experiments without seconds of their own:", ", ".join(spent.index[spent == 0]) or "none")

# %% [markdown]
# ## Erasing: cost beside quality
#
# The cost of a row is what it takes until the forgotten validation images are recognised no more often than by the
# model that was retrained without the concept, or in at most one percent, while the others lose at most two points: a
# step at a high rate may break the whole model for a while. It was looked up at every step, without the time that
# takes; an edit counts as a whole, with the validation that it searches on. The original's embeddings of the training
# images are there before. GFLOP are what torch counts. The height is the main table's mean over all concepts and
# seeds, of the checkpoint that was selected, which may be a later one.

# %%
print(f"The retrained model recognises {before_all:.1f} % of the forgotten validation images.")
for name, said in {"retrained": "the retrained model's accuracy", "one_percent": "one percent"}.items():
    panels = {f"seconds_to_{name}": f"seconds until {said}, one thread", f"gflops_to_{name}": f"GFLOP until {said}"}
    figure, _ = pareto_plot(costs, kept, panels)
    publish_figure(figure, f"pareto_{name}", publish_to)
    print(f"On the front of seconds until {said}, cheapest first:", ", ".join(best[name]))

# %%
parts = [f"{cost}_to_{name}" for name in best for cost in ("step", "seconds", "gflops")]
shown = (
    costs[parts].join(kept.rename("retain_accuracy")).sort_values(["seconds_to_one_percent", "seconds_to_retrained"])
)
numbers = shown.reset_index().assign(provenance=provenance)
text = shown.map(lambda value: "never" if math.isinf(value) else f"{value:.3g}").reset_index()
publish_table(text.assign(provenance=provenance), "costs", publish_to, numbers)
show(text)

# %% [markdown]
# ## The claims, tested

# %%
claims(tested)

# %% [markdown]
# ## What limits it
#
# One concept, one seed, one small CLIP and one machine: seconds of other models differ, and so may the order of rows.
# The retrained reference still recognises apples where another thing has the word, so that goal is an easy one.
# Retraining itself is not among the rows, because nobody wrote its seconds down.
