"""One run, and many: unlearn a copy of the original, measure it on every split, give tidy rows.

Runs are independent and each uses one CPU thread, so a machine with more cores does several at once and
a result does not depend on how many; on a GPU they go one after the other.
"""

import copy
import multiprocessing
import os
import threading
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import pandas as pd
import torch
from tqdm import tqdm

from cliperase.data.pairs import PairSet, load_pairs
from cliperase.data.rules import class_mask, forget_mask
from cliperase.errors import CliperaseError
from cliperase.features import Features, Original, selection
from cliperase.memory import reset_peak
from cliperase.metrics.tasks import task_of
from cliperase.models import load_model
from cliperase.models.base import ImageTextModel, pick_device
from cliperase.unlearning import Recipe
from cliperase.unlearning import Run as Unlearning
from paper.results import COLUMNS, REFERENCES, rows_of
from paper.store import RunStore

FEATURES = Path("artifacts/features")  # of original models, by content; may be deleted at any time
MOST_WORKERS = 8  # each holds the data and a model, about 1 GB


@dataclass(frozen=True)
class Run:
    """One row, one thing to forget, one seed.

    `row` is the results' `method`; `method` names the algorithm, or a reference. `settings`: the method's and the
    loop's in one mapping. `absent`: classes that neither forget nor retain set hold. `watched`: {name: class names}
    whose accuracy is reported as `<name>_accuracy`.
    """

    experiment: str
    row: str
    concept: str
    rule: dict
    seed: int
    method: str
    settings: dict = field(default_factory=dict)
    absent: tuple = ()
    watched: dict = field(default_factory=dict)
    original: int = 0  # the seed of the original that it starts from


@dataclass(frozen=True)
class Place:
    """What runs have in common: the first columns of their rows, the folders of data and original, what is measured.

    A subclass measures something else: it has a `bench` of its own, and its file is the `entry` to the code of a run.
    """

    entry: ClassVar[str] = "paper/runs.py"
    profile: str
    provenance: str
    model_name: str
    data: str
    model: str
    splits: tuple[str, ...]
    workers: int = 0  # processes; 0: one for each core

    def bench(self):
        """The `Bench` that the runs are measured at."""
        return Bench.load(self)

    def identity(self):
        """What rows depend on beside the run, the files and the code, as plain values."""
        return [self.profile, self.provenance, self.model_name, Path(self.data).name, self.splits]

    def original_of(self, run):
        """The folder of the original that a run starts from; see `of_seed` for those of other seeds."""
        return self.beside(Path(self.model).name, run)

    def model_of(self, run):
        """The folder of the model that a run measures or changes; a retrained reference stands beside the original."""
        return self.beside(f"retrain-{run.concept}", run) if run.method == "retrain" else self.original_of(run)

    def beside(self, name, run):
        return str(of_seed(Path(self.model).parent, run.original) / name)


def of_seed(folder, seed):
    """The folder of the models that were pretrained with a seed: `models` of seed 0, `models-1` of seed 1."""
    return folder.with_name(f"{folder.name}-{seed}") if seed else folder


