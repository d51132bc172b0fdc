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
# # Stable Diffusion with an unlearned text encoder

# %% tags=["parameters"]
results = "metrics/icons/results.csv"
arrays = "metrics/icons/stable_diffusion.npz"
publish_to = "figures/icons/stable_diffusion"

# %%
import numpy as np
import pandas as pd

from paper.figures.samples import sample_figure
from paper.figures.style import publish_figure, use_style
from paper.ledger import UNAFFECTED_POINTS, detection_table, judge_statements, paper_cells
from paper.statistics import change_from_original, in_order, runs_of, summarise_each, with_gap
from paper.tables import experiment_rows, in_root, publish_table, settings_of, show
from paper.verdicts import claims, open_with

use_style()
RANK = {"forget": "detection_rate", "retain": "other_detection_rate"}
rows = with_gap(experiment_rows(results, "diffusion", split="generated"), **RANK)
(provenance,), (profile,) = rows.provenance.unique(), rows.profile.unique()
settings, samples = settings_of("diffusion", profile), np.load(in_root(arrays))
concepts, forgotten, methods = settings["concepts"], settings["forgotten"], list(settings["methods"])
assert set(rows.concept) == set(forgotten)
assert set(rows.method) == {"original", *methods}
pictures = settings["images"] * rows.seed.nunique()  # of each prompt and row, all seeds together
summary = summarise_each(rows, ["detection_rate", "other_detection_rate", "false_detection_rate", "average_gap"])
rates, runs = summary.set_index(["method", "concept"]).detection_rate, runs_of(rows)
limit = max(cell["value"] for cell in paper_cells("diffusion") if cell["method"] == "CLIPErase" and "value" in cell)
moved = [change_from_original(rows, "other_detection_rate", "CLIPErase", name)[0] for name in forgotten]
tested = {
    f"after CLIPErase, every forgotten concept is detected in at most {limit:g} %": (
        rates["CLIPErase"][forgotten] <= limit
    ).all(),
    f"under CLIPErase, the other concepts stay within {UNAFFECTED_POINTS:g} points of before": (
        np.abs(moved).max() <= UNAFFECTED_POINTS
    ),
}
shares = rates.unstack()[forgotten].map("{:.1f} %".format).agg(" and ".join, axis="columns")
open_with(
    "stable_diffusion",
    rows,
    paper="With CLIPErase's text encoder Stable Diffusion no longer draws the forgotten concept: a detector finds it "
    f"in at most {limit:g} % of the pictures that ask for it. Others are unaffected.",
    here=f"{' and '.join(forgotten).capitalize()} are detected in {shares['original']} of their pictures before and in "
    f"{shares['CLIPErase']} after CLIPErase. The other concepts change by "
    f"{' and '.join(f'{change:+.1f}' for change in moved)} points.",
    tested=tested,
)

# %% [markdown]
# ## The pictures
#
# Nothing is chosen: the first pictures of the seeds in turn. In a column the noise is the same; only the text encoder
# differs.

# %%
publish_figure(sample_figure(samples, concepts, forgotten, methods, settings["prompt"]), "stable_diffusion", publish_to)

# %% [markdown]
# ## The table
#
# Percent of pictures. An object detector counts them, which has classes of its own and had no part in the unlearning.
# *Forgotten seen*: the forgotten concept is asked for and detected. *Others seen*: the same of all other concepts.
# *Seen unasked*: another concept is asked for, and the forgotten one is detected. In brackets the 95 % Wilson interval,
# all seeds pooled.

# %%
ranked = pd.concat(in_order(summary[summary.concept == name]) for name in forgotten)
table = detection_table(ranked, runs, pictures, len(concepts) - 1).assign(provenance=provenance)
publish_table(table, "stable_diffusion", publish_to)
show(table)
show(judge_statements("diffusion", rows).drop(columns=["metric", "change"]).assign(provenance=provenance))

# %% [markdown]
# ## The claims, tested

# %%
claims(tested, papers=tested)
