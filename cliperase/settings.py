"""Settings: objects that are checked once, when they are made; and the YAML that they come from.

Every kind of settings, of a method, of the loop, of a part of the pipeline, is a subclass of `Settings`. `checked` is
the only place where values from outside become one, and the only place that words what is wrong with them.
"""

from collections.abc import Mapping
from math import ceil
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from cliperase.data.limits import BROKEN_PERCENT
from cliperase.errors import CliperaseError, printable

REMEDIES = {  # pydantic's kinds of error -> what to do about it
    "int_type": "give a whole number",
    "int_from_float": "give a whole number",
    "float_type": "give a number",
    "finite_number": "give a finite number",
    "bool_type": "give true or false",
    "string_type": "give text, in quotes where it looks like a number",
    "list_type": "give a list",
    "dict_type": "give a mapping",
    "model_type": "give a mapping",
    "greater_than": "give a number above {gt}",
    "greater_than_equal": "give at least {ge}",
    "less_than_equal": "give at most {le}",
    "less_than": "give a number below {lt}",
    "too_short": "give at least {min_length}",
    "string_too_short": "give some text",
    "literal_error": "choose one of {expected}",
}


class Settings(BaseModel):
    """Base of all settings: frozen, no unknown names, no conversion of text to numbers, nothing infinite."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class LoopSettings(Settings):
    """Settings of the training loop, whatever it trains."""

    steps: int = Field(ge=1, le=10**9)
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    schedule: Literal["constant", "one-cycle"] = "constant"
    rising: float = Field(default=0.2, gt=0, lt=1)  # share of the steps in which a one-cycle rate rises
    clip_norm: float = Field(default=0.0, ge=0)  # of all gradients together; 0 leaves them as they are
    averaging: float = Field(default=0.0, ge=0, lt=1)  # decay of a moving average of the weights, which is then kept
    evaluate_every: int = Field(default=20, ge=1, le=10**9)  # steps; a checkpoint is written as often
    seed: int = Field(default=0, ge=0, lt=2**32)
    shard: bool = False  # under torchrun, the blocks of a transformer in parts: see `cliperase.sharding`


class TrainSettings(LoopSettings):
    """Settings of training on image-text pairs, the same for pretraining and for every method."""

    steps: int = Field(default=1, ge=1, le=10**9)  # steps and rate are of no use to a method without steps
    epochs: float | None = Field(default=None, gt=0)  # over the forget set, instead of `steps`
    evaluations: int | None = Field(default=None, ge=1)  # as many, evenly spaced, instead of `evaluate_every`
    learning_rate: float = Field(default=1e-4, gt=0)
    forget_batch: int = Field(default=16, ge=1, le=10**6)
    retain_batch: int = Field(default=64, ge=1, le=10**6)
    captions: Literal["first", "random"] = "first"  # "random" draws one of an image's captions for each step
    update_norm_statistics: bool = False  # BatchNorm in training mode: right for pretraining, not for unlearning
    augment: bool = False  # mirror and shift the images: right for pretraining on photographs
    micro_batch: int = Field(default=0, ge=0)  # encode this many images at a time, same gradient; 0: all at once
    # For a GPU. Each changes speed or memory, and results by rounding at most.
    autocast: bool = False  # encoders in bfloat16, losses and weights in float32
    channels_last: bool = False  # memory layout that convolutions prefer; of no use to a ViT
    compile: bool = False  # torch.compile for the image tower: slow to start, faster steps
    resident: bool = False  # the images of a set in memory live on the model's device
    # For what is streamed, see `cliperase.data.shards.Stream`.
    lanes: int = Field(default=8, ge=1)  # readers that share the shards; a multiple of the number of processes
    stream: bool | None = None  # parquet files too; None: where they do not fit into memory
    broken_percent: float = Field(default=BROKEN_PERCENT, ge=0, le=100)  # unreadable samples; more are an error

    @field_validator("retain_batch")
    @classmethod
    def several(cls, value: int) -> int:
        if value == 1:
            raise ValueError("retain_batch is 1; give at least 2, because a single pair has no other to be told from, "
                             "so that the losses that retain are 0")  # fmt: skip
        return value

    def counted(self, forget_rows: int) -> Self:
        """The same settings in steps: `epochs` and `evaluations` mean as much for one class as for thirty."""
        steps = self.steps if self.epochs is None else ceil(self.epochs * forget_rows / self.forget_batch)
        every = self.evaluate_every if self.evaluations is None else ceil(steps / self.evaluations)
        return self.model_copy(update={"steps": steps, "epochs": None, "evaluate_every": every, "evaluations": None})


Kind = TypeVar("Kind", bound=Settings)
MAY_CHANGE = {"broken_percent", "resident"}  # settings that a resumed run may have otherwise


def checked(kind: type[Kind], values: Mapping[str, Any], where: str) -> Kind:
    """`values` as settings of `kind`. `where` names them in an error, such as "training" or "CLIPErase"."""
    if not isinstance(values, Mapping):
        raise CliperaseError(f"{where}: the settings are {values!r}; give a mapping")
    try:
        return kind(**{str(name): plain(value) for name, value in values.items()})
    except ValidationError as error:
        raise worded(error.errors()[0], kind, where) from None


def plain(value: Any) -> Any:
    """A number of numpy as one of Python, which reports and checkpoints can hold; everything else as it is."""
    return value.item() if isinstance(value, np.generic) else value


def worded(error: Mapping[str, Any], kind: type[Settings], where: str) -> CliperaseError:
    """One pydantic error as a sentence: what is wrong, the value, the remedy."""
    name = printable(".".join(str(part) for part in error["loc"]))
    if error["type"] == "extra_forbidden":
        if len(error["loc"]) > 1:
            return CliperaseError(f"{where} has no setting {name!r}; take it out")
        return CliperaseError(f"{where} has no setting {name!r}; it has {', '.join(kind.model_fields) or 'none'}")
    if error["type"] == "missing":
        return CliperaseError(f"{where} needs a setting {name!r}; add it")
    if error["type"] == "value_error":
        return CliperaseError(f"{where}: {error['ctx']['error']}")
    remedy = error["msg"]
    if error["type"] in REMEDIES:
        remedy = REMEDIES[error["type"]].format(**error.get("ctx", {}))
    return CliperaseError(f"{where}: {name} is {error['input']!r}; {remedy}")


def parse_yaml(text: str, where: str) -> Any:
    """The value that a YAML 1.2 text holds: `1e-5` is a number, `010` is ten, `1:30` is text."""
    try:
        return YAML(typ="safe", pure=True).load(text)
    except (YAMLError, ValueError, LookupError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]  # YAML's messages draw over several lines
        raise CliperaseError(f"{where} is not YAML ({reason}); check its brackets and quotes") from None


def read_params(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CliperaseError(f"parameters {path} cannot be read ({reason}); give a YAML file in UTF-8") from None
    params = parse_yaml(text, f"parameters {path}")
    if not isinstance(params, dict):
        raise CliperaseError(
            f"parameters {path} hold {type(params).__name__}, not a mapping; write lines of NAME: VALUE"
        )
    return params


def section(params: Mapping[str, Any], path: str) -> dict[str, Any]:
    """The part of the parameters at `a.b.c`, a mapping."""
    found = params
    for key in path.split("."):
        if not isinstance(found, dict) or key not in found:
            raise CliperaseError(f"the parameters have no section {path!r} ({key!r} is missing); add it")
        found = found[key]
    if not isinstance(found, dict):
        raise CliperaseError(
            f"section {path!r} of the parameters is {found!r}, not a mapping; write lines of NAME: VALUE below it"
        )
    return found
