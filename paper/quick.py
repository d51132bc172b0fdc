"""`make quick`: the main table of one concept and one seed, from the models that dvc has made, into artifacts/quick."""

import subprocess
import sys
from pathlib import Path

from cliperase.errors import end_in_one_line
from paper.environment import prepare_environment
from paper.experiments import experiment_of
from paper.params import read_profile
from paper.results import write_table

FOLDER = Path("artifacts/quick")
CONCEPT, SEED = "apple", 0


def main():
    prepare_environment()
    profile = read_profile("icons").model_copy(update={"seeds": [SEED]})
    experiment = experiment_of(profile, "main", concepts=[CONCEPT], originals=[SEED])
    table, _ = experiment.run(profile, "data/icons", "artifacts/icons/models/original")
    write_table(table, FOLDER / "results.csv")
    parameters = {"results": FOLDER / "results.csv", "publish_to": FOLDER}
    command = [sys.executable, "-m", "paper.notebooks", "main_results", "--output", FOLDER / "main_results.ipynb"]
    for name, value in parameters.items():
        command += ["-p", name, value]
    subprocess.run([str(part) for part in command], check=True)


if __name__ == "__main__":
    end_in_one_line(main)
