"""Which modules of a repository a process has loaded: every Python process of an environment writes them at its end."""

import json
import os
import sys
from pathlib import Path

SITE = """
import atexit, json, os, sys

def write():
    root = os.environ["RECORD_ROOT"] + os.sep
    files = {os.path.abspath(str(getattr(module, "__file__", None))) for module in list(sys.modules.values())}
    own = sorted(os.path.relpath(file, root) for file in files if file.startswith(root) and os.path.isfile(file))
    with open(os.path.join(os.environ["RECORD_TO"], f"{os.getpid()}.json"), "w") as record:
        json.dump([sys.argv, own], record)

atexit.register(write)
"""


def recorder(root, folder):
    """An environment whose processes write to `folder` what they load of the repository at `root`."""
    (folder / "site").mkdir(parents=True, exist_ok=True)
    (folder / "site" / "sitecustomize.py").write_text(SITE)
    paths = os.pathsep.join(map(str, (folder / "site", root)))
    return {**os.environ, "RECORD_ROOT": str(root), "RECORD_TO": str(folder), "PYTHONPATH": paths,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}  # fmt: skip


def recorded(folder):
    """[(sys.argv, paths of the loaded files)] of the processes so far."""
    records = (json.loads(path.read_text()) for path in sorted(folder.glob("*.json")))
    return [(argv, set(files)) for argv, files in records]
