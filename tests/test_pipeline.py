"""A tiny model through the real stages: the repository's own dvc.yaml, in a copy, with small parameters."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cliperase.results import read_results

ROOT = Path(__file__).parent.parent
METHODS = ("fine-tune", "CLIPErase")


def run(folder, *command):
    bin_folder = str(Path(sys.executable).parent)
    environment = {**os.environ, "PATH": bin_folder + os.pathsep + os.environ["PATH"], "DVC_NO_ANALYTICS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipeline") / "repository"
    folder.mkdir()
    for name in ("cliperase", "data_prep", "notebooks", "figures"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "dvc.yaml", folder)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["data"]["images_per_class"] = {"train": 6, "validation": 2, "test": 2, "heldout": 2}
    params["pretrain"] |= {"steps": 4, "evaluate_every": 2}
    params["unlearn"] |= {"steps": 2, "evaluate_every": 1, "forget_batch": 4, "retain_batch": 8}
    params["concepts"], params["seeds"] = ["apple"], [0]
    params["methods"] = {name: params["methods"][name] for name in METHODS}
    params["ablation"]["rows"] = {"FM": params["ablation"]["rows"]["FM"]}
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    run(folder, "git", "init", "-q")
    run(folder, "dvc", "init", "-q")
    return folder


def test_the_real_stages_from_data_to_the_table(copy):
    run(copy, "dvc", "repro", "results", "manifest", "contact_sheet")
    table = read_results(copy / "metrics" / "icons" / "results.csv")
    assert set(table[table.experiment == "main"].method) == {"original", "retrain", *METHODS}
    assert set(table[table.experiment == "ablation"].method) == {"original", "FM"}
    assert set(table.split) == {"validation", "test", "heldout"}
    assert (copy / "figures" / "icons.png").stat().st_size > 10_000

    again = run(copy, "dvc", "repro", "results", "manifest", "contact_sheet")
    assert "Running stage" not in again

    params = yaml.safe_load((copy / "params.yaml").read_text())
    params["methods"]["CLIPErase"]["lambda_fm"] = 1.5
    (copy / "params.yaml").write_text(yaml.safe_dump(params))
    changed = run(copy, "dvc", "status", "results", "--with-deps")
    assert "main@CLIPErase" in changed
    assert "ablation" in changed
    assert "main@fine-tune" not in changed
    assert "pretrain" not in changed
