"""Schema, forget rules, manifests and samplers."""

import hashlib
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from conftest import CLASSES, ROWS, make_split
from datasets import ClassLabel, Dataset, Features, Value
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cliperase.data.pairs import features_schema, load_pairs, write_split
from cliperase.data.rules import forget_mask
from cliperase.data.sampling import EpochSampler
from cliperase.errors import CliperaseError
from paper.manifest import manifest


def test_a_split_comes_back_as_it_was_written(training):
    table = make_split("train")
    assert len(training) == ROWS["train"] * len(CLASSES)
    assert training.class_names == list(CLASSES)
    assert training.labels.tolist() == table["label"][:]
    assert training.images.shape == (len(table), 3, 32, 32)
    first = torch.from_numpy(np.array(table[0]["image"])).permute(2, 0, 1)
    assert torch.equal(training.images[0], first)
    captions = [training.texts[i] for i in training.text_ids[0].tolist()]
    assert captions == ["a photo of a apple", "a drawing of a apple"]


def test_row_hashes_are_of_the_image_file(data_folder, training):
    column = pq.read_table(next(data_folder.glob("train-*.parquet")))["image"].to_pylist()
    assert training.row_hashes[3] == hashlib.sha256(column[3]["bytes"]).hexdigest()[:12]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"concept": "apple"}, {"apple"}),
        ({"classes": ["apple", "plum"]}, {"apple", "plum"}),
        ({"caption_pattern": r"drawing of a l\w+"}, {"lemon", "leaf"}),
    ],
)
def test_rules_pick_the_rows_they_name(training, rule, expected):
    mask = forget_mask(training, rule)
    names = [training.class_names[label] for label in training.labels.tolist()]
    assert mask.tolist() == [name in expected for name in names]


def test_rows_rule_and_word_rule_without_classes(training):
    mask = forget_mask(training, {"rows": training.row_hashes[:3]})
    assert mask.nonzero()[:, 0].tolist() == [0, 1, 2]
    unlabelled = replace(training, labels=None, class_names=[])
    assert forget_mask(unlabelled, {"concept": "Apple"}).sum() == ROWS["train"]
    with pytest.raises(CliperaseError, match="matches no row"):
        forget_mask(unlabelled, {"concept": "app"})  # whole words only
    with pytest.raises(CliperaseError, match=r"classes \['apple'\]: the data have none; give a concept"):
        forget_mask(unlabelled, {"classes": ["apple"]})


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"concept": "pear"}, "'pear' matches no row"),
        ({"classes": list(CLASSES)}, "matches all 32 rows"),
        ({"caption_pattern": "("}, r"no regular expression \(.+\); correct it"),
        ({"caption_pattern": "zebra"}, "matches no row of 32"),
        ({"rows": []}, "matches no row"),
        ({"colour": "red"}, "give one of"),
        ("apple", "give one of"),
        ({}, "give one of"),
    ],
)
def test_bad_rules_are_named(training, rule, message):
    with pytest.raises(CliperaseError, match=message):
        forget_mask(training, rule)


def test_manifest_partitions_every_split_without_leakage(data_folder):
    splits = {split: load_pairs(data_folder, split) for split in ROWS}
    table = manifest(splits, {"apple": {"concept": "apple"}, "fruit": {"classes": ["apple", "plum"]}})
    assert not table.row_hash.duplicated().any()
    assert table.groupby("split").size().to_dict() == {s: n * len(CLASSES) for s, n in ROWS.items()}
    by = table[table.split == "test"].forgotten_by.value_counts().to_dict()
    assert by == {"": 2 * ROWS["test"], "apple|fruit": ROWS["test"], "fruit": ROWS["test"]}


def test_manifest_refuses_an_image_in_two_splits(data_folder):
    train = load_pairs(data_folder, "train")
    with pytest.raises(CliperaseError, match="occur more than once"):
        manifest({"train": train, "test": train}, {"apple": {"concept": "apple"}})


def test_manifest_takes_twins_of_the_test_split_that_mean_the_same(training):
    twins = replace(training, row_hashes=[training.row_hashes[0], *training.row_hashes[:-1]])  # rows 0 and 1 are one
    assert twins.labels[0] == twins.labels[1]
    rules = {"apple": {"concept": "apple"}}
    assert len(manifest({"test": twins}, rules)) == len(training)
    with pytest.raises(CliperaseError, match="occur more than once"):
        manifest({"train": twins}, rules)
    other = replace(twins, labels=torch.tensor([1, *twins.labels[1:].tolist()]))
    with pytest.raises(CliperaseError, match="occur more than once"):
        manifest({"test": other}, rules)


