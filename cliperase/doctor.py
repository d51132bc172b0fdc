"""`cliperase doctor`: list problems and fixes before a run starts, and estimate its time and memory."""

import shutil
import time
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

import torch
from packaging.requirements import Requirement

from cliperase.data.leakage import pictures_on_two_sides, told
from cliperase.data.pairs import PairSet
from cliperase.data.shards import MOST_FORGET, shards_of
from cliperase.data.source import Shards, Tables, TrainingRows, open_source
from cliperase.data.templates import read_templates
from cliperase.errors import CliperaseError
from cliperase.files import check_outside, check_writable
from cliperase.manifest import CHECKPOINT, check_free
from cliperase.memory import peak_megabytes, reset_peak
from cliperase.metrics.encode import encode_images
from cliperase.metrics.tasks import check_texts
from cliperase.models import load_model
from cliperase.models.base import ImageTextModel, pick_device
from cliperase.models.framing import Resized
from cliperase.settings import TrainSettings
from cliperase.unlearning import Recipe, Run, check_streamable, embed

WARM_UP, MEASURED = 2, 5  # steps
SMALL = Resized((32, 32))  # pictures, if no model could be loaded
COPIES = 8  # of the weights on disk: two checkpoints (old and new) of four each (weights, best weights, Adam's two)
KEPT = 5  # in memory beside the step: the best weights, and a checkpoint's copies while it is written


@dataclass(frozen=True)
class Finding:
    """The result of one check: what is there, or the problem with its fix. A run starts beside a `warning`, but not
    where something is `missing`."""

    subject: str
    said: str
    missing: bool = False
    warning: bool = False


def examine(model, data, rule, method, settings, output, runs=1, templates=None):
    """Yield the `Finding`s of a run of `cliperase unlearn` with these arguments, cheapest first.

    The arguments are those of `api.unlearn`. `runs`: how many such runs there are to be, for the time of them all.
    Nothing is written but a probe in the output's folder.
    """
    yield from Examination(model, data, rule, method, settings, output, templates).findings(runs)


def packages():
    """Packages that are missing or too old, or one line saying that all are there."""
    wanted = [Requirement(line) for line in metadata.requires("cliperase") or ()]
    wanted = [one for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]
    wrong = []
    for one in wanted:
        try:
            version = metadata.version(one.name)
        except metadata.PackageNotFoundError:
            version = None
        if version is None or not one.specifier.contains(version, prereleases=True):
            wrong.append(Finding("packages", f"{one} is needed, found {version}; pip install '{one}'", missing=True))
    return wrong or [Finding("packages", f"all {len(wanted)} as needed, torch {torch.__version__}")]


def device():
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        said = f"{torch.cuda.get_device_name()}, {free / 2**30:.1f} of {total / 2**30:.1f} GB free"
    else:
        said = f"no GPU; {torch.get_num_threads()} CPU threads"
    return Finding("device", said)


class Examination:
    """What a run needs, looked at one after the other; what could be loaded is kept for the cost."""

    fewest = 0  # rows to forget that are read of what is streamed; of the costs, as many as are measured
    recipe: Recipe | None = None
    defaults: str | None = None  # where settings that nobody gave come from
    model: ImageTextModel | None = None
    validation: PairSet | None = None
    forgotten: torch.Tensor | None = None
    opened: Shards | Tables
    training: TrainingRows | None = None

    def __init__(self, model, data, rule, method, settings, output, templates=None):
        self.source, self.data, self.rule, self.templates = model, data, rule, templates
        self.method, self.settings, self.output = method, settings, output

    def findings(self, runs=1):
        """All `Finding`s, as of `examine`."""
        yield from self.looks()
        yield from self.costs(runs)

    def looks(self):
        """The `Finding`s of what is there."""
        yield from packages()
        yield device()
        for subject in ("method", "output", "model", "data"):
            try:
                yield Finding(subject, getattr(self, f"look_at_{subject}")())
            except CliperaseError as error:
                yield Finding(subject, str(error), missing=True)
        checkpoint = Path(self.output) / CHECKPOINT
        if checkpoint.exists():
            said = "is there: the run that left it goes on from it, any other stops; delete it to start anew"
            yield Finding("output", f"{checkpoint} {said}", warning=True)
        if self.training and self.validation:
            lines = told(pictures_on_two_sides(self.validation, self.training))
            yield from (Finding("leakage", line, warning=True) for line in lines)
        if self.model and Path(self.output).is_dir():  # it is, where it can be written
            steps = self.recipe is None or self.recipe.method.takes_steps
            yield disk(self.model, self.output, COPIES if steps else 2)

    def costs(self, runs=1):
        """Those of time and memory, where nothing is missing that they need. The steps train the model."""
        try:
            if self.complete:
                yield from cost(self, runs)
        except CliperaseError as error:
            yield Finding("steps", str(error), missing=True)
        except torch.OutOfMemoryError:
            yield Finding("memory", "the device has too little for one step; set micro_batch or autocast", missing=True)

    @property
    def complete(self):
        """Whether method, model and data are there."""
        return bool(self.recipe and self.model and self.validation is not None)

    def look_at_method(self):
        self.recipe, _, _ = Recipe.completed(self.method, self.settings)
        training = self.recipe.training
        budget = f"{training.steps} steps" if training.epochs is None else f"{training.epochs:g} epochs"
        return f"{self.method}, {budget if self.recipe.method.takes_steps else 'no steps'}"

    def look_at_output(self):
        check_writable(Path(self.output) / "report.json")
        check_outside(self.output, self.data)
        check_free(self.output, self.source)
        return f"{self.output} can be written"

    def look_at_model(self):
        model = self.model = load_model(self.source, pick_device())
        millions = sum(p.numel() for p in model.parameters()) / 1e6
        height, width = model.framing.size
        said = f"{self.source}, {millions:.1f} million weights, images of {height} × {width} pixels"
        if self.recipe:
            self.recipe, _, self.defaults = Recipe.completed(self.method, self.settings, model=model)
            said += f"; the settings are defaults, {self.defaults}" if self.defaults else ""
        return said

    def look_at_data(self):
        framing = self.model.framing if self.model else SMALL
        settings = self.recipe.training if self.recipe else TrainSettings(broken_percent=100.0)
        given = {"templates": read_templates(self.templates), "stream": settings.stream}
        source = self.opened = open_source(self.data, split="train", framing=framing, **given)
        if isinstance(source, Shards):
            found = f"{len(shards_of(source.source, 'train'))} training shards; to forget"
        else:
            training = self.training = source.load_training(self.rule, framing, settings, None)
            # pyrefly: ignore[bad-argument-type] – of tables all rows are in memory
            found = f"to forget {len(training.forget)} of {len(training.pairs)} training rows and"
        validation, forgotten = source.load_split("validation", self.rule, framing, settings.broken_percent)
        self.validation, self.forgotten = validation, forgotten
        if self.model:
            check_texts(self.model, validation)
        return f"{self.data}: {found} {forgotten.sum()} of {len(validation)} validation rows"

    def rows(self, model, recipe):
        """The `TrainingRows`; of what is streamed, the first ones to forget."""
        if self.training is None:
            most = max(self.fewest, MEASURED * recipe.training.forget_batch)
            self.training = self.opened.load_training(self.rule, model.framing, recipe.training, most)
        return self.training


