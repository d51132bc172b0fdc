"""`make quick` after its models are there: one concept, one seed, every row, to a notebook."""

import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import yaml

from cliperase.settings import read_params

ROOT = Path(__file__).parent.parent


def test_the_first_notebook(data_folder, model_folder, tmp_path):
    for name in ("cliperase", "notebooks", "figures", "paper"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "dvc.yaml", tmp_path)  # by which notebooks find the repository
    shutil.copytree(data_folder, tmp_path / "data" / "icons")
    for name in ("original", "retrain-apple"):
        shutil.copytree(model_folder, tmp_path / "artifacts" / "icons" / "models" / name)
    path = tmp_path / "paper" / "profiles" / "icons.yaml"
    params = read_params(path) | {"workers": 1}
    params["unlearn"] |= {"steps": 2, "evaluate_every": 1, "forget_batch": 4, "retain_batch": 8}
    params["experiments"]["main"]["unlearn"] = {}  # in steps, not in epochs
    path.write_text(yaml.safe_dump(params))
    done = subprocess.run([sys.executable, "-m", "paper.quick"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    notebook = nbformat.read(tmp_path / "artifacts" / "quick" / "main_results.ipynb", as_version=4)
    shown = "".join(str(cell.get("outputs")) for cell in notebook.cells)
    assert all(row in shown for row in ("original", "retrain", *params["methods"]))
