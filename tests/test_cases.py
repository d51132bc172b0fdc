"""Inputs that people bring: those of `shared/cases`, and more of each kind, built here.

What is right for each is what a viewer, the file format's specification or open_clip's own code gives.
"""

import io
import json
import os
import re
import struct
import tarfile
import unicodedata
import zlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import datasets
import from_hub
import from_karpathy
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import write_shard
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cliperase.data.pairs import PairSet, features_schema, load_pairs, write_split
from cliperase.data.pictures import Decoding, UnreadablePicture, read_picture
from cliperase.data.rules import caption_pattern, forget_mask, near_misses
from cliperase.data.shards import Decoder
from cliperase.data.source import load_split, load_training
from cliperase.data.tables import read_table
from cliperase.data.tars import samples_of
from cliperase.errors import CliperaseError
from cliperase.metrics.encode import number_texts
from cliperase.metrics.tasks import MATCHING, RETRIEVAL, matching_metrics, retrieval_metrics, task_of
from cliperase.models import load_model
from cliperase.settings import TrainConfig

ROOT = Path(__file__).parent.parent
CASES = next((folder / "shared" / "cases" for folder in ROOT.parents if (folder / "shared" / "cases").is_dir()), None)
RAMP = np.linspace(0, 65535, 1024).round().astype(np.uint16).reshape(32, 32)


def case(name):
    """The path of a shared case."""
    if CASES is None:
        pytest.skip("the folder shared/cases is not beside the repository")
    return CASES / name


def pixels(file, **decoding):
    return np.asarray(read_picture(file, decoding=Decoding(**decoding)))


def saved(picture, kind="PNG", **options):
    """The bytes of a picture file."""
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def tiff(values, sample_format, black=1):
    """A grey TIFF by hand, because Pillow writes few kinds. `black`: 1 where 0 is black, 0 where it is white."""
    height, width = values.shape
    tags = {256: width, 257: height, 258: 8 * values.itemsize, 259: 1, 262: black, 273: 0, 277: 1, 278: height,
            279: values.nbytes, 339: sample_format}  # fmt: skip
    tags[273] = 8 + 2 + 12 * len(tags) + 4  # where the values begin
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + values.tobytes()


def write_pictures(folder, files, split="train", captions=("a",)):
    rows = [{"image": {"bytes": one, "path": None}, "captions": list(captions), "source": ""} for one in files]
    write_split(datasets.Dataset.from_list(rows, features=features_schema()), folder, split)
    return folder


# --- pictures to RGB


def test_black_on_transparent_is_black_on_white():
    found = pixels(case("black_on_transparent.png").read_bytes())
    assert set(np.unique(found)) == {0, 255}
    assert 0 < (found == 0).mean() < 0.9
    assert (pixels(case("black_on_transparent.png"), ground="red")[0, 0] == (255, 0, 0)).all()
    icons = load_pairs(case("alpha_icons"), "train")
    assert set(icons.images.unique().tolist()) == {0, 255}
    assert len({image.numpy().tobytes() for image in icons.images}) > 1


def test_grey_of_16_bits_has_256_levels():
    found = pixels(case("grey16.png").read_bytes())
    assert len(np.unique(found)) == 256
    assert found.mean() == pytest.approx(127.5, abs=0.1)


def test_a_turned_picture_is_upright():
    found = pixels(case("turned.jpg").read_bytes()).astype(int)
    assert (found[:, 20:, 2] > 200).all()
    assert (found[:, :12, 2] < 100).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "PA", "L", "RGB"])
def test_transparency_of_every_kind_shows_the_ground(mode):
    """Left half transparent above a hidden colour, right half opaque black."""
    picture = Image.new("RGBA", (8, 8), (0, 0, 0, 255))
    picture.paste((90, 90, 90, 0), (0, 0, 4, 8))
    if mode == "P":
        file = saved(picture.quantize(), "PNG")
    elif mode == "PA":
        file = saved(picture.quantize(), "GIF", transparency=picture.quantize().getpixel((0, 0)))
    elif mode in ("L", "RGB"):  # one value stands for transparent
        file = saved(picture.convert(mode), "PNG", transparency=90 if mode == "L" else (90, 90, 90))
    else:
        file = saved(picture.convert(mode), "PNG")
    found = pixels(file)
    assert (found[:, :4] == 255).all()
    assert (found[:, 4:] == 0).all()


def test_half_transparent_is_half_the_ground():
    file = saved(Image.new("RGBA", (2, 2), (0, 0, 0, 128)), "WEBP", lossless=True)
    assert np.unique(pixels(file)).tolist() == [127]
    assert np.unique(pixels(file, ground="black")).tolist() == [0]


