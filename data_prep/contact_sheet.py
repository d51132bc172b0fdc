"""A picture of a data set: one row per class, drawings of all its sources.

python data_prep/contact_sheet.py --data data/icons --output figures/icons.png
"""

import argparse
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from cliperase.datasets import load_pairs

PER_CLASS, COLUMNS, LABEL_WIDTH, GAP = 8, 5, 92, 2


def contact_sheet(pairs, per_class=PER_CLASS):
    """An image with `per_class` pictures of every class, in COLUMNS columns of labelled rows."""
    size = pairs.images.shape[-1] + GAP
    rows = -(-len(pairs.class_names) // COLUMNS)
    width = LABEL_WIDTH + per_class * size + 3 * GAP
    sheet = Image.new("RGB", (COLUMNS * width, rows * size), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for label, name in enumerate(pairs.class_names):
        x, y = label // rows * width, label % rows * size
        draw.text((x + LABEL_WIDTH - 6, y + size // 2), name, fill="black", font=font, anchor="rm")
        for place, index in enumerate((pairs.labels == label).nonzero()[:per_class, 0].tolist()):
            picture = Image.fromarray(pairs.images[index].permute(1, 2, 0).numpy())
            sheet.paste(picture, (x + LABEL_WIDTH + place * size, y))
    return sheet


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    pairs = load_pairs(arguments.data, "validation")
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    contact_sheet(pairs).save(arguments.output)


if __name__ == "__main__":
    main()
