"""What all figures share: inks, marks and their key, the way to disk."""

import io
import os

import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.lines import Line2D

from paper.tables import COMPARE, in_root

OURS, PAPER, GUIDE = "#0072B2", "#D55E00", "0.75"  # Okabe-Ito blue and vermilion, told apart by all readers
REGION = "#DCEBF5"  # what retrained models reach
FORGET, KEEP = PAPER, OURS  # where a figure shows two sides of one method
RUN = {"marker": "o", "color": "0.25", "alpha": 0.4, "markersize": 4, "markeredgewidth": 0}
MEAN = {"marker": "|", "color": "0.25", "markersize": 11, "markeredgewidth": 2}
PUBLISHED = {"marker": "D", "markerfacecolor": "none", "color": PAPER, "markersize": 5, "markeredgewidth": 1.2}


def use_style():
    sns.set_theme(context="paper", style="ticks", font_scale=1.1)
    plt.rcParams.update({"svg.hashsalt": "cliperase", "figure.dpi": 100, "axes.spines.left": False})


def publish_figure(figure, name, folder):
    """Write `<folder>/<name>.png` and `.svg`, byte-identical for identical data.

    Where `tables.COMPARE` is set nothing is written: the figure is drawn, and its files must be there.
    """
    for kind, options in {"png": {"dpi": 160, "metadata": {"Software": None}},
                          "svg": {"metadata": {"Date": None, "Creator": None}}}.items():  # fmt: skip
        path = in_root(folder) / f"{name}.{kind}"
        if os.environ.get(COMPARE):
            assert path.is_file(), f"{path} is missing; run `dvc repro`"
            figure.savefig(io.BytesIO(), format=kind, **options)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(path, format=kind, **options)


def key(figure, marks, title="", **place):
    """What the axis and each mark mean, in one line below the panels: `marks` {text: style of a line}."""
    handles = [Line2D([], [], linestyle="none", label=title)] if title else []
    handles += [Line2D([], [], label=text, **{"linestyle": "none", **style}) for text, style in marks.items()]
    place = {"loc": "lower center", "bbox_to_anchor": (0.5, 0.0), "borderaxespad": 0.1} | place
    figure.legend(handles=handles, ncols=len(handles), fontsize=8.5, frameon=False, handletextpad=0.5,
                  columnspacing=1.6, **place)  # fmt: skip


def ink_of(method, ours=("CLIPErase",)):
    """Blue for the rows that a figure is about, and two greys, the paler one for the original."""
    return OURS if method in ours else "0.6" if method == "original" else "0.25"


def embolden(axis, names):
    """The labels of these rows in bold blue."""
    for label in axis.get_yticklabels():
        if label.get_text() in names:
            label.set(color=OURS, weight="bold")


def weight_of(name):
    """Our method stands out in titles and labels."""
    return "bold" if name == "CLIPErase" else "normal"


def number(value, digits=2):
    """A number for a figure, with a minus sign and not a hyphen."""
    return f"{value:.{digits}f}".replace("-", "−")
