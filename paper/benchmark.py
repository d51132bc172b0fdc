"""The benchmark: a method that somebody brings, or models that other code unlearned, audited as the rows here are.

An entry is a folder: `rows.csv`, its figures as in `results.csv`, `verdicts.csv`, what they say of each run, and
`entry.json`, what they were made from, by hash.
The leaderboard is made of the entries and of this repository's own rows, by the thresholds of the power study.
"""

import importlib.util
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cliperase import __version__
from cliperase.audit.verdict import NEVER_KNOWN
from cliperase.errors import CliperaseError
from cliperase.files import hash_of, read_json, whole_file, write_json
from cliperase.methods import METHODS
from cliperase.methods.base import Method
from paper.audits import AuditPlace, goals, shares, tally, verdicts, votes
from paper.experiments import experiment_of
from paper.results import COLUMNS, REFERENCES, read_results, write_table
from paper.runs import Run, run_all
from paper.store import fingerprint

NAME = re.compile(r"[A-Za-z0-9][\w ,.+-]{0,39}")  # it becomes a folder
SHOWN = {  # columns: their figures
    "few-shot probe": "linear-probe.image_recall_1_shots",
    "retain accuracy": "reference-gap.retain_accuracy",
}
MODELS = "models"  # where an entry is from, if somebody brought them
KINDS = {"no trace": "No trace", "pushed away": "Pushed away", "not gone": "Not gone"}  # columns: their verdicts


@dataclass(frozen=True)
class EntryPlace(AuditPlace):
    """A place for an entry called `name`: the `file` of a method, or a `folder` of models, `<concept>-<seed>`."""

    name: str = ""
    file: str = ""
    folder: str = ""

    def bench(self):
        if self.file:  # in each process that measures
            register(self.name, self.file)
        return super().bench()

    def identity(self):
        return [*super().identity(), self.file and hash_of(self.file)]

    def model_of(self, run):
        return str(model_folder(self.folder, run)) if self.folder else super().model_of(run)


def model_folder(folder, run):
    return Path(folder) / f"{run.concept}-{run.seed}"


def register(name, file):
    """Make the one `Method` in a Python file known by `name`. The file is run: it is the entrant's own code."""
    if not Path(file).is_file() or Path(file).suffix != ".py":
        raise CliperaseError(f"method {str(file)!r} is no Python file; give the path of one")
    module = f"entry_{hash_of(file)[:12]}"
    spec = importlib.util.spec_from_file_location(module, file)
    loaded = sys.modules[module] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(loaded)
    except Exception as error:  # whatever an entrant's code raises
        raise CliperaseError(f"method file {file} cannot be run ({error})") from None
    own = [one for one in vars(loaded).values() if isinstance(one, type) and issubclass(one, Method)]
    own = [one for one in own if one.__module__ == module]
    if len(own) != 1:
        raise CliperaseError(f"method file {file} defines {len(own)} methods; let it define one subclass of Method")
    METHODS[name] = f"{module}:{own[0].__name__}"


def enter(profile, name, data, models, *, file="", settings=None, folder="", small=False):
    """(rows, header) of an entry. `small`: the first concept and seed only, to try it out."""
    check_name(name)
    if bool(file) == bool(folder):
        raise CliperaseError("an entry is a method or a folder of models; give one of --method and --unlearned")
    if file:
        register(name, file)
    changes = {"methods": {name: settings or {}}, "references": [], "tuned": ""}
    experiment = experiment_of(profile, "audit", **changes)
    if small:
        experiment = experiment.model_copy(update={"concepts": experiment.concepts[:1]})
        profile = profile.model_copy(update={"seeds": profile.seeds[:1]})
    place = experiment.place(profile, data, models, experiment.splits)
    place = EntryPlace(**vars(place), name=name, file=str(file), folder=str(folder))
    runs = runs_of(experiment, profile, name, folder)
    rows = run_all(place, runs)
    made_of = {"models": {model_folder(folder, run).name: fingerprint(place.model_of(run)) for run in runs}}
    if file:
        made_of = {"method": {"file": Path(file).name, "sha256": hash_of(file), "settings": settings or {}}}
    originals = {str(run.original): fingerprint(place.original_of(run)) for run in runs}
    header = {"name": name, "cliperase": __version__, "provenance": profile.provenance, "small": small}
    return rows, {**header, **made_of, "data": fingerprint(data), "originals": originals}


