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

from paper.drawn import Drawn
from paper.figures.samples import sample_figure
from paper.figures.style import publish_figure, use_style
from paper.ledger import UNAFFECTED_POINTS
from paper.tables import in_root, publish_table, show
from paper.verdicts import claims, open_with

use_style()
drawn, samples = Drawn(results), np.load(in_root(arrays))
tested = {
    f"after CLIPErase, every forgotten concept is detected in at most {drawn.limit:g} %": (
        drawn.rates.detection_rate["CLIPErase"][drawn.forgotten] <= drawn.limit
    ).all(),
    f"under CLIPErase, the other concepts stay within {UNAFFECTED_POINTS:g} points of before": (
        np.abs(drawn.moved).max() <= UNAFFECTED_POINTS
    ),
}
shares = drawn.shares()
open_with(
    "stable_diffusion",
    drawn.rows,
    paper=drawn.paper,
    here=f"{' and '.join(drawn.forgotten).capitalize()} are detected in {shares['original']} of their pictures before "
    f"and in {shares['CLIPErase']} after CLIPErase. The other concepts change by "
    f"{' and '.join(f'{change:+.1f}' for change in drawn.moved)} points.",
    tested=tested,
)

# %% [markdown]
# ## The pictures
#
# Nothing is chosen: the first pictures of the first seed. In a column the noise is the same; only the text encoder
# differs.

# %%
figure = sample_figure(samples, drawn.concepts, drawn.forgotten, drawn.methods, drawn.settings["prompt"])
publish_figure(figure, "stable_diffusion", publish_to)

# %% [markdown]
# ## The table
#
# Percent of pictures. An object detector counts them, which has classes of its own and had no part in the unlearning.
# *Forgotten seen*: the forgotten concept is asked for and detected. *Others seen*: the same of all other concepts.
# *Seen unasked*: another concept is asked for, and the forgotten one is detected. In brackets the 95 % Wilson interval,
# all seeds pooled.

# %%
table = drawn.table()
publish_table(table, "stable_diffusion", publish_to)
show(table)
show(drawn.statements())

# %% [markdown]
# ## The claims, tested

# %%
claims(tested, papers=tested)
