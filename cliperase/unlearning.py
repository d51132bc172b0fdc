"""One run of unlearning: a model, a recipe, and what it is to forget, retain and be selected on."""

import time
from collections.abc import Callable, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from cliperase.data.pairs import PairSet
from cliperase.defaults import completed
from cliperase.errors import CliperaseError
from cliperase.features import Features, LiveFeatures, Original, selection
from cliperase.finite import check_finite
from cliperase.loop import History, run_loop
from cliperase.methods import create_method, method_class
from cliperase.methods.base import Method
from cliperase.metrics.tasks import task_of
from cliperase.models.base import ImageTextModel
from cliperase.settings import TrainSettings, checked, plain
from cliperase.training import PairTraining

if TYPE_CHECKING:
    from cliperase.data.shards import Stream


@dataclass(frozen=True)
class Recipe:
    """A method with its settings and the loop's: all of a run but its model and its data."""

    name: str
    method: Method
    training: TrainSettings

    @classmethod
    def of(cls, name, settings, seed=0):
        """The recipe of the method `name` from the `settings` of method and loop, in one flat mapping."""
        if "seed" in settings:
            raise CliperaseError("seed is not a setting; give --seed, in Python the argument seed")
        if settings.get("averaging"):
            raise CliperaseError(
                f"averaging is {settings['averaging']!r} and only for pretraining, because unlearning keeps the "
                "weights that are best on validation data; take it out"
            )
        of_method = {key: settings[key] for key in settings if key not in TrainSettings.model_fields}
        of_loop = {key: settings[key] for key in settings if key not in of_method}
        unknown = set(of_method) - set(method_class(name).model_fields)
        if unknown:
            known = ", ".join([*method_class(name).model_fields, *TrainSettings.model_fields])
            raise CliperaseError(f"{name} has no setting {min(unknown)!r}; it and its loop have {known}")
        if method_class(name).takes_steps:
            if "learning_rate" not in of_loop:
                raise CliperaseError(f"{name} needs learning_rate; pass --set learning_rate=…")
            if len({"steps", "epochs"} & set(of_loop)) != 1:
                raise CliperaseError(f"{name} needs either steps or epochs over the forget set; pass --set epochs=…")
        return cls(name, create_method(name, of_method), checked(TrainSettings, {**of_loop, "seed": seed}, "training"))

    @classmethod
    def completed(cls, name, settings, seed=0, model=None):
        """(recipe, its settings, where defaults among them come from or None): `defaults` fill in what was not given.
        `model`: the one to be trained; without it, the recipe is for a look at the settings only."""
        if not isinstance(settings, Mapping | None):
            raise CliperaseError(f"{name}: the settings are {settings!r}; give a mapping")
        weights = sum(parameter.numel() for parameter in model.parameters()) if model else 0
        settings, source = completed(name, settings or {}, weights)
        settings = {key: plain(value) for key, value in settings.items()}
        return cls.of(name, settings, seed), settings, source


@dataclass
class Run:
    """What one unlearning works on. `carry_out` changes `model` in place.

    `retain` is a `PairSet` or a `Stream`. `original` holds the original's embeddings of both, where they are known
    already. `forgotten` (V,) bool marks the forget rows of `validation`, on which the weights are selected; without a
    validation set the last ones stay. `callback`: see `run_loop`.
    """

    model: ImageTextModel
    recipe: Recipe
    forget: PairSet
    retain: "PairSet | Stream"
    validation: PairSet | None = None
    forgotten: torch.Tensor | None = None
    original: Original | None = None
    before: dict | None = None
    checkpoint: Path | None = None
    progress: bool = True
    callback: Callable[[dict], None] | None = None

    def carry_out(self):
        """Forget. Returns the `History`."""
        method, forget, retain, original = self.recipe.method, self.forget, self.retain, self.original
        settings = self.recipe.training.counted(len(forget))
        if method.replaces_data:
            check_streamable(self.recipe, retain)
            forget, retain = method.prepare(self.model, forget, cast("PairSet", retain), settings.seed)
            original = None  # it holds embeddings of rows that are no longer there
        elif original is None:
            original = embed(self.model, forget, retain, settings.autocast)
        validate, selected_on = None, None
        if self.validation is not None:
            task, rows = task_of(self.validation), (self.validation, cast("Tensor", self.forgotten))
            before = self.before or task.measure(self.model, *rows)
            validate = partial(task.validate, pairs=rows[0], forgotten=rows[1], before=before)
            selected_on = selection(*rows) if self.checkpoint else None
        if original is not None:
            method.start(self.model, forget, retain)
            original = method.targets(self.model, forget, retain, original)
        with narrowed(self.model, retain, forget):
            training = PairTraining(self.model, method, settings, retain, forget, original, selected_on)
            if not method.takes_steps:
                return edit_once(training, validate)
            with divided(training):
                return run_loop(training, validate, self.checkpoint, self.progress, self.callback)


def embed(model, forget, retain, autocast=False):
    """The `Original` of a run: the model's embeddings before training; of streamed rows step by step."""
    of_retain = Features.of(model, retain, autocast) if isinstance(retain, PairSet) else LiveFeatures(model)
    return Original(Features.of(model, forget, autocast), of_retain, model.logit_scale.item())


def check_streamable(recipe, retain):
    if recipe.method.replaces_data and not isinstance(retain, PairSet):
        raise CliperaseError(f"{recipe.name} replaces the data; shards need another method")


@contextmanager
def narrowed(model, *sets):
    """Train only the token embeddings that these sets use. A stream's texts are unknown: then train all."""
    known = all(isinstance(pairs, PairSet) for pairs in sets)
    if known:
        model.narrow_vocabulary([text for pairs in sets for text in pairs.texts])
    try:
        yield
    finally:
        model.widen_vocabulary()


def divided(training):
    """The training as it is, or with its weights in parts."""
    if not training.settings.shard:
        return nullcontext()
    from cliperase.sharding import in_parts  # a third of torch's time to load

    return in_parts(training)


def edit_once(training, validate):
    """Apply a method without steps: it sees batches with gradients, and the validation that it may search on."""
    training.model.eval()
    start = time.perf_counter()
    training.method.apply(training.model, training.batch, validate)
    seconds = time.perf_counter() - start
    check_finite(training.model.state_dict(), "weights after the edit", "choose weaker settings")
    training.model.eval()
    return History([{"step": 0, "validation": validate(training.model) if validate else {}}], seconds, 0)
