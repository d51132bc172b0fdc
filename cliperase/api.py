"""For one's own model and data: unlearn and evaluate in one call each. The CLI is a thin layer over these."""

import json
from pathlib import Path

import torch

from cliperase.checkpoints import remove_checkpoint
from cliperase.datasets import forget_mask, load_pairs
from cliperase.encoders import load_model, pick_device
from cliperase.errors import CliperaseError
from cliperase.features import Features, LiveFeatures, Original
from cliperase.files import check_writable, whole_file
from cliperase.methods import create_method, takes_steps
from cliperase.parallel import is_first, join_processes, wait_for_all
from cliperase.stream import Stream, is_sharded, load_forget, load_shards
from cliperase.tasks import task_of
from cliperase.train import TrainConfig, train, train_config


def unlearn(model, data, rule, method="CLIPErase", settings=None, seed=0, output=None):
    """Make a model forget the rows of `data` that `rule` matches, and keep the rest.

    `model`: folder or open_clip name/weights. `data`: folder or hub name with splits train and validation, or a
    folder of shards (`stream.py`).
    `settings`: the method's and the loop's, mixed; a method that trains needs `steps` and `learning_rate`.
    The checkpoint is selected on validation data, by the task that `tasks.task_of` finds. Written to
    `output`: the model as an open_clip folder, `report.json`, and while it runs a checkpoint to resume
    from. Under `torchrun` the processes share every step (`parallel.py`). Returns the report: rule, rows, settings,
    validation metrics before and after, loss terms.
    """

    join_processes()
    settings = dict(settings or {})
    algorithm, config = configure(method, settings, seed)
    student = load_model(model, pick_device())
    validation, forgotten = load_split(data, "validation", rule, student.image_size, config.broken_percent)
    sharded = is_sharded(data)
    if sharded:  # what may be wrong is looked for before the work, not after it
        check_streamable(algorithm)
    else:
        training_set = load_pairs(data, "train")
        mask = forget_mask(training_set, rule)
    if output:
        check_writable(Path(output) / "report.json")
    before = task_of(validation).measure(student, validation, forgotten)
    checkpoint = Path(output) / "checkpoint.safetensors" if output else None
    about = (student, algorithm, config)
    if sharded:
        history, rows = forget_in_stream(*about, data, rule, validation, forgotten, checkpoint)
    else:
        history = forget_in_place(*about, training_set, mask, validation, forgotten, checkpoint)
        rows = {"forget": int(mask.sum()), "retain": int((~mask).sum())}
    report = {
        "method": method,
        "rule": rule,
        "rows": rows,
        "settings": {**settings, "seed": seed},
        "validation_before": before,
        "log": history.log,
        "selected_step": history.best_step,
        "seconds": round(history.seconds, 2),
    }
    if output and is_first():
        student.save(output)
        with whole_file(Path(output) / "report.json") as partial:
            partial.write_text(json.dumps(report, indent=2) + "\n")
        remove_checkpoint(checkpoint)
    wait_for_all()
    return report


def configure(method, settings, seed):
    """(the method's object, `TrainConfig`) from the settings of both, mixed in one mapping."""
    if "seed" in settings:
        raise CliperaseError("the seed is an argument of its own (--seed), not a setting")
    training = {key: settings[key] for key in settings if key in TrainConfig.__dataclass_fields__}
    algorithm = create_method(method, {key: settings[key] for key in settings if key not in training})
    for needed in ("steps", "learning_rate"):
        if takes_steps(method) and needed not in training:
            raise CliperaseError(f"unlearning needs {needed}; pass --set {needed}=…")
    return algorithm, train_config(training, seed)


def forget_in_place(
    model, method, config, training, mask, validation, forgotten, checkpoint=None, features=None, progress=True
):
    """Make `model` forget the rows of `training` under `mask`; every run of the package goes through here.

    `features`: the original's `Features` of `training`, when they are known already. `forgotten` marks the
    forget rows of `validation`, on which the checkpoint is selected.
    """
    forget, retain = training.select(mask), training.select(~mask)
    if hasattr(method, "prepare"):
        forget, retain = method.prepare(model, forget, retain, config.seed)
        original = None  # embeddings of rows that are no longer there
    else:
        features = features or Features.of(model, training)
        original = Original(features.select(mask), features.select(~mask), model.logit_scale.item())
    validate = validation_by(validation, forgotten)
    return train(model, method, retain, config, forget, original, validate, checkpoint, progress)


def forget_in_stream(model, method, config, folder, rule, validation, forgotten, checkpoint=None):
    """As `forget_in_place`, the training rows in shards: what to forget is held in memory, the rest is streamed.

    Returns (history, the report's rows).
    """
    forget = load_forget(folder, rule, model.image_size, config.broken_percent)
    about = (model.image_size, config.retain_batch, config.seed, config.lanes, config.broken_percent)
    retain = Stream(folder, rule, *about)
    original = Original(Features.of(model, forget), LiveFeatures(model), model.logit_scale.item())
    validate = validation_by(validation, forgotten)
    history = train(model, method, retain, config, forget, original, validate, checkpoint)
    return history, {"forget": len(forget), "retain": "streamed", "broken": retain.broken()}


def check_streamable(method):
    if hasattr(method, "prepare"):
        raise CliperaseError(f"{type(method).__name__} makes a set of its own from all rows, which shards do not allow")


def validation_by(validation, forgotten):
    """What selects the checkpoint: `validate(model) -> metrics`."""

    def validate(model):
        return task_of(validation).validate(model, validation, forgotten)

    return validate


def load_split(data, split, rule, image_size, broken_percent=100.0):
    """(`PairSet`, forget mask) of a split that is measured; of shards as many samples may be broken."""
    if is_sharded(data):
        if rule is None:
            raise CliperaseError(f"shards in {data} are measured by a rule; give --forget CONCEPT or --rule '{{…}}'")
        return load_shards(data, split, rule, image_size, broken_percent)
    pairs = load_pairs(data, split)
    return pairs, torch.zeros(len(pairs), dtype=torch.bool) if rule is None else forget_mask(pairs, rule)


def evaluate(model, data, rule=None, split="test"):
    """The metrics of a model on one split of a data set, by the task that its columns say.

    Without a `rule`, which shards need, nothing counts as forgotten: what is measured is how all rows are retained.
    """
    loaded = load_model(model, pick_device())
    pairs, forgotten = load_split(data, split, rule, loaded.image_size)
    return task_of(pairs).measure(loaded, pairs, forgotten)
