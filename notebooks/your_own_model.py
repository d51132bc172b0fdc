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
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory

import ipywidgets as widgets
import numpy as np
import pandas as pd
from IPython.display import HTML, Markdown, display
from PIL import Image, ImageDraw

from cliperase import pages
from cliperase.api import AuditOptions, audit, compare, evaluate, preview, unlearn
from cliperase.card import write_card
from cliperase.comparison import Side
from cliperase.data.source import open_source
from cliperase.models import load_model
from cliperase.models.base import pick_device

logging.basicConfig(stream=sys.stdout, format="%(message)s")


def show(table):
    display(Markdown(table.to_markdown(index=False, floatfmt=".2f")))


def sheet(pictures):
    """HTML of pictures in rows; `pictures`: (address, caption, text below) of each."""
    figure = '<figure style="margin:0"><img src="{}" alt="{}" width="64"><figcaption>{}</figcaption></figure>'
    figures = "".join(figure.format(*map(escape, one)) for one in pictures)
    return f'<div style="display:flex;flex-wrap:wrap;gap:.5rem">{figures}</div>'


def live(otherwise, *parts):
    """Display widgets; a page without a kernel shows the HTML `otherwise`."""
    page = f'<div tabindex="0" style="overflow-x:auto">{otherwise}</div>'
    display({**widgets.VBox(parts)._repr_mimebundle_(), "text/plain": "", "text/html": page}, raw=True)


# %% [markdown]
# ## Pictures and a model
#
# 1,200 drawings of five shapes, as JPEG files in folders: `pictures/train/star/000.jpg`. A small CLIP learns from
# nothing on them, by the library's own loop. A second one never sees the concept: it is the reference for the audit.


# %%
def drawing(rng, count, inner=1.0):
    """A shape of so many corners, every second one `inner` from its middle; size, place, turn and colours at random."""
    ink, ground = map(
        str, rng.choice(["crimson", "gold", "green", "blue", "purple", "black", "white"], 2, replace=False)
    )
    size, corners = rng.uniform(18, 28), np.arange(count)
    turned = np.exp(2j * np.pi * corners / count + 1j * rng.uniform(-2, -1.2)) * np.where(corners % 2, inner, 1)
    points = rng.uniform(size, 64 - size, 2) @ [1, 1j] + size * turned
    picture = Image.new("RGB", (64, 64), ground)
    ImageDraw.Draw(picture).polygon([(point.real, point.imag) for point in points], fill=ink)
    return picture.resize((32, 32))


if data is None:
    room = TemporaryDirectory()  # deleted when the kernel ends
    os.chdir(room.name)
    data, rng = "pictures", np.random.default_rng(0)
    shapes = {"circle": (40,), "diamond": (4,), "star": (10, 0.4), "sun": (24, 0.6), "triangle": (3,)}
    for name, shape in shapes.items():
        for part, count in {"train": 160, "validation": 40, "test": 40}.items():
            Path(data, part, name).mkdir(parents=True)
            for number in range(count):
                drawing(rng, *shape).save(Path(data, part, name, f"{number:03d}.jpg"), quality=95)

# %% tags=["nbval-ignore-output"]
if model is None:
    from cliperase.data.source import load_split
    from cliperase.loop import run_loop
    from cliperase.methods.fine_tune import FineTune
    from cliperase.models.compact import COMPACT
    from cliperase.models.openclip import create_model
    from cliperase.settings import TrainSettings
    from cliperase.training import PairTraining
    from cliperase.unlearning import narrowed

    def small_clip(pairs, folder):
        clip = create_model(COMPACT)
        training = TrainSettings(steps=120, learning_rate=3e-3, schedule="one-cycle", update_norm_statistics=True)
        with narrowed(clip, pairs):
            run_loop(PairTraining(clip, FineTune(), training, pairs))
        clip.save(folder)
        return folder

    pairs, forgotten = load_split(data, "train", forget, create_model(COMPACT).framing)
    model, references = small_clip(pairs, "original"), [small_clip(pairs.select(~forgotten), "reference")]

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
display(HTML(sheet((one["picture"], one["caption"], one["caption"]) for one in found["pictures"][:6])))
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
source = open_source(data)
sides = [Side.of(load_model(each, pick_device()), each, source, split, forget) for each in (model, output)]


def nearest(side, text):
    pairs = side.split.pairs
    for one in side.nearest(text):
        caption = pairs.texts[pairs.text_ids[one["row"], 0]]
        yield pages.picture(pairs.images[one["row"]]), caption, f"{one['cosine']:.2f}" + " ★" * one["forgotten"]


def answers(text):
    return "".join(f"<p>“{escape(text)}”, {side.name}</p>{sheet(nearest(side, text))}" for side in sides)


query, answer = (
    widgets.Text(compared["queries"][0]["text"], description="Query", continuous_update=False),
    widgets.HTML(),
)
widgets.dlink((query, "value"), (answer, "value"), answers)
live(answer.value, query, answer)

# %% [markdown]
# ## What the three weights do
#
# CLIPErase adds three losses: `lambda_fm` pushes the forgotten pairs apart, `lambda_rm` keeps the others together, and
# `lambda_cm` keeps their similarities as they were. The button forgets again, quickly. Three runs are there already:
# the usual weights, forgetting alone, and keeping alone.

# %% tags=["nbval-ignore-output"]
weights = {"lambda_fm": 3.0, "lambda_rm": 1.0, "lambda_cm": 3.0}
weights = {name: report["settings"].get(name, value) for name, value in weights.items()}
quick = {name: value for name, value in report["settings"].items() if name != "seed"}
quick |= {} if settings else {"epochs": 1, "evaluations": 1}
sliders = {name: widgets.FloatSlider(value, min=0, max=6, description=name) for name, value in weights.items()}
button, table, tried = widgets.Button(description="Forget again"), widgets.HTML(), []


def again(**chosen):
    tried.append(chosen | unlearn(model, data, forget, settings=quick | chosen)["validation_after"])
    table.value = pd.DataFrame(tried)[[*chosen, *accuracies]].to_html(index=False, float_format="{:.3g}".format)


again(**weights)
again(**weights | {"lambda_rm": 0.0, "lambda_cm": 0.0})
again(**weights | {"lambda_fm": 0.0})
button.on_click(lambda _: again(**{name: slider.value for name, slider in sliders.items()}))
live(table.value, *sliders.values(), button, table)

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
