"""A long run needs no more memory and no more open files than a short one, nor a large set more than a small one.

`make soak` takes 10,000 steps.
"""

import os
from pathlib import Path

import pytest
import torch
from conftest import SOAK, write_parquet

from cliperase.data.row_groups import parquet_set
from cliperase.data.shards import samples_of, shards_of
from cliperase.data.source import TrainingRows
from cliperase.memory import peak_megabytes, reset_peak
from cliperase.metrics.scores import best_ranks
from cliperase.unlearning import Recipe, Run

STEPS = 100 if SOAK == 1 else 500 * SOAK


def handles():
    return len(os.listdir("/proc/self/fd"))


needs_proc = pytest.mark.skipif(
    not Path("/proc/self/fd").is_dir(), reason="this system does not tell open files and memory"
)


@needs_proc
def test_many_steps_take_the_memory_of_few(model, training, tmp_path):
    rows = TrainingRows.of(training, training.labels == 0)
    settings = {"learning_rate": 1e-5, "forget_batch": 2, "retain_batch": 2, "evaluate_every": 50}

    def peak(steps):
        """MB at the peak of a run, and open files behind it."""
        recipe = Recipe.of("CLIPErase", {**settings, "steps": steps})
        checkpoint = tmp_path / "checkpoint.pt"
        checkpoint.unlink(missing_ok=True)
        reset_peak()
        Run(model, recipe, rows.forget, rows.retain, training, training.labels == 0,
            checkpoint=checkpoint, progress=False).carry_out()  # fmt: skip
        return peak_megabytes(), handles()

    (_, _), (few, files), (many, files_after) = peak(50), peak(50), peak(STEPS)
    assert files_after <= files
    assert many - few < 20  # MB, what an allocator keeps


@needs_proc
def test_a_row_group_is_never_in_memory_as_a_whole(tmp_path):
    rows = 3000
    files = [{"bytes": os.urandom(50_000), "path": None}] * rows  # 150 MB, one row group
    captions = [[f"number {number}"] for number in range(rows)]
    for split in ("train", "validation"):
        few = slice(None if split == "train" else 2)
        columns = {"image": files[few], "captions": captions[few]}
        write_parquet(tmp_path / f"{split}.parquet", columns, rows, use_dictionary=False, compression="none")
    del files
    shards = shards_of(parquet_set(tmp_path), "train")
    next(samples_of(shards))
    reset_peak()
    before = peak_megabytes()
    assert sum(len(sample["jpg"]) for sample in samples_of(shards)) == 50_000 * rows
    assert peak_megabytes() - before < 60


@needs_proc
def test_retrieval_holds_no_scores_of_all_queries(monkeypatch):
    images, texts, owner = torch.rand(300, 4), torch.rand(300_000, 4), torch.arange(300_000) % 300
    monkeypatch.setattr("cliperase.metrics.scores.MOST_SCORES", 10 * len(texts))
    reset_peak()
    before = peak_megabytes()
    best_ranks(images, torch.arange(300), texts, owner)  # 360 MB of scores at once
    assert peak_megabytes() - before < 100
