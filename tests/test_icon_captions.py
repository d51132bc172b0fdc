"""The data sets with captions: every word is true, every caption fits the tokenizer, every shape can be seen."""

import itertools
import re
from pathlib import Path

import drawings as drawn
import icon_pairs
import icon_scenes
import numpy as np
import open_clip
import pytest
import torch
from contact_sheet import PICTURE_SIDE, caption_sheet
from datasets import Dataset

from cliperase.data.pairs import decode_pairs, features_schema, load_pairs, write_split

ROOT = Path(__file__).parent.parent

TABLE = drawn.read_table()
NAMES = list(TABLE["classes"])
MODULES = {"icon_pairs": icon_pairs, "icon_scenes": icon_scenes}
MOST_TOKENS = 22  # a context of 24 less the start and end tokens


@pytest.fixture(scope="module")
def pools():
    every = drawn.all_drawings(TABLE, TABLE["training_families"])
    return {"icon_pairs": icon_pairs.monochrome_drawings(TABLE), "icon_scenes": every}


@pytest.fixture(scope="module")
def scenes(pools):
    streams = [drawn.image_stream(0, "test scenes", "train", index) for index in range(120)]
    made = [(icon_scenes.make_scene(pools["icon_scenes"], 32, rng), rng) for rng in streams]
    return [(scene, icon_scenes.captions_of(scene.things, rng)) for scene, rng in made]


@pytest.fixture(scope="module")
def pairs(pools):
    streams = [drawn.image_stream(0, "test pairs", "train", index) for index in range(200)]
    return [icon_pairs.make_pair(pools["icon_pairs"], 32, rng) for rng in streams]


def names_in(caption):
    """Class names in a caption, longest first, so that `Apple logo` is not taken for another class."""
    found = []
    for name in sorted(NAMES, key=len, reverse=True):
        pattern = rf"\b{re.escape(name)}\b"
        if re.search(pattern, caption):
            found.append(name)
            caption = re.sub(pattern, "", caption)
    return found


@pytest.mark.parametrize("name", MODULES)
def test_rendering_is_repeatable_and_no_image_is_in_two_splits(name, pools):
    def rows(split, seed):
        table = MODULES[name].render_split(pools[name], split, 6, 32, seed)
        pairs = decode_pairs(table)
        return table["captions"][:], table["source"][:], pairs.row_hashes

    assert rows("train", 0) == rows("train", 0)
    splits = [rows("train", 0), rows("validation", 0), rows("test", 0), rows("train", 1)]
    hashes = list(itertools.chain(*(split[2] for split in splits)))
    assert len(set(hashes)) == len(hashes) == 24


@pytest.mark.parametrize(("name", "side", "captions"), [("icon_pairs", 32, 1), ("icon_scenes", 64, 5)])
def test_rows_are_in_the_schema_without_labels(name, side, captions, pools, tmp_path):
    table = MODULES[name].render_split(pools[name], "validation", 3, 32, 0)
    assert table.features == features_schema(None)
    write_split(table, tmp_path, "validation")
    loaded = load_pairs(tmp_path, "validation")
    assert loaded.images.shape == (3, 3, side, side)
    assert loaded.text_ids.shape == (3, captions)
    assert loaded.labels is None
    assert all(":" in source for source in loaded.sources)


def test_pair_captions_say_what_was_drawn(pairs):
    for pair in pairs:
        caption = icon_pairs.caption_of(pair.name, pair.colour, pair.background)
        subject, background = caption.split(" on ")
        assert pair.name in names_in(subject)
        assert pair.colour in subject.split()
        assert background.split()[1:] == [pair.background, "background"]
        assert pair.colour != pair.background
        assert not pair.source.startswith("openmoji")  # its colours are its own
    assert len({pair.name for pair in pairs}) > 60
    assert {pair.colour for pair in pairs} == {pair.background for pair in pairs} == set(drawn.PALETTE)


def test_a_pair_shows_its_two_colours(pairs):
    for pair in pairs:
        pixels = pair.image.reshape(-1, 3).astype(float)
        for rgb in (pair.foreground_rgb, pair.background_rgb):
            near = np.abs(pixels - rgb).max(axis=1) < 60  # four standard deviations of the strongest noise
            assert near.mean() > 0.03, (pair.name, pair.source, rgb)


def test_every_drawing_of_a_pair_contrasts(pairs):
    for pair in pairs:
        assert drawn.contrasts(pair.foreground_rgb, pair.background_rgb)


def test_a_jittered_colour_is_still_the_colour_of_its_word():
    rng = np.random.default_rng(0)
    words, centres = list(drawn.PALETTE), np.array(list(drawn.PALETTE.values()))
    for _ in range(300):
        word, rgb = drawn.named_colour(rng)
        assert words[np.abs(centres - rgb).max(axis=1).argmin()] == word
    for one, other in itertools.combinations(centres, 2):
        assert np.abs(one - other).max() > 2 * drawn.JITTER


