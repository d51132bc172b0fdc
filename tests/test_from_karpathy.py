"""Flickr30K's layout becomes the schema; what is missing or broken is one line before anything is written."""

import json
from pathlib import Path

import numpy as np
import pytest
from from_karpathy import main
from PIL import Image

from cliperase.data.pairs import load_pairs
from cliperase.errors import CliperaseError

ROOT = Path(__file__).parent.parent


@pytest.fixture
def source(tmp_path):
    """Five wide pictures whose middle has the colour of their number."""
    folder, listed = tmp_path / "images", []
    folder.mkdir()
    for number, split in enumerate(("train", "restval", "val", "test", "test")):
        pixels = np.zeros((8, 24, 3), np.uint8)
        pixels[:, 8:16] = 40 * number
        Image.fromarray(pixels).save(folder / f"{number}.png")
        said = [{"raw": f"picture {number}"}, {"raw": "a colour"}]
        listed.append({"filename": f"{number}.png", "split": split, "sentences": said})
    (tmp_path / "captions.json").write_text(json.dumps({"images": listed}))
    return tmp_path


def call(source, *more):
    names = {"captions": source / "captions.json", "images": source / "images", "output": source / "out"}
    main([*(part for name, value in names.items() for part in (f"--{name}", str(value))), "--size", "8", *more])


def test_the_schema_holds_every_picture_once_in_its_split(source):
    call(source)
    sets = {split: load_pairs(source / "out", split) for split in ("train", "validation", "test")}
    assert {split: len(pairs) for split, pairs in sets.items()} == {"train": 2, "validation": 1, "test": 2}
    for split, numbers in (("train", (0, 1)), ("validation", (2,)), ("test", (3, 4))):
        pairs = sets[split]
        assert pairs.images.shape[1:] == (3, 8, 8)
        for row, number in enumerate(numbers):
            assert (pairs.images[row].float() - 40 * number).abs().max() <= 8  # the middle, whatever the filter adds
            assert [pairs.texts[i] for i in pairs.text_ids[row]] == [f"picture {number}", "a colour"]


def test_missing_images_are_counted_and_the_first_is_named(source):
    for number in (2, 4):
        (source / "images" / f"{number}.png").unlink()
    with pytest.raises(CliperaseError, match=r"lacks 2 of 5 images, the first is 2\.png"):
        call(source)
    assert not list((source / "out").glob("*.parquet"))


@pytest.mark.parametrize("number", range(5))  # of every split
def test_a_truncated_image_is_named(source, number):
    path = source / "images" / f"{number}.png"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(CliperaseError, match=rf"{number}\.png: its picture cannot be decoded"):
        call(source)
    assert not list((source / "out").glob("*.parquet"))


@pytest.mark.parametrize(
    "text", ["", "[]", '{"images": [{"filename": "a.png"}]}', '{"images": [{"filename": 1, "split": "x"}]}']
)
def test_another_layout_is_refused(source, text):
    (source / "captions.json").write_text(text)
    with pytest.raises(CliperaseError, match="not in Karpathy's layout"):
        call(source)


@pytest.mark.parametrize("sentences", [[], [{"raw": "a"}, {"raw": " \n"}]])
def test_an_image_without_a_caption_is_named(sentences, source):
    listed = json.loads((source / "captions.json").read_text())
    listed["images"][3]["sentences"] = sentences
    (source / "captions.json").write_text(json.dumps(listed))
    with pytest.raises(CliperaseError, match=r"image '3\.png' has none"):
        call(source)


def test_a_split_without_images_is_refused(source):
    (source / "captions.json").write_text('{"images": []}')
    with pytest.raises(CliperaseError, match="no image of the split 'train'"):
        call(source)
