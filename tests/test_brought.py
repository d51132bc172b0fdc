"""Data as people bring them: each layout gives the same rows, odd inputs give one clear line, nothing is written."""

import csv
import errno
import io
import json
import os
import shutil
from pathlib import Path

import datasets
import numpy as np
import pandas
import pytest
import torch
from conftest import TINY_TRAINING, square
from inputs import saved
from PIL import Image
from torchvision.transforms.functional import to_tensor

from cliperase.api import evaluate, unlearn
from cliperase.audit.auditing import AuditSettings, open_case
from cliperase.cli import main
from cliperase.data.brought import bring
from cliperase.data.held_out import held_out
from cliperase.data.pairs import features_schema, row_hash
from cliperase.data.source import load_run, load_split, load_training, open_source
from cliperase.errors import CliperaseError
from cliperase.settings import TrainSettings

RULE, SETTINGS = {"concept": "apple"}, TrainSettings(broken_percent=100.0)
NAMES = ("apple", "lamp")
EACH = 10  # pictures of a class


def shade(name, number, size=(8, 8)):
    return Image.new("RGB", size, (8 * number, 255 * (name == "apple"), 90))


def write(path, picture, kind="PNG"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(saved(picture, kind))
    return path


def write_text(path, text, encoding="utf-8"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding=encoding)
    return path


def write_classes(folder, names=NAMES, each=EACH):
    for name in names:
        for number in range(each):
            write(folder / name / f"{number}.png", shade(name, number))
    return folder


def table_rows(folder, each=EACH):
    """Pictures of both kinds in `images`, and (path, caption) of each."""
    return [
        (write(folder / "images" / f"{name}{n}.png", shade(name, n)).relative_to(folder).as_posix(), f"a {name}, {n}")
        for name in NAMES
        for n in range(each)
    ]


def write_csv(path, header, rows, mark=",", encoding="utf-8"):
    text = io.StringIO()
    csv.writer(text, delimiter=mark).writerows([header, *rows])
    return write_text(path, text.getvalue(), encoding)


def write_jsonl(path, rows):
    return write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def rows_of(data, split="train", size=8):
    """All rows of a split, none forgotten."""
    return load_split(data, split, None, square(size), broken_percent=100.0)[0]


def captions_of(pairs):
    """{red: its captions} of pictures that differ in red."""
    return [{pairs.texts[i] for i in row} for row in pairs.text_ids.tolist()]


def refused(data, message, split="train", **more):
    with pytest.raises(CliperaseError, match=message) as error:
        load_split(data, split, None, square(8), **more)
    assert "\n" not in str(error.value)


@pytest.fixture
def photos(tmp_path):
    """Folders of classes by split."""
    for split, each in (("train", EACH), ("val", 4), ("test", 3)):
        write_classes(tmp_path / "photos" / split, each=each)
    return tmp_path / "photos"


def test_folders_of_classes_are_classes_by_split(photos):
    for split, each in (("train", EACH), ("validation", 4), ("test", 3)):
        pairs = rows_of(photos, split)
        assert pairs.class_names == list(NAMES)
        assert pairs.labels.tolist() == [0] * each + [1] * each
        assert [pairs.texts[i] for i in pairs.text_ids[:, 0]] == ["a photo of a apple"] * each + [
            "a photo of a lamp"
        ] * each
        assert pairs.sources[0] == f"{'val' if split == 'validation' else split}/apple/0.png"
    assert rows_of(photos).row_hashes[0] == row_hash((photos / "train" / "apple" / "0.png").read_bytes())
    assert rows_of(photos).images[3, 0].unique().tolist() == [24]


def test_odd_files_among_classes_are_passed_over_and_named(photos, caplog):
    write(photos / "train" / "apple" / "UP.JPG", shade("apple", 11), "JPEG")
    write(photos / "train" / "apple" / "日本 é.webp", shade("apple", 12), "WEBP")
    for junk in (".DS_Store", "Thumbs.db", ".hidden.png", "._0.png"):
        write_text(photos / "train" / "lamp" / junk, "junk")
    write_text(photos / "__MACOSX" / "train" / "x.png", "junk")
    write_text(photos / "train" / "lamp" / "notes.docx", "junk")
    (photos / "train" / "pear").mkdir()
    pairs = rows_of(photos)
    assert pairs.labels.bincount().tolist() == [EACH + 2, EACH]
    assert pairs.class_names == list(NAMES)
    assert "train/apple/日本 é.webp" in pairs.sources
    assert "train/lamp/notes.docx passed over: no pictures and no texts" in caplog.text
    assert "train/pear passed over: folders without pictures" in caplog.text
    assert "Thumbs" not in caplog.text


def test_one_class_is_no_data_of_classes(photos):
    for folder in photos.glob("*/lamp"):
        shutil.rmtree(folder)
    refused(photos, "has the one class 'apple', and nothing to tell it from; give more classes, or captions")


@pytest.mark.parametrize(("kind", "suffix"), [("AVIF", "avif"), ("JPEG", "jfif"), ("PPM", "ppm"), ("TGA", "tga")])
def test_pictures_of_rarer_kinds_are_read(kind, suffix, photos):
    for path in (photos / "train").glob("*/*.png"):
        write(path.with_suffix(f".{suffix}"), Image.open(path), kind)
        path.unlink()
    assert len(rows_of(photos)) == 2 * EACH


def test_a_split_may_lack_a_class(photos):
    shutil.rmtree(photos / "val" / "apple")
    write_classes(photos / "test", names=("pear",))
    validation, train = rows_of(photos, "validation"), rows_of(photos)
    assert validation.class_names == train.class_names == ["apple", "lamp", "pear"]
    assert validation.labels.unique().tolist() == [1]


def nest(photos):
    write(photos / "train" / "apple" / "red" / "1.png", shade("apple", 1))


def misname(photos):
    (photos / "train" / "apple" / "0.png").rename(os.fsdecode(os.fsencode(photos) + b"/train/apple/\xe9.png"))


def put_beside(photos):
    write(photos / "pear" / "1.png", shade("apple", 1))


def put_above(photos):
    write(photos / "train" / "1.png", shade("apple", 1))


def name_twice(photos):
    shutil.copytree(photos / "val", photos / "valid")


def link(photos):
    (photos / "train" / "again").symlink_to(photos / "train")


def number(photos):
    for split in ("train", "val", "test"):
        for i, name in enumerate(NAMES):
            (photos / split / name).rename(photos / split / str(i))


def synsets(photos):
    for folder in photos.glob("*/apple"):
        folder.rename(folder.with_name("n02084071"))


def same_prompt(photos):
    (photos / "test" / "lamp").rename(photos / "test" / "Lamp")


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (["001.Black_footed_Albatross", "017.Cardinal"], ["Black footed Albatross", "Cardinal"]),  # some of CUB's
        (["1-tench", "2-goldfish"], ["tench", "goldfish"]),
        (["3_Musketeers", "7_up"], ["3 Musketeers", "7 up"]),
        (["01.lamp", "02.lamp"], ["01.lamp", "02.lamp"]),
        (["01.lamp", "pear"], ["01.lamp", "pear"]),
        (["2012_Audi", "2013_BMW"], ["2012 Audi", "2013 BMW"]),
    ],
)
def test_numbers_that_only_count_the_classes_are_no_part_of_their_names(folders, names, tmp_path, caplog):
    for folder in folders:
        for n in range(4):
            write(tmp_path / folder / f"{n}.png", shade(NAMES[0], 4 * folders.index(folder) + n))
    assert rows_of(tmp_path).class_names == names
    assert ("numbers before the names" in caplog.text) == (names[0] not in [one.replace("_", " ") for one in folders])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (nest, r"train/apple/red/1\.png lies 2 folders deep; classes are one folder deep, so name"),
        (misname, r"the name b'train/apple/\\xe9\.png' is not UTF-8; rename it"),
        (put_beside, r"pear/1\.png is not in a folder of a split and test/ is one; put all pictures in train/"),
        (put_above, r"train/1\.png has neither a caption nor a class; put it in a folder with the name of its class"),
        (name_twice, r"val and valid are one split, validation; keep one"),
        (link, r"train/again and train are one folder by a link; take the link out"),
        (number, r"'label' holds '0', which is no name of a class; give each row one name"),
        (synsets, r"'label' holds 'n02084071', which is no name of a class; give each row one name"),
        (same_prompt, r"classes 0 and 2, 'Lamp' and 'lamp', are the same prompt"),
    ],
)
def test_folders_of_classes_that_are_unclear_are_one_line(spoil, message, photos):
    spoil(photos)
    refused(photos, message)


