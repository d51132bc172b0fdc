"""Seconds of one unlearning step and what they are spent on, on this machine, for the compact model.

    python benchmarks/step_time.py

Warm-up first, then the variants in turn, several rounds, medians; compare ratios, not seconds.
"""

import statistics
import time

import torch

from cliperase.datasets import PairSet
from cliperase.encoders import create_model, pick_device
from cliperase.features import Features, Original
from cliperase.methods import METHODS, create_method, takes_steps
from cliperase.train import Loop, TrainConfig

CLASSES, ROUNDS, STEPS = 75, 5, 10


def random_pairs(rows, first_class, classes):
    """Random images with class captions: the cost of a step does not depend on what is on them."""
    texts = [f"a photo of a thing {i}" for i in range(first_class, first_class + classes)]
    labels = torch.arange(rows) % classes
    return PairSet(
        images=torch.randint(0, 256, (rows, 3, 32, 32), dtype=torch.uint8),
        texts=texts,
        text_ids=labels[:, None],
        labels=labels,
        class_names=texts,
        row_hashes=[str(i) for i in range(rows)],
        sources=["random"] * rows,
    )


def make_loop(name):
    model = create_model().to(pick_device()).eval()
    forget, retain = random_pairs(64, 0, 1), random_pairs(512, 1, CLASSES - 1)
    original = Original(Features.of(model, forget), Features.of(model, retain), model.logit_scale.item())
    return Loop(model, create_method(name, {}), retain, TrainConfig(1000, 1e-4), forget, original)


def seconds_per_step(loop):
    start = time.perf_counter()
    for step in range(STEPS):
        loop.step(step)
    return (time.perf_counter() - start) / STEPS


def main():
    names = [name for name in METHODS if takes_steps(name) and name != "ENMN"]  # it steps like fine-tune, on noise
    loops = {name: make_loop(name) for name in names}
    for loop in loops.values():
        seconds_per_step(loop)
    rounds = [{name: seconds_per_step(loop) for name, loop in loops.items()} for _ in range(ROUNDS)]
    print(
        f"device {pick_device()}, {torch.get_num_threads()} threads, batch 16 + 64, median of {ROUNDS} × {STEPS} steps"
    )
    for name in names:
        seconds = statistics.median(r[name] for r in rounds)
        ratio = statistics.median(r[name] / r["fine-tune"] for r in rounds)
        print(f"{name:14s} {seconds:7.3f} s   {ratio:5.2f} × fine-tune")


if __name__ == "__main__":
    main()
