"""Rehearse the profile `paper` without its weights and its data: every command of its pipeline, two steps a run.

    python -m paper.rehearsal

In a copy of the repository stand-ins (`stand_ins.py`) answer to the real names, in a cache of the hub and a folder of
data. Then the doctor looks, and what `make tune reproduce PROFILE=paper` would have DVC run is run, in one process. All
that differs from the real thing is in `shrink`. The numbers are noise: their provenance is `stand-in`, and they are
read in the rehearsal's own folder only.
"""

import argparse
import os
import runpy
import shlex
import shutil
import subprocess
import sys
import time
from fnmatch import fnmatch
from pathlib import Path

import yaml

from cliperase.errors import CliperaseError, end_in_one_line
from cliperase.settings import read_params
from paper.results import REHEARSAL, STAND_IN

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "artifacts" / REHEARSAL
MARK = ".rehearsal"  # in a folder that a rehearsal has made, and the next one may remove
PACKAGES = ("cliperase", "paper", "data_prep", "notebooks")
FILES = ("dvc.yaml", "figures/paper_reference.yaml")
PROFILES = Path("paper/profiles")
HUB, CONFIGURATIONS, DATA = "hub", "configurations", "brought"  # folders of the stand-ins
VALIDATION = 120  # of the 500 training images; the pipeline holds 5,000 out
DATA_STAGES = ("data_hub@paper-cifar100",)
SEARCHES, RESULTS = ("search@paper-*",), ("notebook*@paper-*", "manifest@paper*", "shards")
SMALL = ("experiment@paper-[!e]*", "pictures@paper-diffusion", "shards")  # all but the costs and the embedding space
COLLECT = "python -m paper collect artifacts/paper/parts --profile paper --output metrics/paper/results.csv"
DOCTORS = (
    "python -m paper doctor --profile paper --model ViT-B-32/openai --data data/paper/cifar100 --forget apple "
    "--output artifacts/paper/doctor",
    "cliperase doctor --model ViT-B-32/openai --data $DATA/cc12m --rule '{rule}' --set {settings} "
    "--output artifacts/paper/doctor",
)
ADOPT = "python -m paper.choices --profile paper --adopt"
STEPS = {"steps": 2, "evaluate_every": 1, "forget_batch": 4, "retain_batch": 8}
NOISE = {"noise_steps": 2}  # of ENMN
FEW = ("CLIPErase",)  # rows of a small rehearsal
SHRUNK = {  # rows of a whole one, where it has not all: six directions in the one, a process for each run in the other
    "polysemy": ("GA text", "null space", "MultiDelete", *FEW),
    "efficiency": ("SSD", *FEW),
}


def shrink(params, small):
    """The profile in place: as it is, but two steps a run, two seeds, few concepts and pictures.

    `small`: one row for each experiment, and one search.
    """
    params |= {"provenance": STAND_IN, "concepts": ["apple", "bicycle"], "seeds": [0, 1], "workers": 1}
    params["unlearn"] = {**params["unlearn"], **STEPS, "autocast": False}  # which few processors are quick at
    for name in ("epochs", "evaluations"):
        del params["unlearn"][name]
    params["search"] |= {"drawn": 1, "kept": 1}
    searches, experiments = params["search"]["experiments"], params["experiments"]
    for search in searches.values():
        search |= {name: search[name][:1] for name in ("concepts", "further")}
    for settings in experiments.values():
        unlearn = settings.get("unlearn", {})
        settings["unlearn"] = {name: value for name, value in unlearn.items() if name != "epochs"}
    for name in ("main", "published", "audit"):
        experiments[name]["concepts"] = params["concepts"][: 1 if name == "audit" else 2]
    experiments["published"]["unlearn"] = {"autocast": True}
    experiments["published"]["methods"]["ENMN"] |= NOISE
    experiments["sensitivity"] |= {"concepts": ["orange"], "lambda_fm": [1.0, 3.0], "lambda_cm": [1.0, 3.0]}
    experiments["ratios"]["draws"] = [{"percent": 3, "forget_batch": 4}, {"percent": 10, "forget_batch": 8}]
    for name, rows in SHRUNK.items():
        experiments[name]["methods"] = rows_of(experiments[name], *rows)
    experiments["retention"]["concepts"] = ["clock"]
    for name in ("pairs", "retrieval", "blip"):
        experiments[name]["rules"] = dict(list(experiments[name]["rules"].items())[:2])
    experiments["embedding"] |= {"images_per_class": 1, "forgotten_images": 1, "images_per_heatmap": 1}
    shrink_generation(experiments["captioning"], experiments["diffusion"])
    given = dict(one.split("=") for one in params["shards"]["settings"].split())
    params["shards"]["settings"] = " ".join(f"{name}={value}" for name, value in {**given, **STEPS}.items())
    if small:
        shrink_rows(params)