def test_missing_truncated_and_foreign_files(tmp_path, data_folder):
    with pytest.raises(CliperaseError, match="cannot be read"):
        load_pairs(tmp_path / "nowhere", "train")
    shard = tmp_path / "cut" / "train-00000-of-00001.parquet"
    shard.parent.mkdir()
    whole = next(data_folder.glob("train-*.parquet")).read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CliperaseError, match="cannot be read"):
        load_pairs(shard.parent, "train")
    other = tmp_path / "other"
    write_split(make_split("train").rename_column("captions", "text"), other, "train")
    with pytest.raises(CliperaseError, match="lacks the column 'captions'"):
        load_pairs(other, "train")


def test_writing_the_same_rows_twice_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        write_split(make_split("train"), tmp_path / name, "train")
    a, b = (next((tmp_path / name).glob("*.parquet")).read_bytes() for name in ("a", "b"))
    assert a == b


@given(rows=st.integers(1, 40), size=st.integers(1, 16), seed=st.integers(0, 50))
def test_sampler_visits_every_row_once_an_epoch(rows, size, seed):
    sampler = EpochSampler(rows, size, seed)
    steps = -(-2 * rows // size)
    stream = torch.cat([sampler.batch(step) for step in range(steps)])[: 2 * rows].tolist()
    assert sorted(stream[:rows]) == list(range(rows))
    assert sorted(stream[rows:]) == list(range(rows))


def test_sampler_needs_no_history():
    walked = EpochSampler(10, 4, 1)
    batches = [walked.batch(step).tolist() for step in range(9)]
    assert EpochSampler(10, 4, 1).batch(8).tolist() == batches[8]
    assert EpochSampler(10, 4, 2).batch(8).tolist() != batches[8]


def written(folder, rows, features=None):
    Dataset.from_list(rows, features=features).to_parquet(folder / "train-00000-of-00001.parquet")
    return folder


def test_columns_of_the_wrong_kind_are_named(tmp_path):
    picture = {"image": np.zeros((4, 4, 3), np.uint8)}
    schema = features_schema()
    image, text, texts = schema["image"], Value("string"), schema["captions"]
    cases = [
        ({"captions": "a photo"}, {"image": image, "captions": text}, "not lists of strings"),
        ({"captions": ["a"], "label": 3}, {"image": image, "captions": texts, "label": Value("int64")}, "ClassLabel"),
        ({"captions": []}, {"image": image, "captions": texts}, "row 0 .* has no caption"),
        ({"captions": ["a", None]}, {"image": image, "captions": texts}, "row 0 .* has no caption"),
        ({"captions": ["a"], "image": None}, {"image": image, "captions": texts}, "row 0 .* has no image"),
        ({"captions": ["a"], "image": b"x"}, {"image": Value("binary"), "captions": texts}, "image is .* not an Image"),
        (
            {"captions": ["a"], "label": None},
            {"image": image, "captions": texts, "label": ClassLabel(names=["a"])},
            "row 0 .* has no label",
        ),
        (
            {"captions": ["a"], "label": -1},
            {"image": image, "captions": texts, "label": ClassLabel(names=["a"])},
            "row 0 .* has the label -1",
        ),
    ]
    for number, (row, features, message) in enumerate(cases):
        folder = tmp_path / str(number)
        folder.mkdir()
        with pytest.raises(CliperaseError, match=message):
            load_pairs(written(folder, [{**picture, **row}], Features(features)), "train")


def test_a_split_without_rows_is_named(tmp_path):
    write_split(make_split("train").select([]), tmp_path, "train")
    with pytest.raises(CliperaseError, match="the split 'train' holds no row; add some"):
        load_pairs(tmp_path, "train")


def test_pictures_that_are_none_or_of_several_sizes(tmp_path):
    sizes, broken = tmp_path / "sizes", tmp_path / "broken"
    sizes.mkdir()
    broken.mkdir()
    rows = [{"image": np.zeros((s, s, 3), np.uint8), "captions": ["a"], "source": ""} for s in (4, 5)]
    with pytest.raises(CliperaseError, match="2 sizes"):
        load_pairs(written(sizes, rows, features_schema()), "train")
    rows = [{"image": {"bytes": b"no picture", "path": None}, "captions": ["a"], "source": ""}]
    with pytest.raises(CliperaseError, match=r"row 0 .*: its picture cannot be decoded \(no known format"):
        load_pairs(written(broken, rows, features_schema()), "train")
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "there.png")
    rows = [{"image": {"bytes": None, "path": str(tmp_path / "there.png")}, "captions": ["a"], "source": ""}]
    with pytest.raises(CliperaseError, match=r"row 0 .*holds the path of a picture, not the picture"):
        load_pairs(written(broken, rows, features_schema()), "train")


@pytest.mark.parametrize(
    "rule", [{"classes": 3}, {"classes": None}, {"rows": 7}, {"rows": [123456]}, {"caption_pattern": 5}, {"concept": 1}]
)
def test_rules_of_the_wrong_kind(training, rule):
    with pytest.raises(CliperaseError, match="forget rule"):
        forget_mask(training, rule)


def test_a_rule_may_match_nothing_where_that_is_allowed(training):
    assert not forget_mask(training, {"rows": ["none"]}, required=False).any()
