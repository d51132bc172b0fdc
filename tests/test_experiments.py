"""Plans and runs: what is run, that bad parameters are named before anything slow, and that workers change nothing."""

import copy
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from cliperase.errors import CliperaseError
from cliperase.metrics.tasks import task_of
from cliperase.settings import read_params, section
from paper.experiments import PLANS, configured, run_experiment, run_tuning
from paper.runs import Bench, Run, changed_parameters, run_all

PARAMS = read_params()
SMALL = {"steps": 2, "learning_rate": 1e-3, "forget_batch": 4, "retain_batch": 8, "evaluate_every": 1}
ABOUT = {"profile": "test", "model": "compact", "provenance": "icons"}
DATA = SimpleNamespace(class_names=[f"thing {i}" for i in range(50)], labels=torch.arange(0, 50, 2))


def planned(name, **changes):
    return PLANS[name]({**PARAMS, **changes}, DATA)


def test_main_runs_every_row_concept_and_seed_once():
    runs = planned("main")
    keys = [(run.row, run.concept, run.seed) for run in runs]
    assert len(set(keys)) == len(keys)
    trained = len(PARAMS["methods"]) * len(PARAMS["concepts"]) * len(PARAMS["seeds"])
    assert len(keys) == trained + 2 * len(PARAMS["concepts"])


def test_ratios_grow_by_adding_classes_and_differ_between_seeds():
    runs = [run for run in planned("ratios") if run.row == "CLIPErase"]
    drawn = {(run.seed, run.concept): set(run.rule["classes"]) for run in runs}
    for seed in PARAMS["seeds"]:
        sizes = [len(drawn[seed, f"{percent} % of classes"]) for percent in (3, 10, 20, 30)]
        assert sizes == [2, 5, 10, 15]
        assert drawn[seed, "3 % of classes"] < drawn[seed, "30 % of classes"]
    assert drawn[0, "30 % of classes"] != drawn[1, "30 % of classes"]
    for draw in PARAMS["experiments"]["ratios"]["draws"]:
        for run in planned("ratios"):
            if run.concept == f"{draw['percent']} % of classes" and run.row != "original":
                assert run.training["steps"] == draw["steps"]


def test_polysemy_goes_both_ways():
    directions = {(run.rule["concept"], *run.watched["kept_sense"]) for run in planned("polysemy")}
    assert {("apple", "Apple logo"), ("Apple logo", "apple")} <= directions
    assert directions == {(kept, forgotten) for forgotten, kept in directions}
    assert len({frozenset(senses) for senses in directions}) >= 3
    assert all(forgotten != kept for forgotten, kept in directions)


def test_bystanders_are_no_part_of_the_run_and_the_same_for_every_row():
    changes = {"experiments": {"retention": {**PARAMS["experiments"]["retention"], "concepts": ["thing 4"]}}}
    runs = planned("retention", **changes)
    for run in runs:
        trained, absent = set(run.watched["trained"]), set(run.absent)
        assert trained
        assert absent
        assert run.watched["bystander"] == run.absent
        assert not trained & absent
        assert "thing 4" not in trained | absent
        assert len(trained | absent) == len(DATA.labels) - 1
    assert len({tuple(run.absent) for run in runs if run.seed == 0}) == 1


def test_rows_that_cannot_be_run_are_named():
    with pytest.raises(CliperaseError, match="row 'Clip' is not in the parameters"):
        configured(PARAMS, "Clip")
    with pytest.raises(CliperaseError, match="row 'GA' has no learning_rate"):
        configured({**PARAMS, "methods": {"GA": {}}}, "GA")
    with pytest.raises(CliperaseError, match="method 'gone' unknown"):
        configured({**PARAMS, "methods": {"GA": {"method": "gone"}}}, "GA")
    with pytest.raises(CliperaseError, match="no candidates"):
        run_tuning(PARAMS, "data", "model", {"concepts": ["dog"], "seed": 0, "candidates": {"GA": []}}, "SSD")
    with pytest.raises(CliperaseError, match="no run"):
        run_all({}, "data", "model", [], ("test",))


def test_a_row_may_have_training_settings_of_its_own():
    about = configured({**PARAMS, "methods": {"GA": {"learning_rate": 1e-5, "steps": 7, "towers": "text"}}}, "GA")
    assert about["settings"] == {"towers": "text"}
    assert about["training"] == {**PARAMS["unlearn"], "learning_rate": 1e-5, "steps": 7}


