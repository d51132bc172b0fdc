"""What the repository promises: pins in step, numbers from runs, notebooks that are their scripts, no leaks."""

import itertools
import re
import shlex
import tomllib
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import jupytext
import nbformat
import pandas as pd
import pytest
import torch
import yaml
from packaging.requirements import Requirement

from cliperase.cli import parse
from cliperase.data.rules import caption_pattern
from cliperase.settings import read_params
from paper.__main__ import COMMON_KERNELS
from paper.__main__ import parse as parse_pipeline
from paper.experiments import PLANS, part_names
from paper.results import PROVENANCES, read_results

ROOT = Path(__file__).parent.parent
LOCK = (ROOT / "requirements.lock").read_text()
PARAMS = read_params(ROOT / "params.yaml")
PHOTOGRAPHS = read_params(ROOT / "profiles" / "cifar" / "params.yaml")
NOTEBOOKS = [*PARAMS["notebooks"], "blip", "diffusion", "embedding_space"]
NOTEBOOKS += [f"cifar/{name}" for name in PHOTOGRAPHS["notebooks"] if name not in PHOTOGRAPHS.get("not_run", [])]
EXPERIMENTS = ["main", "ablation", "blip", *PARAMS["experiments"]]  # those that have a plan
OTHERS = ["captioning", "diffusion", "embedding"]
RESULTS = ROOT / "metrics" / "icons" / "results.csv"


def pins():
    found = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", LOCK, flags=re.MULTILINE)
    return {re.sub(r"[._]", "-", name).lower(): version for name, version in found}


def test_the_lock_satisfies_the_package_and_holds_only_names_versions_and_hashes():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *itertools.chain(*project["optional-dependencies"].values())]
    for requirement in map(Requirement, wanted):
        version = pins()[re.sub(r"[._]", "-", requirement.name).lower()]
        assert requirement.specifier.contains(version), requirement
    assert "://" not in LOCK
    blocks = re.split(r"\n(?=\S)", LOCK.strip())
    assert all("--hash=sha256:" in block for block in blocks if "==" in block)


def test_conda_gives_the_same_pins():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python = next(d for d in environment["dependencies"] if str(d).startswith("python="))
    pip = next(d["pip"] for d in environment["dependencies"] if isinstance(d, dict))
    assert pip == ["-r requirements.lock"]
    assert python == "python=3.11"


def stand_in(families):
    """What a plan needs of a data set: its class names, and the labels that have a picture."""
    table = yaml.safe_load((ROOT / "data_prep" / "icons.yaml").read_text())
    drawn = [number for number, names in enumerate(table["classes"].values()) if set(names) & set(table[families])]
    return SimpleNamespace(class_names=list(table["classes"]), labels=torch.tensor(drawn))


def test_results_hold_every_run_and_only_these():
    table = read_results(RESULTS)
    for experiment in EXPERIMENTS:
        split = "validation" if experiment == "efficiency" else "test"  # which measures what training costs, no images
        found = table[(table.experiment == experiment) & (table.split == split)]
        (dataset,) = found.dataset.unique()
        families = PARAMS["data"]["sets"][dataset].get("families", "training_families")
        runs = PLANS[experiment](PARAMS, stand_in(families))
        planned = {(run.row, run.concept, str(run.seed)) for run in runs}
        assert set(zip(found.method, found.concept, found.seed, strict=True)) == planned, experiment
    parts = {part.removeprefix("main-") for part in part_names(PARAMS)}
    assert parts == {"original", "retrain", *PARAMS["methods"], *EXPERIMENTS[1:], *OTHERS}
    assert set(table.experiment) == {*EXPERIMENTS, *OTHERS}
    shares = table[(table.unit == "%") & ~table.metric.str.endswith("relevance")].value  # of before: may rise
    assert shares.between(0, 100).all()


