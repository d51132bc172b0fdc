"""Models in other formats. One line below adds a format; nothing of it is imported before it is asked for."""

import json
import os
from pkgutil import resolve_name

from cliperase import __version__
from cliperase.errors import CliperaseError
from cliperase.files import hash_of, whole_file
from cliperase.manifest import MANIFEST, REPORT, RUN, manifest_of

TARGETS = {  # format -> a function that writes a model to a folder: (model, folder, into) -> a mapping for the report
    "open_clip": "cliperase.conversion.clip:write_open_clip",
    "transformers": "cliperase.conversion.clip:write_transformers",
    "pipeline": "cliperase.conversion.pipeline:write_pipeline",
    "onnx": "cliperase.conversion.onnx:write_onnx",
}
INTO = "pipeline"  # the only format that is written into what there is already


def check_target(to, into):
    """Raise CliperaseError for a format that nobody knows, or that lacks what `--into` names. It reads no model."""
    if to not in TARGETS:
        raise CliperaseError(f"format {to!r} unknown; choose one of {', '.join(TARGETS)}")
    if (to == INTO) != (into is not None):
        need = "needs --into with the folder of a pipeline" if to == INTO else f"takes no --into, which is {INTO}'s"
        raise CliperaseError(f"format {to!r} {need}")


def convert(model, source, to, output, into=None):
    """Write `model`, which came from `source`, to the folder `output`, new or empty, in the format `to`.

    `into`: the folder of a pipeline, of which a copy gets the text tower. The folder is written whole, and its manifest
    last: the hashes of its files, and the run that made the model, where `source` says so. Returns what is in its
    `report.json`.
    """
    with whole_file(output / MANIFEST) as partial:
        staged = partial.with_name("result")
        staged.mkdir()
        report = {"model": str(source), "to": to, **resolve_name(TARGETS[to])(model, staged, into)}
        (staged / REPORT).write_text(json.dumps(report, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        mode = partial.stat().st_mode
        files = {path.relative_to(staged).as_posix(): path for path in sorted(staged.rglob("*")) if path.is_file()}
        for path in files.values():
            path.chmod(mode)
        before = manifest_of(source)
        about = {"cliperase": __version__, **{name: before[name] for name in RUN if name in before}}
        about["files"] = {name: hash_of(path) for name, path in files.items()}
        partial.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        for part in staged.iterdir():
            os.replace(part, output / part.name)
    return report
