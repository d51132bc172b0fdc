"""Settings for who gives none: of CLIPErase, what a search chose for a model of about the same size."""

from pathlib import Path

from cliperase.settings import read_params

METHOD = "CLIPErase"
INSTEAD = {"epochs": "steps", "evaluations": "evaluate_every"}  # a default -> what says the same in another way
TABLE = Path(__file__).with_name("defaults.yaml")


def completed(method, settings, weights):
    """(settings, where the defaults come from or None): with defaults, if a model of so many `weights` is to be trained
    by CLIPErase and no learning rate is given. Settings that are given stay."""
    if method != METHOD or "learning_rate" in settings:
        return dict(settings), None
    found = next(one for one in read_params(TABLE)["defaults"] if weights <= one["weights"])
    usual = {name: value for name, value in found["settings"].items() if INSTEAD.get(name) not in settings}
    return usual | settings, found["source"]