def rows_of(settings, *names):
    return {name: settings["methods"][name] for name in names}


def shrink_generation(captioning, diffusion):
    captioning |= {"concepts": ["apple", "bicycle"], "search_concepts": ["orange"], "validation_images": 1}
    captioning["loop"] = {**STEPS, "evaluate_every": 2}
    captioning["candidates"] = {row: listed[:1] for row, listed in captioning["candidates"].items()}
    diffusion |= {"concepts": ["apple", "bicycle", "dog"], "images": 2, "shown": 2, "steps": 2, "batch": 4}


def shrink_rows(params):
    """One row for each experiment, on one concept; the search for them, and no other."""
    params["seeds"] = params["seeds"][:1]
    params["search"]["experiments"] = {"main": params["search"]["experiments"]["main"]}
    for name, settings in params["experiments"].items():
        if "tuned" in settings:
            settings["tuned"] = "main"
        if "methods" in settings:
            settings["methods"] = rows_of(settings, *FEW)
        for several in ("concepts", "senses", "forgotten"):
            if several in settings:
                settings[several] = settings[several][: 2 if name == "diffusion" else 1]
        if "rules" in settings:
            settings["rules"] = dict(list(settings["rules"].items())[:1])
    params["experiments"]["published"]["unlearn"] = {}  # bfloat16 takes a processor seconds
    params["experiments"]["ablation"]["subsets"] = {"FM": {"lambda_rm": 0.0, "lambda_cm": 0.0}}
    for name in ("efficiency", "embedding"):  # seconds of imports
        del params["experiments"][name]
    candidates = params["experiments"]["captioning"]["candidates"]
    params["experiments"]["captioning"]["candidates"] = {row: candidates[row] for row in FEW}
    params["experiments"]["audit"] |= {"probes": ["reference-gap", "linear-probe"], "settings": {}}


def prepare(folder, small=False):
    """A copy of the repository in `folder`, its parameters small. A rehearsal that was there before is removed."""
    if REHEARSAL not in folder.parts:
        raise CliperaseError(f"folder {folder}: name one below {REHEARSAL!r}, where its numbers are told from results")
    if folder.exists() and any(folder.iterdir()) and not (folder / MARK).is_file():
        raise CliperaseError(f"folder {folder} holds files that are no rehearsal's; name a new one, or delete it")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARK).touch()
    for name in PACKAGES:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.ipynb"))
    for name in FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    edit(folder / PROFILES / "paper.yaml", lambda params: shrink(params, small))
    edit(folder / PROFILES / "icons.yaml", shrink_icons)
    edit(folder / PROFILES / "search" / "ranges.yaml", lambda ranges: shrink_ranges(ranges, small))
    (folder / PROFILES / "chosen" / "paper.yaml").unlink(missing_ok=True)
    stages = folder / "paper" / "stages.yaml"
    stages.write_text(stages.read_text().replace("--validation 5000", f"--validation {VALIDATION}"))