def test_scenes_hold_two_to_four_distinct_things_that_can_be_seen(scenes):
    counts = set()
    for scene, _ in scenes:
        names = [thing.name for thing in scene.things]
        assert len(set(names)) == len(names)
        counts.add(len(names))
        for thing in scene.things:
            assert (thing.colour is None) == thing.source.startswith("openmoji")
            assert thing.colour is None or drawn.contrasts(thing.rgb, scene.background_rgb)
    assert counts == {2, 3, 4}


def test_the_things_of_a_scene_lie_in_different_cells(pools):
    """One bright drawing per cell: as many of the four quarters are other than background as things were drawn."""
    for index in range(20):
        scene = icon_scenes.make_scene(pools["icon_scenes"], 32, np.random.default_rng(index))
        strange = np.abs(scene.image.astype(float) - scene.background_rgb).max(axis=2) > 75  # 5 sigma of the noise
        quarters = strange.reshape(2, 32, 2, 32).mean(axis=(1, 3)) > 0.01
        assert quarters.sum() == len(scene.things), index


def test_scene_captions_are_true_and_different(scenes):
    for scene, captions in scenes:
        colours = {thing.name: thing.colour for thing in scene.things}
        assert len(set(captions)) == 5
        for caption in captions:
            named = names_in(caption)
            assert len(named) >= 2, caption
            assert set(named) <= set(colours), caption
            assert (
                len(named)
                == caption.count(",") + caption.count(" and ") + len(re.findall(" (with|near) ", caption)) + 1
            )
            for colour, name in re.findall(rf"\b({'|'.join(drawn.PALETTE)}) ({'|'.join(NAMES)})\b", caption):
                assert colours[name] == colour, caption
    with_colour = [any(word in caption.split() for word in drawn.PALETTE) for _, cs in scenes for caption in cs]
    assert 0.1 < np.mean(with_colour) < 0.6


def test_classes_of_scenes_are_drawn_uniformly(scenes):
    counts = dict.fromkeys(NAMES, 0)
    for scene, _ in scenes:
        for thing in scene.things:
            counts[thing.name] += 1
    mean = sum(counts.values()) / len(NAMES)
    assert max(counts.values()) < mean + 5 * mean**0.5
    assert sum(count == 0 for count in counts.values()) < 10


def test_articles():
    assert drawn.noun_phrase("apple") == "an apple"
    assert drawn.noun_phrase("Apple logo") == "an Apple logo"
    assert drawn.noun_phrase("apple", "red") == "a red apple"
    assert drawn.noun_phrase("key", "orange") == "an orange key"
    assert drawn.noun_phrase("scissors", "red") == "red scissors"
    with_an = {name for name in NAMES if drawn.noun_phrase(name).startswith("an ")}
    vowels = {"airplane", "anchor", "apple", "Apple logo", "egg", "envelope", "eye", "ice cream", "umbrella"}
    assert with_an == vowels  # a new class whose sound differs from its letter (hour, unicorn) must be thought about


def test_the_longest_captions_fit_the_tokenizer():
    tokenizer = open_clip.SimpleTokenizer(context_length=MOST_TOKENS + 2)
    colour = max(drawn.PALETTE, key=lambda word: len(tokenizer.encode(drawn.noun_phrase("key", word))))
    by_length = sorted(NAMES, key=lambda name: len(tokenizer.encode(drawn.noun_phrase(name))), reverse=True)
    things = [icon_scenes.Thing(name, colour, None, "") for name in by_length[:4]]
    longest = [icon_pairs.caption_of(name, colour, colour) for name in by_length]
    for seed in range(20):
        longest += icon_scenes.captions_of(things, np.random.default_rng(seed))
    for caption in longest:
        assert len(tokenizer.encode(caption)) <= MOST_TOKENS, caption
    assert max(len(tokenizer.encode(caption)) for caption in longest) >= 16  # the long ones are among them
    assert (tokenizer(longest) == tokenizer.eot_token_id).any(dim=1).all()


def test_the_sheet_shows_pictures_and_captions():
    image = np.zeros((32, 32, 3), np.uint8) + np.array([200, 10, 90], np.uint8)
    rows = [{"image": image, "captions": ["a key", "a lock"], "source": "none"}] * 3
    pairs = decode_pairs(Dataset.from_list(rows, features=features_schema(None)))
    sheet = torch.from_numpy(np.asarray(caption_sheet(pairs)).copy())
    shown = (sheet == torch.tensor([200, 10, 90])).all(dim=2).sum()
    assert shown == 3 * PICTURE_SIDE**2
    assert (sheet[:PICTURE_SIDE, PICTURE_SIDE + 4 :] < 100).any()  # ink of the captions