def test_a_folder_that_must_not_be_read_is_one_line(photos, monkeypatch):
    """Root may read everything, so the system's answer is put in its place."""
    scan = os.scandir

    def refuse(path):
        if str(path).endswith("lamp"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    refused(photos, r"test/lamp cannot be read \(Permission denied\); mend its rights")


def test_a_folder_without_anything_is_one_line(tmp_path):
    refused(tmp_path, "holds no pictures, tables, parquet files or shards; it holds nothing")
    write_text(tmp_path / "readme.md", "")
    refused(tmp_path, r"it holds readme\.md")
    refused("captins.csv", r"'captins\.csv', split 'train' cannot be read \(no such folder or file\)")
    refused(write_text(tmp_path / "a.xlsx", ""), r"is a file of no known kind; name a folder, or a file of \.csv")


HEADERS = [("image", "caption"), ("Image_Path", "Text"), ("file_name", "title"), ("filepath", "captions")]


@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_a_table_is_pictures_and_captions(header, mark, tmp_path):
    rows = table_rows(tmp_path)
    path = write_csv(tmp_path / "captions.csv", header, rows, mark, "utf-8-sig")
    pairs = rows_of(path)
    held = rows_of(path, "validation")
    assert len(pairs) + len(held) == 2 * EACH
    said = {pairs.sources[i]: pairs.texts[pairs.text_ids[i, 0]] for i in range(len(pairs))}
    assert said.items() <= {f"captions.csv, line {n}": text for n, (_, text) in enumerate(rows, 2)}.items()
    for n in range(len(pairs)):
        path = rows[int(pairs.sources[n].rsplit(" ", 1)[1]) - 2][0]
        assert pairs.row_hashes[n] == row_hash((tmp_path / path).read_bytes())


def test_every_kind_of_table_gives_the_same_rows(tmp_path):
    rows = table_rows(tmp_path)
    made = {
        "csv": write_csv(tmp_path / "a.csv", ("image", "caption"), rows),
        "tsv": write_csv(tmp_path / "a.tsv", ("image", "caption"), rows, "\t"),
        "jsonl": write_jsonl(tmp_path / "a.jsonl", [{"image": path, "caption": text} for path, text in rows]),
        "lists": write_jsonl(tmp_path / "b.jsonl", [{"image": path, "captions": [text]} for path, text in rows]),
        "absolute": write_csv(tmp_path / "b.csv", ("path", "text"), [(tmp_path / path, text) for path, text in rows]),
        "windows": write_csv(tmp_path / "c.csv", ("path", "text"), [(p.replace("/", "\\"), text) for p, text in rows]),
    }
    whole = {way: rows_of(path).fingerprint() for way, path in made.items()}
    assert set(whole.values()) == {whole["csv"]}
    shutil.move(tmp_path / "a.csv", tmp_path / "images" / "metadata.csv")
    inner = [(path.removeprefix("images/"), text) for path, text in rows]
    write_csv(tmp_path / "images" / "metadata.csv", ("file_name", "text"), inner)
    assert rows_of(tmp_path / "images").fingerprint() == whole["csv"]


def test_several_captions_of_a_picture(tmp_path):
    rows = table_rows(tmp_path, each=2)
    wide = [(path, text, "" if n == 0 else f"{text} again", " ") for n, (path, text) in enumerate(rows)]
    path = write_csv(tmp_path / "wide.csv", ("image", "caption_2", "caption_1", "caption_10"), wide)
    found = captions_of(rows_of(path)) + captions_of(rows_of(path, "validation"))
    assert sorted(map(sorted, found)) == sorted(sorted({a, b} - {""}) for _, a, b, _ in wide)
    long = [(p, text) for p, first in rows for text in (first, f"{first} again")]
    path = write_csv(tmp_path / "long.csv", ("image", "caption"), long)
    assert all(len(one) == 2 for one in captions_of(rows_of(path)))
    path = write_csv(tmp_path / "lists.csv", ("image", "captions"), [(p, str([a, "it's"])) for p, a in rows])
    assert all("it's" in one and len(one) == 2 for one in captions_of(rows_of(path)))


@pytest.mark.parametrize("table", ["captions.txt", "captions.csv"])
def test_a_picture_may_lie_below_the_folder_of_its_table(table, tmp_path):
    """Kaggle's Flickr8k: `Images/`, and a table of names and captions that is no .csv by its name."""
    rows = [(Path(path).name, text) for path, text in table_rows(tmp_path / "Images")]
    write_csv(tmp_path / table, ("image", "caption"), rows)
    assert len(rows_of(tmp_path)) + len(rows_of(tmp_path, "validation")) == len(rows)
    shutil.copytree(tmp_path / "Images", tmp_path / "copies")
    refused(tmp_path, f"{table}, line 2: .* is the name of Images/.* and of copies/.*; name the folder of one")
    write_text(tmp_path / "captions.txt", "a caption of nothing")
    refused(tmp_path / "captions.txt", "is a file of no known kind")  # it has no header by now


def test_classes_of_a_table_come_with_their_prompt_first(tmp_path):
    rows = [(path, text, "red_apple" if "apple" in text else "lamp") for path, text in table_rows(tmp_path)]
    pairs = rows_of(write_csv(tmp_path / "a.csv", ("path", "caption", "category"), rows))
    assert pairs.class_names == ["lamp", "red apple"]
    first = [pairs.texts[i] for i in pairs.text_ids[:, 0]]
    assert first == [f"a photo of a {pairs.class_names[label]}" for label in pairs.labels.tolist()]
    assert all(len(row) == 2 and any(", " in text for text in row) for row in captions_of(pairs))
    plain = rows_of(write_csv(tmp_path / "b.csv", ("path", "class"), [(path, name) for path, _, name in rows]))
    assert plain.class_names == pairs.class_names


def test_numbers_of_classes_beside_captions_are_not_used_and_that_is_said(tmp_path, caplog):
    rows = [(path, text, n % 2) for n, (path, text) in enumerate(table_rows(tmp_path))]
    assert rows_of(write_csv(tmp_path / "a.csv", ("path", "caption", "label"), rows)).labels is None
    assert "'label' holds '0', which is no name of a class, and is not used" in caplog.text
    named = [(*row, ("apple", "lamp")[row[2]]) for row in rows]
    beside = rows_of(write_csv(tmp_path / "c.csv", ("path", "caption", "label", "class"), named))
    assert beside.class_names == ["apple", "lamp"]
    several = [{"path": path, "label": ["apple", "lamp"]} for path, _, _ in rows]
    refused(
        write_jsonl(tmp_path / "d.jsonl", several), r"'label' holds \['apple', 'lamp'\], which is no name of a class"
    )
    two = write_csv(tmp_path / "b.csv", ("path", "text", "caption"), [(path, "x", text) for path, text, _ in rows])
    assert "x" not in rows_of(two).texts
    assert "taken from the column 'caption' and not from 'text'" in caplog.text


def test_the_splits_of_tables(tmp_path, caplog):
    rows = table_rows(tmp_path)
    one = [(path, text, ("train", "val", "Test")[n % 3]) for n, (path, text) in enumerate(rows)]
    path = write_csv(tmp_path / "a.csv", ("image", "caption", "split"), one)
    assert [len(rows_of(path, split)) for split in ("train", "validation", "test")] == [7, 7, 6]
    several = tmp_path / "several"
    shutil.copytree(tmp_path / "images", several / "images")
    write_csv(several / "train.csv", ("image", "caption"), rows[2:])
    write_csv(several / "validation.csv", ("image", "caption"), rows[:1])
    assert [len(rows_of(several, split)) for split in ("train", "validation")] == [18, 1]
    assert "images/apple1.png passed over: pictures that no table names" in caplog.text
    folders = tmp_path / "folders"
    listed = {"train": rows[:12], "val": rows[12:]}
    for split, part in listed.items():
        for path, _ in part:
            write(folders / split / path, Image.open(tmp_path / path))
    write_csv(
        folders / "metadata.csv",
        ("file_name", "text"),
        [(f"{split}/{path}", text) for split, part in listed.items() for path, text in part],
    )
    assert [len(rows_of(folders, split)) for split in ("train", "validation")] == [12, 8]
    (folders / "metadata.csv").unlink()
    for split, part in listed.items():
        write_jsonl(folders / split / "metadata.jsonl", [{"file_name": path, "text": text} for path, text in part])
    assert [len(rows_of(folders, split)) for split in ("train", "validation")] == [12, 8]


ROWS = "image,caption\nimages/apple0.png,a\n"
SPOILT = {
    "url": ("a.csv", "url,caption\nhttps://x.y/1.jpg,a\n", "column 'url' holds addresses and nothing is downloaded"),
    "address": ("a.csv", "image,caption\nhttps://x.y/1.jpg,a\n", "line 2: 'https://x.y/1.jpg' is an address"),
    "no header": (
        "a.csv",
        "images/apple0.png,a\n",
        r"has the columns images/apple0\.png, a; name that of the pictures",
    ),
    "no captions": ("a.csv", "image,height\nimages/apple0.png,9\n", "neither captions nor classes; it has height"),
    "no row": ("a.csv", "image,caption\n", "holds no row"),
    "an empty file": ("a.csv", "", "has the columns ; name that of the pictures"),
    "a comma too many": ("a.csv", ROWS + "images/apple1.png,a, b\n", "line 3: 3 fields, and the header has 2; put"),
    "a quote that is not closed": ("a.csv", ROWS + 'images/apple1.png,"a\nb,c\n', r"line 4: unexpected end of data"),
    "quotes in the middle": ("a.tsv", 'image\tcaption\nimages/apple0.png\t"big" one\n', "line 2: .* expected after"),
    "two columns of one name": ("a.csv", "image,caption,caption\nimages/apple0.png,a,b\n", "two columns of one name"),
    "another split": ("a.csv", "image,caption,split\nimages/apple0.png,a,dogs\n", "line 2: its split is none of train"),
    "a picture in no split": (
        "a.csv",
        "image,caption\ntrain/1.png,a\nimages/apple0.png,a\n",
        "the picture of line 2 is in a folder of a split and that of line 3 in none; add a column split",
    ),
    "a broken line": ("a.jsonl", '{"image": "images/apple0.png", "caption": "a"}\n{"image": \n', "line 2 is not JSON"),
    "a list": ("a.jsonl", '["images/apple0.png", "a"]\n', r"line 1 is not an object \{…\}"),
    "a number for a caption": (
        "a.jsonl",
        '{"image": "images/apple0.png", "caption": 3}\n',
        "the caption is 3, not text",
    ),
    "a number for a picture": ("a.jsonl", '{"image": 3, "caption": "a"}\n', "line 1: the picture is 3; give the path"),
    "a list that ends nowhere": ("a.csv", "image,caption\nimages/apple0.png,['a\n", "begins like a list and is none"),
    "a folder for a picture": (
        "a.csv",
        ROWS + "".join(f"images/apple{n}.png,a\n" for n in range(1, 9)) + "images,a\n",
        r"a\.csv, line 11: .*/images is not there, or must not be read; 1 of 7 rows are broken",
    ),
    "half a character": (
        "a.jsonl",
        '{"image": "images/apple0.png", "caption": "\\ud83c"}\n',
        "holds half of a character",
    ),
    "no path": ("a.jsonl", '{"image": "a\\u0000.png", "caption": "a"}\n', "line 1: .* is no path; correct it"),
    "a row without a class": (
        "a.csv",
        "image,label\nimages/apple0.png,\n" + "".join(f"images/apple{n}.png,{NAMES[n % 2]}\n" for n in range(1, 9)),
        r"split 'train', a\.csv, line 2 has no label; leave it out",
    ),
}


@pytest.mark.parametrize("kind", SPOILT)
def test_tables_that_are_unclear_are_one_line(kind, tmp_path):
    table_rows(tmp_path)
    name, text, message = SPOILT[kind]
    refused(write_text(tmp_path / name, text), message)


def test_a_table_in_another_encoding_is_one_line(tmp_path):
    refused(write_text(tmp_path / "a.csv", "image,caption\na.png,café\n", "latin-1"), "in UTF-8")
    refused(write_text(tmp_path / "a.csv", "image,caption\na.png,café\n", "utf-16"), "in UTF-8")


def test_several_tables_of_one_split_are_named(tmp_path):
    rows = table_rows(tmp_path)
    for name in ("a.csv", "b.csv"):
        write_csv(tmp_path / name, ("image", "caption"), rows)
    refused(tmp_path, r"several files, a\.csv and b\.csv, have rows of the split 'train'; name one of them")


def write_coco(folder, split="train", year="2017", each=EACH):
    """COCO's layout of a split: `each` pictures of both kinds, with two captions each."""
    rows = {}
    for name in NAMES:
        for n in range(each):
            write(folder / f"{split}{year}" / f"{split}{name}{n}.png", shade(name, n))
            rows[f"{split}{name}{n}.png"] = [f"a {name}, {n}", f"one {name}, {n}"]
    told = {
        "images": [{"id": number, "file_name": file} for number, file in enumerate(rows)],
        "annotations": [
            {"image_id": number, "caption": text} for number, texts in enumerate(rows.values()) for text in texts
        ],
    }
    write_text(folder / "annotations" / f"captions_{split}{year}.json", json.dumps(told))
    return rows


def write_karpathy(folder, rows, split_of, name="dataset_flickr30k.json"):
    """Karpathy's JSON of {path below the folder: captions}."""
    images = [
        {"filename": path, "split": split_of(path), "sentences": [{"raw": text} for text in texts]}
        for path, texts in rows.items()
    ]
    return write_text(folder / name, json.dumps({"images": images, "dataset": "flickr30k"}))


def test_coco_is_read_as_it_is_downloaded(tmp_path):
    write_coco(tmp_path)
    write_coco(tmp_path, "val", each=3)
    write_text(tmp_path / "annotations" / "instances_train2017.json", '{"images": [], "annotations": []}')
    training, validation = rows_of(tmp_path), rows_of(tmp_path, "validation")
    assert (len(training), len(validation)) == (2 * EACH, 6)
    assert {"a apple, 3", "one apple, 3"} in captions_of(training)
    one = rows_of(tmp_path / "annotations" / "captions_val2017.json", "validation")
    assert one.fingerprint() == validation.fingerprint()


def test_of_cocos_captions_and_objects_the_captions_are_read(tmp_path, caplog):
    """Without captions the folders of the splits are no classes, and a picture has several objects."""
    write_coco(tmp_path)
    write_coco(tmp_path, "val", each=3)
    objects = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "apple"}]}
    for split in ("train", "val"):
        write_text(tmp_path / "annotations" / f"instances_{split}2017.json", json.dumps(objects))
    assert {"a apple, 3", "one apple, 3"} in captions_of(rows_of(tmp_path))
    assert "annotations/instances_train2017.json and 1 more passed over: names of objects" in caplog.text
    for split in ("train", "val"):
        (tmp_path / "annotations" / f"captions_{split}2017.json").unlink()
    refused(tmp_path, r"annotations/instances_train2017.json names the objects of a picture, which are several")


