"""What the repository promises: pins in step, numbers from runs, notebooks that are their scripts, no leaks."""

import fnmatch
import itertools
import os
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path
from types import SimpleNamespace

import jupytext
import nbformat
import networkx as nx
import pandas as pd
import pytest
import torch
import yaml
from packaging.requirements import Requirement

from cliperase.cli import parse
from cliperase.data.rules import caption_pattern
from cliperase.settings import read_params
from paper import rehearsal
from paper.__main__ import parse as parse_pipeline
from paper.code import Code
from paper.commands.audit_pages import ROWS
from paper.environment import VARIABLES
from paper.experiments import experiment_of
from paper.params import read_profile
from paper.plans.base import Planned
from paper.results import PROVENANCES, STAND_IN, read_results
from paper.search import read_search
from paper.stand_ins import CLASSES, OBJECTS

ROOT = Path(__file__).parent.parent
LOCK = (ROOT / "requirements.lock").read_text()
PROFILES = {name: read_profile(name) for name in ("icons", "cifar", "paper")}
PUBLISHED = ("icons", "cifar")  # `paper` has not been run
ICONS = PROFILES["icons"]
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
TABLES = yaml.safe_load((ROOT / "paper" / "stages.yaml").read_text())["tables"]
EXECUTED = [
    f"{'' if line['profile'] == 'icons' else line['profile'] + '/'}{line['name']}"
    for stage in ("notebook", "notebook_pictures")
    for line in ({"profile": "icons"} | line for line in TABLES[stage].values())
    if line["profile"] in PUBLISHED
] + [*STAGES["notebook_audit"]["foreach"], "efficiency", "paper_vs_ours", "your_own_model"]


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


