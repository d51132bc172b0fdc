"""Whole files or none."""

import pytest

from cliperase.errors import CliperaseError
from cliperase.files import whole_file


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