def test_karpathys_json_is_read_with_his_splits(tmp_path):
    rows = {f"{name}{n}.png": [f"a {name}, {n}"] for name in NAMES for n in range(EACH)}
    for name in NAMES:
        for n in range(EACH):
            write(tmp_path / "images" / f"{name}{n}.png", shade(name, n))
    split = {"0": "test", "1": "val", "2": "restval"}
    path = write_karpathy(tmp_path, rows, lambda file: split.get(file[-5], "train"))
    for data in (tmp_path, path):
        assert [len(rows_of(data, one)) for one in ("train", "validation", "test")] == [16, 2, 2]
    assert captions_of(rows_of(path, "test")) == [{"a apple, 0"}, {"a lamp, 0"}]


def test_a_json_of_captions_that_is_odd_is_one_line(tmp_path):
    rows = write_coco(tmp_path)
    twice = write_karpathy(tmp_path, rows, lambda file: "train", "dataset_coco.json")
    refused(
        tmp_path, r"several files, annotations/captions_train2017.json and dataset_coco.json, have rows of the split"
    )
    write(tmp_path / "copy" / "trainapple0.png", shade("apple", 0))
    refused(twice, r"'trainapple0.png' is the name of copy/trainapple0.png and of ")
    refused(write_karpathy(tmp_path, rows, lambda file: "all"), "split 'all' is none of train, restval, val and test")
    for text in ("[]", "{", '{"images": 1}', '{"images": [{"id": 1}], "annotations": [{"image_id": 1}]}', "[" * 10**5):
        refused(write_text(tmp_path / "odd.json", text), "captions neither in COCO's layout nor in Karpathy's")


