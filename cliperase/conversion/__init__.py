"""Models in other formats. One line below adds a format; nothing of it is imported before it is asked for."""

from pkgutil import resolve_name

from cliperase.errors import CliperaseError
from cliperase.manifest import RUN, manifest_of, write_unit

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
    before, target = manifest_of(source), resolve_name(TARGETS[to])

    def write(folder):
        return {"model": str(source), "to": to, **target(model, folder, into)}

    return write_unit(output, write, {name: before[name] for name in RUN if name in before})
