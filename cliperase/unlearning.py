"""One run of unlearning: data and model in memory, or data streamed from shards."""

import torch

from cliperase.data.pairs import load_pairs
from cliperase.data.rules import forget_mask
from cliperase.data.shards import Stream, is_sharded, load_forget, load_shards
from cliperase.errors import CliperaseError
from cliperase.features import Features, LiveFeatures, Original
from cliperase.loop import train
from cliperase.methods import create_method
from cliperase.metrics.tasks import task_of
from cliperase.settings import TrainSettings, train_config


def configure(method, settings, seed):
    """(the method's object, `TrainSettings`) from the settings of both, mixed in one mapping."""
    if "seed" in settings:
        raise CliperaseError("the seed is an argument of its own (--seed), not a setting")
    training = {key: settings[key] for key in settings if key in TrainSettings.model_fields}
    algorithm = create_method(method, {key: settings[key] for key in settings if key not in training})
    for needed in ("steps", "learning_rate"):
        if algorithm.takes_steps and needed not in training:
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
    if method.replaces_data:
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
    if method.replaces_data:
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