def test_missing_pictures_of_a_json_are_broken_rows(tmp_path):
    rows = {f"{name}{n}.png": [f"a {name}, {n}"] for name in NAMES for n in range(EACH)}
    for path in list(rows)[1:]:
        write(tmp_path / path, shade(path[:5].strip("0"), 1))
    path = write_karpathy(tmp_path, rows, lambda file: "train")
    refused(path, r"dataset_flickr30k.json, apple0.png: .*apple0.png is not there, or must not be read")


def test_a_missing_picture_is_not_one_of_the_same_name_in_another_folder(tmp_path):
    """Paths of another machine: the folder of the picture tells which one is meant."""
    write_classes(tmp_path)
    rows = [(f"/elsewhere/set/{name}/{n}.png", f"a {name}, {n}") for name in NAMES for n in range(EACH)]
    write_csv(tmp_path / "captions.csv", ("image", "caption"), rows)
    assert len(rows_of(tmp_path)) + len(rows_of(tmp_path, "validation")) == len(rows)
    (tmp_path / NAMES[1] / "3.png").unlink()
    found = [text for split in ("train", "validation") for text in rows_of(tmp_path, split).texts]
    assert sorted(found) == sorted(text for _, text in rows if text != f"a {NAMES[1]}, 3")


def test_missing_files_and_blank_captions_are_broken_rows(tmp_path, caplog):
    rows = table_rows(tmp_path)
    for odd in (("images/nowhere.png", "a"), ("", "a"), (rows[0][0], "  ")):
        path = write_csv(tmp_path / "a.csv", ("image", "caption"), [*rows[1:], odd])
        assert len(rows_of(path)) + len(rows_of(path, "validation")) == 2 * EACH - 1
        assert r"a.csv, line 21:" in caplog.text
        refused(path, r"split 'train', a\.csv, line 21: .*1 of \d+ rows are broken")
    every = write_csv(tmp_path / "b" / "a.csv", ("image", "caption"), rows)  # paths are relative to the table
    refused(every, r"/b/images/apple0\.png is not there, or must not be read; 20 of 20 rows are broken")
    path = write_csv(tmp_path / "a.csv", ("image", "caption"), [*rows, ("images/nowhere.png", "a")])
    refused(path, r"images/nowhere\.png is not there, or must not be read")


def test_unicode_newlines_and_quotes_in_captions_are_kept(tmp_path):
    said = ['a "big" apple', "pomme,\nrouge", "りんご\u2028🍎", "l'été"]
    rows = [(path, said[n % 4] + f" {n}") for n, (path, _) in enumerate(table_rows(tmp_path))]
    path = write_csv(tmp_path / "a.csv", ("image", "caption"), rows)
    assert set(rows_of(path).texts) | set(rows_of(path, "validation").texts) == {text for _, text in rows}
    lines = write_jsonl(tmp_path / "a.jsonl", [{"image": path, "caption": text} for path, text in rows])
    assert rows_of(lines).fingerprint() == rows_of(path).fingerprint()


