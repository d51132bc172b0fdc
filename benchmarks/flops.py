"""What the profile `paper` costs on CIFAR-100: operations that torch counts, and the hours of an A100 that follow.

    python -m benchmarks.flops

Counted are a step of CLIPErase for each batch of the profile, and the encoding of an image, by ViT-B/32 with random
weights. All else is computed from the plans of the experiments. What is not counted stands on the page.
"""

import argparse
import re
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import torch

from benchmarks.gpu_report import markdown
from benchmarks.steps import create_task, library_step
from cliperase.files import whole_file
from cliperase.methods import method_class
from cliperase.settings import TrainSettings, read_params
from paper.experiments import experiment_of
from paper.params import read_profile
from paper.plans.efficiency import gflops
from paper.results import REFERENCES
from paper.search import Candidates, read_search
from paper.stand_ins import CLASSES

MODEL = "ViT-B-32"
COUNTED = ("main", "published", "ablation", "sensitivity", "ratios", "retention")  # on CIFAR-100, they only unlearn
SEARCHED = ("main", "ratios")
IMAGES, TEST = 50_000, 10_000  # of CIFAR-100, with those for validation among the first
PEAK = 312  # TFLOP/s of an A100 in bfloat16, as its maker states it
UTILISATION = 0.03  # of the peak: an assumption, near what an H200 was measured to sustain with so small a batch
CARDS = 8
PAGE = """# What the profile `paper` costs on CIFAR-100: computed, not run

`python -m benchmarks.flops` writes this page. torch {torch} counted these costs of {model} with random weights:

{counts}

{table}

**Assumed, not measured:** an A100 sustains {sustained:.1f} TFLOP/s, {share:.0%} of its peak of {peak} in bfloat16, and
{cards} cards share the runs and wait for nothing. For comparison: an H200 was [measured](nvidia_h200.md) with a step of
16 + 16 rows and `autocast`, at {h200:.1f} TFLOP/s.

- A step is that of CLIPErase, whatever the method.
- A run encodes the training images once, the validation images before it and at each evaluation, and the test images
  once. A candidate of a search encodes no test images.
- Not counted: what methods without steps do beside encoding; the captions of encoded images; reading and decoding.
- Not in the table, because of other data, other models, or more work than unlearning: {left_out}.
"""


def count(model, batches):
    """({(forget batch, retain batch): GFLOP of a step}, GFLOP to encode an image)."""
    tasks = {batch: create_task(model, *batch) for batch in batches}
    steps = {batch: gflops(lambda task=task: library_step(task)(0)) for batch, task in tasks.items()}
    one = next(iter(tasks.values()))  # with gradients: without them torch fuses the attention, which it does not count
    return steps, gflops(lambda: one.model.encode_image(one.forget.images[:1].to(one.model.device)))


def work(run, validation, test):
    """(batch of a step or None, steps, images to encode) of one run; `validation`, `test`: images of these splits."""
    if run.method in REFERENCES:
        return None, 0, validation + test
    training = (IMAGES - validation) * (1 - len(run.absent) / len(CLASSES))
    if not method_class(run.method).takes_steps:
        return None, 0, training + validation + test
    forgotten = len(run.rule.get("classes", [None])) * (IMAGES - validation) // len(CLASSES)
    of_loop = {name: value for name, value in run.settings.items() if name in TrainSettings.model_fields}
    settings = TrainSettings(**of_loop).counted(forgotten)
    looks = 1 + -(-settings.steps // settings.evaluate_every)
    return (settings.forget_batch, settings.retain_batch), settings.steps, training + looks * validation + test


def planned(profile):
    """{experiment or search: its runs}. No search has chosen rates: any will do, because they cost the same."""
    pairs = SimpleNamespace(class_names=[name.replace("_", " ") for name in CLASSES], labels=torch.arange(len(CLASSES)))
    methods = {name: section.get("methods", {}) for name, section in profile.experiments.items()}
    rows = {name: {row: {} for row in listed} for name, listed in methods.items()}
    profile = profile.model_copy(update={"chosen": rows})
    runs = {name: experiment_of(profile, name).plan(profile, pairs) for name in COUNTED}
    for name in SEARCHED:
        search = read_search(profile, name)
        tried = Candidates(profile, search, name, pairs.class_names)
        best = [one for names in tried.names().values() for one in names[: search.kept]]
        runs[f"search of {name}"] = tried.runs(search.concepts) + tried.runs(search.further, best)
    return runs


def costs(runs, steps, image, validation):
    """A line for each experiment: how many runs and steps, PFLOP, hours of one card and of `CARDS`.

    `steps`: {batch: GFLOP of a step}; `image`: GFLOP to encode one; `validation`: images of that split.
    """
    lines = {}
    for name, listed in runs.items():
        asked = [work(run, validation, 0 if name.startswith("search") else TEST) for run in listed]
        spent = sum(number * steps[batch] for batch, number, _ in asked if batch)
        encoded = image * sum(images for *_, images in asked)
        lines[name] = [len(listed), sum(number for _, number, _ in asked), spent / 1e6, encoded / 1e6]
    table = pd.DataFrame(lines, ["runs", "steps", "PFLOP of steps", "PFLOP of encoding"]).T
    table.loc["all of these"] = table.sum()
    hours = (table["PFLOP of steps"] + table["PFLOP of encoding"]) * 1e3 / (PEAK * UTILISATION) / 3600
    return table.assign(**{"hours, one A100": hours, f"hours, {CARDS} A100": hours / CARDS})


def milliseconds(path=Path("benchmarks/results/nvidia_h200.csv")):
    """Of a step of 16 + 16 rows of the same model on an H200."""
    asked = f"model == '{MODEL}' and batch == 16 and setting == 'autocast' and quantity == 'library step'"
    return pd.read_csv(path).query(asked).value.item()


def page(profile, table, steps, image):
    """The Markdown page of `costs`."""
    counts = {f"a step of {forget} + {retain} rows": value for (forget, retain), value in steps.items()}
    counts = pd.Series(counts | {"encoding an image": image}, name="GFLOP").map("{:,.1f}".format)
    shown = table.map("{:,.1f}".format)
    shown[["runs", "steps"]] = table[["runs", "steps"]].map("{:,.0f}".format)
    left_out = ", ".join(f"`{name}`" for name in profile.experiments if name not in COUNTED)
    return PAGE.format(
        torch=torch.__version__, model=MODEL, counts=markdown(counts.rename_axis("counted").reset_index()),
        table=markdown(shown.rename_axis("experiment").reset_index()), sustained=PEAK * UTILISATION, share=UTILISATION,
        peak=PEAK, cards=CARDS, h200=steps[16, 16] / milliseconds(), left_out=left_out,
    )  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/paper_flops.md"))
    output, profile = parser.parse_args().output, read_profile("paper")
    script = read_params("paper/stages.yaml")["tables"]["data_hub"]["paper-cifar100"]["script"]
    validation, runs = int(re.search(r"--validation (\d+)", script)[1]), planned(profile)
    asked = [work(run, validation, TEST)[0] for listed in runs.values() for run in listed]
    steps, image = count(MODEL, sorted(set(filter(None, asked))))
    with whole_file(output) as partial:
        partial.write_text(page(profile, costs(runs, steps, image, validation), steps, image), encoding="utf-8")


if __name__ == "__main__":
    main()