def check_name(name):
    if not NAME.fullmatch(name):
        raise CliperaseError(f"name {name!r}: give 1 to 40 letters, digits and spaces")
    if name in METHODS or name in REFERENCES:
        raise CliperaseError(f"name {name!r} is a row of this repository; choose another")


def runs_of(experiment, profile, name, folder):
    """The runs of an entry. Models that somebody brings are only loaded, as a retrained reference is."""
    if not folder:
        return experiment.plan(profile, None)
    runs = [
        Run(
            experiment.name, name, concept, {"concept": concept}, seed, "retrain", original=experiment.original_of(seed)
        )
        for concept in experiment.concepts
        for seed in profile.seeds
    ]
    for run in runs:
        if not model_folder(folder, run).is_dir():
            raise CliperaseError(
                f"model {model_folder(folder, run)} is missing; put one there for each concept and seed"
            )
    return runs


def write_entry(folder, rows, header, study):
    """Write the files of an entry. Returns its verdicts, a line for each run, by the thresholds of the `study`."""
    said = verdicts(votes(rows, study))
    write_table(rows[COLUMNS], folder / "rows.csv")
    write_json(folder / "entry.json", header | {"rows": hash_of(folder / "rows.csv")})
    with whole_file(folder / "verdicts.csv") as partial:
        said.to_csv(partial, index=False)
    return said


def rows_of_entry(folder, header, own):
    """The rows of an entry, which must be those that were measured, and of as many runs as this repository's `own`."""
    path, name = folder / "rows.csv", header["name"]
    if hash_of(path) != header.get("rows"):
        raise CliperaseError(f"entry {folder}: rows.csv is not the one that was measured; enter {name!r} again")
    rows = read_results(path)
    runs, wanted = (set(zip(table.concept, table.seed, strict=True)) for table in (rows, own))
    if runs != wanted or set(rows.method) != {name}:
        raise CliperaseError(
            f"entry {folder} has {len(runs)} runs of {', '.join(sorted(set(rows.method)))}, and the leaderboard lists "
            f"{len(wanted)} of {name}; enter it again without SMALL"
        )
    return rows


def leaderboard(results, study, entries):
    """One line for each method: this repository's rows of the experiment `audit`, and the entries of a folder.

    A small entry is not listed: it is too few runs.
    """
    table = read_results(results)
    own, come_from = table[table.experiment == "audit"], {}
    rows = own
    for path in sorted(Path(entries).glob("*/entry.json")):
        header = read_json(path)
        if not header["small"]:
            rows = pd.concat([rows, rows_of_entry(path.parent, header, own)], ignore_index=True)
            come_from[header["name"]] = json.dumps(header.get("method") or MODELS, ensure_ascii=False)
    voted, reached = votes(rows, study), goals(rows, study)
    said, counted = verdicts(voted), tally(voted)
    means = rows.pivot_table(index="method", columns="metric", values="value")
    table = pd.DataFrame({"runs": said.groupby("method").size()})
    for column, verdict in KINDS.items():
        table[column] = shares(said)[verdict]
    table["votes as never known"] = counted.get(NEVER_KNOWN, 0.0)
    table["goals"] = [f"{reached[name].sum()} of {len(reached)}" for name in table.index]
    for column, figure in SHOWN.items():
        table[column] = means[figure]
    table["seconds"] = rows.groupby("method").seconds.mean()
    table["from"] = [come_from.get(name, "this repository") for name in table.index]
    table.loc[table["from"] == json.dumps(MODELS), "seconds"] = float("nan")  # nobody measured them here
    return table.loc[counted.index].round(1).reset_index()
