"""Seconds of one unlearning step on this machine: method by method, or one setting of the loop after the other.

    python benchmarks/step_time.py
    python benchmarks/step_time.py --settings --model ViT-B-32/openai --rounds 2

Without `--model` it is the compact one. Warm-up first, then the variants in turn, several rounds, medians; compare
ratios, not seconds. All variants are held in memory at once, each four times its weights.
"""

import argparse
import statistics
import time

import torch

from cliperase.data.pairs import PairSet
from cliperase.features import Features, Original
from cliperase.loop import Loop
from cliperase.methods import create_method, method_class, method_names
from cliperase.models import load_model
from cliperase.models.base import pick_device
from cliperase.models.openclip import create_model
from cliperase.settings import TrainSettings

CLASSES, STEPS = 75, 10
SETTINGS = {  # of the loop, by what they are called in the table
    "plain": {},
    "autocast": {"autocast": True},
    "channels_last": {"channels_last": True},
    "compile": {"compile": True},
    "resident": {"resident": True},
    "micro_batch 8": {"micro_batch": 8},
}


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


def make_loop(model, name, retain_batch=64, **settings):
    model = (load_model(model) if model else create_model()).to(pick_device()).eval()
    forget, retain = random_pairs(64, 0, 1), random_pairs(512, 1, CLASSES - 1)
    original = Original(Features.of(model, forget), Features.of(model, retain), model.logit_scale.item())
    model.narrow_vocabulary([*retain.texts, *forget.texts])  # as `train` does
    config = TrainSettings(steps=1000, learning_rate=1e-4, retain_batch=retain_batch, **settings)
    return Loop(model, create_method(name, {}), retain, config, forget, original)


def seconds_per_step(loop):
    start = now()
    for step in range(STEPS):
        loop.step(step)
    return (now() - start) / STEPS


def now():
    """Seconds, when all that a GPU was asked for is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def compare(loops, rounds, first):
    """Print the median seconds of each loop's step, and its ratio to the loop called `first` in the same round."""
    for loop in loops.values():
        seconds_per_step(loop)
    measured = [{name: seconds_per_step(loop) for name, loop in loops.items()} for _ in range(rounds)]
    for name in loops:
        seconds = statistics.median(one[name] for one in measured)
        ratio = statistics.median(one[name] / one[first] for one in measured)
        print(f"{name:14s} {seconds:7.3f} s   {ratio:5.2f} × {first}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--settings", action="store_true", help="CLIPErase under the settings of the loop")
    parser.add_argument("--model", help="folder, or open_clip name and weights")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    retain = 16 if arguments.settings else 64  # the paper's batch, or ours
    about = f"device {pick_device()}, {torch.get_num_threads()} threads, batch 16 + {retain}"
    print(f"{about}, median of {arguments.rounds} × {STEPS} steps")
    if arguments.settings:
        loops = {name: make_loop(arguments.model, "CLIPErase", retain, **one) for name, one in SETTINGS.items()}
        compare(loops, arguments.rounds, "plain")
    else:
        names = [name for name in method_names() if method_class(name).takes_steps]
        names.remove("ENMN")  # it steps like fine-tune
        compare({name: make_loop(arguments.model, name) for name in names}, arguments.rounds, "fine-tune")


if __name__ == "__main__":
    main()