def bytes_of(model):
    return sum(t.numel() * t.element_size() for t in model.state_dict().values())


def disk(model, output, copies=COPIES):
    """Whether the result fits, and the checkpoints before it, if there are any."""
    needed = copies * bytes_of(model)
    free = shutil.disk_usage(output).free
    said = f"{free / 2**30:.1f} GB free, a run needs {needed / 2**30:.2f} GB"
    return Finding("disk", said if free > needed else f"{said}; name another folder or make room", free <= needed)


def cost(examination, runs=1):
    """Seconds and memory of the whole run, from a few steps of it and the encoding of a few images."""
    model, recipe, validation = examination.model, examination.recipe, examination.validation
    training, settings = examination.rows(model, recipe), recipe.training
    streamed = training.streamed
    check_streamable(recipe, training.retain)
    forget = first_rows(training.forget, MEASURED * settings.forget_batch)
    retain = training.retain if streamed else first_rows(training.retain, MEASURED * settings.retain_batch)
    settings = settings.counted(MOST_FORGET if streamed else len(training.forget))
    reset_peak()
    encode_images(model, forget.images[:8])  # warm-up
    start = time.perf_counter()
    original = embed(model, forget, retain, recipe.training.autocast)
    encoding = (time.perf_counter() - start) / (len(forget) + (0 if streamed else len(retain)))
    if not recipe.method.takes_steps:
        yield Finding("time", f"{encoding * 1e3:.1f} ms to encode a row; {recipe.name} takes no steps")
        return
    rows = MOST_FORGET if streamed else len(training.pairs)  # the original is asked of so many
    preparing = 0.0
    if recipe.method.replaces_data:
        preparing, original, rows = seconds_to_prepare(model, recipe, forget, retain, training.pairs), None, 0
    run = Run(model, recipe, forget, retain, validation, examination.forgotten, original, progress=False)
    seconds_of(run, WARM_UP)
    step = seconds_of(run, MEASURED) / MEASURED
    looks = (1 + -(-settings.steps // settings.evaluate_every)) * len(validation)
    total = preparing + settings.steps * step + encoding * (rows + looks)
    said = f"{step:.2f} s a step, {encoding * 1e3:.1f} ms to encode a row: about {total / 60:.1f} min for the run"
    if streamed:
        said += f", with {MOST_FORGET} rows to forget, the most; before it the shards are read for them"
    yield Finding("time", said + (f", {runs * total / 3600:.1f} h for {runs} of them" if runs > 1 else ""))
    yield memory(model, None if streamed or not settings.resident else training.pairs)


def seconds_to_prepare(model, recipe, forget, retain, pairs):
    """Seconds until a method has replaced the data, all `pairs`: it takes time by their texts."""
    texts, start = len(forget.texts_used(0)) + len(retain.texts_used(0)), time.perf_counter()
    recipe.method.prepare(model, forget, retain, recipe.training.seed)
    return (time.perf_counter() - start) * len(pairs.texts_used(0)) / texts


def memory(model, resident=None):
    """What was used since the last `reset_peak`, and what a run holds beside it. `resident`: pairs on the device."""
    said = f"{peak_megabytes() / 1024:.1f} GB at the peak of {MEASURED} steps, and up to "
    said += f"{KEPT * bytes_of(model) / 2**30:.2f} GB for the best weights and a checkpoint"
    if resident is not None:
        said += f", {resident.images.numel() / 2**30:.2f} GB for resident images"
    return Finding("memory", said)


def first_rows(pairs, count):
    """The first `count` rows, with no captions but theirs."""
    few = pairs.select(torch.arange(len(pairs)) < count)
    used, text_ids = few.text_ids.unique(return_inverse=True)
    return replace(few, texts=[few.texts[i] for i in used.tolist()], text_ids=text_ids)


def seconds_of(run, steps):
    """Seconds of so many steps of a run, without its evaluations."""
    short = run.recipe.training.counted(1).model_copy(update={"steps": steps, "evaluate_every": steps})
    return replace(run, recipe=replace(run.recipe, training=short), validation=None).carry_out().seconds