@pytest.mark.parametrize(
    ("values", "sample_format"),
    [
        (RAMP, 1),
        ((RAMP // 2).astype(np.int16), 2),
        (RAMP.astype(np.uint32) * 65537, 1),
        (RAMP.astype(np.int32) * 32768, 2),
        (RAMP.astype(np.uint32), 1),  # 16 bits stored in 32
        ((RAMP / 65535).astype(np.float32), 3),
    ],
)
def test_deep_grey_is_scaled_to_256_levels(values, sample_format):
    found = pixels(tiff(values, sample_format))
    assert len(np.unique(found)) == 256
    assert found.mean() == pytest.approx(127.5, abs=0.1)
    assert found[0, 0, 0] == 0
    assert found[-1, -1, 0] == 255


def test_white_is_zero_where_a_tiff_says_so():
    assert np.array_equal(pixels(tiff(RAMP, 1, black=0)), 255 - pixels(tiff(RAMP, 1)))


def test_deep_grey_may_be_transparent_and_turned():
    picture = Image.fromarray(RAMP)
    exif = Image.Exif()
    exif[0x112] = 8
    assert np.array_equal(pixels(saved(picture, exif=exif)), np.rot90(pixels(saved(picture))))
    chunks = saved(picture)
    transparent = b"tRNS" + struct.pack(">H", 0)
    added = struct.pack(">I", 2) + transparent + struct.pack(">I", zlib.crc32(transparent))
    place = chunks.index(b"IDAT") - 4
    found = pixels(chunks[:place] + added + chunks[place:])
    assert found[0, 0].tolist() == [255, 255, 255]  # the only pixel of value 0
    assert np.array_equal(found[0, 1:], pixels(chunks)[0, 1:])


@pytest.mark.parametrize("values", [RAMP.astype(np.float32), np.full((4, 4), np.nan, np.float32)])
def test_floats_beyond_0_to_1_are_refused(values):
    with pytest.raises(UnreadablePicture, match=r"float values from .*; scale them to 0…1"):
        pixels(tiff(values, 3))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_every_orientation_is_undone(orientation, kind):
    """A picture, stored in each of the eight ways, is the same one."""
    upright = np.zeros((16, 24, 3), np.uint8)
    upright[:8, :12], upright[8:, :12], upright[:8, 12:] = (250, 0, 0), (0, 250, 0), (0, 0, 250)
    undone = {1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud,
              5: lambda a: a.transpose(1, 0, 2), 6: np.rot90,
              7: lambda a: np.rot90(a.transpose(1, 0, 2), 2), 8: lambda a: np.rot90(a, -1)}  # fmt: skip
    exif = Image.Exif()
    exif[0x112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(undone[orientation](upright)))
    found = pixels(saved(stored, kind, exif=exif, **({"quality": 100} if kind in ("JPEG", "WEBP") else {})))
    assert found.shape == upright.shape
    assert np.abs(found.astype(int) - upright)[2:6, 2:10].max() < 30
    assert np.abs(found.astype(int) - upright)[2:6, 14:22].max() < 30
    assert np.abs(found.astype(int) - upright)[10:14, 2:10].max() < 30


def test_broken_exif_is_no_reason_to_refuse_a_picture():
    file = saved(Image.new("RGB", (4, 4), (9, 9, 9)), exif=b"Exif\0\0" + bytes(range(200, 240)))
    assert np.unique(pixels(file)).tolist() == [9]


def test_too_many_pixels_are_refused_before_they_are_decoded():
    file = saved(Image.new("1", (13_000, 13_000)), "PNG")
    assert len(file) < 30_000
    with pytest.raises(UnreadablePicture, match="13000 × 13000 pixels are more than most_pixels=67108864"):
        pixels(file)
    with pytest.raises(UnreadablePicture, match="4 × 4 pixels are more than most_pixels=15"):
        pixels(saved(Image.new("RGB", (4, 4))), most_pixels=15)
    with pytest.raises(CliperaseError, match="'whiet' is no colour"):
        Decoding(ground="whiet")


def test_plain_pictures_are_what_pillow_gives():
    rng = np.random.default_rng(0)
    for mode, shape in (("RGB", (8, 8, 3)), ("L", (8, 8)), ("CMYK", (8, 8, 4))):
        picture = Image.fromarray(rng.integers(0, 256, shape).astype(np.uint8), mode)
        kind = "TIFF" if mode == "CMYK" else "PNG"
        assert np.array_equal(pixels(saved(picture, kind)), np.asarray(picture.convert("RGB")))


def sample(files):
    """Tar members {name: bytes} in order."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for name, one in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(one)
            tar.addfile(member, io.BytesIO(one))
    return content.getvalue()


@pytest.mark.parametrize("name", ["black_on_transparent.png", "grey16.png", "turned.jpg"])
def test_every_way_in_gives_the_same_pixels(name, tmp_path):
    """Parquet, the two converters, shards; scaling aside, because the pictures have the size that is asked for."""
    file = case(name).read_bytes()
    expected = pixels(file)
    by_way = {"parquet": write_pictures(tmp_path / "parquet", [file])}
    for split in ("train", "validation", "test"):  # different files, for the converters look for twins
        noise = saved(Image.fromarray(np.full((32, 32, 3), len(split), np.uint8)))
        write_pictures(tmp_path / "hub", [file if split == "train" else noise], split)
    command = ["--source", str(tmp_path / "hub"), "--captions", "captions"]
    assert from_hub.main([*command, "--output", str(tmp_path / "plain")]) == 0
    assert from_hub.main([*command, "--size", "32", "--output", str(tmp_path / "sized")]) == 0
    by_way |= {"converter": tmp_path / "plain", "converter with a size": tmp_path / "sized"}
    (tmp_path / name).write_bytes(file)
    listed = [{"filename": name, "split": split, "sentences": [{"raw": "a"}]} for split in ("train", "val", "test")]
    (tmp_path / "captions.json").write_text(json.dumps({"images": listed}))
    command = ["--captions", str(tmp_path / "captions.json"), "--images", str(tmp_path), "--size", "32"]
    from_karpathy.main([*command, "--output", str(tmp_path / "karpathy")])
    by_way["Karpathy's layout"] = tmp_path / "karpathy"
    for way, folder in by_way.items():
        found = load_pairs(folder, "train").images[0].permute(1, 2, 0).numpy()
        assert np.array_equal(found, expected), way
    (tmp_path / "0.tar").write_bytes(sample({f"a{Path(name).suffix}": file, "a.txt": b"apple"}))
    (found,) = samples_of([tmp_path / "0.tar"])
    assert np.array_equal(Decoder(32, 1.0).picture(found).permute(1, 2, 0).numpy(), expected)


# --- which files are read


def colours(folder, colour, numbers=range(4), split="train", names=("apple", "lamp"), file=None):
    """A labelled file of plain pictures, each of its own shade."""
    rows = [
        {"image": {"bytes": saved(Image.new("RGB", (8, 8), (*colour, n))), "path": None},
         "captions": [f"a photo of a {names[n % len(names)]}"], "label": n % len(names), "source": ""}
        for n in numbers
    ]  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    table = datasets.Dataset.from_list(rows, features=features_schema(list(names)))
    table.to_parquet(folder / (file or f"{split}-00000-of-00001.parquet"))
    return folder


def test_the_folder_that_was_named_is_read():
    assert load_pairs(case("files/run[1]"), "train").class_names == ["apple", "lamp", "road", "wolf"]
    assert load_pairs(case("files/run1"), "train").class_names == ["dog", "cat"]


@pytest.mark.parametrize("name", ["run*", "run?", "{a,b}", "seed=1", "a b", "ä"])
def test_a_folder_of_any_name_is_read(name, tmp_path):
    colours(tmp_path / "runs", (0, 0))
    colours(tmp_path / "a", (0, 0))
    found = load_pairs(colours(tmp_path / name, (200, 100)), "train")
    assert found.images[:, 0].unique().tolist() == [200]


def test_two_data_sets_in_one_parent_are_named():
    with pytest.raises(CliperaseError, match=r"several data sets: class_order_differs/.*; name the folder of one"):
        load_pairs(case("files"), "train")


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


def test_classes_in_another_order_are_told_by_name(tmp_path):
    pairs = load_pairs(case("files/class_order_differs"), "train")
    assert len(pairs) == 32
    for row, label in enumerate(pairs.labels.tolist()):
        assert pairs.texts[pairs.text_ids[row, 0]] == f"a photo of a {pairs.class_names[label]}"
    colours(tmp_path, (0, 0), names=("apple", "lamp"), file="train-00000-of-00002.parquet")
    colours(tmp_path, (1, 0), names=("apple", "dog"), file="train-00001-of-00002.parquet")
    with pytest.raises(CliperaseError, match=r"train-00001-of-00002\.parquet has other classes in 'label'.* 'dog'"):
        load_pairs(tmp_path, "train")


def test_a_label_out_of_range_is_one_line_with_its_row(tmp_path, capsys):
    message = r"split 'train', row \d+ \(train-00000-of-00001\.parquet\) has the label 7, and the 4 classes are 0 to 3"
    with pytest.raises(CliperaseError, match=message):
        load_pairs(case("label_out_of_range"), "train")
    command = ["--source", str(case("label_out_of_range")), "--label", "label", "--output", str(tmp_path / "out")]
    assert from_hub.main(command) == 2
    error = capsys.readouterr().err
    assert "row" in error
    assert len(error.strip().splitlines()) == 1


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
    monkeypatch.setattr("cliperase.data.pairs.WORTH_A_FILE", 1)
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


# --- columns in other spellings


def test_a_row_without_a_source_is_a_row(tmp_path):
    pairs = load_pairs(case("null_source"), "train")
    assert pairs.sources == [""] * 12
    rows = [{"image": {"bytes": saved(Image.new("L", (4, 4), n)), "path": None}, "captions": ["a"], "source": source}
            for n, source in enumerate(("x", None))]  # fmt: skip
    write_split(datasets.Dataset.from_list(rows, features=features_schema()), tmp_path, "train")
    assert load_pairs(tmp_path, "train").sources == ["x", ""]


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


# --- rows that are broken


def test_a_broken_picture_is_one_line_with_its_place(caplog):
    for name, why in (("broken_zero_bytes", "the file is empty"), ("broken_truncated", "image file is truncated")):
        place = rf"split 'train', row 17 \(train-00000-of-00001\.parquet\): its picture cannot be decoded \({why}"
        with pytest.raises(CliperaseError, match=f"{place}.*1 of 40 rows are broken: mend them") as error:
            load_pairs(case(name), "train")
        assert "\n" not in str(error.value)
        assert "0x" not in str(error.value)
        pairs = load_pairs(case(name), "train", broken_percent=2.5)
        assert len(pairs) == 39
        assert "row 17" in caplog.text
        assert "1 of 40 rows are left out" in caplog.text
        caplog.clear()


@pytest.mark.parametrize("name", ["broken_zero_bytes", "broken_truncated"])
@pytest.mark.parametrize("size", ["0", "16"])
def test_the_converter_writes_no_broken_picture_on(name, size, tmp_path, capsys):
    command = ["--source", str(case(name)), "--label", "label", "--size", size, "--output", str(tmp_path / "out")]
    assert from_hub.main(command) == 2
    error = capsys.readouterr().err
    assert "split 'train', row 17 (train-00000-of-00001.parquet): its picture cannot be decoded" in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()
    assert from_hub.main([*command, "--broken-percent", "3"]) == 0
    assert len(load_pairs(tmp_path / "out", "train")) == 39


def write_rows(folder, rows, split="train"):
    """Rows {"image": bytes, None or a path, "captions": a list}."""
    full = [
        {"image": one["image"] if isinstance(one["image"], dict | None) else {"bytes": one["image"], "path": None},
         "captions": one["captions"], "source": ""}
        for one in rows
    ]  # fmt: skip
    write_split(datasets.Dataset.from_list(full, features=features_schema()), folder, split)
    return folder


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


# --- what is the same text


def test_classes_of_one_prompt_are_refused(tmp_path, capsys):
    with pytest.raises(CliperaseError, match=r"classes 0 and 1, 'bear' and 'bear  ', are the same prompt"):
        load_pairs(case("classes_differ_by_case"), "train")
    command = ["--source", str(case("classes_differ_by_case")), "--label", "label", "--output", str(tmp_path / "out")]
    assert from_hub.main(command) == 2
    assert "are the same prompt to a model" in capsys.readouterr().err


@pytest.mark.parametrize(
    "names",
    [["Bass", "bass"], ["caf\u00e9", "cafe\u0301"], ["ice cream", "ice\u00a0 cream"], ["M&amp;M", "M&M"], ["a", " "]],
)
def test_names_that_a_tokenizer_takes_for_one_are_refused(names, tmp_path):
    with pytest.raises(CliperaseError, match=r"are the same prompt|has the name ' '; give it one"):
        load_pairs(colours(tmp_path, (0, 0), names=names), "train")


def test_names_that_become_one_when_they_are_converted_are_refused(tmp_path, capsys):
    for split in ("train", "validation", "test"):
        colours(tmp_path / "in", (0, 0), split=split, names=("ice_cream", "ice cream"))
    assert from_hub.main(["--source", str(tmp_path / "in"), "--label", "label", "--output", str(tmp_path / "out")]) == 2
    assert "are the same prompt to a model" in capsys.readouterr().err


def test_classes_that_differ_behind_the_length_of_a_text_are_told_by_the_model(tmp_path, base_model):
    long = "very " * 90
    pairs = load_pairs(colours(tmp_path, (0, 0), names=(f"{long}apple", f"{long}lamp")), "train")
    with pytest.raises(CliperaseError, match=r"the model reads .* as one text; merge the classes or rename one"):
        task_of(pairs).measure(base_model, pairs, pairs.labels == 0)


def test_texts_are_one_where_their_tokens_are(base_model):
    texts = ["a dog", "A  Dog", "a dog ", "a cat", f"a cat {'and ' * 90}a dog", f"a cat {'and ' * 90}a bird"]
    numbers = number_texts(base_model, texts).tolist()
    assert numbers[0] == numbers[1] == numbers[2]
    assert numbers[4] == numbers[5]
    assert len(set(numbers)) == 3


def caption_rows(captions):
    """Rows of one caption each, (picture number, caption)."""
    return [{"image": saved(Image.new("RGB", (8, 8), (n, n, 0))), "captions": [text]} for n, text in captions]


def test_captions_that_differ_by_case_and_blanks_are_no_rivals(tmp_path, base_model):
    """Forty ways to write two texts: against all rows, a picture that finds its text finds all the ways."""
    texts = [("a dog" if n % 2 else "a cat").replace(" ", " " * (1 + n)).upper() for n in range(40)]
    pairs = load_pairs(write_rows(tmp_path, caption_rows(list(enumerate(texts)))), "train")
    assert len(pairs.texts) == 40
    nothing = torch.zeros(40, dtype=torch.bool)
    plain = replace(pairs, texts=["a cat", "a dog"], text_ids=torch.arange(40)[:, None] % 2)
    found, expected = (matching_metrics(base_model, one, nothing) for one in (pairs, plain))
    assert found == pytest.approx(expected)
    assert found["retain_text_to_image_accuracy@all"] == 50  # both texts find the same picture first


LAYOUTS = {
    "one after the other": [(n // 5, f"{k} of {n // 5}") for n, k in zip(range(20), [0, 1, 2, 3, 4] * 4, strict=True)],
    "mixed": [(n % 4, f"{n // 4} of {n % 4}") for n in range(20)],
    "as many as there are": [(0, "0 of 0"), (0, "1 of 0"), (1, "0 of 1"), (2, "0 of 2"), (2, "1 of 2"), (2, "2 of 2")],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_of_one_picture_are_one_with_all_its_captions(layout, tmp_path, capsys):
    def check(folder):
        pairs = load_pairs(folder, "train")
        assert len(pairs) == len({n for n, _ in LAYOUTS[layout]})
        for row, ids in enumerate(pairs.text_ids.tolist()):
            assert {pairs.texts[i].split()[-1] for i in ids} == {str(row)}
        assert len(pairs.texts) == len(LAYOUTS[layout])
        assert task_of(pairs) is RETRIEVAL

    check(write_rows(tmp_path / "in", caption_rows(LAYOUTS[layout])))
    for split, number in (("validation", 100), ("test", 101)):
        write_rows(tmp_path / "in", caption_rows([(number, "a"), (number, "b")]), split)
    command = ["--source", str(tmp_path / "in"), "--captions", "captions", "--output", str(tmp_path / "out")]
    assert from_hub.main(command) == 0
    assert f"{len(LAYOUTS[layout])} rows show" in capsys.readouterr().out
    check(tmp_path / "out")
    command = ["--source", str(tmp_path / "in"), "--captions", "captions", "--output", str(tmp_path / "held")]
    assert from_hub.main([*command, "--validation", "1"]) == 0  # held out by picture
    train, validation = (load_pairs(tmp_path / "held", split) for split in ("train", "validation"))
    assert not set(train.row_hashes) & set(validation.row_hashes)


def test_a_few_repeated_pictures_do_not_make_matching_retrieval(tmp_path):
    rows = caption_rows([(n, f"number {n}") for n in range(20)] + [(3, "another of 3")])
    pairs = load_pairs(write_rows(tmp_path, rows), "train")
    assert len(pairs) == 20
    assert task_of(pairs) is MATCHING


def test_a_picture_in_several_rows_of_captions_is_one_candidate(tmp_path, base_model):
    """Three pictures, each in two rows of two captions: a query finds its picture in whichever row it stands."""
    rows = [{"image": one["image"], "captions": [f"{n} {k}", f"{n} {k} again"]}
            for k in range(2) for n, one in enumerate(caption_rows([(60 * n, "") for n in range(3)]))]  # fmt: skip
    pairs = load_pairs(write_rows(tmp_path, rows), "train")
    assert len(pairs) == 6
    alone = pairs.select(torch.arange(6) < 3)
    nothing = torch.zeros(6, dtype=torch.bool)
    found, expected = (retrieval_metrics(base_model, one, nothing[: len(one)]) for one in (pairs, alone))
    assert found["retain_text_retrieval_r@1"] >= expected["retain_text_retrieval_r@1"]  # more captions to find
    assert found["retain_image_retrieval_r@5"] == 100


# --- what a concept matches


def captioned(captions, class_names=(), labels=None):
    """A set of these captions, one an image."""
    texts = sorted(set(captions))
    return PairSet(
        images=torch.zeros(len(captions), 3, 2, 2, dtype=torch.uint8),
        texts=texts,
        text_ids=torch.tensor([[texts.index(one)] for one in captions]),
        labels=None if labels is None else torch.tensor(labels),
        class_names=list(class_names),
        row_hashes=[f"{n:012d}" for n in range(len(captions))],
        sources=[""] * len(captions),
    )


def matched(captions, **rule):
    return [caption for caption in captions if caption_pattern(rule).search(caption)]


WORDS = {  # concept -> captions that hold it, captions that hold it as a part of another word or not at all
    "苹果": (["苹果", "一个红苹果在桌上", "苹果和梨"], ["一个梨"]),
    "りんご": (["赤いりんごの写真", "りんご"], ["みかんの写真"]),
    "リンゴ": (["リンゴジュース", "このリンゴ"], ["レモン"]),
    "แอปเปิ้ล": (["ภาพแอปเปิ้ลสีแดง", "ได้แอปเปิ้ลมา"], ["ภาพกล้วย"]),
    "사과": (["빨간 사과", "사과가 있는 사진", "사과를 먹는 사람"], ["사과문을 읽다", "배"]),
    "яблоко": (["красное яблоко.", "ЯБЛОКО"], ["яблоком"]),
    "सेब": (["लाल सेब", "सेब, केला"], ["सेबों का ढेर"]),
    "تفاحة": (["صورة تفاحة حمراء"], ["والتفاحة"]),
    "U.S.": (["the U.S. flag", "in the U.S."], ["the U.S.A. flag", "the US flag"]),
    "C++": (["a book about C++", "C++, C and C#", "c++"], ["C code", "C+ grade", "C++17"]),
    "C": (["a C program", "vitamin C."], ["C++ code", "a C# shirt", "CD"]),
    "50%": (["50% off", "a sign: 50%!", "-50%"], ["150% more", "50 people", "1.50%"]),
    "#1": (["we are #1", "#1 fan"], ["#12", "number 1"]),
    ".NET": (["a .NET book"], ["ASP.NET", "net"]),
    "🍎": (["🍎", "an 🍎 on a desk", "🍎🍎pie", "red🍎"], ["🍏"]),
    "👩": (["👩 at work"], ["👩\u200d🍳 cooks"]),
    "👍": (["👍!"], ["👍🏽"]),
    "🇫🇷": (["🇩🇪🇫🇷", "the 🇫🇷 flag"], ["🇨🇫🇷🇺"]),
    "caf\u00e9": (["a cafe\u0301 at night", "a CAF\u00c9", "caf\u00e9."], ["cafe", "caf\u00e9s"]),
    "cafe": (["a cafe"], ["a cafe\u0301", "a caf\u00e9"]),
    "stra\u00dfe": (["eine STRASSE", "die Stra\u00dfe"], ["Stra\u00dfenbahn"]),
    "ice cream": (["an ice  cream", "ice\u00a0cream", "Ice\ncream!"], ["ice creams", "nice cream"]),
    "women's": (["a women\u2019s shoe", "women's"], ["women"]),
    "\uff21\uff22\uff23": (["abc", "the ABC."], ["abcd"]),  # full width
    "apple": (["apple's core", "apple-tree", "salt+apple+pepper", "(apple)"], ["apples", "pineapple", "apple_"]),
    "lemon": (["#lemon", "a lemon"], ["lemonade"]),
    "50": (["50 people", "50."], ["1.50", "1,500", "50,000", "v50"]),
}  # fmt: skip


@pytest.mark.parametrize("word", WORDS)
def test_a_word_is_found_in_every_script_and_only_as_a_word(word):
    whole, others = WORDS[word]
    assert matched([*whole, *others], concept=word) == whole


@given(st.text(st.sampled_from("abZ _-.'1é"), min_size=1), st.sampled_from(["a", "ab", "b1", "Z"]))
def test_plain_words_are_found_as_before(text, word):
    """In Latin letters without signs behind them, the edges are those of a regular expression."""
    plain = " ".join(unicodedata.normalize("NFKC", text).split())
    if not re.search(r"\d[.,]\d", plain):
        assert bool(matched([text], concept=word)) == bool(re.search(rf"\b{word}\b", plain, re.IGNORECASE))


def test_plural_and_case_are_options():
    captions = ["an apple", "two Apples", "berries", "a berry", "leaves", "mice", "boxes", "an Apple"]
    assert matched(captions, concept="apple", plural=True) == ["an apple", "two Apples", "an Apple"]
    assert matched(captions, concept="Apple", case=True) == ["an Apple"]
    assert matched(captions, concept="Apple", case=True, plural=True) == ["two Apples", "an Apple"]
    many = {"concepts": ["berry", "leaf", "mouse", "box"]}
    assert matched(captions, **many, plural=True) == ["berries", "a berry", "leaves", "mice", "boxes"]
    assert matched(captions, **many) == ["a berry"]


def test_several_concepts_in_one_rule():
    pairs = captioned(["a dog", "a cat", "a bird", "a dogma"])
    assert forget_mask(pairs, {"concepts": ["dog", "bird"]}).tolist() == [True, False, True, False]
    classes = captioned(["a", "b", "c"], ["dog", "cat", "bird"], [0, 1, 2])
    assert forget_mask(classes, {"concepts": ["bird", "dog"]}).tolist() == [True, False, True]


def test_composed_letters_in_class_names_and_patterns_are_the_same():
    pairs = captioned(["a cafe\u0301", "a bar"], ["caf\u00e9", "bar"], [0, 1])
    for rule in ({"concept": "cafe\u0301"}, {"classes": ["caf\u00e9"]}):
        assert forget_mask(pairs, rule).tolist() == [True, False]
    assert forget_mask(replace(pairs, class_names=[]), {"caption_pattern": "CAFE\u0301$"}).tolist() == [True, False]


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"concept": "a", "plural": "yes"}, "give true or false for plural"),
        ({"classes": ["a"], "case": True}, "case go with concept or concepts only"),
        ({"concept": "a", "concepts": ["b"]}, "give one of"),
        ({"concepts": "a"}, "give a list of strings"),
        ({"concept": " "}, "holds a blank text"),
        ({"concept": "a", "colour": 1}, "give one of"),
    ],
)
def test_rules_that_say_two_things_or_nothing_are_refused(rule, message):
    with pytest.raises(CliperaseError, match=message):
        forget_mask(captioned(["a", "b"]), rule)


def test_what_was_nearly_matched_is_said():
    pairs = captioned(["an apple", "two apples", "pineapples", "red apples", "a lamp"])
    (note,) = near_misses(pairs, {"concept": "apple"})
    assert "3 of 5 captions hold the word only within another" in note
    assert "apples (2), pineapples (1)" in note
    assert near_misses(pairs, {"concept": "apple", "plural": True})[0].endswith("pineapples (1)")
    assert near_misses(pairs, {"concept": "lamp"}) == []
    (note,) = near_misses(captioned(["a", "b", "c"], ["apple", "Apple logo", "lamp"], [0, 1, 2]), {"concept": "apple"})
    assert note == "classes that hold the word and are kept: Apple logo"


@pytest.mark.parametrize(
    ("pairs", "concept", "message"),
    [
        (captioned(["a", "b"], ["apple", "lamp"], [0, 1]), "aple", "matches no row; the nearest are 'apple', by exact"),
        (captioned(["a", "b"], ["apple", "lamp"], [0, 1]), "Apple", "the nearest are 'apple'"),
        (captioned(["a", "b"], ["sweet pepper", "lamp"], [0, 1]), "pepper", "the nearest are 'sweet pepper'"),
        (captioned(["two apples", "b"]), "apple", r"matches no row of 2; .*within another.*: apples \(1\)"),
        (captioned(["an apple", "b"]), "appel", "the nearest words of the captions are 'apple'"),
        (captioned(["APPLE pie", "b"]), "zebra", "matches no row of 2; nothing to forget$"),
    ],
)
def test_a_concept_that_matches_nothing_names_what_is_near(pairs, concept, message):
    with pytest.raises(CliperaseError, match=message):
        forget_mask(pairs, {"concept": concept})


@pytest.fixture
def three_splits(tmp_path):
    for number, split in enumerate(("train", "validation", "test")):
        colours(tmp_path, (number, 0), split=split, numbers=range(8))
    return tmp_path


def test_unknown_row_hashes_are_counted(three_splits):
    known = load_pairs(three_splits, "train").row_hashes[:1] + load_pairs(three_splits, "test").row_hashes[:1]
    training = load_training(three_splits, {"rows": known}, 32, TrainConfig())
    assert training.rows == {"forget": 1, "retain": 7}
    for rows, message in (
        (
            [*known, "0" * 12],
            "1 of the 3 row hashes of the forget rule are of no row in .* is '000000000000'",
        ),
        (["b", *known, "a"], "2 of the 4 row hashes .* the first is 'b'"),
    ):
        for load in (
            lambda rule: load_training(three_splits, rule, 32, TrainConfig()),
            lambda rule: load_split(three_splits, "test", rule, 32),
        ):
            with pytest.raises(CliperaseError, match=message):
                load({"rows": rows})


def test_rows_of_training_alone_may_be_forgotten_and_retention_selects(three_splits, model_folder, tmp_path):
    rule = {"rows": load_pairs(three_splits, "train").row_hashes[:3]}
    pairs, forgotten = load_split(three_splits, "validation", rule, 32)
    assert not forgotten.any()
    metrics = task_of(pairs).validate(load_model(model_folder), pairs, forgotten)
    assert metrics["score"] == metrics["retain_accuracy"]
    assert "remaining" not in metrics
    with pytest.raises(CliperaseError, match="matches no row of 8; nothing to forget"):
        load_training(three_splits, {"rows": load_pairs(three_splits, "test").row_hashes[:1]}, 32, TrainConfig())


def test_near_misses_are_said_when_training_starts(three_splits, shards, caplog):
    load_training(three_splits, {"concept": "apple"}, 32, TrainConfig())
    assert not caplog.text
    rows = caption_rows([(n, text) for n, text in enumerate(["an apple", "two apples", "a lamp"])])
    write_rows(three_splits / "words", rows)
    load_training(three_splits / "words", {"concept": "apple"}, 32, TrainConfig())
    assert "1 of 3 captions hold the word only within another" in caplog.text
    with pytest.raises(CliperaseError, match=r"matches none or all .*: apple"):
        load_training(shards, {"concept": "appl"}, 32, TrainConfig(retain_batch=8))


# --- shards


def read_all(name, split, **rule):
    return load_split(case(f"shards/{name}"), split, rule, 16, broken_percent=100.0)


def test_names_with_dots_are_samples_of_their_own():
    for name in ("dots_in_half", "dots_in_every_name"):
        pairs, forgotten = read_all(name, "test", concept="apple")
        assert len(pairs) == 24
        assert forgotten.sum() == 6
        training = load_training(case(f"shards/{name}"), {"concept": "apple"}, 16, TrainConfig(lanes=2, retain_batch=8))
        assert len(training.forget) == 12
        assert training.rows["broken"] == 0


def test_blank_captions_of_shards_are_broken(caplog):
    with pytest.raises(CliperaseError, match=r"11 of \d+ samples are broken, the last is .*: it has a blank caption"):
        load_split(case("shards/blank_captions"), "test", {"concept": "apple"}, 16)
    pairs, _ = read_all("blank_captions", "test", concept="apple")
    assert len(pairs) == 30
    assert all(text.strip() for text in pairs.texts)
    assert "30 of 60 samples are left out as broken, the first is 00003.tar, key 0182: it has a blank" in caplog.text


def test_files_of_a_sample_that_are_not_adjacent_are_an_error():
    message = r"00003\.tar: the files of sample '000000072' do not follow one another; write the shard anew"
    with pytest.raises(CliperaseError, match=message):
        read_all("pictures_before_texts", "test", concept="apple")


SHAPE = saved(Image.new("RGB", (8, 8), (9, 9, 9)))


@pytest.mark.parametrize(
    ("names", "keys"),
    [
        (["a.b.c.jpg", "a.b.c.txt", "a.b.d.jpg", "a.b.d.txt"], ["a.b.c", "a.b.d"]),
        (["x/1.0.png", "x/1.0.txt", "x.y/1.0.png", "x.y/1.0.txt"], ["x/1.0", "x.y/1.0"]),
        (["./1.JPG", "./1.TXT", "._1.jpg", ".hidden.txt", "README", "./2.jpeg", "./2.txt"], ["./1", "./2"]),
        (["1.jpg", "1.json", "1.txt", "2.txt", "2.json", "2.webp"], ["1", "2"]),
    ],
)
def test_a_sample_is_what_shares_its_name(names, keys, tmp_path):
    files = {name: SHAPE if name.lower().endswith(("jpg", "png", "jpeg", "webp")) else b"apple" for name in names}
    (tmp_path / "0.tar").write_bytes(sample(files))
    found = list(samples_of([tmp_path / "0.tar"]))
    assert [one["__key__"] for one in found] == keys
    decoder = Decoder(8, 1.0)
    assert all(decoder.caption(one) == "apple" and decoder.picture(one) is not None for one in found)


@pytest.mark.parametrize(
    "names",
    [
        ["1.jpg", "2.jpg", "1.txt", "2.txt"],
        ["1.txt", "2.txt", "2.jpg", "1.jpg"],
        ["1.jpg", "1.txt", "2.jpg", "3.jpg", "3.txt", "2.txt"],
    ],
)
def test_files_in_any_other_order_are_an_error(names, tmp_path):
    (tmp_path / "0.tar").write_bytes(sample({name: SHAPE if name.endswith("jpg") else b"a" for name in names}))
    with pytest.raises(CliperaseError, match=r"0\.tar: the files of sample '[12]' do not follow one another"):
        list(samples_of([tmp_path / "0.tar"]))


def test_a_half_sample_is_broken_and_named(tmp_path, caplog):
    files = {"1.jpg": SHAPE, "1.txt": b"apple", "2.jpg": SHAPE, "3.txt": b"apple", "4.jpg": b"", "4.txt": b"a"}
    files |= {"5.jpg": saved(Image.new("RGB", (8, 8))), "5.txt": b"lamp", "6.jpg": SHAPE, "6.txt": b"\xff\xfe"}
    for number in range(3):
        (tmp_path / f"{number}.tar").write_bytes(sample(files))
    _, forgotten = load_split(tmp_path, "test", {"concept": "apple"}, 8)
    assert forgotten.tolist() == [True, False]
    assert "4 of 6 samples are left out as broken, the first is 2.tar, key 2: it has no caption" in caplog.text
    with pytest.raises(CliperaseError, match=r"1 of 2 samples are broken, the last is 2.tar, key 2: it has no caption"):
        load_split(tmp_path, "test", {"concept": "apple"}, 8, broken_percent=0.05)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_unreadable_samples_are_limited_in_every_split(split, tmp_path):
    for shard in range(3):
        write_shard(tmp_path / f"{shard}.tar", range(200), broken=range(40, 200))
    with pytest.raises(CliperaseError, match=r"11 of \d+ samples are broken, the last is \d\.tar, key 0000000"):
        load_split(tmp_path, split, {"concept": "apple"}, 8)


def test_samples_of_one_picture_are_one_row(tmp_path):
    texts = ["an apple", "red fruit", "a lamp"]
    files = {}
    for number, text in enumerate(texts):
        files |= {
            f"{number}.png": SHAPE if number < 2 else saved(Image.new("RGB", (8, 8))),
            f"{number}.txt": text.encode(),
        }
    for shard in range(3):
        (tmp_path / f"{shard}.tar").write_bytes(sample(files))
    pairs, forgotten = load_split(tmp_path, "test", {"concept": "apple"}, 8)
    assert forgotten.tolist() == [True, False]
    assert {pairs.texts[i] for i in pairs.text_ids[0].tolist()} == set(texts[:2])


def test_a_file_of_a_shard_may_not_be_larger_than_memory(tmp_path):
    member = tarfile.TarInfo("1.jpg")
    member.size = 40 * 2**30
    (tmp_path / "0.tar").write_bytes(member.tobuf() + bytes(2048))
    with pytest.raises(CliperaseError, match=r"1\.jpg has 42949672960 bytes, more than 268435456"):
        list(samples_of([tmp_path / "0.tar"]))
