"""One run, and many: unlearn a copy of the original, measure it on every split, give tidy rows.

Runs are independent and each uses one CPU thread, so a machine with more cores does several at once and
a result does not depend on how many; on a GPU they go one after the other.
"""

import copy
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import torch
from tqdm import tqdm

from cliperase.data.pairs import PairSet, load_pairs
from cliperase.data.rules import class_mask, forget_mask
from cliperase.errors import CliperaseError
from cliperase.features import Features, Original
from cliperase.memory import reset_peak
from cliperase.methods import method_names
from cliperase.metrics.tasks import task_of
from cliperase.models import load_model
from cliperase.models.base import ImageTextModel, pick_device
from cliperase.unlearning import Recipe
from cliperase.unlearning import Run as Unlearning
from paper.results import COLUMNS, REFERENCES, rows_of

FEATURES = Path("artifacts/features")  # of original models, by content; may be deleted at any time
MOST_WORKERS = 8  # each holds the data and a model, about 1 GB


@dataclass(frozen=True)
class Run:
    """One row, one thing to forget, one seed. `row` is the results' `method`; `method` names the
    algorithm, or a reference. `absent`: classes that neither forget nor retain set hold. `watched`: {name: class
    names} whose accuracy is reported as `<name>_accuracy`."""

    experiment: str
    row: str
    concept: str
    rule: dict
    seed: int
    method: str
    settings: dict = field(default_factory=dict)
    training: dict = field(default_factory=dict)
    absent: tuple = ()
    watched: dict = field(default_factory=dict)


@dataclass
class Bench:
    """Data, original model and its training features, loaded once and shared by all runs of a process."""

    about: dict
    model: ImageTextModel
    model_folder: Path
    splits: dict[str, PairSet]
    training_features: Features

    @classmethod
    def load(cls, params, data, model_folder, splits):
        """`splits`: the ones that are measured; test images are not even read unless they are named."""
        model = load_model(model_folder, pick_device())
        loaded = {split: load_pairs(data, split) for split in dict.fromkeys(("train", "validation", *splits))}
        about = {key: params[key] for key in ("profile", "model", "provenance")} | {"dataset": Path(data).name}
        return cls(about, model, Path(model_folder), loaded, Features.kept(model, loaded["train"], FEATURES))

    def unlearn(self, run):
        """A copy of the original, unlearned and selected on validation data. (model, history)"""
        training, validation = self.splits["train"], self.splits["validation"]
        features = self.training_features
        if run.absent:  # neither trained on nor in what selects the checkpoint
            present = ~class_mask(training, run.absent)
            training, features = training.select(present), features.select(present)
            validation = validation.select(~class_mask(validation, run.absent))
        mask, forgotten = forget_mask(training, run.rule), forget_mask(validation, run.rule)
        model = copy.deepcopy(self.model)
        original = Original(features.select(mask), features.select(~mask), model.logit_scale.item())
        history = Unlearning(
            model, recipe_of(run), training.select(mask), training.select(~mask), validation, forgotten, original,
            progress=False,
        ).carry_out()  # fmt: skip
        return model, history

    def rows(self, run):
        """The tidy rows of one run, all measured splits."""
        reset_peak()
        start = time.perf_counter()
        about = self.about | {"experiment": run.experiment, "method": run.row, "concept": run.concept}
        about["seed"] = str(run.seed)
        seconds, validation = 0.0, None
        if run.method in REFERENCES:
            folder = self.model_folder
            model = load_model(
                folder.with_name(f"retrain-{run.concept}") if run.method == "retrain" else folder, pick_device()
            )
        else:
            model, history = self.unlearn(run)
            seconds = round(time.perf_counter() - start, 2)
            validation = self.selection_metrics(model, history)
        rows = []
        for split in self.splits:
            if split != "train":
                known = validation if split == "validation" and not run.watched else None
                rows += rows_of({**about, "split": split}, known or self.measure(model, split, run), seconds)
        return rows

    def selection_metrics(self, model, history):
        """What validation already measured of the checkpoint that was kept, and what it cost."""
        known = {name: value for name, value in history.validation.items() if name not in ("score", "remaining")}
        return {
            **known,
            "selection_score": history.validation["score"],
            "selected_step": history.best_step,
            "changed_parameters": changed_parameters(self.model, model),
        }

    def measure(self, model, split, run):
        pairs = self.splits[split]
        task = task_of(pairs)
        # a concept may have no drawing from another source
        forgotten = forget_mask(pairs, run.rule, required=split != "heldout")
        metrics = task.measure(model, pairs, forgotten, **({"watched": run.watched} if run.watched else {}))
        if split == "validation":
            return metrics | {"selection_score": task.score(metrics)}
        return metrics | model.further_metrics(pairs, forgotten)


@torch.no_grad()
def changed_parameters(before, after):
    """Percent of the scalar weights that are not what they were."""
    pairs = list(zip(before.parameters(), after.parameters(), strict=True))
    changed = sum((a != b).sum().item() for a, b in pairs)
    return 100 * changed / sum(a.numel() for a, _ in pairs)


def run_all(params, data, model_folder, runs, splits, alone=False):
    """The rows of all runs, a results table. `alone`: one after the other, so that seconds and memory can be read."""
    check_runs(runs)
    workers = 1 if alone or torch.cuda.is_available() else params.get("workers") or os.cpu_count()
    workers = min(workers, MOST_WORKERS, len(runs))
    where = (params, data, model_folder, splits)
    if workers == 1 and not alone:
        open_bench(*where)
        tables = [run_here(run) for run in tqdm(runs, desc=runs[0].experiment)]
    else:
        # not plainly forked, for children inherit locks of torch's threads; the server has imports only, and no thread
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["paper.workers"])
        once = 1 if alone else None  # a process of its own: nobody else's memory
        with ProcessPoolExecutor(workers, context, open_bench, where, max_tasks_per_child=once) as pool:
            tables = list(tqdm(pool.map(run_here, runs), total=len(runs), desc=runs[0].experiment))
    return pd.DataFrame([row for table in tables for row in table])[COLUMNS]


def recipe_of(run):
    return Recipe.of(run.method, {**run.training, **run.settings}, run.seed)


def check_runs(runs):
    """Settings are looked at before anything slow starts."""
    if not runs:
        raise CliperaseError("no run in this experiment; name concepts, rows and seeds in the parameters")
    for run in runs:
        if run.method in method_names():
            recipe_of(run)
        elif run.method not in REFERENCES:
            known = ", ".join([*REFERENCES, *method_names()])
            raise CliperaseError(f"method {run.method!r} unknown; choose one of {known}")


def open_bench(params, data, model_folder, splits):
    """Load the bench of this process; what is wrong with it is told by the first run, not by a dead worker."""
    global BENCH
    torch.set_num_threads(1)
    try:
        BENCH = Bench.load(params, data, model_folder, splits)
    except CliperaseError as error:
        BENCH = error


def run_here(run):
    if isinstance(BENCH, CliperaseError):
        raise BENCH
    return BENCH.rows(run)
