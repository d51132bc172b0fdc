"""Pages to read and to sign off: each one HTML file that needs nothing else, made from plain values by a template here.

No script, no request to the outside: pictures are inside the file.
"""

import base64
import io
from pathlib import Path

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from cliperase.files import whole_file

FOLDER = Path(__file__).parent


def write_page(path, template, **values):
    """Write the page of a `template` of this folder with its `values`, whole or not at all. All text is escaped."""
    environment = Environment(loader=PackageLoader("cliperase", "pages"), autoescape=True, undefined=StrictUndefined,
                              trim_blocks=True)  # fmt: skip
    page = environment.get_template(template).render(values)
    with whole_file(path) as partial:
        partial.write_text(page + "\n", encoding="utf-8")


def evenly(numbers, most):
    """At most so many of a list, evenly spaced, the first and the last among them."""
    places = np.linspace(0, len(numbers) - 1, min(most, len(numbers))).round().astype(int)
    return [numbers[place] for place in places]


def row_of(pairs, number):
    """What a contact sheet shows of one row of a `PairSet`."""
    return {"picture": picture(pairs.images[number]), "caption": pairs.texts[pairs.text_ids[number, 0]],
            "row": pairs.row_hashes[number]}  # fmt: skip


def picture(pixels):
    """(3, H, W) uint8 as the `src` of an image."""
    file = io.BytesIO()
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
