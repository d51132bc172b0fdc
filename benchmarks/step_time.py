"""Ratios of steps on this machine: the library's over the bare one, the paper's plain loop over the library's, and
method by method or setting by setting.

    python -m benchmarks.step_time
    python -m benchmarks.step_time --compare settings --model ViT-B-32 --forget 16 --retain 16 --rounds 2

Seconds depend on the machine and on what else runs on it: compare ratios, which are medians over rounds in which
the steps took turns. All steps are in memory at once, each with four times the weights of its model.
"""

import argparse
import statistics

import torch

from benchmarks.steps import bare_step, create_task, library_step, plain_step, take_turns
from cliperase.methods import METHODS, method_class
from cliperase.models.base import pick_device

SETTINGS = {  # of the loop, by what they are called in the table
    "plain": {},
    "autocast": {"autocast": True},
    "channels_last": {"channels_last": True},
    "compile": {"compile": True},
    "resident": {"resident": True},
    "micro_batch 8": {"micro_batch": 8},
}


def loops(task):
    return {"bare": bare_step(task), "library": library_step(task), "plain loop": plain_step(task)}


def methods(task):
    return {name: library_step(task, name) for name in METHODS if is_trained(name)}


def is_trained(name):
    kind = method_class(name)
    return kind.takes_steps and not kind.replaces_data  # whose steps are those of fine-tune on other rows


def settings(task):
    return {name: library_step(task, **one) for name, one in SETTINGS.items()}


COMPARED = {"loops": loops, "methods": methods, "settings": settings}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compare", nargs="+", choices=list(COMPARED), default=["loops", "methods"])
    parser.add_argument(
        "--model", default="compact", help="compact, compact BLIP, open_clip name (random weights), or a folder"
    )
    parser.add_argument("--forget", type=int, default=16, help="forget rows of a step")
    parser.add_argument("--retain", type=int, default=128, help="retain rows of a step")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10, help="steps in a round")
    given = parser.parse_args()
    about = f"{given.model}, batch {given.forget} + {given.retain}, {pick_device()}, {torch.get_num_threads()} threads"
    print(f"{about}, medians of {given.rounds} × {given.steps} steps")
    for name in given.compare:
        steps = COMPARED[name](create_task(given.model, given.forget, given.retain))
        seconds, first = take_turns(steps, given.rounds, given.steps), next(iter(steps))
        for step, measured in seconds.items():
            ratio = statistics.median(one / other for one, other in zip(measured, seconds[first], strict=True))
            print(f"{step:14s} {1000 * statistics.median(measured):8.1f} ms   {ratio:5.2f} × {first}", flush=True)


if __name__ == "__main__":
    main()