@dataclass
class Bench:
    """The data and the originals, loaded once and shared by all runs of a process."""

    place: Place
    splits: dict[str, PairSet]
    originals: dict[str, ImageTextModel] = field(default_factory=dict)  # by folder
    embedded: dict[tuple, Features] = field(default_factory=dict)  # their features of the training rows
    known: dict[str, dict] = field(default_factory=dict)  # their metrics on validation rows

    @classmethod
    def load(cls, place):
        """Only the splits that are used are read: test images not even that, unless they are measured."""
        used = dict.fromkeys(("train", "validation", *place.splits))
        return cls(place, {split: load_pairs(place.data, split) for split in used})

    def original(self, run):
        """The model that a run starts from. It must not be changed."""
        folder = self.place.original_of(run)
        if folder not in self.originals:
            self.originals[folder] = load_model(folder, pick_device())
        return self.originals[folder]

    def features(self, run, autocast):
        """The original's features of the training rows, in the precision of the run."""
        key = (self.place.original_of(run), autocast)
        if key not in self.embedded:
            self.embedded[key] = Features.kept(self.original(run), self.splits["train"], FEATURES, autocast)
        return self.embedded[key]

    def before(self, run, validation, forgotten):
        """The original's metrics on these validation rows, which many runs have in common."""
        key = f"{self.place.original_of(run)} {selection(validation, forgotten)}"
        if key not in self.known:
            self.known[key] = task_of(validation).measure(self.original(run), validation, forgotten)
        return self.known[key]

    @property
    def about(self):
        """The columns of the results that all runs share."""
        place = self.place
        about = {"profile": place.profile, "model": place.model_name, "provenance": place.provenance}
        return about | {"dataset": Path(place.data).name}

    def unlearn(self, run):
        """A copy of the original, unlearned and selected on validation data. (model, history)"""
        training, validation = self.splits["train"], self.splits["validation"]
        recipe, start = Recipe.of(run.method, run.settings, run.seed), self.original(run)
        features = self.features(run, recipe.training.autocast)
        if run.absent:  # neither trained on nor in what selects the checkpoint
            present = ~class_mask(training, run.absent)
            training, features = training.select(present), features.select(present)
            validation = validation.select(~class_mask(validation, run.absent))
        mask, forgotten = forget_mask(training, run.rule), forget_mask(validation, run.rule)
        model = copy.deepcopy(start)
        original = Original(features.select(mask), features.select(~mask), model.logit_scale.item())
        history = Unlearning(
            model, recipe, training.select(mask), training.select(~mask), validation, forgotten, original,
            self.before(run, validation, forgotten), progress=False,
        ).carry_out()  # fmt: skip
        return model, history

    def rows(self, run):
        """The tidy rows of one run, all measured splits."""
        reset_peak()
        model, history, seconds = self.made(run)
        validation = history and self.selection_metrics(run, model, history)
        about, rows = self.about_run(run), []
        for split in self.splits:
            if split != "train":
                known = validation if split == "validation" and not run.watched else None
                rows += rows_of({**about, "split": split}, known or self.measure(model, split, run), seconds)
        return rows

    def made(self, run):
        """(model, history, seconds) of a run; a reference is loaded, and has no history."""
        if run.method in REFERENCES:
            return load_model(self.place.model_of(run), pick_device()), None, 0.0
        start = time.perf_counter()
        return *self.unlearn(run), round(time.perf_counter() - start, 2)

    def about_run(self, run):
        """The columns that say which run a row is of."""
        return self.about | {
            "experiment": run.experiment, "method": run.row, "concept": run.concept, "seed": str(run.seed)
        }  # fmt: skip

    def selection_metrics(self, run, model, history):
        """The validation metrics of the checkpoint that was kept, its step, and the shares of weights that changed and
        of the budget that was used: 100 % where the last checkpoint was the best."""
        known = {name: value for name, value in history.validation.items() if name not in ("score", "remaining")}
        steps = history.log[-1]["step"]
        return {
            **known,
            "selection_score": history.validation["score"],
            "selected_step": history.best_step,
            "changed_parameters": changed_parameters(self.original(run), model),
            **({"used_budget": 100 * history.best_step / steps} if steps else {}),
        }

    def measure(self, model, split, run):
        pairs = self.splits[split]
        task = task_of(pairs)
        # a concept may have no drawing from another source
        forgotten = forget_mask(pairs, run.rule, required=split != "heldout")
        metrics = task.measure(model, pairs, forgotten, **({"watched": run.watched} if run.watched else {}))
        if split == "validation":
            return metrics | {"selection_score": task.score(metrics, self.before(run, pairs, forgotten))}
        return metrics | model.further_metrics(pairs, forgotten)


@torch.no_grad()
def changed_parameters(before, after):
    """Percent of the scalar weights that are not what they were."""
    pairs = list(zip(before.parameters(), after.parameters(), strict=True))
    changed = sum((a != b).sum().item() for a, b in pairs)
    return 100 * changed / sum(a.numel() for a, _ in pairs)


def run_all(place, runs, alone=False):
    """The rows of all runs, a results table. Runs that the store has are not run again.

    `alone`: one after the other, each in a process of its own and never from the store, so that seconds and memory can
    be read.
    """
    check_runs(runs)
    store = None if alone else RunStore(place)
    rows = {number: store.get(run) for number, run in enumerate(runs)} if store else {}
    missing = [number for number in range(len(runs)) if rows.get(number) is None]
    finished = each_run(place, [runs[number] for number in missing], alone)
    for position, found in tqdm(finished, total=len(missing), desc=runs[0].experiment):
        rows[missing[position]] = found
        if store:
            store.put(runs[missing[position]], found)
    return pd.DataFrame([row for number in range(len(runs)) for row in rows[number]])[COLUMNS]


def check_runs(runs):
    """Settings are looked at before anything slow starts."""
    if not runs:
        raise CliperaseError("no run in this experiment; name concepts, rows and seeds in the profile")
    for run in runs:
        if run.method not in REFERENCES:
            try:
                Recipe.of(run.method, run.settings, run.seed)
            except CliperaseError as error:
                raise CliperaseError(f"experiment {run.experiment!r}, row {run.row!r}: {error}") from None


def each_run(place, runs, alone):
    """Yield (number, rows) of each run when it is done, from as many processes as there are cores."""
    cores = 1 if torch.cuda.is_available() else place.workers or os.cpu_count()
    workers = 1 if alone else min(cores, MOST_WORKERS, len(runs))
    if not runs:
        return
    if workers == 1 and not alone:
        bench = open_bench(place)
        yield from ((number, bench.rows(run)) for number, run in enumerate(runs))
        return
    # not plainly forked, because children inherit locks of torch's threads; the server has imports only, and no thread
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["paper.workers"])
    once = 1 if alone else None  # a process of its own: nobody else's memory
    with ProcessPoolExecutor(workers, context, end_with_parent, max_tasks_per_child=once) as pool:
        waiting = {pool.submit(run_here, place, run): number for number, run in enumerate(runs)}
        try:
            for future in as_completed(waiting):
                yield waiting[future], future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # after an error nobody wants the others


def open_bench(place):
    """The bench of this process, of one thread."""
    torch.set_num_threads(1)
    return place.bench()


def end_with_parent():
    """A worker whose parent is killed ends, too; it would wait for work for ever."""
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


own_bench = lru_cache(maxsize=1)(open_bench)  # a worker keeps the one that it works at


def run_here(place, run):
    return own_bench(place).rows(run)
