"""Whole files or none."""

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from cliperase.errors import CliperaseError
from cliperase.files import HERE, check_writable, read_json, whole_file


def test_a_file_appears_only_when_all_went_well(tmp_path):
    path = tmp_path / "new" / "file.txt"
    with whole_file(path) as partial:
        partial.write_text("one")
        assert not path.exists()
    assert path.read_text() == "one"
    with pytest.raises(RuntimeError), whole_file(path) as partial:  # noqa: PT012 – the block must write first
        partial.write_text("two")
        raise RuntimeError
    assert path.read_text() == "one"
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "held").write_text("held")
    with pytest.raises(CliperaseError, match="cannot be written"), whole_file(tmp_path / "held" / "x") as partial:
        partial.write_text("never")
    assert (tmp_path / "held").read_text() == "held"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_weights_that_find_no_space_are_one_line(tmp_path):
    path = tmp_path / "weights.safetensors"
    with pytest.raises(CliperaseError, match=r"weights\.safetensors cannot be written"), whole_file(path):
        save_file({"weight": torch.zeros(4)}, "/dev/full/weights")
    assert not path.exists()


def test_what_cannot_take_a_file_is_said_before_the_work(tmp_path):
    (tmp_path / "held").write_text("held")
    (tmp_path / "folder").mkdir()
    with pytest.raises(CliperaseError, match="cannot be written"):
        check_writable(tmp_path / "held" / "x")
    with pytest.raises(CliperaseError, match="folder is a folder and is to be a file"):
        check_writable(tmp_path / "folder")
    (tmp_path / f".cliperase-probe.{HERE}.{os.getpid() + 1}").touch()  # another process is looking too
    (tmp_path / f".cliperase-probe.elsewhere.{os.getpid()}").touch()  # so is one of the same number on another machine
    check_writable(tmp_path / "new" / "x")
    check_writable(tmp_path / "x")
    assert not list((tmp_path / "new").iterdir())
    assert len(list(tmp_path.iterdir())) == 5  # its own probe is gone, the others' are there


def test_a_folder_can_be_written_though_another_has_removed_the_probe(tmp_path, monkeypatch):
    """A machine of the same name, as containers may have, with a process of the same number."""
    touch = Path.touch
    monkeypatch.setattr(Path, "touch", lambda path: (touch(path), os.remove(path)))
    check_writable(tmp_path / "x")


def test_a_mapping_that_cannot_be_read_is_one_line(tmp_path):
    path = tmp_path / "config.json"
    for write, message in ((path.unlink, "No such file"), (lambda: path.write_text("{"), "Expecting property name")):
        path.touch()
        write()
        with pytest.raises(
            CliperaseError, match=rf"config\.json cannot be read \(.*{message}.*; train or copy"
        ) as error:
            read_json(path)
        assert "\n" not in str(error.value)
