"""`kill -9` at random moments: the same command, given again, ends as if nothing had happened.

Here one command is killed once. `make soak` kills each of `COMMANDS`, as often as it is asked to. Not among them are
`doctor`, `fetch`, `power`, `audit_pages`, `benchmark`, and the trainings of BLIP and of the generator. A conversion is
also killed at the two moments that could leave splits of two data sets.
"""

import io
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import from_hub
import pandas as pd
import pytest
import yaml
from conftest import PROFILE, SOAK, TINY_VIT, without

from cliperase.data.pairs import load_pairs
from cliperase.errors import CliperaseError
from cliperase.models.openclip import create_model
from cliperase.models.packing import pack
from paper.results import COLUMNS, write_table

ROOT = Path(__file__).parents[1]
STEPS = ["--set", "steps=40", "forget_batch=4", "retain_batch=8", "evaluate_every=3", "learning_rate=1e-3"]
PROFILE = PROFILE | {
    "pretrain": {"steps": 30, "learning_rate": 1e-3, "retain_batch": 8, "evaluate_every": 3, "seed": 0},
    "search": {
        "seed": 100,
        "drawn": 2,
        "kept": 1,
        "experiments": {"main": {"concepts": ["lemon"], "further": ["leaf"]}},
    },
    "experiments": {
        "main": {"concepts": ["apple"], "references": ["original"], "methods": {"CLIPErase": {"learning_rate": 1e-3}}},
    },
}
LIBRARY, PAPER, CONVERTER = "cliperase", "paper", "from_hub"
COMMANDS = {  # name -> arguments; what begins with `@` stands for a path of `places`
    "unlearn": [LIBRARY, "unlearn", "--no-audit", "--model", "@model", "--data", "@data", "--forget", "apple", *STEPS],
    "convert": [LIBRARY, "convert", "--model", "@vit", "--to", "transformers"],
    "propose": [LIBRARY, "propose", "--model", "@model", "--data", "@data", "--query", "apple"],
    "compare": [LIBRARY, "compare", "@model", "@model", "--data", "@data", "--forget", "apple"],
    "audit": [LIBRARY, "audit", "@model", "@model", "--data", "@data", "--forget", "apple", "--probes", "reference-gap",
              "neighbours", "quantisation"],
    "evaluate": [LIBRARY, "evaluate", "--model", "@model", "--data", "@data", "--forget", "apple"],
    "pack": [LIBRARY, "pack", "--model", "@model", "--data", "@data"],
    "unpack": [LIBRARY, "unpack", "@packed"],
    "pretrain": [PAPER, "pretrain", "--profile", "@profile", "--data", "@data"],
    "experiment": [PAPER, "experiment", "main", "--profile", "@profile", "--data", "@data", "--model", "@model"],
    "manifest": [PAPER, "manifest", "--profile", "@profile", "--rules", "concepts", "--data", "@data"],
    "from_hub": [CONVERTER, "--source", "@data", "--label", "label", "--validation", "8"],
    "tune": [PAPER, "tune", "--profile", "@profile", "--data", "@data", "--model", "@model"],
    "collect": [PAPER, "collect", "@parts", "--profile", "@profile"],
}  # fmt: skip
DIES = """
import os, signal, sys, datasets, from_hub
def die(*args): os.kill(os.getpid(), signal.SIGKILL)
def counted(self, path, whole=datasets.Dataset.to_parquet):
    written.append(path)
    (die if len(written) > 2 else whole)(self, path)
def moved(old, new, whole=os.replace): (die if "train" in str(new) else whole)(old, new)
written = []
if sys.argv.pop(1) == "written": datasets.Dataset.to_parquet = counted
else: os.replace = moved
from_hub.main()
"""  # a conversion that dies before it has written its third split, or before it moves its training split
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "data_prep")))}
OF_TIMES = ("seconds", "time", "report.json")  # keys of seconds, and of the hash of the file that holds them
FILES = {
    "experiment": "main.csv",
    "manifest": "manifest.csv",
    "tune": "main.csv",
    "collect": "results.csv",
    "evaluate": "metrics.json",
    "pack": "packed.safetensors",
}  # commands whose output is a file


