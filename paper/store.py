"""Finished runs on disk, so that a killed experiment goes on where it was and only what changed is run again.

The rows of a run are kept in `artifacts/<profile>/runs/<key>.json`. The key holds everything that the rows depend on:
the run's definition, the code that it reaches, model, data, splits, torch and the processor's kernels. The folder may
be deleted at any time.
"""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import torch

from cliperase.files import whole_file
from paper.code import Code

RUNS = Path("artifacts")


class RunStore:
    """The finished runs of one place. A model of the hub has no files to compare: its runs are not kept."""

    def __init__(self, place):
        self.place, self.code, self.folder = place, Code(), RUNS / place.profile / "runs"
        self.fingerprints = {}  # folder -> hash, looked at once
        self.machine = [torch.__version__, torch.cuda.is_available(), torch.backends.cpu.get_cpu_capability()]

    def get(self, run):
        """The rows of the run, or None."""
        path = self.path(run)
        try:
            return json.loads(path.read_text()) if path else None
        except (OSError, ValueError):  # not there yet, or written by hand
            return None

    def put(self, run, rows):
        path = self.path(run)
        if path:
            with whole_file(path) as partial:
                partial.write_text(json.dumps(rows) + "\n")

    def path(self, run):
        """The file of the run, or None where its model or data are no folders."""
        place = self.place
        files = [self.fingerprint(folder) for folder in (place.data, place.original_of(run), place.model_of(run))]
        if None in files:
            return None
        key = [asdict(run), place.identity(), files, self.code.of_run(run.method, place.entry), self.machine]
        return self.folder / f"{hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]}.json"

    def fingerprint(self, folder):
        if folder not in self.fingerprints:
            self.fingerprints[folder] = fingerprint(folder)
        return self.fingerprints[folder]


def fingerprint(folder):
    """A hash of the names and contents of a folder's files; None for what is no folder."""
    if not Path(folder).is_dir():
        return None
    digest = hashlib.sha256()
    for path in sorted(path for path in Path(folder).rglob("*") if path.is_file()):
        digest.update(path.relative_to(folder).as_posix().encode())
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
