"""A result is one unit: a model, its report, and the manifest of their hashes, written last, checked on load."""

import json
import logging
import os
from contextlib import contextmanager, nullcontext
from pathlib import Path, PurePosixPath

from cliperase import __version__
from cliperase.errors import CliperaseError
from cliperase.files import check_outside, check_writable, hash_of, only_writer, read_json, whole_file

MANIFEST, REPORT, CARD = "manifest.json", "report.json", "README.md"
CHECKPOINT = "checkpoint.pt"  # beside them, until the run is done
REPLACED = (  # by a result: its own files, and those that open_clip and transformers save a model in
    MANIFEST, REPORT, CARD, "config.json", "*_config.json", "*.safetensors", "*.safetensors.index.json",
    "tokenizer.json", "*_tokens*.json", "vocab.*", "merges.txt", "*.model", "chat_template.*",
)  # fmt: skip
RUN = ("method", "rule", "settings", "templates")  # what tells one run from another, of those with equal model and data


def write_result(folder, model, report):
    """Save the `model` and the `report`, a mapping, in `folder`."""

    def write(staged):
        model.save(staged)
        return report

    write_unit(folder, write, {name: report[name] for name in RUN if name in report})


def write_unit(folder, write, about):
    """Write to `folder` what `write(folder)` writes, the report that it returns, and a manifest: `about`, a mapping,
    and the hashes. Files of the former manifest that are not written again are deleted. Returns the report.

    A run that is killed here leaves nothing that `check_result` would take for whole: until the last file is in its
    place, the manifest there names all old and new ones, and those that have to go have no hash that could fit.
    """
    folder = Path(folder)
    with whole_file(folder / MANIFEST) as partial:
        staged = partial.with_name("result")
        staged.mkdir()
        report = write(staged)
        (staged / REPORT).write_text(json.dumps(report, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        names = sorted(path.relative_to(staged).as_posix() for path in staged.rglob("*") if path.is_file())
        files = {name: hash_of(staged / name) for name in names}
        former = [name for name in files_of(folder) if name not in files]
        for path, named in ((partial, files), (staged / MANIFEST, {**dict.fromkeys(former), **files})):
            told = {"cliperase": __version__, **about, "files": named}
            path.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
        for name in (MANIFEST, *names):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (staged / name).chmod(partial.stat().st_mode)
            os.replace(staged / name, folder / name)
        for name in former:
            (folder / name).unlink(missing_ok=True)
    return report


def manifest_of(folder):
    """The manifest of a result, a mapping; empty where there is none, as in a folder from elsewhere."""
    path = Path(folder) / MANIFEST
    found = read_json(path) if path.is_file() else {}
    return found if isinstance(found.get("files"), dict) and "cliperase" in found else {}


def files_of(folder):
    """{name: hash} of the files that the manifest of a result names, each of them in its folder."""
    files = manifest_of(folder).get("files", {})
    for place in map(PurePosixPath, files):
        if place.is_absolute() or ".." in place.parts:
            raise CliperaseError(
                f"{Path(folder) / MANIFEST} names {str(place)!r}, which is outside its folder; copy the model again"
            )
    return files


def check_result(folder):
    """Raise CliperaseError if a folder with a manifest does not hold what that says."""
    for name, known in files_of(folder).items():
        path = Path(folder) / name
        if not path.is_file() or hash_of(path) != known:
            raise CliperaseError(
                f"{path} is not the file of {MANIFEST}: it was damaged, changed, or its run was killed; run it again, "
                f"copy it again, or delete {MANIFEST} if you changed it yourself"
            )


@contextmanager
def output_folder(folder, data, model, run, takes_steps):
    """The output `folder` for one run alone, looked at before anything slow starts: a path, or None for no output.

    `data`, `model`: the sources of the run; `run`, `takes_steps`: as in `check_output`.
    """
    from cliperase.parallel import is_first  # it imports torch, which nobody needs to look at a result

    if not folder:
        yield None
        return
    check_writable(Path(folder) / REPORT)
    check_outside(folder, data)
    check_output(folder, model, run, takes_steps)
    with only_writer(folder) if is_first() else nullcontext():
        yield Path(folder)


def check_output(folder, model, run, takes_steps):
    """Before a `run`, a mapping as in the manifest, writes to `folder`: it must not destroy what is another's.

    `model`: the source that the run starts from. `takes_steps`: whether it can own the checkpoint that is there.
    """
    check_free(folder, model)
    checkpoint = Path(folder) / CHECKPOINT
    if checkpoint.exists() and not takes_steps:
        raise CliperaseError(
            f"checkpoint {checkpoint} is of another run, because {run['method']} takes no steps; finish that run, "
            "delete the checkpoint, or name another folder"
        )
    before = {name: value for name, value in manifest_of(folder).items() if name in RUN}
    if before and before != json.loads(json.dumps(run)):
        said = f"{folder} holds the result of {before['method']} with {before['rule']}; this run will replace it"
        logging.getLogger("cliperase").warning(said)


def check_free(folder, model):
    """Raise CliperaseError if a result in `folder` would replace files that no run of ours has left there.

    `model`: the source that the run starts from; its own folder is never free.
    """
    folder = Path(folder)
    if any(path.is_dir() and path.resolve() == folder.resolve() for path in paths_in(model)):
        raise CliperaseError(f"output {folder} is the folder of the model itself; name another one")
    ours = files_of(folder) or (folder / CHECKPOINT).exists()
    held = [] if ours else sorted(path.name for pattern in REPLACED for path in folder.glob(pattern))
    if held:
        raise CliperaseError(
            f"output {folder} holds {held[0]}, which the result would replace and no run of cliperase has written; "
            "name another folder"
        )


def paths_in(source):
    """The paths that a source of a model may name; some stand behind a prefix, as in `pipeline:<path>@<path>`."""
    behind = str(source).partition(":")[2]
    return [Path(name) for name in (str(source), behind, *behind.rpartition("@")[::2]) if name]
