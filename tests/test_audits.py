"""Every row audited: what a run leaves in the table, and how votes and verdicts are read from it."""

import json

import pandas as pd
import pytest

from cliperase.audit.verdict import KNOWN, LESS, MORE, NEVER_KNOWN, PUSHED
from cliperase.errors import CliperaseError
from paper.audits import ALIKE, GOALS, AuditPlace, beside, curves, goal_means, goals, tally, verdicts, votes
from paper.experiments import experiment_of
from paper.params import read_profile
from paper.power import PowerStudy
from paper.results import COLUMNS
from paper.runs import Run, run_all
from paper.store import RunStore

SMALL = {"learning_rate": 1e-3, "steps": 2, "evaluate_every": 2, "forget_batch": 4, "retain_batch": 8}


@pytest.fixture
def models(base_model, tmp_path):
    for name in ("original", "retrain-leaf"):
        base_model.save(tmp_path / "models" / name)
    return tmp_path / "models"


def place_of(data, models, names=("reference-gap", "linear-probe"), workers=1, **settings):
    asked = json.dumps([list(names), {"linear-probe.shots": [1], **settings}, 0])
    where = ("test", "icons", "compact", str(data), str(models / "original"), ("test",))
    return AuditPlace(*where, workers=workers, asked=asked)


def test_every_run_leaves_its_figures(data_folder, models):
    runs = [Run("audit", m, "leaf", {"concept": "leaf"}, 0, m, SMALL if m == "GA" else {}) for m in ("original", "GA")]
    table = run_all(place_of(data_folder, models), runs)
    assert list(table.columns) == COLUMNS
    figures = table.pivot(index="metric", columns="method", values="value")
    assert {"reference-gap.forget_accuracy", "reference-gap.forget_accuracy low"} <= set(figures.index)
    assert "linear-probe.image_recall_1_shots" in figures.index
    assert "reference-gap.retain_accuracy" in figures.index  # the price
    assert not figures.original.equals(figures.GA)
    assert set(table.unit) >= {"%", "cosine", "rank"}


def test_the_original_is_as_it_is_where_nothing_was_unlearnt(data_folder, models):
    """A retrained model that is the original has the original's figures, measured once."""
    runs = [Run("audit", m, "leaf", {"concept": "leaf"}, 0, m) for m in ("original", "retrain")]
    table = run_all(place_of(data_folder, models), runs)
    figures = table.pivot(index="metric", columns="method", values="value")
    assert figures.original.equals(figures.retrain)


def test_an_audit_before_its_search_says_what_to_do():
    profile = read_profile("icons")
    without = profile.model_copy(update={"chosen": {}})
    with pytest.raises(CliperaseError, match="run `make tune`"):
        experiment_of(without, "audit").configured(without, "CLIPErase")
    varied = experiment_of(profile, "leads").configured(profile, "unseen, no stretch")["settings"]
    assert varied["learning_rate"] == profile.chosen["main"]["unseen"]["learning_rate"]
    assert varied["stretch"] == 0.0


def test_two_processes_find_the_same(data_folder, models):
    runs = [Run("audit", m, "leaf", {"concept": "leaf"}, 0, m) for m in ("original", "retrain")]
    one, two = (run_all(place_of(data_folder, models, workers=count), runs) for count in (1, 2))
    assert one.drop(columns=["peak_mb"]).equals(two.drop(columns=["peak_mb"]))


def test_other_probes_and_settings_are_another_run(data_folder, models, tmp_path, monkeypatch):
    monkeypatch.setattr("paper.store.RUNS", tmp_path)
    run = Run("audit", "original", "leaf", {"concept": "leaf"}, 0, "original")
    asked = [(["linear-probe"], 20), (["linear-probe"], 30), (["linear-probe", "salmu"], 20)]
    places = [place_of(data_folder, models, names, images=most) for names, most in asked]
    assert len({RunStore(place).path(run) for place in places}) == 3


LEAF = {  # figure -> area, threshold, far end, what models that never saw a leaf have, and what those have that did
    "reference-gap.forget_accuracy": (1.0, 20.0, 0.0, (0, 10), (90, 95)),
    "reference-gap.forget_cosine": (0.9, 0.4, -0.1, (0.1, 0.3), (0.8, 0.9)),
    "salmu.RetFail": (0.6, 0.4, 0.1, (0.2, 0.2), (0.9, 0.9)),
}


def study_of(folder, figures=LEAF, spread=(-0.2, 0.2)):
    """A `PowerStudy` of one concept, leaf, as it lies in a folder."""
    lines = [name.split(".") for name in figures]
    power = pd.DataFrame(lines, columns=["probe", "measure"]).assign(known="above", provenance="icons")
    power[["auc", "threshold", "far_end"]] = [one[:3] for one in figures.values()]
    power[["spread low", "spread high"]] = spread
    power.to_csv(folder / "power.csv", index=False)
    models = [
        {"probe": probe, "measure": measure, "concept": "leaf", "seed": seed, "model": model, "value": value}
        for (probe, measure), one in zip(lines, figures.values(), strict=True)
        for model, values in zip(("never", "saw"), one[3:], strict=True)
        for seed, value in enumerate(values)
    ]
    pd.DataFrame(models).to_csv(folder / "figures.csv", index=False)
    return PowerStudy.read(folder)


