"""`make quick`: the main table of one concept and one seed, from the models that dvc has made, into artifacts/quick."""

import subprocess
import sys
from pathlib import Path

from cliperase.errors import end_in_one_line
from cliperase.settings import read_params
from paper.experiments import run_experiment
from paper.results import write_table

FOLDER = Path("artifacts/quick")
CONCEPT, SEED = "apple", 0


def main():
    params = {**read_params(), "concepts": [CONCEPT], "seeds": [SEED]}
    table = run_experiment("main", params, "data/icons", "artifacts/icons/models/original")
    write_table(table, FOLDER / "results.csv")
    parameters = {"results": FOLDER / "results.csv", "publish_to": FOLDER}
    command = [sys.executable, "-m", "paper.notebooks", "main_results", "--output", FOLDER / "main_results.ipynb"]
    for name, value in parameters.items():
        command += ["-p", name, value]
    subprocess.run([str(part) for part in command], check=True)


if __name__ == "__main__":
    end_in_one_line(main)