def beside(folder, each=EACH, suffix=".txt"):
    for name in NAMES:
        for n in range(each):
            write(folder / f"{name}.{n}.png", shade(name, n))
            write_text(folder / f"{name}.{n}{suffix}", f"a {name}, {n}\n")
    return folder


def test_texts_beside_pictures_are_their_captions(tmp_path):
    for split in ("train", "valid", "test"):
        beside(tmp_path / split / "00000", suffix=".TXT" if split == "test" else ".txt")
    for split in ("train", "validation", "test"):
        pairs = rows_of(tmp_path, split)
        assert len(pairs) == 2 * EACH
        assert pairs.class_names == []
        assert pairs.texts[pairs.text_ids[13, 0]] == "a lamp, 3"


def test_odd_texts_beside_pictures(tmp_path, caplog):
    beside(tmp_path)
    write_text(tmp_path / "apple.0.txt", "\ufeffun été\n\nla pomme\n")
    write_text(tmp_path / "lonely.txt", "no picture")
    write_text(tmp_path / "apple.1.txt", " \n")
    write_text(tmp_path / "apple.2.txt", "café", "latin-1")
    (tmp_path / "apple.3.txt").unlink()
    write_text(tmp_path / ".DS_Store", "junk")
    pairs = rows_of(tmp_path, "train")
    held = rows_of(tmp_path, "validation")
    assert len(pairs) + len(held) == 2 * EACH - 3
    assert {"un été", "la pomme"} in captions_of(pairs) + captions_of(held)
    assert "lonely.txt passed over" in caplog.text
    assert "apple.2.txt cannot be read" in caplog.text
    assert "3 of 15 rows are left out" in caplog.text
    refused(tmp_path, r"split 'train', apple\.1\.png: it has no caption")


def test_what_img2dataset_writes_beside_folders_of_pictures_is_no_data(tmp_path, caplog):
    for shard in ("00000", "00001"):
        beside(tmp_path / shard)
        datasets.Dataset.from_dict({"url": ["a"], "caption": ["b"]}).to_parquet(tmp_path / f"{shard}.parquet")
        write_text(tmp_path / f"{shard}_stats.json", "{}")
    assert len(rows_of(tmp_path)) + len(rows_of(tmp_path, "validation")) == 2 * EACH  # each picture twice
    assert "00000.parquet and 3 more passed over" in caplog.text


def saved_rows(**columns):
    rows = [
        {"image": shade(name, n), "captions": [f"a photo of a {name}"], "label": name}
        for name in NAMES
        for n in range(EACH)
    ]
    renamed = [{columns.get(key, key): value for key, value in row.items() if columns.get(key, key)} for row in rows]
    return datasets.Dataset.from_list(renamed).cast_column(columns.get("image", "image"), datasets.Image())


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_data_sets_that_were_saved_to_disk(tmp_path):
    table = saved_rows(image="img", label="fine_label", captions=None).class_encode_column("fine_label")
    table.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": table, "valid": table, "unsupervised": table}).save_to_disk(tmp_path / "three")
    before = contents(tmp_path)
    pairs = rows_of(tmp_path / "one")
    assert pairs.class_names == list(NAMES)
    assert pairs.labels.bincount().tolist() == [8, 8]
    assert len(rows_of(tmp_path / "three")) == len(rows_of(tmp_path / "three", "validation")) == 2 * EACH
    refused(tmp_path / "three", "no split 'test'; it has train and unsupervised and validation", split="test")
    assert contents(tmp_path) == before
    (tmp_path / "one" / "data-00000-of-00001.arrow").write_bytes(b"")
    refused(tmp_path / "one", "cannot be read .*save it to disk again")


@pytest.mark.parametrize("captions", ["captions", "text"])
def test_a_column_of_splits_divides_rows_that_have_no_others(captions, tmp_path):
    columns = {"captions": captions, "label": None}
    names = [("train", "val", "Test")[n % 3] for n in range(2 * EACH)]
    table = saved_rows(**columns).add_column("Split", names)
    table.save_to_disk(tmp_path / "saved")
    (tmp_path / "folder").mkdir()
    table.to_parquet(tmp_path / "folder" / "all.parquet")
    for data in (table, list(table), table.to_pandas(), tmp_path / "saved", tmp_path / "folder",
                 tmp_path / "folder" / "all.parquet"):  # fmt: skip
        if isinstance(data, pandas.DataFrame):
            data["image"] = list(table["image"])
        opened = open_source(data)
        assert opened.splits() == ["test", "train", "validation"]
        assert [len(opened.load_split(one, None, None, 1.0)[0]) for one in opened.splits()] == [6, 7, 7]
    assert len(rows_of({"train": table, "validation": table})) == 2 * EACH
    with pytest.raises(CliperaseError, match="streamed, where the column 'Split' divides no rows; write files for"):
        open_source(tmp_path / "folder", stream=True)
    odd = saved_rows(**columns).add_column("split", [*names[:-1], "restval"])
    refused(odd, "row 19: its split is 'restval', none of train, validation and test; correct it")
    fold = saved_rows(**columns).add_column("split", list(range(2 * EACH)))
    assert open_source(fold).splits() == ["train", "validation"]


def test_classes_beside_captions_are_read_under_every_usual_name(tmp_path, monkeypatch, caplog):
    rows = saved_rows(label="category")
    (tmp_path / "folder").mkdir()
    rows.to_parquet(tmp_path / "folder" / "train.parquet")
    rows.to_parquet(tmp_path / "folder" / "validation.parquet")
    for data in (rows, tmp_path / "folder", tmp_path / "folder" / "train.parquet"):
        pairs = rows_of(data)
        assert pairs.class_names == list(NAMES)
        assert {pairs.texts[one] for one in pairs.text_ids[:, 0].tolist()} == {f"a photo of a {one}" for one in NAMES}
    assert "is not read" not in caplog.text
    monkeypatch.setattr("cliperase.data.hub.read_hub", lambda *name: rows)  # a name on the hub has to have the schema
    assert rows_of("some/data").class_names == []
    assert "the column 'category' is not read; let a ClassLabel 'label' hold the classes" in caplog.text


def test_captions_beside_captions_that_are_not_read_are_said(caplog):
    second = saved_rows(label=None, captions="caption").add_column("caption_2", ["x"] * 2 * EACH)
    assert "x" not in rows_of(second).texts
    assert "captions are taken from the column 'caption' and not from 'caption_2'" in caplog.text


LAYOUTS = [
    ("data/train-00000-of-00001", "data/val-00000-of-00001"),
    ("train", "valid"),
    ("default/train/0000", "default/validation/0000"),
    ("train/0000", "dev/0000"),
]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_parquet_files_in_usual_layouts(layout, tmp_path):
    table = saved_rows(image="jpg", captions="sentences", label=None)
    for name, rows in zip(layout, (table.select(range(15)), table.select(range(15, 20))), strict=True):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        rows.to_parquet(tmp_path / f"{name}.parquet")
    assert len(rows_of(tmp_path)) == 15
    assert len(rows_of(tmp_path, "validation")) == 5
    assert rows_of(tmp_path).class_names == []


