"""A tiny model through the real stages: the repository's own dvc.yaml, in a copy, with small parameters."""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from recording import recorded, recorder

from cliperase.settings import read_params
from paper.params import read_profile
from paper.results import read_results

TARGETS = ("results@icons", "manifest@icons*", "contact_sheet@icon*s", "search@icons-ratios")
ROOT = Path(__file__).parent.parent
ICONS = "paper/profiles/icons.yaml"


def run(folder, *command):
    environment = recorder(folder, folder.with_name("records")) | {"DVC_NO_ANALYTICS": "1"}
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
    params["unlearn"] |= {"forget_batch": 4, "retain_batch": 8}
    params["search"] |= {"drawn": 2, "kept": 1}
    params["search"]["experiments"] = {"ratios": {"concepts": ["3 % of classes"], "further": ["10 % of classes"]}}
    params["concepts"][:], params["seeds"] = ["apple"], [0]
    experiments = params["experiments"]
    for name, settings in experiments.items():
        rows = ("CLIPErase", "SSD") if name == "efficiency" else ("CLIPErase",)
        if "methods" in settings and name != "main":
            settings["methods"] = {row: settings["methods"][row] for row in rows}
        if "unlearn" in settings:
            settings["unlearn"] = {"steps": 2, "evaluate_every": 1}
        if "originals" in settings:
            settings["originals"] = [0]
    for name in ("pairs", "retrieval"):
        experiments[name]["pretrain"] |= {"steps": 2, "evaluate_every": 1, "retain_batch": 8}
    experiments["sensitivity"] |= {"lambda_fm": [1.0, 3.0], "lambda_cm": [1.0, 3.0], "concepts": ["dog"]}
    for name in ("audit", "leads"):
        experiments[name] |= {"concepts": ["apple"], "probes": ["reference-gap"], "settings": {}}
    experiments["ablation"]["subsets"] = {name: experiments["ablation"]["subsets"][name] for name in ("FM", "RM")}
    experiments["ratios"]["draws"] = [{"percent": 3}, {"percent": 10, "steps": 3}]
    experiments["polysemy"]["senses"] = [["apple", "Apple logo"]]
    experiments["embedding"] |= {"images_per_class": 1, "forgotten_images": 2, "images_per_heatmap": 1}
    shrink_blip_and_diffusion(sets, experiments)


def shrink_blip_and_diffusion(sets, experiments):
    concepts, diffusion, captioning = ["apple", "bicycle"], experiments["diffusion"], experiments["captioning"]
    sets["icon_prompts"] |= {"classes": concepts, "per_class": {"train": 8, "validation": 2, "test": 2}}
    sets["icon_detection"]["per_class"] = {"train": 4, "validation": 2, "test": 2}
    diffusion |= {"concepts": concepts, "forgotten": ["apple"], "images": 1, "steps": 2}
    diffusion["generator_training"] |= {"steps": 2, "batch": 8}
    diffusion["detector_training"] |= {"steps": 2, "evaluate_every": 1, "retain_batch": 16}
    experiments["blip"]["pretrain"] |= {"steps": 2, "batch": 8}
    for name in ("blip", "pairs", "retrieval"):
        experiments[name]["rules"] = {"apple": experiments[name]["rules"]["apple"]}
    captioning |= {"concepts": ["apple"], "search_concepts": ["dog"], "validation_images": 1}
    captioning["loop"] |= {"steps": 1, "forget_batch": 2, "retain_batch": 4}
    captioning["candidates"] = {"CLIPErase": captioning["candidates"]["CLIPErase"][:1]}


def change(path, edit):
    """Edit a YAML file in place; what two places share stays one."""
    content = read_params(path)
    edit(content)
    path.write_text(yaml.safe_dump(content, sort_keys=False))


def fewer_references(stages):
    tables = stages["tables"]
    tables["retrain"] = {"icons-apple": tables["retrain"]["icons-apple"]}
    tables["caption_models"] = {name: tables["caption_models"][name] for name in ("pairs", "retrieval")}


def one_original(pipeline):
    experiment, captions = (pipeline["stages"][name]["do"] for name in ("experiment_originals", "caption_models"))
    experiment["deps"] = [path for path in experiment["deps"] if not path.endswith(("-1", "-2"))]  # of other seeds
    captions["cmd"] = [text for text in captions["cmd"] if "bicycle" not in text]