def edit(path, change):
    content = read_params(path)
    change(content)
    path.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True))


def shrink_icons(params):
    params["data"]["sets"]["icons"]["per_class"] = {"train": 6, "validation": 2, "test": 2, "heldout": 2}


def shrink_ranges(ranges, small):
    ranges["ENMN"] |= NOISE
    for row in {*ranges} - {*FEW} if small else ():
        del ranges[row]


def rehearse(folder, small=False):
    """All of it, in a process that takes the copy's code and the stand-ins for the hub."""
    prepare(folder, small)
    environment = {**os.environ, "PYTHONPATH": str(folder), "DATA": str(folder / DATA), "HF_HOME": str(folder / HUB)}
    environment["HF_HUB_OFFLINE"] = "1"
    command = [sys.executable, "-m", "paper.rehearsal", "--inside", *(["--small"] if small else [])]
    if subprocess.run(command, cwd=folder, env=environment).returncode:
        raise CliperaseError(f"the rehearsal in {folder} failed; the last command above says where")


def inside(small):
    """In the copy: make the stand-ins, let the doctors look, run the searches, then everything else."""
    from huggingface_hub.constants import HF_HUB_CACHE

    from paper.params import read_profile
    from paper.stand_ins import write_data, write_hub

    write_hub(Path(HF_HUB_CACHE), Path(CONFIGURATIONS))
    write_data(Path(DATA))
    shards, done = read_profile("paper").shards, set()
    carry_out_stages(DATA_STAGES, done)
    for command in DOCTORS:
        carry_out(command.format(**shards) if "{rule}" in command else command)
    carry_out_stages(("search@paper-main",) if small else SEARCHES, done)
    carry_out(ADOPT)
    carry_out_stages(SMALL if small else RESULTS, done)
    if small:
        carry_out(COLLECT)


def carry_out_stages(patterns, done):
    """The commands of the stages that match `patterns`, after those of all that they need; not of those in `done`."""
    import networkx
    from dvc.repo import Repo

    if not Path(".dvc").is_dir():
        Repo.init(no_scm=True)
    graph = Repo().index.graph  # from a stage to what it needs
    asked = {stage for stage in graph if any(fnmatch(stage.addressing, pattern) for pattern in patterns)}
    needed = asked.union(*(networkx.descendants(graph, stage) for stage in asked))
    for stage in reversed(list(networkx.topological_sort(graph))):
        if stage in needed and stage.addressing not in done:
            done.add(stage.addressing)
            for command in [stage.cmd] if isinstance(stage.cmd, str) else stage.cmd:
                carry_out(command)


def carry_out(command):
    """A command of the pipeline, in this process, as Python would run it."""
    start, words = time.perf_counter(), [os.path.expandvars(word) for word in shlex.split(command)]
    print(f"> {shlex.join(words)}", flush=True)
    if words[0] == "python":
        words = words[1:]
    arguments, path = sys.argv, list(sys.path)
    try:
        if words[0] == "-m":
            sys.argv = words[1:]
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        elif words[0].endswith(".py"):
            sys.argv, sys.path = words, [str(Path(words[0]).parent), *path]
            runpy.run_path(words[0], run_name="__main__")
        else:
            sys.argv = words
            runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    except SystemExit as error:
        if error.code:
            raise CliperaseError(f"{command} ended with {error.code}") from None
    finally:
        sys.argv, sys.path = arguments, path
    print(f"  {time.perf_counter() - start:.1f} s", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=FOLDER, help=f"where; a folder below {REHEARSAL!r}")
    parser.add_argument("--small", action="store_true", help="one row for each experiment, one search, no notebooks")
    parser.add_argument("--inside", action="store_true", help="in the copy, which this command makes")
    arguments = parser.parse_args()
    if arguments.inside:
        inside(arguments.small)
    else:
        rehearse(arguments.folder.absolute(), arguments.small)


if __name__ == "__main__":
    end_in_one_line(main)
