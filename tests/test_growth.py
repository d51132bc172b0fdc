"""A long run needs no more memory and no more open files than a short one. `make soak` takes 10,000 steps."""

import os
from pathlib import Path

import pytest
from conftest import SOAK

from cliperase.data.source import TrainingRows
from cliperase.memory import peak_megabytes, reset_peak
from cliperase.unlearning import Recipe, Run

STEPS = 100 if SOAK == 1 else 500 * SOAK


def handles():
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="this system does not tell open files and memory")
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
