"""What is a sample of a shard, what is broken, and that it is said."""

import gzip
import shutil
import tarfile

import pytest
from conftest import square, write_shard
from inputs import SHAPE, sample, saved
from PIL import Image

from cliperase.data.shards import Decoder, shards_of
from cliperase.data.source import load_split
from cliperase.data.tars import samples_of, shards_in
from cliperase.errors import CliperaseError


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
    decoder = Decoder(square(8), 1.0)
    assert all(decoder.captions(one) == ["apple"] and decoder.picture(one) is not None for one in found)


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
    _, forgotten = load_split(tmp_path, "test", {"concept": "apple"}, square(8))
    assert forgotten.tolist() == [True, False]
    assert "4 of 6 samples are left out as broken, the first is 2.tar, key 2: it has no caption" in caplog.text
    with pytest.raises(CliperaseError, match=r"1 of 2 samples are broken, the last is 2.tar, key 2: it has no caption"):
        load_split(tmp_path, "test", {"concept": "apple"}, square(8), broken_percent=0.05)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_unreadable_samples_are_limited_in_every_split(split, tmp_path):
    for shard in range(3):
        write_shard(tmp_path / f"{shard}.tar", range(200), broken=range(40, 200))
    with pytest.raises(CliperaseError, match=r"11 of \d+ samples are broken, the last is \d\.tar, key 0000000"):
        load_split(tmp_path, split, {"concept": "apple"}, square(8))


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
    pairs, forgotten = load_split(tmp_path, "test", {"concept": "apple"}, square(8))
    assert forgotten.tolist() == [True, False]
    assert {pairs.texts[i] for i in pairs.text_ids[0].tolist()} == set(texts[:2])


def test_a_file_of_a_shard_may_not_be_larger_than_memory(tmp_path):
    member = tarfile.TarInfo("1.jpg")
    member.size = 40 * 2**30
    (tmp_path / "0.tar").write_bytes(member.tobuf() + bytes(2048))
    with pytest.raises(CliperaseError, match=r"1\.jpg has 42949672960 bytes, more than 268435456"):
        list(samples_of([tmp_path / "0.tar"]))


@pytest.mark.parametrize(
    ("files", "caption"),
    [
        ({"caption": b"an apple"}, "an apple"),
        ({"json": b'{"caption": "an apple", "url": "x"}'}, "an apple"),
        ({"json": b'{"captions": ["an apple"]}'}, "an apple"),
        ({"txt": b"an apple", "json": b'{"caption": "a pear"}'}, "an apple"),
        ({"cls": b"red_apple\n"}, "a photo of a red apple"),
        ({"cls": b"7"}, None),
        ({"cls": b"apple", "json": b'{"label": 7, "filename": "1.jpg"}'}, "a photo of a apple"),
        ({"json": b'{"label": 7}'}, None),
        ({"json": b'{"caption": null}'}, None),
        ({"json": b'{"caption": ["a", "b"]}'}, None),
        ({"json": b"{"}, None),
        ({"caption": b" "}, None),
    ],
)
def test_a_caption_may_be_in_other_files(files, caption, tmp_path):
    (tmp_path / "0.tar").write_bytes(sample({f"1.{suffix}": file for suffix, file in files.items()} | {"1.jpg": SHAPE}))
    (found,) = samples_of([tmp_path / "0.tar"])
    decoder = Decoder(square(8), 1.0)
    assert decoder.captions(found) == (caption and [caption])
    assert decoder.broken == (caption is None)


@pytest.mark.parametrize("place", ["classnames.txt", "../classnames.txt"])
def test_a_number_of_a_class_is_a_line_of_classnames(place, tmp_path):
    folder = tmp_path / "data" / "train"
    folder.mkdir(parents=True)
    (folder / place).write_text("lamp\nred_apple\n")
    files = {"1.cls": b"1\n", "1.jpg": SHAPE, "2.cls": b"2", "2.jpg": SHAPE}
    (folder / "0.tar").write_bytes(sample(files))
    decoder = Decoder(square(8), 1.0)
    assert [decoder.captions(one) for one in samples_of([folder / "0.tar"])] == [["a photo of a red apple"], None]


def test_a_picture_may_be_called_input(tmp_path):
    (tmp_path / "0.tar").write_bytes(sample({"a.1.input.JPG": SHAPE, "a.1.txt": b"apple"}))
    (found,) = samples_of([tmp_path / "0.tar"])
    assert found["__key__"] == "a.1"
    assert Decoder(square(8), 1.0).picture(found) is not None


def write_zipped(path, numbers, part=1.0):
    """A compressed shard, of which only a `part` was compressed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_shard(path.with_suffix(".plain"), numbers)
    content = path.with_suffix(".plain").read_bytes()
    path.with_suffix(".plain").unlink()
    path.write_bytes(gzip.compress(content[: int(part * len(content))]))


def test_compressed_shards_are_read_to_their_end(tmp_path):
    write_shard(tmp_path / "0.tar", range(40))
    write_zipped(tmp_path / "1.tar.gz", range(40))
    write_zipped(tmp_path / "2.TGZ", range(40))
    plain, *zipped = ([one["__key__"] for one in samples_of([path])] for path in shards_in(tmp_path))
    assert zipped == [plain, plain]
    with tarfile.open(tmp_path / "0.tar") as tar:
        between = [member.offset for member in tar][30]
    for cut in (between, between + 100):
        (tmp_path / "cut.tar.gz").write_bytes(gzip.compress((tmp_path / "0.tar").read_bytes()[:cut]))
        with pytest.raises(CliperaseError, match=r"cut\.tar\.gz cannot be read to its end"):
            list(samples_of([tmp_path / "cut.tar.gz"]))
    whole = (tmp_path / "1.tar.gz").read_bytes()
    (tmp_path / "cut.tar.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CliperaseError, match=r"cut\.tar\.gz cannot be read to its end"):
        list(samples_of([tmp_path / "cut.tar.gz"]))


def test_names_of_shards_and_folders_say_the_splits(tmp_path, caplog):
    for name in ("train/000.tar", "train/001.tar", "val/000.tar", "test/000.tar"):
        write_zipped(tmp_path / "folders" / f"{name}.gz", range(8))
        write_zipped(tmp_path / "names" / f"my-{name.replace('/', '_')}.gz", range(8))
    (tmp_path / "folders" / "train" / "._000.tar").write_text("")
    for layout in ("folders", "names"):
        found = {split: len(shards_of(tmp_path / layout, split)) for split in ("train", "validation", "test")}
        assert found == {"train": 2, "validation": 1, "test": 1}
    assert len(load_split(tmp_path / "folders", "test", {"concept": "apple"}, square(8))[0]) == 8
    shutil.rmtree(tmp_path / "folders" / "val")
    shutil.rmtree(tmp_path / "folders" / "test")
    assert [path.name for path in shards_of(tmp_path / "folders", "validation")] == ["001.tar.gz"]
    assert [path.name for path in shards_of(tmp_path / "folders", "train")] == ["000.tar.gz"]
    assert "has no validation split: 001.tar.gz is held out" in caplog.text
    with pytest.raises(
        CliperaseError, match=r"split 'test' of the shards in .* unknown; choose one of train, validation"
    ):
        shards_of(tmp_path / "folders", "test")
    write_zipped(tmp_path / "folders" / "more.tar.gz", range(8))
    with pytest.raises(CliperaseError, match=r"name of shard more\.tar\.gz says no split, and those of others do"):
        shards_of(tmp_path / "folders", "train")
