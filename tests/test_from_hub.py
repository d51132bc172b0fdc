"""Data sets of the hub's layout become the schema, without leaks; wrong sources are one line."""

import io
from pathlib import Path

import datasets
import numpy as np
import pytest
from from_hub import main
from PIL import Image

from cliperase.data.pairs import load_pairs

ROOT = Path(__file__).parent.parent


def picture(number):
    return np.random.default_rng(number).integers(0, 256, (8, 8, 3)).astype(np.uint8)


def write(folder, split, rows, features):
    folder.mkdir(exist_ok=True)
    datasets.Dataset.from_list(rows, features=datasets.Features(features)).to_parquet(
        folder / f"{split}-00000-of-00001.parquet"
    )


def encoded(number):
    file = io.BytesIO()
    Image.fromarray(picture(number)).save(file, "PNG")
    return {"image": {"bytes": file.getvalue(), "path": None}, "caption": ["a"]}


@pytest.fixture
def classes(tmp_path):
    """Like CIFAR-100: training image 0 is also a test image, and 1 stands there twice."""
    features = {"img": datasets.Image(), "fine_label": datasets.ClassLabel(names=["apple", "lawn_mower"])}
    for split, numbers in (("train", [0, 1, 1, 2, 3, 4, 5, 6, 7, 8]), ("test", [0, 10, 10])):
        write(tmp_path / "cifar", split, [{"img": picture(n), "fine_label": n % 2} for n in numbers], features)
    return tmp_path / "cifar"


@pytest.fixture
def captioned(tmp_path):
    features = {"image": datasets.Image(), "caption": datasets.List(datasets.Value("string"))}
    for split, numbers in (("train", [1, 2]), ("validation", [3]), ("test", [4])):
        rows = [{"image": picture(n), "caption": [f"a {n}", f"the {n}"]} for n in numbers]
        write(tmp_path / "flickr", split, rows, features)
    return tmp_path / "flickr"


def test_classes_get_captions_and_no_image_is_in_two_splits(classes, tmp_path, capsys):
    assert (
        main(
            ["--source", str(classes), "--label", "fine_label", "--validation", "3", "--output", str(tmp_path / "out")]
        )
        == 0
    )
    sets = {split: load_pairs(tmp_path / "out", split) for split in ("train", "validation", "test")}
    assert sets["train"].class_names == ["apple", "lawn mower"]
    assert "a photo of a lawn mower" in sets["train"].texts
    assert len(sets["test"]) == 3  # the official test split stays whole
    assert len(sets["train"]) + len(sets["validation"]) == 8  # ten, less the leak and the twin
    assert not set(sets["train"].row_hashes) & set(sets["validation"].row_hashes + sets["test"].row_hashes)
    first = {sets[s].texts[sets[s].text_ids[0, 0]] for s in sets}
    assert all(text.startswith("a photo of a ") for text in first)
    assert "left out" in capsys.readouterr().out


def test_columns_that_have_the_names_of_the_schema_already(tmp_path):
    features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["apple", "lemon"])}
    for split, numbers in (("train", [0, 1]), ("validation", [2]), ("test", [3])):
        write(tmp_path / "set", split, [{"image": picture(n), "label": n % 2} for n in numbers], features)
    assert main(["--source", str(tmp_path / "set"), "--label", "label", "--output", str(tmp_path / "out")]) == 0
    assert load_pairs(tmp_path / "out", "train").labels.tolist() == [0, 1]


def test_captions_are_kept_as_they_are(captioned, tmp_path):
    assert main(["--source", str(captioned), "--captions", "caption", "--output", str(tmp_path / "out")]) == 0
    train = load_pairs(tmp_path / "out", "train")
    assert train.texts == ["a 1", "a 2", "the 1", "the 2"]
    assert train.text_ids.shape == (2, 2)
    assert train.sources == ["flickr", "flickr"]
    assert (train.images[0].permute(1, 2, 0).numpy() == picture(1)).all()


@pytest.mark.parametrize("said", [{"caption_0": "a", "caption_1": "b"}, {"caption": ["a", "b"]}, {"caption": "a"}])
def test_captions_in_every_layout_of_the_hub(said, tmp_path):
    kind = (
        datasets.List(datasets.Value("string")) if isinstance(said.get("caption"), list) else datasets.Value("string")
    )
    for number, split in enumerate(("train", "validation", "test")):
        features = {"image": datasets.Image(), **dict.fromkeys(said, kind)}
        write(tmp_path / "set", split, [{"image": picture(number), **said}], features)
    command = ["--source", str(tmp_path / "set"), "--captions", "caption", "--output", str(tmp_path / "out")]
    assert main(command) == 0
    train = load_pairs(tmp_path / "out", "train")
    assert [train.texts[i] for i in train.text_ids[0].tolist()] == (["a"] if said == {"caption": "a"} else ["a", "b"])


