"""Files that are written whole or not at all, and whether they can be; who else writes; what is read back."""

import glob
import hashlib
import json
import os
import platform
import re
import shutil
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from cliperase.errors import CliperaseError, reason_of

HERE = re.sub(r"\W", "-", platform.node())  # only a process of this machine can be asked whether it lives
LOCK = ".cliperase-lock"


@contextmanager
def whole_file(path):
    """A temporary path to write to, moved to `path` when the block has ended well; its folder is made if needed.

    It lies in a hidden folder that carries machine and process: several may write the same file, and the last one wins.
    Such folders of dead processes are removed. What cannot be written is a `CliperaseError`, and what was there before
    stays.
    """
    path = Path(path)
    scratch = path.with_name(f".{path.name}.{HERE}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(f".{glob.escape(path.name)}.{HERE}.*.partial"):
            if not lives(left.suffixes[-2][1:]):
                shutil.rmtree(left, ignore_errors=True)
        scratch.mkdir(exist_ok=True)
        partial = scratch / path.name
        partial.touch()
        mode = partial.stat().st_mode
        yield partial
        partial.chmod(mode)  # safetensors makes files that only their owner may read
        os.replace(partial, path)
    except (OSError, SafetensorError) as error:  # a full disk is the one for text, the other for weights
        reason = getattr(error, "strerror", None) or error
        raise CliperaseError(f"{path} cannot be written ({reason}); name another folder") from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def lives(process):
    """Whether the process of this number, as text, still runs here; yes where that cannot be known."""
    if os.name != "posix" or not process.isdecimal():
        return True
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # somebody else's
        return True
    return True


@contextmanager
def only_writer(folder):
    """Nobody else in here for this `folder`, which is there. The lock ends with its process, however that ends."""
    try:
        import fcntl
    except ImportError:  # no such locks on Windows
        yield
        return
    path, file = Path(folder) / LOCK, None
    while file is None or not path.exists() or os.fstat(file.fileno()).st_ino != path.stat().st_ino:
        file = open(path, "a+")  # noqa: SIM115 – it stays open as long as the lock; the loop: its last holder removed it
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            process = file.read().strip()
            raise CliperaseError(
                f"process {process} is writing to {folder}; wait for it, or name another folder"
            ) from None
    try:
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
    finally:
        path.unlink(missing_ok=True)
        fcntl.flock(file, fcntl.LOCK_UN)  # said, because a child may hold the file open
        file.close()


def check_writable(path):
    """Raise CliperaseError if the file `path` cannot be written. Call it before hours of work, not after."""
    folder = Path(path).parent
    if folder.parts[:1] == ("~",):
        raise CliperaseError(f"{path} begins with ~, which a shell reads and nothing here; write the whole path")
    if Path(path).is_dir():
        raise CliperaseError(f"{path} is a folder and is to be a file; name another one")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".cliperase-probe.{HERE}.{os.getpid()}"  # several processes may look at once
        probe.touch()
        probe.unlink(missing_ok=True)
    except OSError as error:
        raise CliperaseError(f"{folder} cannot be written ({error.strerror}); name another folder") from None


def check_outside(output, data):
    """Raise CliperaseError if `output` lies in the folder of the `data`: its tables would be read as data next time."""
    folder = Path(data) if isinstance(data, str | Path) else None
    if folder and folder.is_dir() and Path(output).resolve().is_relative_to(folder.resolve()):
        raise CliperaseError(f"output {output} lies in data {str(data)!r}; name a folder elsewhere")


def read_json(path):
    """A configuration file, a mapping."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CliperaseError(f"{path} cannot be read ({reason_of(error)}); train or copy the model again") from None
    if not isinstance(found, dict):
        raise CliperaseError(f"{path} holds {type(found).__name__}, not a mapping; train or copy the model again")
    return found


def write_json(path, plain_values):
    """Write plain values, none of them infinite, as JSON, whole or not at all."""
    with whole_file(path) as partial:
        partial.write_text(json.dumps(plain_values, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def hash_of(path):
    """SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
