"""The first pairs of shards become the schema; broken ones are left out, too many of them are an error."""

import pytest
from conftest import write_shard
from from_shards import main

from cliperase.data.pairs import load_pairs
from cliperase.errors import CliperaseError


def call(shards, output, *more):
    main(["--shards", str(shards), "--output", str(output), "--size", "16", *more])


def test_the_first_readable_pairs_of_each_split(tmp_path):
    shards = tmp_path / "shards"
    shards.mkdir()
    for number in range(4):  # two to train on
        write_shard(shards / f"{number:05d}.tar", range(10 * number, 10 * number + 8), broken=(1,), silent=(2,))
    call(shards, tmp_path / "out", "--most", "12", "--most-measured", "3")
    sets = {split: load_pairs(tmp_path / "out", split) for split in ("train", "validation", "test")}
    assert {split: len(pairs) for split, pairs in sets.items()} == {"train": 12, "validation": 3, "test": 3}
    for split, numbers in (("train", [0, *range(3, 8), *range(10, 16)]), ("validation", range(20, 23))):
        said = [sets[split].texts[i].split()[-1] for i in sets[split].text_ids[:, 0].tolist()]
        assert said == [str(number) for number in numbers]
    assert sets["train"].images.shape[1:] == (3, 16, 16)
    assert not sets["train"].class_names


def test_a_broken_split_leaves_the_data_set_that_was_there(tmp_path, capsys):
    shards = tmp_path / "shards"
    shards.mkdir()
    for number in range(3):  # to train on, to validate and to test on
        write_shard(shards / f"{number:05d}.tar", range(40 * number, 40 * number + 40))
    call(shards, tmp_path / "out", "--most", "5")
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    capsys.readouterr()
    write_shard(shards / "00001.tar", range(40), broken=range(20))
    with pytest.raises(CliperaseError, match="samples are broken"):
        call(shards, tmp_path / "out", "--most", "7")
    assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    assert not capsys.readouterr().out
    (tmp_path / "file").touch()
    with pytest.raises(CliperaseError, match="cannot be written"):
        call(shards, tmp_path / "file" / "out")


def test_nothing_is_written_where_too_much_is_broken_or_asked_wrongly(tmp_path):
    shards = tmp_path / "shards"
    shards.mkdir()
    for number in range(3):
        write_shard(shards / f"{number:05d}.tar", range(40), broken=range(20))
    with pytest.raises(CliperaseError, match="samples are broken"):
        call(shards, tmp_path / "out")
    with pytest.raises(CliperaseError, match="--most-measured 0: give at least 1"):
        call(shards, tmp_path / "out", "--most-measured", "0")
    assert not list((tmp_path / "out").glob("*.parquet"))
