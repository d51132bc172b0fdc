"""The examples for clusters: their shell runs with stand-ins of a cluster's commands, and ends in a command of ours."""

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from torch.distributed.run import parse_args

from cliperase.cli import parse, rule_of, settings_of
from cliperase.unlearning import Recipe

FOLDER = Path(__file__).parent.parent / "docs" / "examples"
TASK = yaml.safe_load((FOLDER / "skypilot.yaml").read_text())
CARDS = "8"
CLUSTER = {
    "SLURM_JOB_NODELIST": "n[1-2]",
    "SLURM_NNODES": "2",
    "SLURM_JOB_ID": "7",
    "SKYPILOT_NUM_GPUS_PER_NODE": CARDS,
}
STAND_INS = {
    "scontrol": "printf 'node1\\nnode2\\n'",
    "srun": '"$@"',
    "torchrun": "printf '%s\\n' \"$@\"",
    "conda": ":",
}
SCRIPTS = {"slurm.sh": (FOLDER / "slurm.sh").read_text(), "skypilot.yaml": TASK["run"]}


def handed_on(script, folder):
    """What a script hands on to torchrun, as torchrun understands it."""
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".venv" / "bin" / "activate").touch()
    for name, line in STAND_INS.items():
        (folder / name).write_text(f"#!/bin/sh\n{line}\n")
        (folder / name).chmod(0o755)
    environment = os.environ | CLUSTER | {"PATH": f"{folder}:{os.environ['PATH']}"}
    call = ["bash", "-euc", script, "script", "a folder/shards"]
    done = subprocess.run(call, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    return parse_args(done.stdout.splitlines())


@pytest.mark.parametrize("name", SCRIPTS)
def test_an_example_ends_in_a_command_that_is_understood(name, tmp_path):
    called = handed_on(SCRIPTS[name], tmp_path)
    assert called.module
    assert called.training_script == "cliperase"
    arguments = parse(called.training_script_args)
    assert arguments.data == {"slurm.sh": "a folder/shards", "skypilot.yaml": "/shards"}[name]
    assert rule_of(arguments) == {"concept": "apple"}
    training = Recipe.of(arguments.method, settings_of(arguments)).training
    assert training.retain_batch % training.lanes == 0
    assert training.lanes % (int(called.nnodes.partition(":")[0]) * int(called.nproc_per_node)) == 0


def test_what_slurm_is_asked_for_is_what_torchrun_starts(tmp_path):
    asked = dict(re.findall(r"^#SBATCH --([\w-]+)=(\S+)$", SCRIPTS["slurm.sh"], flags=re.MULTILINE))
    assert (asked["nodes"], asked["ntasks-per-node"]) == (CLUSTER["SLURM_NNODES"], "1")
    assert asked["gpus-per-node"] == handed_on(SCRIPTS["slurm.sh"], tmp_path).nproc_per_node


def test_the_task_of_skypilot_has_what_it_needs():
    assert set(TASK) == {"name", "workdir", "resources", "file_mounts", "setup", "run"}
    assert TASK["resources"]["accelerators"].endswith(f":{CARDS}")
    assert set(TASK["file_mounts"]) == {"/shards"}
    subprocess.run(["bash", "-n"], input=TASK["setup"], text=True, check=True)
