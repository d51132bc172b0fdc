"""Which files and rows of a folder are read, and which are named as wrong."""

import os
from types import SimpleNamespace

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from inputs import colours, saved, write_rows
from PIL import Image

from cliperase.data.pairs import features_schema, load_pairs, write_split
from cliperase.data.tables import read_table
from cliperase.errors import CliperaseError


@pytest.mark.parametrize("name", ["run*", "run?", "{a,b}", "seed=1", "a b", "ä"])
def test_a_folder_of_any_name_is_read(name, tmp_path):
    colours(tmp_path / "runs", (0, 0))
    colours(tmp_path / "a", (0, 0))
    found = load_pairs(colours(tmp_path / name, (200, 100)), "train")
    assert found.images[:, 0].unique().tolist() == [200]


def test_files_of_another_data_set_beside_or_below_are_named(tmp_path):
    two = tmp_path / "two"
    colours(two / "dogs", (0, 0))
    colours(two / "lamps", (9, 9))
    with pytest.raises(CliperaseError, match=r"holds several data sets: dogs/train.* and lamps/train"):
        load_pairs(two, "train")
    below = colours(tmp_path / "below", (0, 0))
    colours(below / "copy", (0, 0))
    with pytest.raises(CliperaseError, match=r"holds several data sets: copy/train.* and train-00000"):
        load_pairs(below, "train")
    nested = tmp_path / "nested"  # as a data set of the hub is downloaded
    colours(nested / "data", (0, 0))
    assert len(load_pairs(nested, "train")) == 4
    old = colours(tmp_path / "old", (0, 0))
    colours(old, (9, 9), file="train-old.parquet")
    with pytest.raises(CliperaseError, match=r"train-old\.parquet stands beside train-00000-of-00001\.parquet; take"):
        load_pairs(old, "train")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["train-00000-of-00001", "train-00000-of-00002", "train-00001-of-00002"], "3 files are to be number 0 to 1"),
        (["train-00000-of-00003", "train-00002-of-00003"], "2 files are to be number 0 to 2"),
        (["train", "train-00000-of-00001"], r"train\.parquet stands beside"),
    ],
)
def test_files_that_are_not_one_split_are_named(files, message, tmp_path):
    for number, name in enumerate(files):
        colours(tmp_path, (number, 0), file=f"{name}.parquet")
    with pytest.raises(CliperaseError, match=message):
        load_pairs(tmp_path, "train")


def test_a_split_may_be_several_files_or_one_without_a_number(tmp_path):
    for number in range(3):
        colours(tmp_path, (number, 0), file=f"train-0000{number}-of-00003.parquet")
    colours(tmp_path, (9, 0), file="test.parquet")
    assert load_pairs(tmp_path, "train").images[:, 0, 0, 0].tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert len(load_pairs(tmp_path, "test")) == 4
    with pytest.raises(CliperaseError, match=r"'validation' cannot be read \(it holds test\.parquet, train-00000"):
        load_pairs(tmp_path, "validation")


@pytest.mark.parametrize("label", [2, 100, -1, -7])
def test_a_label_out_of_range_in_the_second_file_is_found(label, tmp_path):
    colours(tmp_path, (0, 0), file="train-00000-of-00002.parquet")
    colours(tmp_path, (1, 0), file="train-00001-of-00002.parquet")
    path = tmp_path / "train-00001-of-00002.parquet"
    table = pq.read_table(path)
    labels = pa.array([*table["label"].to_pylist()[:-1], label])
    pq.write_table(table.set_column(table.column_names.index("label"), table.schema.field("label"), labels), path)
    with pytest.raises(CliperaseError, match=rf"row 7 \(train-00001-of-00002\.parquet, its row 3\) .*label {label},"):
        load_pairs(tmp_path, "train")


@pytest.mark.parametrize("same_size", [True, False])
def test_a_file_replaced_under_the_same_time_stamp_gives_the_new_content(same_size, tmp_path):
    path = colours(tmp_path, (10, 20)) / "train-00000-of-00001.parquet"
    before = path.stat()
    assert load_pairs(tmp_path, "train").images[0, 0, 0, 0] == 10
    colours(tmp_path, (30, 20), numbers=range(4 if same_size else 6))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert load_pairs(tmp_path, "train").images[0, 0, 0, 0] == 30


def test_a_home_of_datasets_that_cannot_be_written_is_none_of_the_datas_business(tmp_path, monkeypatch):
    (tmp_path / "home").write_text("")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "home" / "datasets")
    monkeypatch.setattr("cliperase.data.decoded.WORTH_A_FILE", 1)
    assert len(load_pairs(colours(tmp_path / "set", (0, 0)), "train")) == 4