def test_parquet_files_under_other_names(tmp_path):
    for columns, classes in (
        ({"image": "img", "captions": "caption"}, True),
        ({"image": "picture", "label": "category", "captions": None}, True),
        ({"captions": "text", "label": None}, False),
    ):
        folder = tmp_path / "-".join(map(str, columns.values()))
        folder.mkdir()
        saved_rows(**columns).to_parquet(folder / "some.parquet")
        for data in (folder, folder / "some.parquet"):
            pairs = rows_of(data)
            assert bool(pairs.class_names) == classes
            assert len(pairs) + len(rows_of(data, "validation")) == 2 * EACH
    raw = datasets.Dataset.from_list([{"jpg": saved(shade("lamp", n)), "text": f"{n}"} for n in range(9)])
    raw.to_parquet(tmp_path / "raw.parquet")
    assert len(rows_of(tmp_path / "raw.parquet")) == 6


def test_parquet_files_that_are_unclear_are_one_line(tmp_path):
    def written(name, table):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        table.to_parquet(tmp_path / name)
        return (tmp_path / name).parent

    table = saved_rows()
    nameless = table.rename_columns({"image": "x", "captions": "y", "label": "z"})
    refused(
        written("a/one.parquet", nameless), "has neither captions nor classes; it has y, z, so name a column caption"
    )
    folder = written("b/part1.parquet", table)
    refused(
        written("b/part2.parquet", table), r"part1\.parquet, part2\.parquet are not named by one split each; name them"
    )
    written("c/dogs/train.parquet", table)
    refused(written("c/cats/train.parquet", table).parent, "holds several data sets: cats/train.parquet and dogs/train")
    write_text(folder / "captions.csv", "image,caption\n")
    refused(folder, r"holds part1\.parquet and captions\.csv; name the file or folder of one")
    written("f/train/0000.parquet", table)
    refused(written("f/train/old.parquet", table).parent, r"0000\.parquet stands beside old\.parquet; take away")
    written("g/train/0000.parquet", table)
    refused(written("g/train/0002.parquet", table).parent, "stands beside 0002")
    cut = written("h/train.parquet", table) / "train.parquet"
    cut.write_bytes(cut.read_bytes()[:900])
    refused(cut, r"train\.parquet cannot be read \(.+\); fetch it again")
    refused(cut.parent, r"train\.parquet cannot be read \(.+\); fetch it again")
    numbers = saved_rows(captions=None).remove_columns("label").add_column("label", [n % 2 for n in range(2 * EACH)])
    refused(written("d/train.parquet", numbers), "'label' holds 0, which is no name of a class")
    texts = saved_rows().remove_columns("image").add_column("image", ["x.png"] * 2 * EACH)
    refused(written("e/train.parquet", texts), r"'image' is Value\('string'\), not an Image; cast it")


