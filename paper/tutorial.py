"""What the notebook `your_own_model` has beside the library: pictures and small models to start from, and widgets."""

from html import escape
from pathlib import Path

import ipywidgets as widgets
import numpy as np
import pandas as pd
from IPython.display import HTML, display
from PIL import Image, ImageDraw

from cliperase import pages
from cliperase.comparison import Side
from cliperase.data.source import load_split, open_source
from cliperase.loop import run_loop
from cliperase.methods.fine_tune import FineTune
from cliperase.models import load_model
from cliperase.models.base import pick_device
from cliperase.models.compact import COMPACT
from cliperase.models.openclip import create_model
from cliperase.settings import TrainSettings
from cliperase.training import PairTraining
from cliperase.unlearning import narrowed

INKS = ["crimson", "gold", "green", "blue", "purple", "black", "white"]
SHAPES = {"circle": (40,), "diamond": (4,), "star": (10, 0.4), "sun": (24, 0.6), "triangle": (3,)}  # as of `drawing`
COUNTS = {"train": 160, "validation": 40, "test": 40}  # drawings of each shape
TRAINING = TrainSettings(steps=120, learning_rate=3e-3, schedule="one-cycle", update_norm_statistics=True)


def draw_shapes(folder):
    """1,200 drawings as JPEG files in folders: `<folder>/train/star/000.jpg`. Returns the folder."""
    rng = np.random.default_rng(0)
    for name, shape in SHAPES.items():
        for part, count in COUNTS.items():
            place = Path(folder, part, name)
            place.mkdir(parents=True)
            for number in range(count):
                drawing(rng, *shape).save(place / f"{number:03d}.jpg", quality=95)
    return folder


def drawing(rng, count, inner=1.0):
    """A shape of so many corners, every second one `inner` from its middle; size, place, turn and colours at random."""
    ink, ground = map(str, rng.choice(INKS, 2, replace=False))
    size, corners = rng.uniform(18, 28), np.arange(count)
    turned = np.exp(2j * np.pi * corners / count + 1j * rng.uniform(-2, -1.2)) * np.where(corners % 2, inner, 1)
    points = rng.uniform(size, 64 - size, 2) @ [1, 1j] + size * turned
    picture = Image.new("RGB", (64, 64), ground)
    ImageDraw.Draw(picture).polygon([(point.real, point.imag) for point in points], fill=ink)
    return picture.resize((32, 32))


def train_small(data, forget):
    """Two small CLIPs from scratch on a folder of pictures, and the folders that they are saved in: one that learns
    all of it, and one that never sees what `forget` matches."""
    pairs, forgotten = load_split(data, "train", forget, create_model(COMPACT).framing)
    return small_clip(pairs, "original"), small_clip(pairs.select(~forgotten), "reference")


def small_clip(pairs, folder):
    clip = create_model(COMPACT)
    with narrowed(clip, pairs):
        run_loop(PairTraining(clip, FineTune(), TRAINING, pairs))
    clip.save(folder)
    return folder


def sheet(pictures):
    """HTML of pictures in rows; `pictures`: (address, caption, text below) of each."""
    figure = '<figure style="margin:0"><img src="{}" alt="{}" width="64"><figcaption>{}</figcaption></figure>'
    figures = "".join(figure.format(*map(escape, one)) for one in pictures)
    return f'<div style="display:flex;flex-wrap:wrap;gap:.5rem">{figures}</div>'


def show_pictures(shown):
    """Display rows of a preview, as of `pages.row_of`."""
    display(HTML(sheet((one["picture"], one["caption"], one["caption"]) for one in shown)))


def show_queries(models, data, forget, split, text):
    """Display a box for a query, `text` at first, and the pictures that are nearest to it in each of `models`, sources.

    ★ marks what `forget` matches in the split.
    """
    source = open_source(data)
    sides = [Side.of(load_model(one, pick_device()), one, source, split, forget) for one in models]

    def answers(text):
        return "".join(f"<p>“{escape(text)}”, {side.name}</p>{sheet(nearest(side, text))}" for side in sides)

    query, answer = widgets.Text(text, description="Query", continuous_update=False), widgets.HTML()
    widgets.dlink((query, "value"), (answer, "value"), answers)
    show_live(answer.value, query, answer)


def nearest(side, text):
    """What `sheet` takes of the pictures that are nearest to a text."""
    pairs = side.split.pairs
    for one in side.nearest(text):
        caption = pairs.texts[pairs.text_ids[one["row"], 0]]
        yield pages.picture(pairs.images[one["row"]]), caption, f"{one['cosine']:.2f}" + " ★" * one["forgotten"]


def show_sliders(start, again, tried, columns):
    """Display a slider for each number of `start`, and a button: it adds to the table of what was `tried` what `again`
    gives for the numbers as they are set. Both are mappings, of which the table shows `columns`."""
    sliders = {name: widgets.FloatSlider(value, min=0, max=6, description=name) for name, value in start.items()}
    button, table = widgets.Button(description="Forget again"), widgets.HTML()

    def tell():
        table.value = pd.DataFrame(tried)[columns].to_html(index=False, float_format="{:.3g}".format)

    def on_click(_):
        tried.append(again(**{name: slider.value for name, slider in sliders.items()}))
        tell()

    tell()
    button.on_click(on_click)
    show_live(table.value, *sliders.values(), button, table)


def show_live(otherwise, *parts):
    """Display widgets; a page without a kernel shows the HTML `otherwise`."""
    page = f'<div tabindex="0" style="overflow-x:auto">{otherwise}</div>'
    shown = widgets.VBox(parts)._repr_mimebundle_() or {}
    display(shown | {"text/plain": "", "text/html": page}, raw=True)