@pytest.mark.parametrize("gap", [None, [], ["a", " "], [None]])
def test_a_row_without_a_caption_is_named(gap, tmp_path, capsys):
    features = {"image": datasets.Image(), "caption": datasets.List(datasets.Value("string"))}
    write(
        tmp_path / "set",
        "train",
        [{"image": picture(n), "caption": said} for n, said in enumerate((["a"], gap))],
        features,
    )
    command = ["--source", str(tmp_path / "set"), "--captions", "caption", "--output", str(tmp_path / "out")]
    assert main(command) == 2
    assert "row 1 (" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (datasets.Value("int64"), 7),
        ({"raw": datasets.Value("string"), "id": datasets.Value("int64")}, {"raw": "a", "id": 1}),
    ],
)
def test_a_column_that_is_no_text_is_no_caption(kind, said, tmp_path, capsys):
    for number, split in enumerate(("train", "validation", "test")):
        rows = [{"image": picture(number), "caption": said}]
        write(tmp_path / "set", split, rows, {"image": datasets.Image(), "caption": kind})
    command = ["--source", str(tmp_path / "set"), "--captions", "caption", "--output", str(tmp_path / "out")]
    assert main(command) == 2
    assert "row 0 (" in capsys.readouterr().err


@pytest.mark.parametrize("gap", [-1, None])  # -1 is how the hub marks a test split without its classes
def test_a_row_without_a_class_is_named(gap, tmp_path, capsys):
    features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["apple", "lemon"])}
    for split, label in (("train", 0), ("validation", 1), ("test", gap)):
        rows = [{"image": picture(0), "label": 0}, {"image": picture(len(split)), "label": label}]
        write(tmp_path / "set", split, rows, features)
    command = ["--source", str(tmp_path / "set"), "--label", "label", "--output", str(tmp_path / "out")]
    assert main(command) == 2
    assert "row 1 (" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_picture_that_is_only_a_path_is_named(captioned, tmp_path, capsys):
    features = {"image": datasets.Image(decode=False), "caption": datasets.List(datasets.Value("string"))}
    Image.fromarray(picture(1)).save(tmp_path / "1.png")
    rows = [encoded(n) for n in range(10, 18)]
    rows[6]["image"] = {"bytes": None, "path": str(tmp_path / "1.png")}
    write(captioned, "train", rows, features)
    command = ["--source", str(captioned), "--captions", "caption", "--validation", "3"]  # the row may be held out
    assert main([*command, "--output", str(tmp_path / "out")]) == 2
    assert "row 6 (train-00000-of-00001.parquet) holds no picture, or only its path" in capsys.readouterr().err


def test_a_broken_picture_is_named_and_nothing_is_written(captioned, tmp_path, capsys):
    features = {"image": datasets.Image(decode=False), "caption": datasets.List(datasets.Value("string"))}
    rows = [encoded(4), encoded(10), {"image": {"bytes": b"no picture", "path": None}, "caption": ["a"]}]
    write(captioned, "train", rows, features)  # the first is in the test split, and left out
    command = ["--source", str(captioned), "--captions", "caption", "--size", "4", "--output", str(tmp_path / "out")]
    assert main(command) == 2
    assert (
        "split 'train', row 2 (train-00000-of-00001.parquet): its picture cannot be decoded (no known"
        in capsys.readouterr().err
    )
    assert not (tmp_path / "out").exists()


def test_the_source_is_not_overwritten(captioned, capsys):
    before = {path: path.read_bytes() for path in captioned.iterdir()}
    assert main(["--source", str(captioned), "--captions", "caption", "--output", str(captioned)]) == 2
    assert "is the source itself" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in captioned.iterdir()} == before


def test_a_local_copy_made_smaller(captioned, tmp_path):
    """Pictures of 8 pixels, read from a folder of the last name of what the hub calls `someone/flickr`."""
    output = tmp_path / "out"
    command = ["--source", "someone/flickr", "--local", str(tmp_path), "--captions", "caption", "--size", "4"]
    assert main([*command, "--output", str(output)]) == 0
    train = load_pairs(output, "train")
    assert train.images.shape == (2, 3, 4, 4)
    whole = picture(1).mean(axis=(0, 1))
    assert np.allclose(train.images[0].float().mean(dim=(1, 2)), whole, atol=12)  # the same picture


BAD = {
    "a local folder without it": (["--source", "a/b", "--local", "here", "--label", "x"], "holds no folder 'b'"),
    "a wrong folder": (["--source", "nowhere/at-all", "--label", "x"], "cannot be read"),
    "a column that is not there": (["--label", "coarse_label"], "no column 'coarse_label'; it has image, fine_label"),
    "both kinds of captions": (["--label", "x", "--captions", "y"], "give --label"),
    "more validation rows than half": (["--label", "fine_label", "--validation", "9"], "give 1 to 5"),
    "no validation split": (["--label", "fine_label"], "split 'validation' cannot be read"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_sources_are_one_line_and_nothing_is_written(case, classes, tmp_path, capsys):
    more, message = BAD[case]
    source = [] if "--source" in more else ["--source", str(classes)]
    validation = [] if case.startswith(("no", "more")) else ["--validation", "2"]
    assert main([*source, *validation, *more, "--output", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()
