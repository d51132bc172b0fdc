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
# # Your own CLIP, in one sitting

# %% [markdown]
# From a folder of pictures and a word to a model that forgot the word, with the evidence. Every step is one call. As it
# stands, this page needs no data, weights or network: it draws pictures, trains a small CLIP on them, and takes half a
# minute on one core. For a model and pictures of yours, change the next cell and run all cells. The box and the sliders
# work in JupyterLab; elsewhere you see what they showed when this page was made.

# %% tags=["parameters", "show-input"]
model = None  # a folder, or an open_clip name and weights such as "ViT-B-32/openai"; None trains a small CLIP here
references = []  # models that were trained without the concept, if you have some
data = None  # a folder of pictures by class, or classes in another layout of docs/data.md; None draws pictures
split = "test"  # the pictures that are measured; "validation" where there are no others
forget = {"concept": "star"}  # what to forget, as in docs/your_model.md
settings = {}  # of unlearning; CLIPErase without a learning rate takes defaults
output = "forgotten"  # the folder of the result

# %%
import logging
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from cliperase.api import AuditOptions, audit, compare, evaluate, preview, unlearn
from cliperase.card import write_card
from paper.tables import show
from paper.tutorial import draw_shapes, show_pictures, show_queries, show_sliders, train_small

logging.basicConfig(stream=sys.stdout, format="%(message)s")

# %% [markdown]
# ## Pictures and a model
#
# 1,200 drawings of five shapes, as JPEG files in folders: `pictures/train/star/000.jpg`. A small CLIP learns from
# nothing on them, by the library's own loop. A second one never sees the concept: it is the reference for the audit.

# %% tags=["nbval-ignore-output"]
if data is None:
    room = TemporaryDirectory()  # deleted when the kernel ends
    os.chdir(room.name)
    data = draw_shapes("pictures")
if model is None:
    model, *references = train_small(data, forget)

# %% [markdown]
# ## Look before you forget
#
# A dry run says how many pictures the rule takes. Nothing is trained.

# %% tags=["show-input"]
found = preview(model, data, forget, settings=settings, output=output)
show(pd.DataFrame(found["rows"]).rename_axis("pictures").reset_index())

# %% [markdown]
# Some of the pictures, and the texts that stand near. The last column is the share of a text's pictures that the model
# takes, or would take next, for what is to be forgotten. `forgotten/preview.html` has all of it.

# %% tags=["nbval-ignore-output"]
show_pictures(found["pictures"][:6])
show(pd.DataFrame(found["at_risk"]).set_axis(["text", "cosine", "pictures, %"], axis="columns"))

# %% [markdown]
# ## Forget
#
# One call trains, selects the weights on the validation pictures, and writes a model folder with a report.

# %% tags=["show-input", "nbval-ignore-output"]
report = unlearn(model, data, forget, settings=settings, output=output)

# %% [markdown]
# The accuracies, in percent, are of pictures that nothing was trained on: those of the concept, and all others.

# %% tags=["show-input", "nbval-ignore-output"]
before, after = evaluate(model, data, forget, split), evaluate(output, data, forget, split)
accuracies = ["forget_accuracy", "retain_accuracy"]
show(pd.DataFrame({"before": before, "after": after}).loc[accuracies].rename_axis("figure").reset_index())

# %% [markdown]
# ## Compare
#
# Both models, the same questions: the classes by what they lost. `forgotten/compared/comparison.html` has more.

# %% tags=["show-input", "nbval-ignore-output"]
compared = compare(model, output, data, forget, split, output=f"{output}/compared")
show(pd.DataFrame(compared["harm"])[["class", "images", "change"]])

# %% [markdown]
# Ask both models. You see the nearest pictures with their cosines; ★ marks what is to be forgotten.

# %% tags=["nbval-ignore-output"]
show_queries([model, output], data, forget, split, compared["queries"][0]["text"])

# %% [markdown]
# ## What the three weights do
#
# CLIPErase adds three losses: `lambda_fm` pushes the forgotten pairs apart, `lambda_rm` keeps the others together, and
# `lambda_cm` keeps their similarities as they were. The button forgets again, quickly. Three runs are there already:
# the usual weights, forgetting alone, and keeping alone.

# %% tags=["nbval-ignore-output"]
usual = {"lambda_fm": 3.0, "lambda_rm": 1.0, "lambda_cm": 3.0}
weights = {name: report["settings"].get(name, value) for name, value in usual.items()}
quick = {name: value for name, value in report["settings"].items() if name != "seed"}
quick |= {} if settings else {"epochs": 1, "evaluations": 1}


def again(**chosen):
    return chosen | unlearn(model, data, forget, settings=quick | chosen)["validation_after"]


tried = [again(**weights | change) for change in ({}, {"lambda_rm": 0.0, "lambda_cm": 0.0}, {"lambda_fm": 0.0})]
show_sliders(weights, again, tried, [*weights, *accuracies])

# %% [markdown]
# ## Is it really gone?
#
# Three quick probes ask more than one prompt. Each figure stands beside the reference's, in both directions:
# more says that something is left, less that the concept was pushed away. Without a reference it stands beside the
# original's.

# %% tags=["show-input", "nbval-ignore-output"]
options = AuditOptions(probes=["reference-gap", "linear-probe", "other-words"])
audited = audit(model, output, data, forget, references, split, options, f"{output}/audit")
show(pd.DataFrame([one for probe in audited["probes"] for one in probe["measures"]])[["name", "finding"]])

# %% [markdown]
# The model card says all of this to whoever gets the model.

# %% tags=["show-input", "nbval-ignore-output"]
write_card(output)
print(Path(output, "README.md").read_text())

# %% [markdown]
# ## Verdict
#
# A figure of the audit has a vote only if its power was measured, on models that saw the concept and on models that
# never did. Nobody did so for these pictures, so the audit does not decide.

# %%
print(audited["verdict"])
print("At most one in ten pictures of the concept is recognised:", after["forget_accuracy"] <= 10)
print("The others lost at most five points:", before["retain_accuracy"] - after["retain_accuracy"] <= 5)
