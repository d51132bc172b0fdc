"""A picture that stands on two sides of a run is told before training, and counted in the report; no row is dropped."""

import pytest
from conftest import square
from inputs import caption_rows, colours, write_rows
from PIL import Image

from cliperase.api import unlearn
from cliperase.data.leakage import pictures_on_two_sides, told
from cliperase.data.source import load_run
from cliperase.doctor import examine
from cliperase.settings import TrainSettings

RULE = {"concept": "apple"}
LOOP = {"steps": 1, "learning_rate": 1e-3, "forget_batch": 2, "retain_batch": 2, "evaluate_every": 1}
CLEAN = {"training_and_validation": 0, "forget_and_retain": 0}


def found(data, rule=RULE, **settings):
    validation, _, training = load_run(data, rule, square(8), TrainSettings(**settings))
    twice = pictures_on_two_sides(validation, training)
    return {sides: len(pictures) for sides, pictures in twice.items()}, told(twice)


@pytest.fixture
def leaky(tmp_path):
    """Classes: pictures 4 and 5 of training validate too, and 0 and 1 are each an apple and a lamp."""
    folder = tmp_path / "data"
    colours(folder, (9, 9), range(4, 10), "validation")
    colours(folder, (9, 9), range(6), "train", file="train-00000-of-00002.parquet")
    colours(folder, (9, 9), [0, 1], "train", names=("lamp", "apple"), file="train-00001-of-00002.parquet")
    return folder


def test_clean_data_say_nothing(data_folder, shards):
    assert found(data_folder) == (CLEAN, [])
    assert found(shards, lanes=2, retain_batch=8) == ({}, [])  # a stream is not held


def test_a_picture_of_two_splits_or_of_two_classes_is_told(leaky):
    counts, (split, rule) = found(leaky)
    assert counts == {"training_and_validation": 2, "forget_and_retain": 2}
    assert split.startswith("2 pictures stand in the training and in the validation split, the first is ")
    assert rule.startswith("2 pictures stand in the forget set and in the retain set, the first is ")


@pytest.mark.parametrize(
    ("captions", "twice"),
    [
        ([["an apple"], ["a fruit"]], 0),  # one caption a row: the rows become one, which matches
        ([["an apple", "red"], ["a fruit", "round"]], 1),
        ([["an apple", "red"], ["a red apple", "round"]], 0),  # both match
    ],
)
def test_rows_of_one_picture_of_which_one_matches(captions, twice, tmp_path):
    first, second, *others = caption_rows([(0, ""), (0, ""), *((n, f"thing {n}") for n in range(1, 5))])
    rows = [first | {"captions": captions[0]}, second | {"captions": captions[1]}, *others]
    write_rows(tmp_path, rows)
    write_rows(tmp_path, caption_rows([(7, "an apple"), (8, "a pear")]), "validation")
    assert found(tmp_path)[0] == CLEAN | {"forget_and_retain": twice}


def test_rows_in_python_are_known_by_their_pictures():
    rows = [(Image.new("RGB", (8, 8), (n, n, 0)), f"thing {n}", ("apple", "lamp")[n % 2]) for n in range(20)]
    copies = [(picture, text, "lamp") for picture, text, _ in rows[:6:2]]
    counts, lines = found({"train": rows + copies, "val": rows[:2] + rows[-3:]})
    assert counts == {"training_and_validation": 5, "forget_and_retain": 3}
    assert [line.split(" pictures stand in ")[0] for line in lines] == ["5", "3"]


def test_unlearning_warns_and_counts_and_keeps_the_rows(leaky, model_folder, caplog):
    report = unlearn(model_folder, leaky, RULE, settings=LOOP)
    assert report["on_two_sides"] == {"training_and_validation": 2, "forget_and_retain": 2}
    assert report["rows"] == {"forget": 4, "retain": 4}
    assert caplog.text.count("2 pictures stand in ") == 2


def test_the_source_of_the_first_picture_is_said(data_folder, tmp_path):
    for split in ("train", "validation"):
        (tmp_path / f"{split}-00000-of-00001.parquet").symlink_to(data_folder / "train-00000-of-00001.parquet")
    counts, lines = found(tmp_path)
    assert counts == CLEAN | {"training_and_validation": 32}
    assert " of 'colour:apple': validation then measures" in lines[0]


def test_the_doctor_finds_it_too(leaky, model_folder, tmp_path):
    findings = list(examine(model_folder, leaky, RULE, "GA", LOOP, tmp_path / "out"))
    problems = [one for one in findings if one.warning]
    assert not any(one.missing for one in findings)  # it can run
    assert [one.subject for one in problems] == ["leakage", "leakage"]
    assert [one.said for one in problems] == found(leaky)[1]
