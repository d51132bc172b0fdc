"""What a source of pairs is, is asked in one place: parquet files and shards give the same form."""

import pytest
import torch
from conftest import ROWS, square

from cliperase.data.pairs import PairSet
from cliperase.data.shards import Stream
from cliperase.data.source import load_split, load_training
from cliperase.errors import CliperaseError
from cliperase.settings import TrainSettings

RULE = {"concept": "apple"}
SETTINGS = TrainSettings(steps=4, forget_batch=4, retain_batch=8, lanes=4)


def test_the_rows_of_tables_are_forgotten_or_retained(data_folder):
    training = load_training(data_folder, RULE, square(32), SETTINGS)
    assert training.rows == {"forget": ROWS["train"], "retain": 3 * ROWS["train"]}
    assert not training.streamed
    assert torch.equal(training.pairs.images[training.mask], training.forget.images)
    assert training.retain.row_hashes == training.pairs.select(~training.mask).row_hashes
    pairs, forgotten = load_split(data_folder, "test", RULE, square(32))
    assert forgotten.sum() == ROWS["test"]
    pairs, forgotten = load_split(data_folder, "test", None, square(32))
    assert len(pairs) == 4 * ROWS["test"]
    assert not forgotten.any()


def test_the_rows_of_shards_are_held_or_streamed(shards):
    training = load_training(shards, RULE, square(16), SETTINGS)
    assert isinstance(training.forget, PairSet)
    assert isinstance(training.retain, Stream)
    assert training.streamed
    assert training.rows == {"forget": 32, "retain": "streamed", "broken": 0}
    assert len(load_training(shards, RULE, square(16), SETTINGS, most_forget=5).forget) == 5
    pairs, forgotten = load_split(shards, "test", RULE, square(16))
    assert pairs.images.shape == (40, 3, 16, 16)
    assert forgotten.sum() == 10
    with pytest.raises(CliperaseError, match="measured by a rule"):
        load_split(shards, "test", None, square(16))