def test_a_hub_name_of_several_data_sets_asks_for_its_folder(tmp_path, monkeypatch):
    """As a stand-in for the hub, a builder that finds files in two folders, or in the one that was asked for."""
    asked = []

    class Builder:
        def __init__(self, name, data_files):
            asked.append((name, data_files))
            folders = ["red", "blue"] if "**" in data_files["train"] else ["red"]
            files = [f"hf://datasets/{name}@1/{folder}/train-00000-of-00001.parquet" for folder in folders]
            self.config = SimpleNamespace(data_files={"train": files})

        def download_and_prepare(self, verification_mode):
            pass

        def as_dataset(self, split):
            return read_table(tmp_path, split)

    colours(tmp_path, (0, 0))
    monkeypatch.setattr("datasets.load_dataset_builder", Builder)
    with pytest.raises(CliperaseError, match=r"holds several data sets.*write someone/colours/<folder>"):
        load_pairs("someone/colours", "train")
    assert len(load_pairs("someone/colours/red", "train")) == 4
    assert asked[-1] == ("someone/colours", {"train": "red/train-*.parquet"})


@pytest.mark.parametrize("order", ["ab", "ba", "cab"])
def test_files_may_number_the_same_classes_in_any_order(order, tmp_path):
    names = sorted(order)
    colours(tmp_path, (0, 0), names=names, file="train-00000-of-00002.parquet")
    colours(tmp_path, (1, 0), names=list(order), file="train-00001-of-00002.parquet")
    pairs = load_pairs(tmp_path, "train")
    assert pairs.class_names == names
    for row, label in enumerate(pairs.labels.tolist()):
        assert pairs.texts[pairs.text_ids[row, 0]] == f"a photo of a {names[label]}"


def test_files_of_other_classes_are_named(tmp_path):
    colours(tmp_path, (0, 0), names=("apple", "lamp"), file="train-00000-of-00002.parquet")
    colours(tmp_path, (1, 0), names=("apple", "dog"), file="train-00001-of-00002.parquet")
    with pytest.raises(CliperaseError, match=r"train-00001-of-00002\.parquet has other classes in 'label'.* 'dog'"):
        load_pairs(tmp_path, "train")


@pytest.mark.parametrize("listed", [pa.large_list, pa.list_])
@pytest.mark.parametrize("text", [pa.large_string(), pa.string(), pa.string_view()])
def test_large_lists_and_strings_are_lists_and_strings(listed, text, tmp_path):
    """As polars writes them: large kinds, and pictures as bytes and path, without the features of `datasets`."""
    picture = pa.struct([("bytes", pa.large_binary()), ("path", text)])
    table = pa.table({
        "image": pa.array([{"bytes": saved(Image.new("RGB", (4, 4))), "path": None}], picture),
        "captions": pa.array([["a dog", "a cat"]], listed(text)),
        "source": pa.array(["polars"], text),
    })  # fmt: skip
    pq.write_table(table, tmp_path / "train-00000-of-00001.parquet")
    pairs = load_pairs(tmp_path, "train")
    assert pairs.texts == ["a cat", "a dog"]
    assert pairs.sources == ["polars"]


def test_some_rows_may_be_without_a_source(tmp_path):
    rows = [{"image": {"bytes": saved(Image.new("L", (4, 4), n)), "path": None}, "captions": ["a"], "source": source}
            for n, source in enumerate(("x", None))]  # fmt: skip
    write_split(datasets.Dataset.from_list(rows, features=features_schema()), tmp_path, "train")
    assert load_pairs(tmp_path, "train").sources == ["x", ""]


BROKEN = {
    "a text file": ({"image": b"<html>404</html>", "captions": ["a"]}, "no known format of pictures"),
    "half a PNG": ({"image": saved(Image.effect_noise((32, 32), 80))[:300], "captions": ["a"]}, "truncated|broken"),
    "no picture": ({"image": None, "captions": ["a"]}, "it has no image"),
    "a blank caption": ({"image": saved(Image.new("RGB", (32, 32))), "captions": ["a", " \u00a0\n"]}, "a blank one"),
    "no caption": ({"image": saved(Image.new("RGB", (32, 32))), "captions": []}, "it has no caption"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_few_broken_rows_are_left_out_and_said_and_more_are_an_error(kind, tmp_path, caplog):
    row, why = BROKEN[kind]
    whole = [{"image": saved(Image.new("RGB", (32, 32), (n, 0, 0))), "captions": [f"number {n}"]} for n in range(199)]
    folder = write_rows(tmp_path, [*whole[:120], row, *whole[120:]])
    pairs = load_pairs(folder, "train")
    assert pairs.images[:, 0, 0, 0].tolist() == list(range(199))
    assert [pairs.texts[i] for i in pairs.text_ids[:, 0]] == [f"number {n}" for n in range(199)]
    assert "row 120 " in caplog.text
    with pytest.raises(CliperaseError, match=f"row 120 .*({why})"):
        load_pairs(folder, "train", broken_percent=0.4)


def test_a_split_of_broken_rows_alone_is_an_error_whatever_is_allowed(tmp_path):
    folder = write_rows(tmp_path, [{"image": b"", "captions": ["a"]}] * 3)
    with pytest.raises(CliperaseError, match="3 of 3 rows are broken"):
        load_pairs(folder, "train", broken_percent=100)
