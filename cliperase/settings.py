"""Settings of the loop, and their checks."""

import math
from dataclasses import dataclass
from pathlib import Path

import yaml

from cliperase.errors import CliperaseError

SCHEDULES = ("constant", "one-cycle")
CAPTIONS = ("first", "random")
COUNTS = {
    "steps": 1,
    "forget_batch": 1,
    "retain_batch": 1,
    "evaluate_every": 1,
    "micro_batch": 0,
    "seed": 0,
    "lanes": 1,
}
FREE = ("broken_percent", "resident")  # a resumed run may have others
SWITCHES = ("update_norm_statistics", "augment", "autocast", "channels_last", "compile", "resident")


@dataclass(frozen=True)
class TrainConfig:
    """Settings of the loop, the same for all methods; the losses' settings are the method's own."""

    steps: int = 1  # this and the rate are of no use to a method that takes no steps; all others name theirs
    learning_rate: float = 1e-4
    forget_batch: int = 16
    retain_batch: int = 64
    weight_decay: float = 0.0
    schedule: str = "constant"
    captions: str = "first"  # which of an image's captions a step uses; "random" draws one column per step
    update_norm_statistics: bool = False  # BatchNorm in training mode: right for pretraining, not for unlearning
    augment: bool = False  # mirror and shift the images: right for pretraining on photographs
    evaluate_every: int = 20
    micro_batch: int = 0  # encode this many images at a time, same gradient; 0 is all at once
    seed: int = 0
    # for a GPU; each changes speed or memory, and results by rounding at most
    autocast: bool = False  # encoders in bfloat16, losses and weights in float32
    channels_last: bool = False  # memory layout that convolutions prefer, of no use to a ViT
    compile: bool = False  # the image tower that learns by torch.compile: slow to start, faster steps
    resident: bool = False  # the images of a set in memory live on the model's device
    # for shards, see `stream.Stream`
    lanes: int = 8  # readers that share them; a multiple of the number of processes
    broken_percent: float = 1.0  # of the samples, as far as they are left out; more is an error

    def __post_init__(self):
        for name, options in (("schedule", SCHEDULES), ("captions", CAPTIONS)):
            if getattr(self, name) not in options:
                raise CliperaseError(f"{name} {getattr(self, name)!r} unknown; choose one of {options}")
        for name in SWITCHES:
            if not isinstance(getattr(self, name), bool):
                raise CliperaseError(f"{name} is {getattr(self, name)!r}; give true or false")
        for name, least in COUNTS.items():
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise CliperaseError(f"{name} is {value!r}; give a whole number of at least {least}")
        if not is_number(self.learning_rate) or not self.learning_rate > 0:
            raise CliperaseError(f"learning_rate is {self.learning_rate!r}; give a number above zero, such as 1.0e-4")
        for name in ("weight_decay", "broken_percent"):
            value = getattr(self, name)
            if not is_number(value) or value < 0:
                raise CliperaseError(f"{name} is {value!r}; give a number of at least zero")


def is_number(value):
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def train_config(settings, seed):
    """`TrainConfig` from a mapping; unknown keys are named, and the seed is not among them."""
    unknown = set(settings) - set(TrainConfig.__dataclass_fields__) | ({"seed"} & set(settings))
    if unknown:
        raise CliperaseError(f"training has no setting {sorted(unknown)[0]!r}")
    return TrainConfig(**{**settings, "seed": seed})


def read_params(path="params.yaml"):
    """The parameters of the pipeline, a dict."""
    try:
        params = yaml.safe_load(Path(path).read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())  # YAML's messages draw over several lines
        raise CliperaseError(f"parameters {path} cannot be read ({reason})") from None
    if not isinstance(params, dict):
        raise CliperaseError(f"parameters {path} hold {type(params).__name__}, not a mapping")
    return params


def section(params, path, needed=()):
    """The part of the parameters at `a.b.c`, a mapping that has the `needed` names."""
    found = params
    for key in path.split("."):
        if not isinstance(found, dict) or key not in found:
            raise CliperaseError(f"the parameters have no section {path!r} ({key!r} is missing); add it")
        found = found[key]
    if not isinstance(found, dict):
        raise CliperaseError(f"section {path!r} of the parameters is {found!r}, not a mapping")
    missing = [name for name in needed if name not in found]
    if missing:
        raise CliperaseError(f"section {path!r} of the parameters has no {missing[0]!r}; add it")
    return found
