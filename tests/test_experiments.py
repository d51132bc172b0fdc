"""Profiles, plans and runs: what is run, that bad parameters are named first, and what is not run again."""

import contextlib
import copy
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
import yaml
from conftest import PROFILE, write_profile

from cliperase.errors import CliperaseError
from cliperase.methods.unseen import Unseen
from cliperase.metrics.tasks import task_of
from cliperase.settings import checked
from cliperase.unlearning import Recipe
from paper.commands.pretrain import rule_beside
from paper.experiments import EXPERIMENTS, experiment_of
from paper.params import PROFILES, Profile, profile_path, read_profile
from paper.results import COLUMNS
from paper.runs import Bench, Place, Run, changed_parameters, run_all
from paper.search import Search, read_search, run_search
from paper.tried import Tried

ICONS = read_profile("icons")
SMALL = {"steps": 2, "learning_rate": 1e-3, "forget_batch": 4, "retain_batch": 8, "evaluate_every": 1}
DATA = SimpleNamespace(class_names=[f"thing {i}" for i in range(50)], labels=torch.arange(0, 50, 2))


def planned(name, profile=ICONS, **changes):
    return experiment_of(profile, name, **changes).plan(profile, DATA)


def place(data, model, splits=("validation", "test"), **changes):
    return Place("test", "icons", "compact", str(data), str(model), splits, **changes)


def runs_of_apple(*methods):
    return [Run("main", m, "apple", {"concept": "apple"}, 0, m, SMALL if m == "CLIPErase" else {}) for m in methods]


