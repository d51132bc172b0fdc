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
# # The ledger: the paper's numbers and ours, in its own setting

# %% tags=["parameters"]
results = "metrics/icons/results.csv"
publish_to = "figures/icons/ledger"

# %%
from paper.ledger import VERDICTS, ledger
from paper.results import read_results
from paper.statistics import runs_of, summarise
from paper.tables import experiment_rows, in_root, publish_table, show
from paper.verdicts import claims, open_with

rows = experiment_rows(results, "main")
(provenance,) = rows.provenance.unique()
table = ledger({provenance: results})
verdicts = table[f"{provenance}: verdict"]
counts = verdicts.value_counts().reindex(VERDICTS, fill_value=0)
known = table[verdicts.isin(["match", "weak match", "same direction", "differs"])]
mean = summarise(rows, ["method"], ["forget_accuracy", "retain_accuracy"]).set_index("method")
tested = {
    "every cell with a number or a statement was run": bool((counts["not run"] == 0) & (counts.sum() == len(table))),
    "half of the cells that can be judged match or go in the paper's direction": bool(
        (known[f"{provenance}: verdict"] != "differs").mean() >= 0.5
    ),
}
open_with(
    "ledger",
    rows,
    paper=f"Our sources quote {(table.paper != '–').sum()} of the {len(table)} cells below, of OpenAI's CLIP, BLIP and "
    "Stable Diffusion.",
    here="Of these cells, "
    + ", ".join(f"{counts[name]}: {name}" for name in VERDICTS)
    + f". CLIPErase, with the settings that the search chose, recognises {mean.forget_accuracy['CLIPErase']:.1f} % of "
    f"the forgotten images and {mean.retain_accuracy['CLIPErase']:.1f} % of the others.",
    tested=tested,
)

# %% [markdown]
# ## Every cell
#
# The mean over all concepts and seeds on test images; of `diffusion` over the seeds, in generated pictures. *Change*:
# from the original. The verdicts are those of [paper_vs_ours](../paper_vs_ours.ipynb).

# %%
publish_table(table.assign(provenance=provenance), "ledger", publish_to)
show(table)

# %% [markdown]
# ## With the paper's own settings
#
# Those of the experiment `published`: the learning rate and the λ that the paper gives, the same for every row, without
# a search.

# %%
asked = read_results(in_root(results))
asked = asked[(asked.experiment == "published") & (asked.split == "test")]
told = runs_of(asked).groupby("method")[["forget_accuracy", "retain_accuracy"]].mean().reset_index()
publish_table(told.assign(provenance=provenance), "published", publish_to)
show(told)

# %% [markdown]
# ## The claims, tested

# %%
claims(tested)
