"""`make bench`: what a step of the library costs beside the bare one and the paper's plain loop, in time and memory.

    python -m benchmarks.bench
    python -m benchmarks.bench --cases compact "compact, shards" --output /tmp/steps

Writes `steps.csv` and `steps.md`, on two free cores in a few minutes. Every case is timed in a process of its own,
in which the steps take turns, and every peak of memory is that of a process of its own. Seconds are of this machine and
of what else runs on it; the ratios are what counts.
"""

import argparse
import multiprocessing
import statistics
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
import torch

from benchmarks.gpu import ratio
from benchmarks.gpu_report import markdown
from benchmarks.steps import (
    bare_step,
    create_task,
    decoding,
    library_step,
    named_model,
    plain_step,
    seconds_per_step,
    take_turns,
    write_shards,
)
from cliperase.files import whole_file
from cliperase.memory import peak_megabytes, reset_peak
from cliperase.models.base import pick_device

COLUMNS = ["case", "model", "data", "batch", "quantity", "value", "unit"]
TENFOLD = 10
IMPORTED = ["benchmarks.steps", "paper.small_blip"]  # once for all processes, which takes each of them five seconds
RATIOS = {  # quantity -> (one, the other), kinds of steps
    "over bare": ("library", "bare"),
    "over bare with teacher": ("library", "bare with teacher"),
    "plain loop over library": ("plain loop", "library"),
}
SHOWN = {  # column of the page -> (quantity, digits)
    "a step, ms": ("library step", 1),
    "over bare": ("over bare", 2),
    "over bare with teacher": ("over bare with teacher", 2),
    "plain loop over it": ("plain loop over library", 2),
    "decoding alone, ms": ("decoding step", 1),
    "peak, MB": ("library peak", 0),
    "peak over bare's": ("peak over bare", 2),
    "tenfold data: peak over": ("tenfold peak over peak", 2),
}
PAGE = """# Steps of CLIPErase

`make bench` wrote this page. {about}.
Seconds are of this machine; the ratios are what counts. They are medians of rounds in which the steps took turns.

{table}

- A step: from drawing rows to the weights. Bare: forward, backward and Adam for the same images and distinct texts, and
  nothing else. A stream's rows come once, so the original reads them beside the student in every step; `with teacher`,
  the bare step has that, too.
- The plain loop: each batch through the towers by itself, captions in full length however often they come, the original
  beside the student, Adam over all weights, pictures decoded when they are needed.
- Peak: resident memory of a process of its own, beyond imports and one model, data included. Bare's is that with its
  teacher, where there is one. Tenfold: ten times the rows in memory, or ten times the shards.
"""


@dataclass(frozen=True)
class Case:
    """A model (`named_model`), the forget and retain rows of a step, the side of JPEGs in shards or None for data in
    memory, and how much is measured: `rounds` of `steps`, and the peak of `until` steps."""

    model: str
    forget: int
    retain: int
    side: int | None = None
    rounds: int = 5
    steps: int = 10
    until: int = 3

    @property
    def bare(self):
        """The kind of bare step that has what the library's cannot do without."""
        return "bare with teacher" if self.side else "bare"


LARGE = {"rounds": 3, "steps": 1, "until": 2}
CASES = {  # a lane of a stream holds 500 samples, which takes 30 steps
    "compact": Case("compact", 16, 128),
    "compact BLIP": Case("compact BLIP", 16, 128),
    "ViT-B-32": Case("ViT-B-32", 8, 8, **LARGE),
    "compact, shards": Case("compact", 16, 128, side=64, until=30),
    "ViT-B-32, shards": Case("ViT-B-32", 8, 8, side=256, **LARGE),
}


def steps_of(case, task):
    """{kind: a function that makes its step}."""
    kinds = {"bare": bare_step, "library": library_step, "plain loop": plain_step}
    if case.side:
        kinds |= {"bare with teacher": partial(bare_step, teacher=True)}
        kinds |= {"decoding": lambda task: decoding(task, task.retain_batch)}
    return {kind: partial(make, task) for kind, make in kinds.items()}


def timed(case, shards):
    """[(quantity, value, unit)] of one case."""
    task = create_task(case.model, case.forget, case.retain, shards)
    made = {kind: make() for kind, make in steps_of(case, task).items()}
    seconds = take_turns(made, case.rounds, case.steps)
    rows = [(f"{kind} step", 1000 * statistics.median(one), "ms") for kind, one in seconds.items()]
    return rows + [
        (name, ratio(seconds[one], seconds[other]), "1") for name, (one, other) in RATIOS.items() if other in seconds
    ]


def peak(case, kind, shards, growth=1):
    """MB at most, beyond what there was before the data and the step were made, but for the model."""
    named_model(case.model)
    reset_peak()
    before = peak_megabytes()
    task = create_task(case.model, case.forget, case.retain, shards, growth)
    seconds_per_step(steps_of(case, task)[kind](), case.until)
    return peak_megabytes() - before


def measure(name, case, folder):
    """The rows of one case, each measurement in a process of its own."""
    one, ten = (prepare_shards(folder, case.side, copies) for copies in (1, TENFOLD)) if case.side else (None, None)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    with context.Pool(1, maxtasksperchild=1) as pool:
        rows = pool.apply(timed, (case, one))
        peaks = {kind: pool.apply(peak, (case, kind, one)) for kind in (case.bare, "library")}
        tenfold = pool.apply(peak, (case, "library", ten, 1 if case.side else TENFOLD))
    rows += [(f"{kind} peak", value, "MB") for kind, value in peaks.items()]
    rows += [
        ("peak over bare", peaks["library"] / peaks[case.bare], "1"),
        ("tenfold peak over peak", tenfold / peaks["library"], "1"),
    ]
    about = (name, case.model, "shards" if case.side else "memory", f"{case.forget} + {case.retain}")
    return [dict(zip(COLUMNS, (*about, *row), strict=True)) for row in rows]


def prepare_shards(folder, side, copies):
    """A folder of shards, each linked so many times."""
    written, links = Path(folder) / f"{side}", Path(folder) / f"{side}-{copies}"
    if not written.is_dir():
        written.mkdir()
        write_shards(written, side)
    links.mkdir()
    for copy in range(copies):
        for shard in written.glob("*.tar"):
            (links / f"{copy:03d}-{shard.name}").symlink_to(shard)
    return links


def page(table):
    """The Markdown page of the table of results."""
    wide = table.pivot_table(index=["case", "batch"], columns="quantity", values="value", sort=False)
    lines = {
        column: wide[name].map(f"{{:.{digits}f}}".format) for column, (name, digits) in SHOWN.items() if name in wide
    }
    machine = f"On {pick_device()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    return PAGE.format(about=machine, table=markdown(pd.DataFrame(lines).replace("nan", "–").reset_index()))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"), help="a folder")
    given, rows = parser.parse_args(), []
    for name in given.cases:
        with tempfile.TemporaryDirectory() as folder:
            rows += measure(name, CASES[name], folder)
        told = [f"{row['quantity']} {row['value']:.3g}" for row in rows if row["case"] == name]
        print(f"{name}: {', '.join(told)}", flush=True)
    table = pd.DataFrame(rows, columns=COLUMNS)
    given.output.mkdir(parents=True, exist_ok=True)
    with whole_file(given.output / "steps.csv") as partial_file:
        table.to_csv(partial_file, index=False, float_format="%.5g", lineterminator="\n")
    with whole_file(given.output / "steps.md") as partial_file:
        partial_file.write_text(page(table), encoding="utf-8")


if __name__ == "__main__":
    main()