def test_results_of_photographs_hold_every_run_but_what_is_said_not_to_be_run():
    table, not_run = read_results(ROOT / "metrics" / "cifar" / "results.csv"), PHOTOGRAPHS.get("not_run", [])
    assert set(not_run) <= set(part_names(PHOTOGRAPHS))
    assert set(table.provenance) == {"real-data"}
    data = SimpleNamespace(class_names=[f"class {i}" for i in range(100)])
    runs = [run for name in ("main", "ablation", "ratios", "retrieval") for run in PLANS[name](PHOTOGRAPHS, data)]
    planned = {
        (run.experiment, run.row, run.concept, str(run.seed))
        for run in runs
        if run.experiment not in not_run and f"{run.experiment}-{run.row}" not in not_run
    }
    for split in ("validation", "test"):
        found = table[table.split == split]
        assert set(zip(found.experiment, found.method, found.concept, found.seed, strict=True)) == planned


@pytest.mark.parametrize("profile", ["", "profiles/cifar"])
def test_stages_of_the_main_table_run_every_row_once(profile):
    params = read_params(ROOT / profile / "params.yaml")
    assert sorted(itertools.chain(*params["main_stages"].values())) == sorted(params["methods"])


@pytest.mark.parametrize(("experiment", "split"), [("captioning", "test"), ("diffusion", "generated")])
def test_results_without_a_plan_hold_every_row_concept_and_seed(experiment, split):
    settings, table = PARAMS[experiment], read_results(RESULTS)
    found = table[(table.experiment == experiment) & (table.split == split) & (table.method != "original")]
    rows, concepts = settings.get("rows", settings.get("candidates")), settings.get("forgotten", settings["concepts"])
    seeds = map(str, PARAMS["seeds"])
    planned = set(itertools.product(rows, concepts, seeds))
    assert set(zip(found.method, found.concept, found.seed, strict=True)) == planned


def test_the_original_is_good_enough_to_forget_from():
    table = read_results(RESULTS)
    original = table[(table.method == "original") & (table.split == "test") & (table.experiment == "main")]
    assert (original[original.metric == "retain_accuracy"].value >= 90).all()
    assert (original[original.metric == "forget_accuracy"].value >= 80).all()


@pytest.mark.parametrize("profile", ["icons", "cifar"])
def test_settings_are_the_choices_of_the_search(profile):
    home, figures = ROOT, ROOT / "figures"
    if profile != "icons":
        home, figures = ROOT / "profiles" / profile, figures / profile
    methods = read_params(home / "params.yaml")["methods"]
    table = pd.read_csv(figures / "tuning.csv")
    chosen = table[table.chosen == "yes"].set_index("method").settings
    assert set(chosen.index) == set(methods)
    assert table.groupby("method").size().nunique() == 1  # the same budget for every row
    assert set(table.split) == {"validation"}
    for method, settings in chosen.items():
        assert methods[method] == yaml.safe_load(settings), method


@pytest.mark.parametrize(("profile", "task"), [("icons", "pairs"), ("icons", "retrieval"), ("cifar", "retrieval")])
def test_settings_for_captions_are_the_choices_of_their_search(profile, task):
    params, figures = (PARAMS, ROOT / "figures") if profile == "icons" else (PHOTOGRAPHS, ROOT / "figures" / profile)
    table = pd.read_csv(figures / "tuning_captions.csv")
    table = table[table.task == task]
    chosen = table[table.chosen == "yes"].set_index("method").settings
    assert table.groupby("method").size().nunique() == 1
    assert set(table.split) == {"validation"}
    assert params["experiments"][task]["methods"] == {row: yaml.safe_load(line) for row, line in chosen.items()}


def test_settings_of_blip_are_the_choices_of_its_search():
    table = pd.read_csv(ROOT / "figures" / "tuning_blip.csv")
    chosen = table[table.chosen == "yes"].set_index("method").settings
    assert table.groupby("method").size().nunique() == 1
    assert set(table.split) == {"validation"}
    assert PARAMS["blip"]["methods"] == {row: yaml.safe_load(line) for row, line in chosen.items()}


