"""A picture of a data set: one row per class, or without classes some images with their captions.

python data_prep/contact_sheet.py --data data/icons --output figures/icons.png
"""

import argparse
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from cliperase.data.pairs import load_pairs
from cliperase.errors import end_in_one_line

PER_CLASS, COLUMNS, LABEL_WIDTH, GAP = 8, 5, 92, 2
EXAMPLES, EXAMPLE_COLUMNS, PICTURE_SIDE = 12, 2, 128


def contact_sheet(pairs, per_class=PER_CLASS):
    """An image with `per_class` pictures of every class that has any, in COLUMNS columns of labelled rows."""
    size = pairs.images.shape[-1] + GAP
    drawn = pairs.labels.unique().tolist()
    rows = -(-len(drawn) // COLUMNS)
    width = LABEL_WIDTH + per_class * size + 3 * GAP
    sheet = Image.new("RGB", (COLUMNS * width, rows * size), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for position, label in enumerate(drawn):
        x, y = position // rows * width, position % rows * size
        draw.text((x + LABEL_WIDTH - 6, y + size // 2), pairs.class_names[label], fill="black", font=font, anchor="rm")
        for place, index in enumerate((pairs.labels == label).nonzero()[:per_class, 0].tolist()):
            picture = Image.fromarray(pairs.images[index].permute(1, 2, 0).numpy())
            sheet.paste(picture, (x + LABEL_WIDTH + place * size, y))
    return sheet


def caption_sheet(pairs, examples=EXAMPLES):
    """An image with the first `examples` pictures, enlarged without smoothing, each with its captions beside it."""
    font = ImageFont.load_default(12)
    shown = range(min(examples, len(pairs)))
    texts = ["\n".join(dict.fromkeys(pairs.texts[i] for i in pairs.text_ids[index].tolist())) for index in shown]
    longest = max(font.getlength(line) for text in texts for line in text.splitlines())
    width, height = PICTURE_SIDE + int(longest) + 40, PICTURE_SIDE + 10
    sheet = Image.new("RGB", (EXAMPLE_COLUMNS * width, -(-len(texts) // EXAMPLE_COLUMNS) * height), "white")
    draw = ImageDraw.Draw(sheet)
    for index, text in enumerate(texts):
        x, y = index % EXAMPLE_COLUMNS * width, index // EXAMPLE_COLUMNS * height
        picture = Image.fromarray(pairs.images[index].permute(1, 2, 0).numpy())
        sheet.paste(picture.resize((PICTURE_SIDE, PICTURE_SIDE), Image.NEAREST), (x + 1, y + 1))
        # white backgrounds need an edge to be seen on the white sheet
        draw.rectangle((x, y, x + PICTURE_SIDE + 1, y + PICTURE_SIDE + 1), outline="gray")
        draw.text((x + PICTURE_SIDE + 12, y + PICTURE_SIDE // 2), text, fill="black", font=font, anchor="lm", spacing=6)
    return sheet


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    pairs = load_pairs(arguments.data, "validation")
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    sheet = contact_sheet(pairs) if pairs.class_names else caption_sheet(pairs)
    sheet.save(arguments.output)


if __name__ == "__main__":
    end_in_one_line(main)
