"""Settings for who gives none: what a search chose for a method and a model of about the same size."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cliperase.settings import read_params

INSTEAD = {"epochs": "steps", "evaluations": "evaluate_every"}  # a default -> what says the same in another way
TABLE = Path(__file__).with_name("defaults.yaml")


def completed(method: str, settings: Mapping[str, Any], weights: int) -> tuple[dict[str, Any], str | None]:
    """(settings, where the defaults come from or None): with defaults, if the method has some for a model of so many
    `weights` and no learning rate is given. Settings that are given stay."""
    if "learning_rate" in settings:
        return dict(settings), None
    found = next(one for one in read_params(TABLE)["defaults"] if weights <= one["weights"])
    if method not in found["methods"]:
        return dict(settings), None
    usual = {**found["loop"], **found["methods"][method]}
    usual = {name: value for name, value in usual.items() if INSTEAD.get(name) not in settings}
    return {**usual, **settings}, found["source"]