def test_the_committed_manifest_does_not_leak():
    table = pd.read_csv(ROOT / "metrics" / "icons" / "manifest.csv", keep_default_na=False)
    assert not table.row_hash.duplicated().any()
    counts = table.groupby("split").size().to_dict()
    per_class = PARAMS["data"]["sets"]["icons"]["per_class"]
    classes = counts["train"] // per_class["train"]
    assert classes >= 72
    assert {s: classes * per_class[s] for s in ("train", "validation", "test")} == {
        s: counts[s] for s in ("train", "validation", "test")
    }
    for concept in PARAMS["concepts"]:
        for split in ("train", "validation", "test"):
            rows = table[(table.split == split) & (table.forgotten_by == concept)]
            assert len(rows) == per_class[split]


@pytest.mark.parametrize("experiment", PARAMS["captions"])
def test_the_manifests_of_captions_do_not_leak(experiment):
    table = pd.read_csv(ROOT / "metrics" / "icons" / f"manifest_{experiment}.csv", keep_default_na=False)
    assert not table.row_hash.duplicated().any()
    images = PARAMS["data"]["sets"][PARAMS["captions"][experiment]["data"]]["images"]
    assert table.groupby("split").size().to_dict() == images
    for rule in PARAMS["experiments"][experiment]["rules"]:
        counts = table[table.forgotten_by.str.split("|").map(lambda names, rule=rule: rule in names)].groupby("split")
        assert set(counts.groups) == set(images)  # some rows of every split


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_its_script_executed(name):
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    script = jupytext.read(ROOT / "notebooks" / f"{Path(name).name}.py")
    cells = [c for c in notebook.cells if "injected-parameters" not in c.metadata.get("tags", [])]
    assert [c.source for c in cells] == [c.source for c in script.cells]
    code = [c for c in cells if c.cell_type == "code"]
    assert all(c.execution_count for c in code)
    assert sum(bool(c.outputs) for c in code) >= 5  # strict nbval passes what was never run
    assert not any(o.output_type == "error" for c in code for o in c.outputs)


@pytest.mark.parametrize("table", sorted((ROOT / "figures").rglob("*.csv")), ids=lambda path: path.stem)
def test_every_published_table_says_where_its_numbers_come_from(table):
    cells = pd.read_csv(table)
    without = cells[~cells.provenance.isin(PROVENANCES)]
    if len(without):  # the ledger: what was not run has neither number nor provenance
        assert table.stem == "paper_vs_ours"
        assert set(without.ours) == set(without.provenance) == {"–"}
        assert set(without.verdict) == {"not run"}


# The paper's tables, typed a second time so that a slip in the ledger shows: (experiment, task, metric) -> (Df, Dr).
PUBLISHED = {
    ("main", "CIFAR-100 zero-shot", "accuracy"): {
        "CLIPErase": (0.00, 90.99),
        "ENMN": (0.00, 12.46),
        "GradDiff": (None, 89.96),
    },
    ("pairs", "CC12M zero-shot", "matching_accuracy@16"): {"CLIPErase": (0.74, 97.10), "GradDiff": (4.96, 97.01)},
    ("retrieval", "Flickr30K image retrieval", "image_retrieval_r@10"): {
        "CLIPErase": (10.55, 50.35),
        "GradDiff": (7.82, 47.13),
    },
    ("ablation", "CIFAR-100 zero-shot", "accuracy"): {
        "original": (86.08, 72.85),
        "FM": (18.57, 64.12),
        "FM+RM": (9.40, 73.14),
        "FM+RM+CM": (0.00, 90.80),
    },
    ("blip", "BLIP", "accuracy"): {"CLIPErase": (0.00, 83.12), "GA": (0.00, 42.89), "GradDiff": (89.73, None)},
}
DETECTED = {"apple": (100, 2), "bicycle": (90, 8)}  # before and after
STATED_OF_RATIOS = {
    ("GA", "retain_accuracy"): "falls sharply as the ratio grows",
    ("GA", "forget_accuracy"): "forgetting gets worse as the ratio grows",
    ("GradDiff", "forget_accuracy"): "forgetting gets worse as the ratio grows",
    ("CLIPErase", "retain_accuracy"): "stays near the original",
}


