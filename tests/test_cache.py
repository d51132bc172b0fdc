"""The cache: what comes from it is what was computed, whatever happened to its files."""

import os

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError

from cliperase import cache
from cliperase.cache import kept
from cliperase.data.pairs import load_pairs
from cliperase.features import Features

TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([[True], [False]]), "c": torch.zeros(0, 4)}


def never():
    raise AssertionError("it is read, not computed")


def assert_same(tensors):
    assert set(tensors) == set(TENSORS)
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)


def keep(folder, compute=lambda: TENSORS):
    assert_same(kept(folder, "test 1", ["one", "two"], compute))
    return list(folder.iterdir())


def test_what_was_computed_once_is_read(tmp_path):
    (file,) = keep(tmp_path)
    assert keep(tmp_path, never) == [file]


@pytest.mark.parametrize(("kind", "parts"), [("test 2", ["one", "two"]), ("test 1", ["one"]), ("test 1", ["onetwo"])])
def test_another_kind_version_or_content_is_another_file(kind, parts, tmp_path):
    keep(tmp_path)
    other = {"a": torch.ones(1)}
    assert torch.equal(kept(tmp_path, kind, parts, lambda: other)["a"], other["a"])
    assert len(list(tmp_path.iterdir())) == 2


@given(place=st.integers(0), bit=st.integers(0, 7))
def test_a_flipped_bit_anywhere_is_computed_again(place, bit, tmp_path_factory):
    (file,) = keep(folder := tmp_path_factory.mktemp("flipped"))
    content = bytearray(file.read_bytes())
    content[place % len(content)] ^= 1 << bit
    file.write_bytes(content)
    keep(folder)
    keep(folder, never)  # and whole again


@given(part=st.floats(0, 0.99))
def test_a_file_that_is_cut_off_is_computed_again(part, tmp_path_factory):
    (file,) = keep(folder := tmp_path_factory.mktemp("cut"))
    file.write_bytes(file.read_bytes()[: int(part * file.stat().st_size)])
    keep(folder)


def test_what_is_too_small_or_too_large_is_not_kept(tmp_path, monkeypatch):
    assert_same(kept(tmp_path, "test 1", [], lambda: TENSORS, least=1000))
    monkeypatch.setattr(cache, "MOST", 10)
    assert not keep(tmp_path)


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
    def no_space(tensors, path, metadata):
        raise SafetensorError("I/O error: No space left on device")

    (tmp_path / "file").write_text("")
    assert_same(kept(tmp_path / "file" / "below", "test 1", [], lambda: TENSORS))
    monkeypatch.setattr(cache, "save_file", no_space)
    (tmp_path / "full").mkdir()
    assert not keep(tmp_path / "full")


@pytest.mark.skipif(os.name == "nt", reason="memory maps of Windows keep their file")
def test_a_read_tensor_is_mapped_and_may_be_written_without_changing_the_file(tmp_path):
    keep(tmp_path)
    kept(tmp_path, "test 1", ["one", "two"], never)["a"].zero_()
    keep(tmp_path, never)


def test_decoded_pictures_and_features_are_kept(data_folder, model, tmp_path, monkeypatch):
    monkeypatch.setattr("cliperase.data.decoded.datasets.config.HF_DATASETS_CACHE", tmp_path)
    monkeypatch.setattr("cliperase.data.decoded.WORTH_A_FILE", 1)
    pairs = load_pairs(data_folder, "train")
    features = Features.kept(model, pairs, tmp_path / "features")
    with monkeypatch.context() as patch:
        patch.setattr("cliperase.data.decoded.decode_images", never)
        patch.setattr(Features, "of", never)
        assert torch.equal(load_pairs(data_folder, "train").images, pairs.images)
        again = Features.kept(model, pairs, tmp_path / "features")
    assert torch.equal(again.image, features.image)
    assert torch.equal(again.text, features.text)
    assert len(load_pairs(data_folder, "test").images) == 16
    assert len(list((tmp_path / "cliperase-images").iterdir())) == 2