def test_the_schema_without_validation_stays_the_schema(tmp_path):
    names = features_schema(list(NAMES))
    rows = [
        {"image": shade(NAMES[n % 2], n // 2), "captions": [f"{n}"], "label": n % 2, "source": "me"} for n in range(20)
    ]
    datasets.Dataset.from_list(rows, features=names).to_parquet(tmp_path / "train-00000-of-00001.parquet")
    pairs = rows_of(tmp_path)
    assert set(pairs.sources) == {"me"}
    assert len(pairs) == 16
    assert set(pairs.texts) <= {f"{n}" for n in range(20)}


def test_validation_is_held_out_by_picture(tmp_path, caplog):
    rows = table_rows(tmp_path, each=12)
    twice = [(path, text) for path, first in rows for text in (first, f"{first} again")]
    path = write_csv(tmp_path / "a.csv", ("image", "caption"), twice)
    train, held = rows_of(path), rows_of(path, "validation")
    assert len(held) == 8
    assert not set(train.row_hashes) & set(held.row_hashes)
    assert (
        held.row_hashes == rows_of(write_csv(tmp_path / "b.csv", ("image", "caption"), twice), "validation").row_hashes
    )
    assert "has no validation split: 16 of 48 training rows are held out for it, by hash of the picture" in caplog.text
    shuffled = write_csv(tmp_path / "c.csv", ("image", "caption"), twice[::-1])
    assert set(rows_of(shuffled, "validation").row_hashes) == set(held.row_hashes)
    classes = write_classes(tmp_path / "classes")
    shutil.copy(classes / "apple" / "0.png", classes / "lamp" / "copy.png")  # one picture under two classes
    train, held = rows_of(classes), rows_of(classes, "validation")
    assert not set(train.row_hashes) & set(held.row_hashes)
    assert set(held.labels.tolist()) == {0, 1}
    refused(classes, "has no split 'test'; it has train and validation; choose one of these or add", split="test")
    few = write_csv(tmp_path / "few.csv", ("image", "caption"), rows[:1])
    refused(few, "has no validation split, and its 1 pictures with captions are too few to hold one out")


@pytest.mark.parametrize(("classes", "each", "expected"), [(3000, 3, 2000), (1000, 21, 2000), (100, 600, 2000),
                                                          (40, 3, 40), (50, 11, 150), (1, 30_007, 2000)])  # fmt: skip
def test_no_more_is_held_out_than_the_limit_and_the_classes_share_it(classes, each, expected):
    label_of = {f"{number:06d}": number % classes for number in range(classes * each)}
    drawn = held_out(list(label_of), list(label_of.values()), "many")
    counts = [sum(label_of[one] == label for one in drawn) for label in range(min(classes, 100))]
    assert len(drawn) == expected
    assert max(counts) - min(counts) <= 1


def test_pictures_of_several_sizes_are_cut_to_the_models(tmp_path):
    for split in ("train", "val"):
        write_classes(tmp_path / split)
    same = rows_of(tmp_path, size=16)
    assert same.images.shape[-2:] == (8, 8)  # the model does it itself
    wide = Image.new("RGB", (60, 20), "red")
    wide.paste(Image.new("RGB", (20, 20), "blue"), (20, 0))
    write(tmp_path / "train" / "apple" / "wide.png", wide)
    pairs = rows_of(tmp_path, size=16)
    assert pairs.images.shape == (2 * EACH + 1, 3, 16, 16)
    blue = pairs.images[pairs.sources.index("train/apple/wide.png")]
    assert blue[2].float().mean() > 240  # the middle
    assert rows_of(tmp_path, size=12).images.shape[-2:] == (12, 12)
    assert rows_of(tmp_path, "validation", size=12).images.shape[-2:] == (8, 8)


@pytest.mark.parametrize("where", ["a folder", "memory"])
def test_an_audit_has_the_training_rows_of_every_layout(where, tmp_path, model_folder):
    rows = [(shade(name, number), f"a {name}", name) for name in NAMES for number in range(EACH)]
    data = {"train": rows, "test": rows}
    if where == "a folder":
        data = tmp_path / "set"
        for split in ("train", "test"):
            write_classes(data / split)
    case = open_case([model_folder] * 2, data, RULE, "test", None, AuditSettings())
    assert len(case.test.pairs) == 2 * EACH
    assert case.needed_training().forgotten.any()


def test_several_sizes_are_decoded_once_for_each_size(tmp_path, monkeypatch):
    from cliperase.data import decoded as module

    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(module, "WORTH_A_FILE", 1)
    for split in ("train", "val"):
        write_classes(tmp_path / "set" / split)
        write(tmp_path / "set" / split / "apple" / "wide.png", Image.new("RGB", (9, 7)))
    first = rows_of(tmp_path / "set", size=16).images
    decoded, read = [], module.read_picture
    monkeypatch.setattr(module, "read_picture", lambda one, **of: decoded.append(one) or read(one, **of))
    assert torch.equal(rows_of(tmp_path / "set", size=16).images, first)
    looks, rows = len(decoded), 2 * EACH + 1
    assert looks <= rows  # until the sizes are seen to differ
    rows_of(tmp_path / "set", size=8)
    assert len(decoded) == 2 * looks + rows


def test_large_pictures_of_one_size_are_cut_where_they_would_fill_the_memory(tmp_path, monkeypatch):
    for split in ("train", "val"):
        for n in range(8):
            write(tmp_path / split / NAMES[n % 2] / f"{n}.png", shade(NAMES[n % 2], n, (64, 48)))
    assert rows_of(tmp_path).images.shape[-2:] == (48, 64)
    monkeypatch.setattr("cliperase.data.decoded.MOST", 8 * 64 * 48 * 3 - 1)
    assert rows_of(tmp_path).images.shape[-2:] == (8, 8)
    monkeypatch.setattr("cliperase.data.decoded.MOST", 8 * 64 * 48 * 3)
    assert rows_of(tmp_path).images.shape[-2:] == (48, 64)


def test_a_concept_that_held_out_rows_lack_is_one_line_with_its_split(tmp_path):
    rows = table_rows(tmp_path, each=30)
    held = bring(write_csv(tmp_path / "a.csv", ("image", "caption"), rows)).read("validation")["source"]
    rare = next(n for n in range(len(rows)) if f"a.csv, line {n + 2}" not in held)
    rows[rare] = (rows[rare][0], "a zebra")
    path = write_csv(tmp_path / "a.csv", ("image", "caption"), rows)
    with pytest.raises(CliperaseError, match=r"split 'validation': forget rule concept: 'zebra' matches no row of 20;"):
        load_run(path, {"concept": "zebra"}, square(8), SETTINGS)
    each_its_own = write_csv(tmp_path / "b.csv", ("image", "class"), [(path, f"thing {path}") for path, _ in rows])
    refused(each_its_own, "each of its 60 classes has one picture, too few to hold one out; add more, or a validation")


class Indexed(torch.utils.data.Dataset):
    """As torch's own: no end when it is iterated."""

    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, number):
        return self.rows[number % len(self.rows)]


def in_python():
    rows = [(shade(name, n), f"a {name}, {n}") for name in NAMES for n in range(EACH)]
    return {
        "a list": lambda: rows,
        "a generator": lambda: (row for row in rows),
        "a data set of torch": lambda: Indexed(rows),
        "lists of captions": lambda: [(picture, [text]) for picture, text in rows],
        "a data frame": lambda: pandas.DataFrame(rows, columns=["image", "caption"]),
        "arrays of captions": lambda: [(picture, np.array([text])) for picture, text in rows],
        "mappings": lambda: ({"image": picture, "caption": text} for picture, text in rows),
        "datasets": lambda: datasets.Dataset.from_list([{"img": p, "text": t} for p, t in rows]).cast_column(
            "img", datasets.Image()
        ),
        "bytes": lambda: [(saved(picture), text) for picture, text in rows],
        "arrays": lambda: [(np.asarray(picture), text) for picture, text in rows],
        "tensors": lambda: [(to_tensor(picture), text) for picture, text in rows],
    }


@pytest.mark.parametrize("kind", in_python())
def test_rows_in_python(kind):
    validation, _, training = load_run(in_python()[kind](), RULE, square(8), SETTINGS)
    assert len(validation) == 6
    assert len(training.pairs) == 14
    assert not set(validation.row_hashes) & set(training.pairs.row_hashes)
    known = {row_hash(saved(shade(name, n))) for name in NAMES for n in range(EACH)}
    assert set(validation.row_hashes) | set(training.pairs.row_hashes) == known


def test_blank_cells_of_a_data_frame_are_no_captions():
    frame = pandas.DataFrame([(shade("lamp", n), f"{n}") for n in range(9)], columns=["image", "caption"])
    frame.loc[3, "caption"] = float("nan")
    assert len(rows_of(frame)) + len(rows_of(frame, "validation")) == 8


@pytest.mark.parametrize(("first", "told"), [("something", True), ("a photo of a {}", False), ("A red {}", False)])
def test_first_captions_that_name_no_class_are_told(first, told, caplog):
    rows = [
        {"image": shade(NAMES[n % 2], n), "captions": [first.format(NAMES[n % 2]), "b"], "label": n % 2, "source": ""}
        for n in range(2 * EACH)
    ]
    rows_of(datasets.Dataset.from_list(rows, features=features_schema(list(NAMES))))
    assert ("the caption 'something' does not name its class, " in caplog.text) == told


def test_captions_to_forget_that_the_model_reads_in_part_are_counted(model_folder, caplog):
    rows = [(shade(name, n), f"a {name}, {n}") for name in NAMES for n in range(EACH)]
    long = [(picture, "very " * 90 * (n < 4) + text) for n, (picture, text) in enumerate(rows)]
    settings = {"steps": 1, "learning_rate": 1e-3, "retain_batch": 4}
    unlearn(model_folder, {"train": long, "val": rows}, RULE, settings=settings)
    assert "4 of 10 captions to forget are cut where the model stops to read, the first is 'very very" in caplog.text
    caplog.clear()
    unlearn(model_folder, {"train": rows, "val": rows}, RULE, settings=settings)
    assert "stops to read" not in caplog.text
    with pytest.raises(CliperaseError, match=r"CLIPErase: the settings are \['steps=1'\]; give a mapping"):
        unlearn(model_folder, rows, RULE, settings=["steps=1"])
    with pytest.raises(CliperaseError, match=r"and of the 6 rows of the split 5 have one; give more texts, or classes"):
        unlearn(model_folder, rows, RULE, settings=settings)


class Classified(Indexed):
    """As torchvision's data sets are: a picture and the number of its class, whose names stand beside them."""

    classes = ((NAMES[0], "pomme"), NAMES[1])

    def __getitem__(self, number):
        picture, name = super().__getitem__(number)
        return picture, NAMES.index(name)


def test_numbers_of_classes_in_python_have_the_names_of_their_data_set():
    rows = Classified([(shade(name, n), name) for name in NAMES for n in range(EACH)])
    part = torch.utils.data.Subset(rows, range(EACH + 4))
    for data, count in ((rows, 2 * EACH), (part, EACH + 4)):
        pairs = [rows_of(data, split) for split in ("train", "validation")]
        assert sum(map(len, pairs)) == count
        assert {tuple(one.class_names) for one in pairs} == {NAMES}
        assert all(f"a photo of a {NAMES[0]}" in one.texts for one in pairs)
    rows.classes = NAMES[:1]
    refused(rows, f"row {EACH} has the class 1, and the data set has 1 `classes`")


def test_labels_and_splits_in_python():
    rows = [(shade(name, n), f"{name} {n}", name) for name in NAMES for n in range(EACH)]
    pairs = rows_of({"train": rows[5:15], "val": rows[:5]}, "validation")
    assert pairs.class_names == list(NAMES)
    assert pairs.labels.tolist() == [0] * 5
    turned = Image.new("RGB", (8, 4), "red")
    turned.paste(Image.new("RGB", (8, 2), "blue"), (0, 0))
    exif = Image.Exif()
    exif[0x112] = 6
    turned = Image.open(io.BytesIO(saved(turned, exif=exif)))
    assert rows_of({"train": [(turned, "a")], "val": [(turned, "b")]}).images.shape[-2:] == (8, 4)
    refused(
        {"train": [(turned, "a")], "val": rows}, "split 'validation' has classes and split 'train' has none; add them"
    )


def cut_off():
    """A PIL image whose file ends too early, which shows when its pixels are read."""
    return Image.open(io.BytesIO(saved(shade("lamp", 1), "BMP")[:-9]))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (7, "data are int; give a folder, a data set, or an iterable of rows"),
        ([], "data 'in memory' hold no row"),
        ([(shade("lamp", 1), 3)], "row 0 has the class 3, and the data set has no list `classes`; give the name"),
        ([(shade("lamp", 1), 3.5)], "row 0: the caption is 3.5, not text"),
        ([(Ellipsis, "a")], "row 0: its picture is ellipsis; give a PIL image, an array, a tensor, bytes or a path"),
        ([(np.ones((8, 8, 3), int), "a")], r"its picture is of int64; give bytes \(uint8\) or floats in 0…1"),
        ([(torch.randn(3, 8, 8) - 9, "a")], "its picture has values from .* to .*; give it before it is normalised"),
        ([(torch.ones(8, 8, 3), "a")], r"its picture has the shape \(8, 8, 3\); give tensors \(C, H, W\) or arrays"),
        ([shade("lamp", 1)], r"row 0 is Image; give \(picture, captions\) or a mapping"),
        ([{"caption": "a"}], "row 0 has the columns caption; name that of the pictures image"),
        ([{"image": b"", "caption": "a"}, {"image": b"", "text": "a"}], "row 1 has other names than row 0"),
        ({"train": [], "training": []}, "hold no row"),
        ({"train": [(b"", "a")], "training": [(b"", "a")]}, "the split 'training' is train, which is there already"),
        ([(cut_off(), "a")], r"row 0: its picture cannot be read \(.+\); leave it out"),
        (
            [(shade("lamp", n), " ") for n in range(9)],
            "row 0: it has no caption, or a blank one; 9 of 9 rows are broken",
        ),
        (torch.utils.data.Dataset(), "data set Dataset has no length; define __len__"),
        ("", "data has no name; give a folder, a file or a name on the hub"),
        (["captions.csv"], "row 0 is str; give"),
        ({"image": [], "caption": []}, "data 'in memory' are columns, image, caption; give rows, or a DataFrame"),
    ],
)
def test_rows_in_python_that_are_unclear_are_one_line(data, message):
    refused(data, message)


