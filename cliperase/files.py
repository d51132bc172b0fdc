"""Files that are written whole or not at all, and whether they can be."""

import os
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from cliperase.errors import CliperaseError


@contextmanager
def whole_file(path):
    """A temporary path to write to, moved to `path` when the block has ended well; its folder is made if needed.

    The name carries the process: several may write the same file, and the last one wins. What cannot be
    written is a `CliperaseError`, and what was there before stays.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        os.replace(partial, path)
    except (OSError, SafetensorError) as error:  # a full disk is the one for text, the other for weights
        reason = getattr(error, "strerror", None) or error
        raise CliperaseError(f"{path} cannot be written ({reason}); name another folder") from None
    finally:
        if partial.exists():
            partial.unlink()


def check_writable(path):
    """Raise CliperaseError if the file `path` cannot be written. Call it before hours of work, not after."""
    folder = Path(path).parent
    if Path(path).is_dir():
        raise CliperaseError(f"{path} is a folder and is to be a file; name another one")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".cliperase-probe.{os.getpid()}"  # several processes may look at once
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise CliperaseError(f"{folder} cannot be written ({error.strerror}); name another folder") from None