def rows_of_figures(concept="leaf", **methods):
    """Rows of one run of each method: {method: {figure: (low, value, high)}}."""
    lines = []
    for method, figures in methods.items():
        for name, (low, value, high) in figures.items():
            for end, one in (("", value), (" low", low), (" high", high)):
                lines.append({"method": method, "concept": concept, "seed": "0", "metric": name + end, "value": one})
    return pd.DataFrame(lines)


def test_votes_come_from_the_intervals_and_the_limits(tmp_path):
    accuracy, cosine = "reference-gap.forget_accuracy", "reference-gap.forget_cosine"
    figures = {
        "knows": {accuracy: (50, 60, 70), cosine: (0.5, 0.6, 0.7), "salmu.RetFail": (0.9, 0.9, 0.9)},
        "gone": {accuracy: (4.9, 5, 5.1), cosine: (0.1, 0.2, 0.3)},
        "pushed": {accuracy: (4.9, 5, 5.1), cosine: (-0.9, -0.8, -0.7)},
    }
    voted = votes(rows_of_figures(**figures), study_of(tmp_path))
    said = voted.set_index(["method", "figure"]).vote
    assert len(voted) == 6  # a figure without power has no vote
    assert (said["knows"] == KNOWN).all()
    assert (said["gone"] == NEVER_KNOWN).all()
    assert said["pushed", cosine] == PUSHED
    assert tally(voted).loc["pushed", PUSHED] == 50
    verdict = verdicts(voted).set_index("method").verdict
    assert verdict["knows"].startswith("Not gone: 2 of 2")
    assert verdict["gone"].startswith("No trace: none of 2")


def test_beside_a_reference_intervals_say_more_less_or_alike():
    accuracy = "reference-gap.forget_accuracy"
    lows = {"retrain": 10, "left": 31, "pushed": 0, "alike": 15}
    lines = beside(rows_of_figures(**{name: {accuracy: (low, low + 5, low + 9)} for name, low in lows.items()}))
    said = lines.set_index("method").vote
    assert said.to_dict() == {"retrain": ALIKE, "left": MORE, "pushed": LESS, "alike": ALIKE}


def test_the_points_of_relearning_are_a_curve(data_folder, models):
    runs = [Run("audit", "original", "leaf", {"concept": "leaf"}, 0, "original")]
    settings = {"relearning.pairs": [2], "relearning.steps": 2, "relearning.every": 1, "relearning.points": [0, 1, 2]}
    rows = run_all(place_of(data_folder, models, ["linear-probe", "relearning"], **settings), runs)
    curve = curves(rows, 2).original
    assert curves(rows, 8).empty
    assert curve.index.tolist() == [0, 1, 2]
    area = rows.set_index("metric").value["relearning.area_2_pairs"]
    assert area == pytest.approx((curve[0] + 2 * curve[1] + curve[2]) / 4)


def test_a_concept_of_the_study_is_held_against_its_own_models(tmp_path):
    """Beside the middle of those that never saw a leaf, 5, and the spread of 0.2; another concept has the threshold."""
    figures = {"some": {"reference-gap.forget_accuracy": (9, 10, 11)}}
    study = study_of(tmp_path)
    assert votes(rows_of_figures(**figures), study).vote.item() == KNOWN
    assert votes(rows_of_figures(concept="plum", **figures), study).vote.item() == NEVER_KNOWN


def test_goals_are_held_to_the_retrained_the_original_or_the_spread(tmp_path):
    study = study_of(tmp_path, dict.fromkeys(GOALS, (1.0, 30.0, 10.0, (18, 22), (90, 90))), (-10, 10))
    found = dict.fromkeys(GOALS, (0.0, 20.0, 30.0))
    better, worse = dict(found), dict(found)
    better["reference-gap.retain_accuracy"] = (24.0, 25.0, 26.0)  # more than the original is no fault
    for name in found:
        worse[name] = (0.0, 5.0, 9.0)
    rows = rows_of_figures(original=found, retrain=found, same=found, better=better, worse=worse)
    reached = goals(rows, study)
    assert reached["same"].all()
    assert reached["better"].all()
    assert not reached["worse"].any()
    assert goal_means(rows).loc["reference-gap.retain_accuracy", "better"] == 25


def test_a_variant_has_the_settings_of_its_row():
    profile = read_profile("icons")
    audit, leads = (experiment_of(profile, name) for name in ("audit", "leads"))
    known = profile.chosen["main"]
    assert (
        audit.configured(profile, "CLIPErase, paper's λ")["settings"]["learning_rate"]
        == (known["CLIPErase, paper's λ"]["learning_rate"])
    )
    settings = leads.configured(profile, "unseen, no stretch")["settings"]
    assert settings["learning_rate"] == known["unseen"]["learning_rate"]
    assert settings["stretch"] == 0
    assert audit.configured(profile, "unseen, twice the steps")["settings"]["epochs"] == 6