def test_binder_installs_the_repository_as_make_does(tmp_path):
    assert not (ROOT / "binder").exists()  # beside such a folder repo2docker reads none of these files
    assert not (ROOT / ".binder").exists()
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$@"\n')
    python.chmod(0o755)
    search = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    run = subprocess.run(["./postBuild"], cwd=ROOT, env=search, capture_output=True, text=True, check=True)
    (by_make,) = re.findall(r"^\t\S+ (-m pip install .* -e \.)$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert run.stdout.split() == by_make.replace("--quiet ", "").split()


def stand_in(families):
    """What a plan needs of a data set: its class names, and the labels that have a picture."""
    table = yaml.safe_load((ROOT / "data_prep" / "icons.yaml").read_text())
    drawn = [number for number, names in enumerate(table["classes"].values()) if set(names) & set(table[families])]
    return SimpleNamespace(class_names=list(table["classes"]), labels=torch.tensor(drawn))


HUNDRED = SimpleNamespace(class_names=[f"class {i}" for i in range(100)])


def results_of(profile):
    return read_results(ROOT / "metrics" / profile / "results.csv")


@pytest.mark.parametrize("profile", PUBLISHED)
def test_results_hold_every_run_and_only_these(profile):
    table, parameters = results_of(profile), PROFILES[profile]
    assert set(table.experiment) == set(parameters.experiments)
    assert set(table.provenance) == {parameters.provenance}
    for name in parameters.experiments:
        experiment, found = experiment_of(parameters, name), table[table.experiment == name]
        if isinstance(experiment, Planned):
            (dataset,) = found[found.method != "detector"].dataset.unique()
            families = parameters.data.sets[dataset].get("families", "training_families")
            runs = experiment.plan(parameters, stand_in(families) if profile == "icons" else HUNDRED)
            planned = {(run.row, run.concept, str(run.seed)) for run in runs}
            for split in set(experiment.splits) - {"heldout"}:
                rows = found[found.split == split]
                assert set(zip(rows.method, rows.concept, rows.seed, strict=True)) == planned, (name, split)
    of_before = table.metric.str.contains("relevance|leakage_gone")  # may rise
    shares = table[(table.unit == "%") & ~of_before].value
    assert shares.between(0, 100).all()


@pytest.mark.parametrize(("name", "split"), [("captioning", "test"), ("diffusion", "generated")])
def test_results_without_a_plan_hold_every_row_concept_and_seed(name, split):
    experiment, table = experiment_of(ICONS, name), results_of("icons")
    found = table[(table.experiment == name) & (table.split == split) & (table.method != "original")]
    rows, concepts = getattr(experiment, "candidates", experiment.methods), getattr(experiment, "forgotten", None)
    planned = set(itertools.product(rows, concepts or experiment.concepts, map(str, ICONS.seeds)))
    assert set(zip(found.method, found.concept, found.seed, strict=True)) == planned


def test_the_original_is_good_enough_to_forget_from():
    table = results_of("icons")
    original = table[(table.method == "original") & (table.split == "test") & (table.experiment == "main")]
    assert (original[original.metric == "retain_accuracy"].value >= 90).all()
    assert (original[original.metric == "forget_accuracy"].value >= 80).all()


def test_settings_that_stand_in_a_profile_are_choices_of_its_search():
    cifar = PROFILES["cifar"]
    assert experiment_of(cifar, "retrieval").methods == cifar.chosen["retrieval"]


def test_the_committed_manifest_does_not_leak():
    table = pd.read_csv(ROOT / "metrics" / "icons" / "manifest.csv", keep_default_na=False)
    assert not table.row_hash.duplicated().any()
    counts = table.groupby("split").size().to_dict()
    per_class = ICONS.data.sets["icons"]["per_class"]
    classes = counts["train"] // per_class["train"]
    assert classes >= 72
    assert {s: classes * per_class[s] for s in ("train", "validation", "test")} == {
        s: counts[s] for s in ("train", "validation", "test")
    }
    for concept in ICONS.concepts:
        for split in ("train", "validation", "test"):
            rows = table[(table.split == split) & (table.forgotten_by == concept)]
            assert len(rows) == per_class[split]


@pytest.mark.parametrize(("experiment", "data"), [("pairs", "icon_pairs"), ("retrieval", "icon_scenes")])
def test_the_manifests_of_captions_do_not_leak(experiment, data):
    table = pd.read_csv(ROOT / "metrics" / "icons" / f"manifest_{experiment}.csv", keep_default_na=False)
    assert not table.row_hash.duplicated().any()
    images = ICONS.data.sets[data]["images"]
    assert table.groupby("split").size().to_dict() == images
    for rule in ICONS.experiments[experiment]["rules"]:
        counts = table[table.forgotten_by.str.split("|").map(lambda names, rule=rule: rule in names)].groupby("split")
        assert set(counts.groups) == set(images)  # some rows of every split


@pytest.mark.parametrize("name", EXECUTED)
def test_a_notebook_is_its_script_executed(name):
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    script = jupytext.read(ROOT / "notebooks" / f"{Path(name).name}.py")
    cells = [c for c in notebook.cells if "injected-parameters" not in c.metadata.get("tags", [])]
    assert [c.source for c in cells] == [c.source for c in script.cells]
    code = [c for c in cells if c.cell_type == "code"]
    assert all(c.execution_count for c in code)
    assert sum(bool(c.outputs) for c in code) >= 5  # strict nbval passes what was never run
    assert not any(o.output_type == "error" for c in code for o in c.outputs)


def test_the_gallery_shows_every_figure_of_a_notebook():
    gallery = (ROOT / "docs" / "site" / "gallery.md").read_text()
    shown = {path.removeprefix("/") for path in re.findall(r"\((/figures/\S+?\.png)\)", gallery)}
    others = {"data", "tuning", "guidance"}
    figures = [path for path in (ROOT / "figures").glob("*/*/*.png") if path.parent.name not in others]
    assert shown == {path.relative_to(ROOT).as_posix() for path in figures}


@pytest.mark.parametrize("table", sorted((ROOT / "figures").rglob("*.csv")), ids=lambda path: path.stem)
def test_every_published_table_says_where_its_numbers_come_from(table):
    cells = pd.read_csv(table)
    if table.stem == "paper_vs_ours":  # a column for each provenance
        assert {"icons", "real-data"} <= {*cells.columns} & {*PROVENANCES}
    else:
        assert set(cells.provenance) <= {*PROVENANCES} - {STAND_IN}


# The paper's tables, typed a second time so that a slip in the ledger shows: (experiment, task, metric) -> (Df, Dr).
CLAIMED = {
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
    ("CLIPErase", "forget_accuracy"): None,
    ("GA", "retain_accuracy"): "falls sharply as the ratio grows",
    ("GA", "forget_accuracy"): "forgetting gets worse as the ratio grows",
    ("GradDiff", "forget_accuracy"): "forgetting gets worse as the ratio grows",
    ("CLIPErase", "retain_accuracy"): "stays near the original",
}


SENSES = "apple the fruit and Apple the company"
STATED_OF_APPLE = {
    ("polysemy", SENSES, "forget_accuracy"): "the fruit is forgotten",
    ("polysemy", SENSES, "kept_sense_accuracy"): "the company is kept",
    ("embedding", "t-SNE", "forget_cosine"): "image and text points move apart",
    ("embedding", "t-SNE", "retain_purity"): "other clusters stay",
    ("embedding", "attention heatmaps", "forget_relevance"): None,
}


def published_cells():
    """{(experiment, task, method, concept, metric): value, None for a dash, or what is said in words}."""
    cells = {
        (experiment, task, method, None, f"{side}_{metric}"): value
        for (experiment, task, metric), rows in CLAIMED.items()
        for method, values in rows.items()
        for side, value in zip(("forget", "retain"), values, strict=True)
    }
    for concept, (before, after) in DETECTED.items():
        cells["diffusion", "Stable Diffusion", "original", concept, "detection_rate"] = before
        cells["diffusion", "Stable Diffusion", "CLIPErase", concept, "detection_rate"] = after
        cells["diffusion", "Stable Diffusion", "CLIPErase", concept, "other_detection_rate"] = "others unaffected"
    for (method, metric), said in STATED_OF_RATIOS.items():
        cells["ratios", "ratios 3, 10, 20, 30 % of classes", method, None, metric] = said
    for (experiment, task, metric), said in STATED_OF_APPLE.items():
        cells[experiment, task, "CLIPErase", "apple", metric] = said
    return cells


def test_the_ledger_is_whole():
    cells = yaml.safe_load((ROOT / "figures" / "paper_reference.yaml").read_text())["cells"]
    assert all(("value" in c) != ("statement" in c) for c in cells)
    assert all(c["unit"] == "%" for c in cells if "value" in c)
    about = [(c["experiment"], c["task"], c["method"], c.get("concept"), c["metric"]) for c in cells]
    assert len(cells) == len(set(about)) == 44
    said = [c["value"] if "value" in c else c["statement"] for c in cells]
    assert dict(zip(about, said, strict=True)) == published_cells()


def test_the_baselines_of_the_ledger_are_its_originals():
    """The paper's main table has no original; that of its ablation stands for it."""
    cells = yaml.safe_load((ROOT / "figures" / "paper_reference.yaml").read_text())["cells"]
    forget, retain = CLAIMED["ablation", "CIFAR-100 zero-shot", "accuracy"]["original"]
    before = {"forget_accuracy": forget, "retain_accuracy": retain}
    for cell in cells:
        if cell["experiment"] in ("main", "ablation"):
            assert cell["baseline"] == before[cell["metric"]]
        elif cell["method"] == "CLIPErase" and cell["metric"] == "detection_rate":
            assert cell["baseline"] == DETECTED[cell["concept"]][0]
        else:
            assert "baseline" not in cell


@pytest.fixture(scope="module")
def stages():
    """{name: stage} of the pipeline as DVC reads it, all profiles."""
    from dvc.repo import Repo

    index = Repo(ROOT).index
    assert index.graph.number_of_nodes() > 90  # no two stages write the same, and there is no circle
    return {stage.addressing: stage for stage in index.stages}


def commands_of(stage):
    for line in [stage.cmd] if isinstance(stage.cmd, str) else stage.cmd:
        yield shlex.split(line.replace("$DATA", "data"))


def entry_point(command):
    """The file of hashes that says which code a command runs."""
    if command[0] == "cliperase":
        return "cliperase/cli.py"
    assert command[0] == "python"
    if command[1] != "-m":
        return command[1]
    if command[2] == "paper.notebooks":
        return f"notebooks/{command[3]}.py"
    if command[2] != "paper":
        return f"{command[2].replace('.', '/')}.py"
    if command[3] in ("experiment", "tune"):
        parsed = parse_pipeline(command[3:])
        kind, name = ("experiment", parsed.name) if command[3] == "experiment" else ("search", parsed.experiment)
        return f"{kind}/{parsed.profile}-{name}"
    return f"paper/commands/{command[3]}.py"


def test_stages_run_commands_that_exist_and_depend_on_their_code(stages):
    """Also those of a profile that takes hours: a slip in one would show only after them."""
    points = Code(ROOT).entry_points()
    for name, stage in stages.items():
        wanted = {str(dep) for dep in stage.deps if str(dep).startswith("artifacts/code/")}
        if name == "code":
            assert not wanted
            continue
        assert wanted == {f"artifacts/code/{entry_point(command)}" for command in commands_of(stage)}, name
        assert {path.removeprefix("artifacts/code/") for path in wanted} <= set(points), name
        for command in commands_of(stage):  # argparse leaves the program where it does not understand
            if command[0] == "cliperase":
                parse(command[1:])
            elif command[1:3] == ["-m", "paper"]:
                parse_pipeline(command[3:])


def test_the_paths_that_a_stage_reads_are_dependencies(stages):
    for name, stage in stages.items():
        deps = [str(dep) for dep in stage.deps]
        for command in commands_of(stage):
            options = dict(itertools.pairwise(command))
            read = [options[flag] for flag in ("--data", "--model", "--start", "--parts") if flag in options]
            read += command[4:5] if command[3:4] == ["collect"] else command[2:3] if command[1:2] == ["unpack"] else []
            made = [str(out) for out in stage.outs] + ["data/cc12m"]  # shards are looked at where they are
            for path in read:
                assert any(path == one or path.startswith(f"{one}/") for one in deps + made), (name, path)


def test_whoever_asks_for_the_published_original_does_not_train_it(stages):
    from dvc.repo.reproduce import get_active_graph

    graph = get_active_graph(next(iter(stages.values())).repo.index.graph)
    needed = {stage.addressing for stage in nx.descendants(graph, stages["experiment@cifar-ablation"])}
    assert {"original", "data_hub@cifar-cifar100"} <= needed
    assert not {name for name in needed if name.startswith("pretrain")}


def test_the_defaults_for_small_models_are_what_the_search_chose():
    smallest = read_params(ROOT / "cliperase" / "defaults.yaml")["defaults"][0]
    assert smallest["loop"] == {**ICONS.unlearn, **ICONS.experiments["main"]["unlearn"]}
    assert smallest["methods"] == {name: ICONS.chosen["main"][name] for name in smallest["methods"]}


def test_every_profile_has_a_stage_for_each_experiment_model_and_search(stages):
    """What a table of stages.yaml repeats from a profile is the same there."""
    experiments = {f"{name}-{one}" for name, profile in PROFILES.items() for one in profile.experiments}
    code = {str(dep).removeprefix("artifacts/code/") for stage in stages.values() for dep in stage.deps}
    assert {path.removeprefix("experiment/") for path in code if path.startswith("experiment/")} == experiments
    searches = {f"{name}-{one}" for name, profile in PROFILES.items() for one in profile.search.get("experiments", {})}
    assert {name.partition("@")[2] for name in stages if name.startswith("search@")} == searches
    for name in PUBLISHED:
        without = [line["without"] for line in TABLES["retrain"].values() if line["profile"] == name]
        audited = PROFILES[name].experiments.get("leads", {}).get("concepts", [])
        assert without == [*PROFILES[name].concepts, *audited]
    again = STAGES["retrain_again"]["matrix"]
    assert {*ICONS.concepts, *ICONS.power["concepts"]} == {*again["without"]}
    assert {*ICONS.power["seeds"]} <= {*again["seed"]}
    fetched = {line["name"]: line["output"] for line in TABLES["fetch"].values()}
    assert set(fetched) == set(PROFILES["paper"].hub)


SINGLE = ("ledger", "readme")  # made of what there is of both profiles
SHARED = "data@icons"  # on which the profile `paper` asks about words with two senses


def made(rule, profile, stages):
    """The stages that a rule of the Makefile has DVC make for a profile, with all that they need."""
    text = (ROOT / "Makefile").read_text()
    more = dict(re.findall(r"^(\w+) := (\S+)$", text, flags=re.MULTILINE))
    (recipe,) = re.findall(rf"^{rule}: setup\n((?:\t.*\n)+)", text, flags=re.MULTILINE)
    lines = [line for line in recipe.replace("$(PROFILE)", profile).splitlines() if line.startswith("\tdvc repro")]
    lines = [re.sub(r"\$\((\w+)\)", lambda name: more.get(name[1], ""), line) for line in lines]
    patterns = [
        part for line in lines for part in shlex.split(line)[2:] if not part.startswith("-") and part not in SINGLE
    ]
    asked = {name for pattern in patterns for name in fnmatch.filter(stages, pattern)}
    graph = next(iter(stages.values())).repo.index.graph
    needed = asked.union(*({one.addressing for one in nx.descendants(graph, stages[name])} for name in asked))
    return {name: name.split("@")[0] for name in needed}


def test_make_reproduces_a_profile_without_its_searches(stages):
    every = set(SINGLE)
    for profile in PROFILES:
        found = made("reproduce", profile, stages)
        assert {f"results@{profile}", f"notebook@{profile}-main_results"} <= set(found)
        assert not {"search", "choices", "guidance"} & set(found.values())
        others = [name for name in PROFILES if name != profile]
        assert not [name for name in found if name != SHARED and any(f"@{other}" in name for other in others)]
        every |= set(found) | set(made("tune", profile, stages))
    every |= set(made("power", "icons", stages))
    assert every == set(stages)
    assert {"pretrain@icons", "retrain@icons-apple"} <= set(made("quick", "icons", stages))


def test_a_rehearsal_runs_what_make_has_the_profile_run(stages):
    graph = next(iter(stages.values())).repo.index.graph
    for rule, patterns in (("tune", rehearsal.SEARCHES), ("reproduce", rehearsal.RESULTS)):
        asked = {name for pattern in patterns for name in fnmatch.filter(stages, pattern)}
        needed = asked.union(*({one.addressing for one in nx.descendants(graph, stages[name])} for name in asked))
        assert needed == set(made(rule, "paper", stages))


def test_the_profile_paper_has_what_the_others_have():
    paper, classes = PROFILES["paper"], {name.replace("_", " ") for name in CLASSES}
    assert paper.methods == ICONS.methods
    assert {*ICONS.experiments, *PROFILES["cifar"].experiments} - {"leads"} <= set(paper.experiments)
    assert set(paper.experiments["ratios"]["set_aside"]) <= classes
    assert set(paper.experiments["diffusion"]["concepts"]) <= set(OBJECTS)
    for name, settings in paper.experiments.items():
        if "tuned" in settings:
            searched = {*read_search(paper, settings["tuned"]).ranges}
            assert set(settings["methods"]) <= searched | {"fine-tune retention"}, name
            assert not any("learning_rate" in row for row in settings["methods"].values()), name


def test_what_diffusion_reads_is_what_its_stage_depends_on(stages):
    settings = experiment_of(ICONS, "diffusion")
    stage, graph = stages["pictures@icons-diffusion"], next(iter(stages.values())).repo.index.graph
    deps = {str(dep) for dep in stage.deps}
    assert {str(Path(settings.pipeline).parent), str(Path(settings.detector).parent)} <= deps
    made_before = {str(out) for one in nx.descendants(graph, stage) for out in one.outs}
    assert set(settings.measured_on) <= made_before
    assert {settings.pipeline, settings.detector} <= {str(out) for stage in stages.values() for out in stage.outs}


def test_the_pages_of_audits_depend_on_what_was_chosen_for_their_rows(stages):
    (chosen,) = [dep.params for dep in stages["audit_pages"].deps if "chosen" in str(dep)]
    tuned = experiment_of(ICONS, "audit").tuned
    assert set(chosen) == {f"{tuned}.{row}" for row in ROWS if row in ICONS.chosen[tuned]}
    assert len(chosen) == len(ROWS) - 1  # the original has no settings


def test_who_reads_the_power_of_the_probes_depends_on_both_of_its_tables(stages):
    deps = {name: {Path(str(dep)).name for dep in stage.deps} for name, stage in stages.items()}
    tables = {name: found & {"power.csv", "figures.csv"} for name, found in deps.items()}
    assert {name for name, found in tables.items() if len(found) == 1} == set()
    assert "readme" in {name for name, found in tables.items() if found}


def test_rules_in_parameters_are_what_a_shell_hands_on():
    (rule,) = shlex.split(f"'{PROFILES['paper'].shards['rule']}'")
    assert caption_pattern(yaml.safe_load(rule)).search("two apples")


def test_make_hands_on_every_variable_of_the_environment():
    handed = re.findall(r"^export (.*_.*)$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert set(VARIABLES) <= set(" ".join(handed).split())
    assert VARIABLES["ATEN_CPU_CAPABILITY"] == "avx2"


STAND_IN_PYTHON = """#!/bin/sh
echo "$@" >> "$CALLS"
[ "$2" != venv ] || { mkdir -p "$3/bin" && cp "$0" "$3/bin/python"; }
"""


@pytest.mark.parametrize("environment", ["", "VIRTUAL_ENV", "CONDA_PREFIX"])
def test_make_sets_up_once_in_a_folder_with_a_blank(environment, tmp_path):
    repository, python, calls = tmp_path / "a b" / "repository", tmp_path / "a b" / "python", tmp_path / "calls"
    (repository / "paper").mkdir(parents=True)
    for name in ("Makefile", "paper/environment.mk", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, repository / name)
    python.write_text(STAND_IN_PYTHON)
    python.chmod(0o755)
    inherited = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "CONDA_PREFIX")}
    active = tmp_path / "c  d" if environment else repository / ".venv"
    variables = inherited | {"CALLS": str(calls)} | ({environment: str(active)} if environment else {})
    for _ in range(2):
        subprocess.run(["make", "setup", f"PYTHON={python}"], cwd=repository, env=variables, check=True)
    version, made, locked, itself = calls.read_text().splitlines()
    assert version.startswith("-c import sys")
    assert made == f"-m venv {active}"
    assert locked.endswith("-r requirements.lock")
    assert itself.endswith("-e .")
    assert (active / ".cliperase-installed").is_file()
    assert {path.name for path in (tmp_path / "a b").iterdir()} == {"repository", "python"}