def test_unlearning_from_photographs_writes_nothing_beside_them(photos, model_folder, tmp_path, capsys):
    write(photos / "train" / "apple" / "large.jpg", shade("apple", 3, (50, 40)), "JPEG")
    before = contents(photos)
    command = ["--model", str(model_folder), "--data", str(photos), "--forget", "apple"]
    settings = [
        "--set",
        *(f"{name}={value}" for name, value in {**TINY_TRAINING, "retain_batch": 8}.items() if name != "batch"),
    ]
    assert main(["unlearn", "--no-audit", *command, *settings, "--output", str(tmp_path / "out")]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == {"forget": EACH + 1, "retain": EACH}
    assert main(["doctor", *command, *settings, "--output", str(tmp_path / "out")]) == 0
    capsys.readouterr()
    assert main(["evaluate", *command]) == 0
    assert set(json.loads(capsys.readouterr().out)) >= {"forget_accuracy", "retain_accuracy"}
    shutil.rmtree(photos / "test")
    assert main(["evaluate", *command]) == 2
    error = capsys.readouterr().err
    assert "has no split 'test'; it has train and validation; choose one of these" in error
    assert len(error.strip().splitlines()) == 1
    assert contents(photos) == {path: content for path, content in before.items() if "test" not in path.parts}


def test_unlearning_from_rows_in_python_is_unlearning_from_files(model_folder, tmp_path):
    settings = {"steps": 2, "learning_rate": 1e-3, "retain_batch": 8, "evaluate_every": 1}
    rows = [(shade(name, n), f"a {name}, {n}") for name in NAMES for n in range(30)]
    listed = table_rows(tmp_path, each=30)
    path = write_csv(tmp_path / "a.csv", ("image", "caption"), listed)
    of_rows, of_files = (unlearn(model_folder, data, RULE, settings=settings) for data in ((row for row in rows), path))
    assert of_rows["log"] == of_files["log"]
    assert (of_rows["data"], of_files["data"]) == ("in memory", str(path))
    assert sum(of_rows["rows"].values()) == 40
    assert evaluate(model_folder, rows, RULE, "validation") == evaluate(model_folder, path, RULE, "validation")


def test_the_schema_needs_none_of_this(data_folder, monkeypatch):
    monkeypatch.setattr("cliperase.data.brought.bring", None)
    open_source(str(data_folder)).load_split("validation", RULE, square(32), 1.0)
    load_training(data_folder, RULE, square(32), SETTINGS)


def test_a_rule_of_rows_finds_them_in_any_split(photos):
    write(photos / "test" / "apple" / "a.png", Image.new("RGB", (8, 8), "white"))
    known = [row_hash((photos / "test" / "apple" / "a.png").read_bytes())]
    with pytest.raises(CliperaseError, match="matches no row of 20; correct it, or add such rows"):
        load_training(photos, {"rows": known}, square(8), SETTINGS)
    with pytest.raises(CliperaseError, match="1 of the 1 row hashes of the forget rule are of no row"):
        load_training(photos, {"rows": ["0" * 12]}, square(8), SETTINGS)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_must_not_be_read_is_a_broken_row(photos):
    (photos / "train" / "apple" / "3.png").chmod(0)
    refused(photos, r"train/apple/3\.png: .* must not be read")


def test_a_brought_set_says_its_splits(photos):
    assert bring(photos).splits() == ["test", "train", "validation"]
