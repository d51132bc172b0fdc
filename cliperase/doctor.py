"""`cliperase doctor`: what would stop a run on this machine, said before it starts, and what the run would cost."""

import dataclasses
import shutil
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import torch
from packaging.requirements import Requirement

from cliperase.data.pairs import load_pairs
from cliperase.data.rules import forget_mask
from cliperase.data.shards import MOST_FORGET, Stream, is_sharded, load_forget, load_shards, shards_of
from cliperase.errors import CliperaseError
from cliperase.features import Features, LiveFeatures, Original
from cliperase.files import check_writable
from cliperase.loop import train
from cliperase.memory import peak_megabytes, reset_peak
from cliperase.metrics.encode import encode_images
from cliperase.models import load_model
from cliperase.models.base import pick_device
from cliperase.unlearning import check_streamable, configure

WARM_UP, MEASURED = 2, 5  # steps
SMALL = 32  # pixels of the pictures that are looked at, where no model says how large
COPIES = 8  # of the weights on disk: while a checkpoint (weights, best ones, Adam's two) is written, the last one stays
KEPT = 5  # in memory beside the step: the best weights, and a checkpoint's copies while it is written


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: what was found, or what is missing with its remedy."""

    subject: str
    said: str
    missing: bool = False


def examine(model, data, rule, method, settings, output, runs=1):
    """Yield the `Finding`s of a run of `cliperase unlearn` with these arguments, cheapest first.

    `settings`: the method's and the loop's, mixed, as `api.unlearn` takes them. `runs`: how many such runs there are to
    be, for the time of them all. Nothing is written but a probe in the output's folder.
    """
    yield from packages()
    yield device()
    found = {}
    looks = (
        ("method", lambda: look_at_method(method, settings, found)),
        ("output", lambda: look_at_output(output)),
        ("model", lambda: look_at_model(model, found)),
        ("data", lambda: look_at_data(data, rule, found)),
    )
    for subject, look in looks:
        try:
            yield Finding(subject, look())
        except CliperaseError as error:
            yield Finding(subject, str(error), missing=True)
    if "model" in found and Path(output).is_dir():  # it is, where it can be written
        edits = "method" in found and not found["method"].takes_steps
        yield disk(found["model"], output, 2 if edits else COPIES)
    if {"method", "model", "validation"} <= set(found):
        try:
            yield from cost(**found, runs=runs)
        except CliperaseError as error:
            yield Finding("steps", str(error), missing=True)
        except torch.OutOfMemoryError:
            yield Finding("memory", "the device has too little for one step; set micro_batch or autocast", missing=True)


def packages():
    """Packages that are absent or too old for this one, or one line that says none is."""
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


def look_at_method(method, settings, found):
    found["method"], found["config"] = configure(method, settings, seed=0)
    return f"{method}, {found['config'].steps} steps" if found["method"].takes_steps else f"{method}, no steps"


def look_at_output(output):
    check_writable(Path(output) / "report.json")
    return f"{output} can be written"


def look_at_model(model, found):
    found["model"] = load_model(model, pick_device())
    millions = sum(p.numel() for p in found["model"].parameters()) / 1e6
    return f"{model}, {millions:.1f} million weights, images of {found['model'].image_size} pixels"


def look_at_data(data, rule, found):
    if is_sharded(data):
        return look_at_shards(data, rule, found)
    training, validation = load_pairs(data, "train"), load_pairs(data, "validation")
    mask, seen = forget_mask(training, rule), forget_mask(validation, rule)
    found |= {"training": training, "mask": mask, "validation": validation}
    return (
        f"{data}: to forget {mask.sum()} of {len(training)} training rows and {seen.sum()} of {len(validation)} "
        "validation rows"
    )


def look_at_shards(folder, rule, found):
    size = found["model"].image_size if "model" in found else SMALL
    count = len(shards_of(folder, "train"))
    allowed = found["config"].broken_percent if "config" in found else 100.0
    validation, seen = load_shards(folder, "validation", rule, size, allowed)
    found |= {"shards": (folder, rule, size), "validation": validation}
    return f"{folder}: {count} training shards; to forget {seen.sum()} of {len(validation)} validation rows"


def bytes_of(model):
    return sum(t.numel() * t.element_size() for t in model.state_dict().values())


def disk(model, output, copies=COPIES):
    """Whether the result fits, and the checkpoints before it, if there are any."""
    needed = copies * bytes_of(model)
    free = shutil.disk_usage(output).free
    said = f"{free / 2**30:.1f} GB free, a run needs {needed / 2**30:.2f} GB"
    return Finding("disk", said if free > needed else f"{said}; name another folder or make room", free <= needed)


def cost(model, method, config, validation, training=None, mask=None, shards=None, runs=1):
    """Seconds and memory of the whole run, from a few steps of it and the encoding of a few images.

    The rows are those of `training` under `mask`, or those of `shards`: folder, rule and image size.
    """
    if shards:
        check_streamable(method)
        forget = load_forget(*shards, config.broken_percent, most=MEASURED * config.forget_batch)
        retain = Stream(*shards, config.retain_batch, config.seed, config.lanes, config.broken_percent)
    else:
        forget = first_rows(training, mask, MEASURED * config.forget_batch)
        retain = first_rows(training, ~mask, MEASURED * config.retain_batch)
    reset_peak()
    encode_images(model, forget.images[:8])  # warm-up
    start = time.perf_counter()
    encoded = [Features.of(model, pairs) for pairs in (forget, *([] if shards else [retain]))]
    encoding = (time.perf_counter() - start) / sum(len(one.image) for one in encoded)
    original = Original(encoded[0], LiveFeatures(model) if shards else encoded[1], model.logit_scale.item())
    if not method.takes_steps:
        yield Finding("time", f"{encoding * 1e3:.1f} ms to encode a row; {type(method).__name__} takes no steps")
        return
    rows, preparing = MOST_FORGET if shards else len(training), 0.0  # rows of which the original is asked first
    if method.replaces_data:
        texts, start = len(forget.texts_used()) + len(retain.texts_used()), time.perf_counter()
        forget, retain = method.prepare(model, forget, retain, config.seed)
        preparing = (time.perf_counter() - start) * len(training.texts_used()) / texts  # it goes by the texts
        original, rows = None, 0
    train_for(WARM_UP, model, method, retain, config, forget, original)
    step = train_for(MEASURED, model, method, retain, config, forget, original) / MEASURED
    looks = (1 + -(-config.steps // config.evaluate_every)) * len(validation)
    total = preparing + config.steps * step + encoding * (rows + looks)
    said = f"{step:.2f} s a step, {encoding * 1e3:.1f} ms to encode a row: about {total / 60:.1f} min for the run"
    if shards:
        said += f", with {MOST_FORGET} rows to forget, the most; before it the shards are read for them"
    yield Finding("time", said + (f", {runs * total / 3600:.1f} h for {runs} of them" if runs > 1 else ""))
    said = f"{peak_megabytes() / 1024:.1f} GB at the peak of {MEASURED} steps, and up to "
    said += f"{KEPT * bytes_of(model) / 2**30:.2f} GB for the best weights and a checkpoint"
    if config.resident and training is not None:
        said += f", {training.images.numel() / 2**30:.2f} GB for resident images"
    yield Finding("memory", said)


def first_rows(pairs, mask, count):
    """The first `count` of the rows under `mask`, with no captions but theirs."""
    few = pairs.select(mask & (mask.cumsum(dim=0) <= count))
    used, text_ids = few.text_ids.unique(return_inverse=True)
    return dataclasses.replace(few, texts=[few.texts[i] for i in used.tolist()], text_ids=text_ids)


def train_for(steps, model, method, retain, config, forget, original):
    """Seconds of so many steps."""
    short = config.model_copy(update={"steps": steps})
    return train(model, method, retain, short, forget, original, progress=False).seconds