@pytest.fixture(scope="module")
def places(data_folder, model_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("places")
    create_model(TINY_VIT, seed=0).save(folder / "vit")
    (folder / "profile.yaml").write_text(yaml.safe_dump(PROFILE))
    pack(model_folder, ["apple"], folder / "packed.safetensors")
    number = dict.fromkeys(COLUMNS, "a") | {"provenance": "icons", "value": 1.0, "seconds": 1.0, "peak_mb": 1.0}
    write_table(pd.DataFrame([number | {"seed": str(seed)} for seed in range(3)]), folder / "parts" / "main.csv")
    made = {"@vit": "vit", "@packed": "packed.safetensors", "@parts": "parts", "@profile": "profile.yaml"}
    return {"@data": data_folder, "@model": model_folder} | {name: folder / path for name, path in made.items()}


def start(name, places, folder, **environment):
    """The command in a process of its own, in a folder of its own; its output is `output` in there."""
    folder.mkdir(exist_ok=True)
    program, *arguments = COMMANDS[name]
    output = folder / "output" / FILES.get(name, "")
    call = [sys.executable, "-m", program, *(str(places.get(one, one)) for one in arguments), "--output", str(output)]
    environment = {name: value for name, value in {**ENVIRONMENT, **environment}.items() if value is not None}
    return subprocess.Popen(call, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(process):
    said = process.communicate()[1]
    assert process.returncode == 0, said.decode()[-2000:]


def written(folder):
    """{path: content} of what a command wrote, without times. Hidden folders, of files that are not whole, and
    checkpoints are left out."""
    contents = {}
    for path in sorted(folder.rglob("*")):
        place = path.relative_to(folder)
        if not path.is_file() or any(part.startswith(".") for part in place.parts) or "checkpoint" in path.name:
            continue
        content = path.read_bytes()
        if path.suffix == ".json":
            content = without(json.loads(content), *OF_TIMES)
        elif path.suffix == ".csv":
            table = pd.read_csv(io.BytesIO(content))
            content = table[[name for name in table if name not in ("seconds", "peak_mb")]].to_csv()
        elif path.suffix in (".md", ".html"):
            content = re.sub(rb"[\d.]+ s(econds)?\b|[\da-f]{64}", b"", content)
        contents[str(place)] = content
    return contents


@pytest.mark.parametrize("name", COMMANDS if SOAK > 1 else ["unlearn"])
def test_a_killed_command_ends_the_same_when_it_is_given_again(name, places, tmp_path, record_property):
    record_property("tries", SOAK)
    begun = time.monotonic()
    finish(start(name, places, tmp_path / "whole"))
    seconds, whole = time.monotonic() - begun, written(tmp_path / "whole" / "output")
    assert whole
    moments = random.Random(name)
    for number in range(SOAK):
        folder = tmp_path / f"killed {number}"
        process = start(name, places, folder)
        time.sleep(moments.uniform(0.3, 1.0) * seconds)
        process.kill()
        process.communicate()
        left = written(folder / "output")
        assert left == {path: whole[path] for path in left}, f"half-written: {', '.join(left)}"
        finish(start(name, places, folder))
        assert written(folder / "output") == whole
        names = [{path.name for path in (place / "output").iterdir()} for place in (folder, tmp_path / "whole")]
        assert names[0] == names[1], "something is left over"


@pytest.mark.parametrize("name", COMMANDS if SOAK > 1 else ["unlearn"])
def test_a_command_ends_the_same_without_a_home_and_in_another_time_zone(name, places, tmp_path):
    elsewhere = {"HOME": None, "TZ": "Pacific/Kiritimati", "LC_ALL": "C"}
    for folder, environment in (("here", {}), ("there", elsewhere)):
        finish(start(name, places, tmp_path / folder, OMP_NUM_THREADS="1", **environment))
    assert written(tmp_path / "there" / "output") == written(tmp_path / "here" / "output")


def test_two_threads_differ_from_one_by_rounding(places, tmp_path):
    """Sums in another order: what is measured moves in the fourth digit, and no row changes its side."""
    found = []
    for threads in ("1", "2"):
        finish(start("unlearn", places, tmp_path / threads, OMP_NUM_THREADS=threads))
        found.append(json.loads((tmp_path / threads / "output" / "report.json").read_text())["validation_after"])
    assert found[1] == pytest.approx(found[0], abs=1e-3)


@pytest.mark.parametrize("moment", ["written", "moved"])
def test_a_killed_conversion_never_leaves_splits_of_two_draws(moment, data_folder, tmp_path):
    options = ["--source", str(data_folder), "--label", "label", "--validation", "8"]
    other = [*options, "--seed", "5", "--output"]
    for folder, arguments in (("old", [*options, "--output"]), ("killed", [*options, "--output"]), ("new", other)):
        assert from_hub.main([*arguments, str(tmp_path / folder)]) == 0
    old, new = written(tmp_path / "old"), written(tmp_path / "new")
    train, *others = (f"{split}-00000-of-00001.parquet" for split in ("train", "validation", "test"))
    assert old[train] != new[train]
    call = [sys.executable, "-c", DIES, moment, *other, str(tmp_path / "killed")]
    assert subprocess.run(call, env=ENVIRONMENT, capture_output=True).returncode == -signal.SIGKILL
    if moment == "written":
        assert written(tmp_path / "killed") == old
        assert len(load_pairs(tmp_path / "killed", "train")) == 24
    else:
        assert written(tmp_path / "killed") == {name: new[name] for name in others}
        with pytest.raises(CliperaseError, match="split 'train' cannot be read"):
            load_pairs(tmp_path / "killed", "train")
    assert from_hub.main([*other, str(tmp_path / "killed")]) == 0
    assert written(tmp_path / "killed") == new
    assert len(list((tmp_path / "killed").iterdir())) == 3, "something is left over"