def published_cells():
    """{(experiment, task, method, concept, metric): value, None for a dash, or what is said in words}."""
    cells = {
        (experiment, task, method, None, f"{side}_{metric}"): value
        for (experiment, task, metric), rows in PUBLISHED.items()
        for method, values in rows.items()
        for side, value in zip(("forget", "retain"), values, strict=True)
    }
    for concept, (before, after) in DETECTED.items():
        cells["diffusion", "Stable Diffusion", "original", concept, "detection_rate"] = before
        cells["diffusion", "Stable Diffusion", "CLIPErase", concept, "detection_rate"] = after
        cells["diffusion", "Stable Diffusion", "CLIPErase", concept, "other_detection_rate"] = "others unaffected"
    for (method, metric), said in STATED_OF_RATIOS.items():
        cells["ratios", "ratios 3, 10, 20, 30 % of classes", method, None, metric] = said
    return cells


def test_the_ledger_is_whole():
    cells = yaml.safe_load((ROOT / "figures" / "paper_reference.yaml").read_text())["cells"]
    assert all(("value" in c) != ("statement" in c) for c in cells)
    assert all(c["unit"] == "%" for c in cells if "value" in c)
    about = [(c["experiment"], c["task"], c["method"], c.get("concept"), c["metric"]) for c in cells]
    assert len(cells) == len(set(about)) == 38
    said = [c["value"] if "value" in c else c["statement"] for c in cells]
    assert dict(zip(about, said, strict=True)) == published_cells()


def test_the_baselines_of_the_ledger_are_its_originals():
    """The paper's main table has no original; that of its ablation stands for it."""
    cells = yaml.safe_load((ROOT / "figures" / "paper_reference.yaml").read_text())["cells"]
    forget, retain = PUBLISHED["ablation", "CIFAR-100 zero-shot", "accuracy"]["original"]
    before = {"forget_accuracy": forget, "retain_accuracy": retain}
    for cell in cells:
        if cell["experiment"] in ("main", "ablation"):
            assert cell["baseline"] == before[cell["metric"]]
        elif cell["method"] == "CLIPErase" and cell["metric"] == "detection_rate":
            assert cell["baseline"] == DETECTED[cell["concept"]][0]
        else:
            assert "baseline" not in cell


@pytest.mark.parametrize("folder", ["", "tuning/", "profiles/cifar/", "profiles/cifar/tuning/", "profiles/paper/"])
def test_stages_name_commands_and_files_that_exist(folder):
    """Also those of a profile that takes hours: a slip in one would show only after them."""
    stages = yaml.safe_load((ROOT / folder / "dvc.yaml").read_text())["stages"]
    for name, stage in stages.items():
        stage = stage.get("do", stage)
        command = shlex.split(
            re.sub(r"\$\{[^}]*\}|\$DATA", "x", stage["cmd"]).replace("experiment x", "experiment main")
        )
        if command[0] == "cliperase":
            parse(command[1:])  # argparse leaves the program where it does not understand
        else:
            assert command[0] == "python"
            if command[1:3] == ["-m", "paper"]:
                parse_pipeline(command[3:])
            elif command[1] == "-m":
                assert find_spec(command[2]), name
            else:
                assert command[1] == "x" or (ROOT / command[1]).is_file(), name
        for path in stage["deps"]:
            own = path.split("/")[0] in ("cliperase", "paper", "data_prep", "notebooks") and "${" not in path
            assert not own or (ROOT / path).exists(), f"{name}: {path}"


def test_no_two_stages_of_the_repository_write_the_same():
    """DVC looks at all of them at once, whatever it is asked to make."""
    from dvc.repo import Repo

    assert Repo(ROOT).index.graph.number_of_nodes() > 50


def test_rules_in_parameters_are_what_a_shell_hands_on():
    params = yaml.safe_load((ROOT / "profiles" / "paper" / "params.yaml").read_text())
    (rule,) = shlex.split(f"'{params['shards']['rule']}'")
    assert caption_pattern(yaml.safe_load(rule)).search("two apples")


def test_make_asks_for_the_kernels_that_the_commands_ask_for():
    asked = dict(re.findall(r"^(\w+) \?= (\S+)$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert {name: asked.get(name) for name in COMMON_KERNELS} == COMMON_KERNELS
