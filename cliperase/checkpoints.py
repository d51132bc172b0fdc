"""Checkpoints: everything that a killed run needs to go on, in one file that loads without running code."""

import zipfile
from pathlib import Path

import torch

from cliperase.errors import CliperaseError, reason_of
from cliperase.files import whole_file


def save_checkpoint(path, state):
    """Write the `state` of a `cliperase.loop.Loop`, whole or not at all."""
    with whole_file(path) as partial:
        try:
            torch.save(state, partial)
        except RuntimeError as error:  # torch's word for a full disk
            raise OSError(reason_of(error)) from None


def load_checkpoint(path, identity):
    """The state in the file `path`, None if there is no file. It must be of a run with the same `identity`."""
    if not Path(path).is_file():
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # torch has written check sums, but does not read them
        if damaged:
            raise ValueError(f"{damaged} is damaged")
        state = torch.load(path, map_location="cpu", weights_only=True)
        before = state["identity"]
    except Exception as error:  # damaged: there are as many errors as it has bytes
        reason = reason_of(error)
        raise CliperaseError(f"checkpoint {path} cannot be read ({reason}); delete it to start anew") from None
    different = [name for name in {**identity, **before} if before.get(name) != identity.get(name)]
    if different:
        raise CliperaseError(
            f"checkpoint {path} is of another run ({different[0]} was {before.get(different[0])!r}); "
            "delete it to start anew"
        )
    return state


def remove_checkpoint(path):
    """Forget a finished run's checkpoint."""
    Path(path).unlink(missing_ok=True)