def fewer_candidates(ranges):
    for row in {*ranges} - {"CLIPErase"}:  # the one row of the small ratios
        del ranges[row]


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipeline") / "repository"
    folder.mkdir()
    for name in ("cliperase", "paper", "data_prep", "notebooks", "figures"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", ".dvcignore"):
        shutil.copy(ROOT / name, folder)
    change(folder / ICONS, shrink)
    change(folder / "dvc.yaml", one_original)
    change(folder / "paper" / "stages.yaml", fewer_references)
    change(folder / "paper" / "profiles" / "search" / "ranges.yaml", fewer_candidates)
    run(folder, "git", "init", "-q")
    run(folder, "dvc", "init", "-q")
    return folder


def stale(folder):
    """The stages of the icons that `dvc status` names, but `code` itself."""
    status = run(folder, "dvc", "status", "results@icons", "search@icons-ratios", "--with-deps")
    return {line[:-1] for line in status.splitlines() if line[:1].isalpha() and line.endswith(":")} - {"code"}


def test_the_real_stages_from_data_to_the_table(copy):
    run(copy, "dvc", "repro", "--glob", *TARGETS)
    table = read_results(copy / "metrics" / "icons" / "results.csv")
    methods = read_profile("icons").methods
    assert set(table[table.experiment == "main"].method) == {"original", "retrain", *methods}
    assert set(table[table.experiment == "ablation"].method) == {"original", "FM", "RM"}
    assert set(table.experiment) == set(read_profile("icons").experiments)
    assert set(table.split) == {"train", "validation", "test", "heldout", "generated"}
    assert set(table.model) == {"compact", "compact BLIP"}
    assert {"kept_sense_accuracy", "bystander_accuracy", "forget_matching_accuracy@16", "naming_rate"} <= set(
        table.metric
    )
    assert "retain_image_retrieval_r@10" in set(table.metric)
    for picture in ("icons", "icon_pairs", "icon_scenes"):
        assert (copy / "figures" / "icons" / "data" / f"{picture}.png").stat().st_size > 10_000

    again = run(copy, "dvc", "repro", "--glob", *TARGETS)
    assert "Running stage" not in again


def test_a_changed_setting_makes_those_stages_stale_that_have_it(copy):
    assert stale(copy) == set()
    before = (copy / ICONS).read_text()
    change(copy / ICONS, lambda params: params["methods"]["CLIPErase"].update(lambda_fm=1.5))
    found = stale(copy)
    (copy / ICONS).write_text(before)
    assert found == {*(f"experiment_originals@icons-{name}" for name in ("main", "ratios", "audit")),
                     "experiment@icons-efficiency", "results@icons"}  # fmt: skip


def test_another_choice_of_a_search_makes_those_experiments_stale_that_it_tuned(copy):
    path = copy / "paper" / "profiles" / "chosen" / "icons.yaml"
    before = path.read_text()
    change(path, lambda chosen: chosen["main"]["CLIPErase"].update(lambda_fm=1.5))
    run(copy, "dvc", "repro", "code")
    found = stale(copy)
    path.write_text(before)
    run(copy, "dvc", "repro", "code")
    tuned = ("main", "ablation", "polysemy", "retention", "audit")
    alone = ("sensitivity", "efficiency", "leads")
    assert found == {*(f"experiment_originals@icons-{name}" for name in tuned), "pictures@icons-embedding",
                     *(f"experiment@icons-{name}" for name in alone)}  # fmt: skip
    assert stale(copy) == set()


def test_changed_code_makes_those_stages_stale_that_run_it_and_only_its_runs_are_made_again(copy):
    methods = copy / "cliperase" / "methods"
    (methods / "mine.py").write_text("class Mine:\n    pass\n")
    for path, old, new in (
        (methods / "ssd.py", "\nclass ", "\ndef unused():\n    return 0\n\n\nclass "),
        (methods / "__init__.py", "METHODS = {\n", 'METHODS = {\n    "mine": "cliperase.methods.mine:Mine",\n'),
        (
            copy / "cliperase" / "loop.py",
            '"""',
            '"""In other words: ',
        ),
        (copy / "cliperase" / "losses.py", "\n\n\ndef ", "\n\n\n# why\ndef "),
    ):
        assert old in path.read_text(), path
        path.write_text(path.read_text().replace(old, new, 1))
    run(copy, "dvc", "repro", "code")
    assert stale(copy) == {"experiment_originals@icons-main", "experiment@icons-efficiency"}

    main, runs = copy / "artifacts" / "icons" / "parts" / "main.csv", copy / "artifacts" / "icons" / "runs"
    before, files = read_results(main), set(runs.iterdir())
    run(copy, "dvc", "repro", "experiment_originals@icons-main")
    after, added = read_results(main), set(runs.iterdir()) - files
    assert len(added) == 1
    assert before[before.method != "SSD"].equals(after[after.method != "SSD"])  # with the seconds that they took
    assert "SSD" in next(iter(added)).read_text()


def test_no_stage_reached_code_that_its_hashes_do_not_hold(copy):
    hashes = {}  # command -> paths
    for stage in read_params(copy / "dvc.lock")["stages"].values():
        listed = [copy / dep["path"] for dep in stage.get("deps", []) if dep["path"].startswith("artifacts/code/")]
        reached = {line.split()[1] for path in listed for line in path.open()}
        commands = [stage["cmd"]] if isinstance(stage["cmd"], str) else stage["cmd"]
        hashes |= {tuple(shlex.split(command)): reached for command in commands}
    seen = set()
    for argv, loaded in recorded(copy.with_name("records")):
        script = os.path.relpath(argv[0], copy) if os.path.isabs(argv[0]) else argv[0]
        command = ("python", *(["-m", "paper"] if script == "paper/__main__.py" else [script]), *argv[1:])
        if command in hashes:
            seen.add(command)
            assert loaded
            assert loaded <= hashes[command], command
    kinds = {command[3] for command in seen if command[2] == "paper"}
    assert kinds == {"manifest", "pretrain", "pretrain_blip", "generator", "experiment", "tune", "collect"}
    assert {command[1] for command in seen} >= {"data_prep/icons.py", "data_prep/icon_scenes.py"}
    assert len(seen) > 25
