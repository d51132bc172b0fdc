"""Inputs that people bring: the small files of `shared/cases`, and what is right for each, see the README there."""

import json
from pathlib import Path

import from_hub
import from_karpathy
import numpy as np
import open_clip
import pytest
import torch
from conftest import square
from inputs import pixels, sample, saved, write_pictures
from PIL import Image

from cliperase.data.pairs import load_pairs
from cliperase.data.shards import Decoder
from cliperase.data.source import load_split, load_training
from cliperase.data.tars import samples_of
from cliperase.errors import CliperaseError
from cliperase.models import load_model
from cliperase.models.openclip import CONFIG_NAME
from cliperase.settings import TrainSettings

ROOT = Path(__file__).parent.parent
CASES = next((folder / "shared" / "cases" for folder in ROOT.parents if (folder / "shared" / "cases").is_dir()), None)


def case(name):
    """The path of a shared case."""
    if CASES is None:
        pytest.skip("the folder shared/cases is not beside the repository")
    return CASES / name


def read_all(name, split, **rule):
    return load_split(case(f"shards/{name}"), split, rule, square(16), broken_percent=100.0)


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
    assert np.array_equal(Decoder(square(32), 1.0).picture(found).permute(1, 2, 0).numpy(), expected)


def test_the_folder_that_was_named_is_read():
    assert load_pairs(case("files/run[1]"), "train").class_names == ["apple", "lamp", "road", "wolf"]
    assert load_pairs(case("files/run1"), "train").class_names == ["dog", "cat"]


def test_two_data_sets_in_one_parent_are_named():
    with pytest.raises(CliperaseError, match=r"several data sets: class_order_differs/.*; name the folder of one"):
        load_pairs(case("files"), "train")


def test_classes_in_another_order_are_told_by_name():
    pairs = load_pairs(case("files/class_order_differs"), "train")
    assert len(pairs) == 32
    for row, label in enumerate(pairs.labels.tolist()):
        assert pairs.texts[pairs.text_ids[row, 0]] == f"a photo of a {pairs.class_names[label]}"


def test_a_label_out_of_range_is_one_line_with_its_row(tmp_path, capsys):
    message = r"split 'train', row \d+ \(train-00000-of-00001\.parquet\) has the label 7, and the 4 classes are 0 to 3"
    with pytest.raises(CliperaseError, match=message):
        load_pairs(case("label_out_of_range"), "train")
    command = ["--source", str(case("label_out_of_range")), "--label", "label", "--output", str(tmp_path / "out")]
    assert from_hub.main(command) == 2
    error = capsys.readouterr().err
    assert "row" in error
    assert len(error.strip().splitlines()) == 1


def test_a_row_without_a_source_is_a_row():
    pairs = load_pairs(case("null_source"), "train")
    assert pairs.sources == [""] * 12


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


def test_classes_of_one_prompt_are_refused(tmp_path, capsys):
    with pytest.raises(CliperaseError, match=r"classes 0 and 1, 'bear' and 'bear  ', are the same prompt"):
        load_pairs(case("classes_differ_by_case"), "train")
    command = ["--source", str(case("classes_differ_by_case")), "--label", "label", "--output", str(tmp_path / "out")]
    assert from_hub.main(command) == 2
    assert "are the same prompt to a model" in capsys.readouterr().err


def test_names_with_dots_are_samples_of_their_own():
    for name in ("dots_in_half", "dots_in_every_name"):
        pairs, forgotten = read_all(name, "test", concept="apple")
        assert len(pairs) == 24
        assert forgotten.sum() == 6
        training = load_training(
            case(f"shards/{name}"), {"concept": "apple"}, square(16), TrainSettings(lanes=2, retain_batch=8)
        )
        assert len(training.forget) == 12
        assert training.rows["broken"] == 0


def test_blank_captions_of_shards_are_broken(caplog):
    with pytest.raises(CliperaseError, match=r"11 of \d+ samples are broken, the last is .*: it has a blank caption"):
        load_split(case("shards/blank_captions"), "test", {"concept": "apple"}, square(16))
    pairs, _ = read_all("blank_captions", "test", concept="apple")
    assert len(pairs) == 30
    assert all(text.strip() for text in pairs.texts)
    assert "30 of 60 samples are left out as broken, the first is 00003.tar, key 0182: it has a blank" in caplog.text


def test_files_of_a_sample_that_are_not_adjacent_are_an_error():
    message = r"00003\.tar: the files of sample '000000072' do not follow one another; write the shard anew"
    with pytest.raises(CliperaseError, match=message):
        read_all("pictures_before_texts", "test", concept="apple")


@pytest.mark.parametrize("name", ["models/as_downloaded", "models/bin_only"])
def test_a_model_as_it_comes_from_elsewhere(name, tmp_path):
    config = json.loads((case(name) / CONFIG_NAME).read_text())
    torch.manual_seed(0)
    (tmp_path / CONFIG_NAME).write_text(json.dumps(config))
    torch.save(open_clip.CLIP(**config["model_cfg"]).state_dict(), tmp_path / "open_clip_pytorch_model.bin")
    theirs, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{tmp_path}")
    with Image.open(case("turned.jpg")) as photograph, torch.no_grad():
        expected = theirs.eval().encode_image(preprocess(photograph)[None], normalize=True)
        found = load_model(tmp_path).encode_image(torch.from_numpy(np.array(photograph)).permute(2, 0, 1)[None])
    assert (found * expected).sum().item() == pytest.approx(1, abs=1e-5)
