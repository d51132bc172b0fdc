"""A tiny model through the real stages: the repository's own dvc.yaml, in a copy, with small parameters."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cliperase.settings import read_params
from paper.__main__ import EXPERIMENTS as ALL
from paper.results import read_results

EXPERIMENTS = set(ALL) - {"main"}
OTHERS = {"captioning", "diffusion", "embedding"}
TARGETS = ("results", "manifest", "manifest_captions", "contact_sheet", "embedding_space")
ROOT = Path(__file__).parent.parent


def run(folder, *command):
    bin_folder = str(Path(sys.executable).parent)
    environment = {**os.environ, "PATH": bin_folder + os.pathsep + os.environ["PATH"], "DVC_NO_ANALYTICS": "1"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # what Python leaves behind is no change of a dependency
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


def shrink(params):
    """The real parameters, every number small."""
    params["workers"] = 1
    sets = params["data"]["sets"]
    sets["icons"]["per_class"] = {"train": 6, "validation": 2, "test": 2, "heldout": 2}
    sets["icons_other"]["per_class"] = {"train": 4, "validation": 2, "test": 2}
    for name in ("icon_pairs", "icon_scenes"):
        sets[name]["images"] = {"train": 300, "validation": 150, "test": 150}
    params["pretrain"] |= {"steps": 4, "evaluate_every": 2}
    for settings in params["captions"].values():
        settings["pretrain"] |= {"steps": 2, "evaluate_every": 1, "retain_batch": 8}
    params["unlearn"] |= {"steps": 2, "evaluate_every": 1, "forget_batch": 4, "retain_batch": 8}
    params["concepts"], params["seeds"] = ["apple"], [0]
    experiments = params["experiments"]
    params["ablation"]["subsets"] = {name: params["ablation"]["subsets"][name] for name in ("FM", "RM")}
    experiments["ratios"]["draws"] = [{"percent": 3}, {"percent": 10, "steps": 3}]
    experiments["polysemy"]["senses"] = [["apple", "Apple logo"]]
    for settings in experiments.values():
        if "rows" in settings:
            settings["rows"] = ["CLIPErase"]
        if "methods" in settings:
            settings["methods"] = {"CLIPErase": settings["methods"]["CLIPErase"]}
    shrink_blip_and_diffusion(params)
    params["embedding"] |= {"images_per_class": 1, "forgotten_images": 2, "images_per_heatmap": 1}


def shrink_blip_and_diffusion(params):
    sets, diffusion, captioning = params["data"]["sets"], params["diffusion"], params["captioning"]
    concepts = ["apple", "bicycle"]
    sets["icon_prompts"] |= {"classes": concepts, "per_class": {"train": 8, "validation": 2, "test": 2}}
    sets["icon_detection"]["per_class"] = {"train": 4, "validation": 2, "test": 2}
    diffusion |= {"concepts": concepts, "forgotten": ["apple"], "rows": ["CLIPErase"], "images": 1, "steps": 2}
    diffusion["generator"] |= {"steps": 2, "batch": 8}
    diffusion["detector"] |= {"steps": 2, "evaluate_every": 1, "retain_batch": 16}
    params["blip"]["pretrain"] |= {"steps": 2, "batch": 8}
    params["blip"]["rules"] = {"apple": {"concept": "apple"}}
    params["blip"]["methods"] = {"CLIPErase": params["blip"]["methods"]["CLIPErase"]}
    captioning |= {"concepts": ["apple"], "search_concepts": ["dog"], "validation_images": 1}
    captioning["loop"] |= {"steps": 1, "forget_batch": 2, "retain_batch": 4}
    captioning["candidates"] = {"CLIPErase": captioning["candidates"]["CLIPErase"][:1]}


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipeline") / "repository"
    folder.mkdir()
    for name in ("cliperase", "paper", "data_prep", "notebooks", "figures"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", ".dvcignore"):
        shutil.copy(ROOT / name, folder)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    shrink(params)
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    run(folder, "git", "init", "-q")
    run(folder, "dvc", "init", "-q")
    return folder


def test_the_real_stages_from_data_to_the_table(copy):
    run(copy, "dvc", "repro", *TARGETS)
    table = read_results(copy / "metrics" / "icons" / "results.csv")
    methods = read_params(ROOT / "params.yaml")["methods"]
    assert set(table[table.experiment == "main"].method) == {"original", "retrain", *methods}
    assert set(table[table.experiment == "ablation"].method) == {"original", "FM", "RM"}
    assert set(table.experiment) == {"main", *OTHERS, *EXPERIMENTS}
    assert set(table.split) == {"validation", "test", "heldout", "generated"}
    assert set(table.model) == {"compact", "compact BLIP"}
    assert {"kept_sense_accuracy", "bystander_accuracy", "forget_matching_accuracy@16", "naming_rate"} <= set(
        table.metric
    )
    assert "retain_image_retrieval_r@10" in set(table.metric)
    for picture in ("icons", "icon_pairs", "icon_scenes"):
        assert (copy / "figures" / f"{picture}.png").stat().st_size > 10_000

    again = run(copy, "dvc", "repro", *TARGETS)
    assert "Running stage" not in again

    params = yaml.safe_load((copy / "params.yaml").read_text())
    params["methods"]["CLIPErase"]["lambda_fm"] = 1.5
    (copy / "params.yaml").write_text(yaml.safe_dump(params))
    changed = run(copy, "dvc", "status", "results", "--with-deps")
    assert "main@fine-tuning" in changed
    assert "ablation" in changed
    assert "ratios" in changed
    for other in ("main@edits", "pretrain", "captions@pairs", "captions@retrieval", "blip"):
        assert other not in changed
