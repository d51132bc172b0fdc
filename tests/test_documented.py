"""What the pages say to type is carried out, in a reader's folder, with stand-ins for models and data."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from documented import RUN, blocks_of

from cliperase.models.compact import COMPACT
from cliperase.models.openclip import create_model

ROOT = Path(__file__).parent.parent
SCRIPT = Path(__file__).with_name("documented.py")
PAGES = ("README.md", "docs/your_model.md", "docs/audit.md", "docs/data.md", "docs/shards.md", "docs/reproduce.md")
SHARDS = "cc12m"  # the folder that shards.md leaves open
LINKED = {"docs/reproduce.md": ["metrics"]}  # what pages of the repository itself take from it
UNLEARNED = {"docs/audit.md": ["forgotten", "retrained"]}  # models of a reader who comes from another page
ELSEWHERE = {  # the beginning of a command that is not carried out here -> the tests that run it, or what it needs
    "make": ["test_pipeline.py", "test_quick.py", "test_benchmark.py", "test_rehearsal.py"],
    "HF_HUB_OFFLINE=0 make": ["test_rehearsal.py"],
    "dvc": ["test_pipeline.py"],
    "torchrun": ["test_parallel.py", "test_examples.py"],
    "python -m paper": ["test_experiments.py"],
    "python -m benchmarks": ["test_bench.py"],
    "benchmarks/gpu.sh": ["test_bench.py"],
    "python data_prep/icons.py": ["test_icons.py"],
    "python data_prep/from_hub.py": ["test_from_hub.py"],  # here it would want the network
    "conda": [],  # wants the network
}


def carry_out(folder, *arguments):
    environment = os.environ | {"HF_HOME": str(folder / "hub"), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    call = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(call, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reader")
    done = carry_out(folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_carried_out(page, reader):
    shutil.rmtree(reader / "artifacts", ignore_errors=True)
    for seed, name in enumerate(UNLEARNED.get(page, ())):
        create_model(COMPACT, seed).save(reader / "artifacts" / name)
    for name in LINKED.get(page, ()):
        (reader / name).symlink_to(ROOT / name)
    done = carry_out(reader, str(ROOT / page), SHARDS)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]


@pytest.mark.parametrize(
    "page", [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"], ids=lambda path: path.name
)
def test_what_is_not_carried_out_here_is_tested_elsewhere(page):
    for language, code in blocks_of(page.read_text()):
        for line in [] if language else filter(None, code.splitlines()):
            if line.startswith(RUN):
                assert str(page.relative_to(ROOT)) in PAGES, line
            else:
                start = next((one for one in ELSEWHERE if line.startswith(one)), None)
                assert start, line
                assert all((ROOT / "tests" / name).is_file() for name in ELSEWHERE[start])