@pytest.mark.parametrize("path", sorted(PROFILES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_experiment_of_a_profile_is_one(path):
    profile = read_profile(path.stem)
    assert profile.profile == path.stem
    assert read_profile(str(path)) == profile
    for name in profile.experiments:
        assert experiment_of(profile, name).name == name
    assert set(profile.experiments) <= set(EXPERIMENTS)


OF_TRIED = {*Tried.model_fields} - {*Unseen.model_fields}


@pytest.mark.parametrize("path", sorted(PROFILES.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_settings_of_every_row_of_a_profile_can_be_run(path):
    profile = read_profile(path.stem)
    for name in profile.experiments:
        experiment = experiment_of(profile, name)
        if experiment.tuned in ("", *profile.chosen):  # the profile `paper` was not searched
            draws = getattr(experiment, "draws", [{}])
            for row, draw in product(experiment.methods, draws):
                loop = {key: value for key, value in draw.items() if key != "percent"}
                configured = experiment.configured(profile, row, draw=loop)
                if not {*configured["settings"]} & OF_TRIED:  # tests/test_tried.py has the others
                    Recipe.of(configured["method"], configured["settings"])


def test_the_profiles_together_have_every_experiment():
    profiles = [read_profile(path.stem) for path in PROFILES.glob("*.yaml")]
    assert set().union(*(profile.experiments for profile in profiles)) == set(EXPERIMENTS)


WRONG = {
    "a section that is none": ({"concept": ["apple"]}, "has no setting 'concept'; it has profile, provenance"),
    "no list": ({"concepts": 3}, "profile .*: concepts is 3; give a list"),
    "an empty list": ({"seeds": []}, r"seeds is \[\]; give at least 1"),
    "text for a number": ({"seeds": ["0"]}, r"seeds.0 is '0'; give a whole number"),
    "no mapping": ({"methods": []}, r"methods is \[\]; give a mapping"),
    "an unknown provenance": ({"provenance": "invented"}, "provenance is 'invented'; choose one of"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_profile_that_is_none_is_one_line(case, tmp_path):
    changes, said = WRONG[case]
    with pytest.raises(CliperaseError, match=said) as error:
        read_profile(str(write_profile(tmp_path, **changes)))
    assert "\n" not in str(error.value)


def test_what_a_profile_lacks_is_named(tmp_path):
    path = tmp_path / "profile.yaml"
    path.write_text(yaml.safe_dump({name: value for name, value in PROFILE.items() if name != "seeds"}))
    with pytest.raises(CliperaseError, match="needs a setting 'seeds'; add it"):
        read_profile(str(path))
    with pytest.raises(CliperaseError, match="profile 'icon' unknown; choose one of cifar, icons, paper"):
        profile_path("icon")
    with pytest.raises(CliperaseError, match=r"no section 'experiments\.pairs'"):
        experiment_of(ICONS.model_copy(update={"experiments": {}}), "pairs")
    with pytest.raises(CliperaseError, match="experiment 'pears' unknown; choose one of main"):
        experiment_of(ICONS, "pears")
    with pytest.raises(CliperaseError, match="has no setting 'concept'; it has name"):
        experiment_of(ICONS, "ratios", concept="apple")


def test_main_runs_every_row_concept_and_seed_once():
    runs = planned("main")
    keys = [(run.row, run.concept, run.seed) for run in runs]
    assert len(set(keys)) == len(keys)
    rows = experiment_of(ICONS, "main").methods
    trained = len(rows) * len(ICONS.concepts) * len(ICONS.seeds)
    assert len(keys) == trained + 2 * len(ICONS.concepts) * len(ICONS.seeds)  # a reference for each original
    assert {run.row for run in runs} == {"original", "retrain", *rows}
    assert {run.seed for run in planned("main", repeats=[2]) if run.row == "GA"} == {2}


def test_each_seed_may_have_an_original_of_its_own(data_folder, model_folder):
    runs = planned("main", originals=[0, 1])
    started = {(run.row, run.seed): run.original for run in runs}
    assert {started[row, seed] for row in ("GA", "original", "retrain") for seed in (1,)} == {1}
    assert started["GA", 2] == 0  # of a seed without one: the first
    assert ("retrain", 2) not in started
    where, first = place(data_folder, model_folder), runs[0]
    folders = [where.model_of(replace(first, method=method, original=seed, concept="cat"))
               for method, seed in (("GA", 0), ("GA", 1), ("retrain", 0), ("retrain", 1))]  # fmt: skip
    found = [Path(folder).relative_to(model_folder.parent.parent).as_posix() for folder in folders]
    name = model_folder.parent.name
    assert found == [f"{name}/original", f"{name}-1/original", f"{name}/retrain-cat", f"{name}-1/retrain-cat"]


def test_settings_that_a_search_chose_stand_between_the_row_and_a_change():
    section = {"concepts": ["apple"], "references": [], "methods": {"GA": {"towers": "text"}}, "tuned": "main"}
    listed = PROFILE | {"experiments": {"main": section}, "chosen": {"main": {"GA": {"learning_rate": 3e-4}}}}
    profile = checked(Profile, listed, "p")
    main = experiment_of(profile, "main")
    assert main.configured(profile, "GA")["settings"].items() >= {"learning_rate": 3e-4, "towers": "text"}.items()
    assert main.configured(profile, "GA", {"learning_rate": 1.0})["settings"]["learning_rate"] == 1.0
    with pytest.raises(CliperaseError, match="no settings are chosen for row 'GA' in the search 'gone'"):
        main.model_copy(update={"tuned": "gone"}).configured(profile, "GA")


def test_ratios_grow_by_adding_classes_and_differ_between_seeds():
    ratios = experiment_of(ICONS, "ratios")
    runs = ratios.plan(ICONS, DATA)
    drawn = {(run.seed, run.concept): set(run.rule["classes"]) for run in runs if run.row == "CLIPErase"}
    for seed in ICONS.seeds:
        sizes = [len(drawn[seed, f"{percent} % of classes"]) for percent in (3, 10, 20, 30)]
        assert sizes == [2, 5, 10, 15]
        assert drawn[seed, "3 % of classes"] < drawn[seed, "30 % of classes"]
    assert drawn[0, "30 % of classes"] != drawn[1, "30 % of classes"]
    for draw in ratios.draws:
        for run in runs:
            if run.concept == f"{draw['percent']} % of classes" and run.row != "original":
                assert run.settings["forget_batch"] == draw["forget_batch"]


def test_no_draw_of_ratios_holds_a_concept_of_the_search():
    named = SimpleNamespace(class_names=["dog", "umbrella", *DATA.class_names], labels=DATA.labels)
    runs = experiment_of(ICONS, "ratios").plan(ICONS, named)
    assert not any({"dog", "umbrella"} & set(run.rule["classes"]) for run in runs)


def test_polysemy_goes_both_ways():
    directions = {(run.rule["concept"], *run.watched["kept_sense"]) for run in planned("polysemy")}
    assert {("apple", "Apple logo"), ("Apple logo", "apple")} <= directions
    assert directions == {(kept, forgotten) for forgotten, kept in directions}
    assert len({frozenset(senses) for senses in directions}) >= 3
    assert all(forgotten != kept for forgotten, kept in directions)


def test_bystanders_are_no_part_of_the_run_and_the_same_for_every_row():
    runs = planned("retention", concepts=["thing 4"])
    for run in runs:
        trained, absent = set(run.watched["trained"]), set(run.absent)
        assert trained
        assert absent
        assert run.watched["bystander"] == run.absent
        assert not trained & absent
        assert "thing 4" not in trained | absent
        assert len(trained | absent) == len(DATA.labels) - 1
    assert len({tuple(run.absent) for run in runs if run.seed == 0}) == 1


def test_what_a_row_is_run_with():
    """The loop's settings of the profile, of the experiment, of the draw, of the row; the later one counts."""
    methods = {"GA": {"learning_rate": 1e-5, "steps": 7}, "GA text": {"method": "GA", "towers": "text"}}
    rules = experiment_of(ICONS, "pairs", methods=methods, tuned="", unlearn={"forget_batch": 3})
    row = rules.configured(ICONS, "GA")
    loop = {**ICONS.unlearn, "forget_batch": 3}
    assert row == {"method": "GA", "settings": {**loop, "learning_rate": 1e-5, "steps": 7}}
    assert rules.configured(ICONS, "GA text") == {"method": "GA", "settings": {**loop, "towers": "text"}}
    changed = rules.configured(ICONS, "GA text", {"steps": 2}, {"forget_batch": 4})["settings"]
    assert (changed["steps"], changed["forget_batch"]) == (2, 4)
    assert rules.configured(ICONS, "retrain") == {"method": "retrain"}
    with pytest.raises(CliperaseError, match="experiment 'pairs' has no row 'Clip'; it has original, retrain, GA"):
        rules.configured(ICONS, "Clip")


def test_captions_have_rows_of_their_own():
    own = {"rules": {"apple": {"caption_pattern": "apple"}}, "unlearn": {"forget_batch": 3}}
    runs = planned("retrieval", **own, methods={"GA": {"learning_rate": 2e-7}}, tuned="")
    assert {run.row for run in runs} == {"original", "retrain", "GA"}
    assert all(run.settings["learning_rate"] == 2e-7 for run in runs if run.row == "GA")
    assert all(run.settings["forget_batch"] == 3 for run in runs if run.row == "GA")


def test_a_reference_leaves_out_the_rule_of_its_experiment():
    assert rule_beside(ICONS, "experiments.pairs.pretrain", "apple") == ICONS.experiments["pairs"]["rules"]["apple"]
    assert rule_beside(ICONS, "experiments.pairs.pretrain", "cat") == {"concept": "cat"}
    assert rule_beside(ICONS, "pretrain", "apple") == {"concept": "apple"}


def test_rows_that_cannot_be_run_are_named(data_folder, model_folder):
    where = place(data_folder, model_folder)
    with pytest.raises(CliperaseError, match="experiment 'main', row 'GA': GA needs learning_rate"):
        run_all(where, [Run("main", "GA", "apple", {"concept": "apple"}, 0, "GA")])
    with pytest.raises(CliperaseError, match="method 'gone' unknown"):
        run_all(where, runs_of_apple("gone"))
    with pytest.raises(CliperaseError, match="no run"):
        run_all(where, [])
    profile = checked(Profile, PROFILE | {"experiments": {"pairs": {"rules": {"apple": {"concept": "apple"}}}}}, "p")
    with pytest.raises(CliperaseError, match="row 'Clip' is not in the experiment; choose one of original"):
        experiment_of(profile, "pairs", rows=["Clip"]).run(profile, data_folder, model_folder)


def test_some_rows_may_be_run_alone(data_folder, model_folder):
    section = {"concepts": ["apple"], "references": ["original"], "methods": {"null space": {}, "SSD": {}}}
    profile = checked(Profile, PROFILE | {"experiments": {"main": section}}, "p")
    table, arrays = experiment_of(profile, "main", rows=["null space"]).run(profile, data_folder, model_folder)
    assert set(table.method) == {"null space"}
    assert set(table.split) == {"validation", "test", "heldout"}
    assert arrays == {}


def test_the_search_tries_every_candidate_on_validation_images(data_folder, model_folder):
    profile = checked(Profile, PROFILE | {"experiments": {"pairs": {"rules": {}, "model_name": "another"}}}, "p")
    search = Search(["leaf", "plum"], {"null space": {"strength": [0.25, 1.0]}}, seed=100, drawn=2)
    table = run_search(profile, search, "pairs", data_folder, model_folder)
    assert set(zip(table.method, table.concept, strict=True)) == {
        (f"null space {number}", concept) for number in (0, 1) for concept in ("leaf", "plum")
    }
    assert set(table.experiment) == {"tuning pairs"}
    assert set(table.split) == {"validation"}
    assert set(table.seed) == {"100"}
    with pytest.raises(CliperaseError, match="search concept 'apple' is among the reported ones"):
        run_search(profile, replace(search, concepts=["apple"]), "pairs", data_folder, model_folder)


def test_a_search_is_for_the_rows_of_its_experiment(tmp_path):
    section = {"seed": 100, "drawn": 2, "experiments": {"pairs": {"concepts": ["leaf"]}}}
    rows = {"GA": {}, "no-op": {"method": "GA"}, "fine-tune retention": {"method": "fine-tune"}}
    experiments = {"pairs": {"rules": {}, "methods": rows}}
    profile = checked(Profile, PROFILE | {"search": section, "experiments": experiments}, "p")
    with pytest.raises(CliperaseError, match="profile 'test' is for the experiment 'ratios'; it has pairs"):
        read_search(profile, "ratios")
    with pytest.raises(CliperaseError, match="row 'no-op' of experiment 'pairs' has no range; add one to "):
        read_search(profile, "pairs")
    del rows["no-op"]
    assert set(read_search(profile, "pairs").ranges) == {"GA", "fine-tune"}  # whose candidates the control has, too
    section["experiments"]["pairs"] |= {"rates": 0.1, "ranges": {"GA": {"learning_rate": [2.0e-5, 4.0e-5]}}}
    assert read_search(profile, "pairs").ranges["GA"] == {"learning_rate": [2.0e-5, 4.0e-5]}
    section["experiments"]["pairs"] |= {"ranges": {"SSD": {"alpha": [1.0, 2.0]}}}
    with pytest.raises(CliperaseError, match="row 'SSD' of experiment 'pairs' has ranges of its own and is not sea"):
        read_search(checked(Profile, PROFILE | {"search": section, "experiments": experiments}, "p"), "pairs")
    section["experiments"]["pairs"] |= {"concepts": []}
    with pytest.raises(CliperaseError, match=r"search of profile test: experiments.pairs.concepts is .* at least 1"):
        read_search(checked(Profile, PROFILE | {"search": section}, "p"), "pairs")


EXPERIMENT = """
import json, sys
from paper import store
from paper.runs import Place, Run, run_all
from paper.tried import Tried

place, runs, folder, output = sys.argv[1:]
store.RUNS = store.Path(folder)
*place, splits, workers = json.loads(place)
table = run_all(Place(*place, tuple(splits), workers=workers), [Run(*run) for run in json.loads(runs)])
table.to_pickle(output)
"""


def test_results_do_not_depend_on_how_many_workers_there_are(data_folder, model_folder, tmp_path):
    """Each experiment in a process of its own, as the pipeline has it: other tests leave torch in another state, in
    which the last digits differ."""
    settings = {"CLIPErase": SMALL}
    names, tables = ("CLIPErase", "null space", "original"), []
    runs = [["main", m, "apple", {"concept": "apple"}, 0, m, settings.get(m, {})] for m in names]
    for workers in (1, 2):
        place = [
            "test",
            "icons",
            "compact",
            str(data_folder),
            str(model_folder),
            ["validation", "test", "heldout"],
            workers,
        ]
        asked = [json.dumps(place), json.dumps(runs), str(tmp_path / str(workers)), str(tmp_path / "table.pkl")]
        subprocess.run([sys.executable, "-c", EXPERIMENT, *asked], check=True)
        tables.append(pd.read_pickle(tmp_path / "table.pkl"))
    one, two = (table.drop(columns=["seconds", "peak_mb"]) for table in tables)
    pd.testing.assert_frame_equal(one, two)
    assert set(one.dataset) == {"colours"}
    assert set(one[one.method == "CLIPErase"].metric) >= {"selected_step", "selection_score", "changed_parameters"}
    assert (tables[0].peak_mb > 50).all()


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_workers_end_with_a_parent_that_is_killed(data_folder, model_folder, tmp_path):
    place = ["test", "icons", "compact", str(data_folder), str(model_folder), ["validation"], 2]
    settings = {**SMALL, "steps": 100_000}
    runs = [["main", f"CLIPErase {i}", "apple", {"concept": "apple"}, i, "CLIPErase", settings] for i in (0, 1)]
    asked = [json.dumps(place), json.dumps(runs), str(tmp_path / "runs"), str(tmp_path / "table.pkl")]
    parent = subprocess.Popen([sys.executable, "-c", EXPERIMENT, *asked], start_new_session=True)

    def members():
        """The live processes of the parent's session: /proc's fields behind the name are state, parent, group, …"""
        fields = [path.read_text().rpartition(")")[2].split() for path in Path("/proc").glob("[0-9]*/stat")]
        return [one for one in fields if int(one[3]) == parent.pid and one[0] != "Z"]

    try:
        assert until(lambda: len(members()) >= 4, seconds=300)  # parent, server, two workers
        time.sleep(2)  # they are at work
        parent.kill()
        parent.wait()
        assert until(lambda: not members(), seconds=60)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(parent.pid, signal.SIGKILL)


def until(found, seconds):
    """Whether `found()` becomes true in time."""
    end = time.monotonic() + seconds
    while not found() and time.monotonic() < end:
        time.sleep(0.2)
    return found()


def test_a_wrong_model_or_data_is_one_line_from_the_workers_too(data_folder, model_folder):
    for workers in (1, 2):
        where = place(data_folder / "nowhere", model_folder, ("test",), workers=workers)
        with pytest.raises(CliperaseError, match="cannot be read"):
            run_all(where, runs_of_apple("null space", "CLIPErase"))


def counted(monkeypatch):
    """A list that grows by each run that is really run."""
    whole, seen = Bench.rows, []
    monkeypatch.setattr(Bench, "rows", lambda self, run: seen.append(run.row) or whole(self, run))
    return seen


def test_a_killed_experiment_goes_on_where_it_was(data_folder, model_folder, tmp_path, monkeypatch):
    where, runs = place(data_folder, model_folder, workers=1), runs_of_apple("null space", "original", "CLIPErase")
    with monkeypatch.context() as patch:
        whole = Bench.rows
        patch.setattr(Bench, "rows", lambda self, run: whole(self, run) if run.row == "null space" else 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run_all(where, runs)
    seen = counted(monkeypatch)
    first = run_all(where, runs)
    assert seen == ["original", "CLIPErase"]
    again = run_all(where, runs)
    assert seen == ["original", "CLIPErase"]
    pd.testing.assert_frame_equal(first, again)  # seconds and memory, too, are those of the run that made a row
    monkeypatch.setattr("paper.store.RUNS", tmp_path)
    anew = run_all(where, runs)
    pd.testing.assert_frame_equal(*(table.drop(columns=["seconds", "peak_mb"]) for table in (anew, again)))


def test_only_what_changed_is_run_again(data_folder, model_folder, model, tmp_path, monkeypatch):
    where, runs, seen = place(data_folder, model_folder, workers=1), runs_of_apple("original", "null space"), []
    monkeypatch.setattr(Bench, "rows", lambda self, run: seen.append(run.row) or [dict.fromkeys(COLUMNS, 0)])
    run_all(where, runs)
    run_all(where, [runs[0], replace(runs[1], settings={"strength": 0.5})])
    assert seen == ["original", "null space", "null space"]
    run_all(replace(where, splits=("validation",)), runs[:1])
    with torch.no_grad():
        model.model.logit_scale += 1
    model.save(tmp_path / "original")
    run_all(replace(where, model=str(tmp_path / "original")), runs[:1])
    assert seen[3:] == ["original", "original"]
    monkeypatch.setattr("paper.code.Code.of_run", lambda self, method, entry: method)  # another code
    run_all(where, runs[1:])
    assert seen[5:] == ["null space"]


def test_seconds_are_measured_anew(data_folder, model_folder, monkeypatch):
    asked, rows = (
        [],
        run_all(place(data_folder, model_folder, workers=1), runs_of_apple("null space")).to_dict("records"),
    )
    monkeypatch.setattr("paper.runs.each_run", lambda _, runs, alone: asked.append((len(runs), alone)) or [(0, rows)])
    run_all(place(data_folder, model_folder, workers=1), runs_of_apple("null space"), alone=True)
    assert asked == [(1, True)]


def test_a_file_of_the_store_that_is_not_whole_is_made_again(data_folder, model_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("paper.store.RUNS", tmp_path)
    where, runs, seen = place(data_folder, model_folder, workers=1), runs_of_apple("null space"), counted(monkeypatch)
    run_all(where, runs)
    (path,) = tmp_path.rglob("*.json")
    assert json.loads(path.read_text())[0]["method"] == "null space"
    path.write_text(path.read_text()[:50])
    run_all(where, runs)
    assert len(seen) == 2


def test_absent_classes_are_neither_forgotten_nor_kept_nor_selected_on(data_folder, model_folder, monkeypatch):
    seen = []

    monkeypatch.setattr("paper.runs.Unlearning.carry_out", lambda unlearning: seen.append(unlearning))
    bench = Bench.load(place(data_folder, model_folder, ("validation",)))
    run = Run("retention", "CLIPErase", "apple", {"concept": "apple"}, 0, "CLIPErase", SMALL, absent=["plum"])
    bench.unlearn(run)
    (caught,) = seen

    def names(pairs):
        return [pairs.class_names[label] for label in pairs.labels]

    assert names(caught.forget) == ["apple"] * 8
    assert sorted(names(caught.retain)) == ["leaf"] * 8 + ["lemon"] * 8
    assert len(caught.validation) == 12  # of three of the four classes
    assert caught.forgotten.tolist() == [name == "apple" for name in names(caught.validation)]
    labels = bench.splits["train"].labels
    for features, classes in ((caught.original.forget, ["apple"]), (caught.original.retain, ["lemon", "leaf"])):
        rows = torch.isin(labels, torch.tensor([caught.forget.class_names.index(name) for name in classes]))
        assert torch.equal(features.image, bench.features(run, autocast=False).image[rows])


def test_changed_parameters_counts_weights(model):
    other = copy.deepcopy(model)
    assert changed_parameters(model, other) == 0
    with torch.no_grad():
        other.model.logit_scale += 1
    total = sum(p.numel() for p in model.parameters())
    assert changed_parameters(model, other) == pytest.approx(100 / total)


def test_the_task_follows_from_the_columns(training, model):
    captions = training.__class__(**{**vars(training), "labels": None, "class_names": []})
    one = captions.__class__(**{**vars(captions), "text_ids": captions.text_ids[:, :1]})
    forgotten = training.labels == 0
    assert set(task_of(training).measure(model, training, forgotten)) >= {"forget_accuracy", "retain_accuracy"}
    found = task_of(captions).measure(model, captions, forgotten)
    assert {"forget_image_retrieval_r@10", "retain_text_retrieval_r@1", "forget_cosine"} <= set(found)
    assert task_of(one).forget == "forget_matching_accuracy@16"
    for pairs in (training, captions):
        task = task_of(pairs)
        assert (
            task.quality(model, pairs)
            == task.measure(model, pairs, torch.zeros(len(pairs), dtype=torch.bool))[task.retain]
        )
        before = task.measure(model, pairs, forgotten)
        checked = task.validate(model, pairs, forgotten, before)
        assert checked["remaining"] == checked[task.forget]
        assert checked["score"] == task.score(checked, before)