def runs_of_apple(*methods):
    return [Run("main", m, "apple", {"concept": "apple"}, 0, m, training=SMALL) for m in methods]


def test_results_do_not_depend_on_how_many_workers_there_are(data_folder, model_folder):
    runs = [
        *runs_of_apple("CLIPErase", "null space"),
        Run("main", "original", "apple", {"concept": "apple"}, 0, "original"),
    ]
    tables = [
        run_all({**ABOUT, "workers": workers}, data_folder, model_folder, runs, ("validation", "test", "heldout"))
        for workers in (1, 2)
    ]
    one, two = (table.drop(columns=["seconds", "peak_mb"]) for table in tables)
    pd.testing.assert_frame_equal(one, two)
    assert set(one.dataset) == {"colours"}
    assert set(one[one.method == "CLIPErase"].metric) >= {"selected_step", "selection_score", "changed_parameters"}
    assert (tables[0].peak_mb > 50).all()


def test_a_wrong_model_or_data_is_one_line_from_the_workers_too(data_folder, model_folder):
    for workers in (1, 2):
        params, runs = {**ABOUT, "workers": workers}, runs_of_apple("null space", "CLIPErase")
        with pytest.raises(CliperaseError, match="cannot be read"):
            run_all(params, data_folder / "nowhere", model_folder, runs, ("test",))


def test_sections_that_are_missing_are_named():
    with pytest.raises(CliperaseError, match=r"no section 'captions\.pears'"):
        section(PARAMS, "captions.pears")
    with pytest.raises(CliperaseError, match="not a mapping"):
        section(PARAMS, "data.seed")
    with pytest.raises(CliperaseError, match="no 'seeds'"):
        run_experiment("main", {key: PARAMS[key] for key in PARAMS if key != "seeds"}, "data", "model")


def test_captions_have_rows_of_their_own():
    own = {"rules": {"apple": {"caption_pattern": "apple"}}, "unlearn": {"forget_batch": 3}}
    own["methods"] = {"GA": {"learning_rate": 2e-7}}
    runs = planned("retrieval", experiments={"retrieval": own})
    assert {run.row for run in runs} == {"original", "GA"}
    assert all(run.training["learning_rate"] == 2e-7 for run in runs if run.row == "GA")
    assert all(run.training["forget_batch"] == 3 for run in runs if run.row == "GA")
    with pytest.raises(CliperaseError, match=r"no section 'experiments\.pairs\.methods'"):
        planned("pairs", experiments={"pairs": {"rules": {}}})


def test_no_draw_of_ratios_holds_a_concept_of_the_search():
    named = SimpleNamespace(class_names=["dog", "umbrella", *DATA.class_names], labels=DATA.labels)
    assert not any({"dog", "umbrella"} & set(run.rule["classes"]) for run in PLANS["ratios"](PARAMS, named))


def test_absent_classes_are_neither_forgotten_nor_kept_nor_selected_on(data_folder, model_folder, monkeypatch):
    seen = []

    monkeypatch.setattr("paper.runs.Unlearning.carry_out", lambda run: seen.append(run))
    bench = Bench.load(ABOUT, data_folder, model_folder, ("validation",))
    run = Run("retention", "CLIPErase", "apple", {"concept": "apple"}, 0, "CLIPErase", training=SMALL, absent=["plum"])
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
        assert torch.equal(features.image, bench.training_features.image[rows])


def test_features_are_kept_by_content(data_folder, model_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("paper.runs.FEATURES", tmp_path)
    first = Bench.load(ABOUT, data_folder, model_folder, ("validation",)).training_features
    (kept,) = tmp_path.iterdir()
    monkeypatch.setattr("cliperase.features.encode_images", lambda *_: pytest.fail("computed again"))
    again = Bench.load(ABOUT, data_folder, model_folder, ("validation",)).training_features
    assert torch.equal(first.image, again.image)
    assert torch.equal(first.text, again.text)
    monkeypatch.undo()
    monkeypatch.setattr("paper.runs.FEATURES", tmp_path)
    kept.write_bytes(kept.read_bytes()[:50])  # a broken file is made anew
    assert torch.equal(
        Bench.load(ABOUT, data_folder, model_folder, ("validation",)).training_features.image, first.image
    )


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
        checked = task.validate(model, pairs, forgotten)
        assert checked["remaining"] == checked[task.forget]
        assert checked["score"] == task.score(checked)
