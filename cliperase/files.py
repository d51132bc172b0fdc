"""Files that are written whole or not at all."""

import os
from contextlib import contextmanager
from pathlib import Path

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
    except OSError as error:
        raise CliperaseError(f"{path} cannot be written ({error.strerror}); name another folder") from None
    finally:
        if partial.exists():
            partial.unlink()
