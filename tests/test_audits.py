"""Every row audited: what a run leaves in the table, and how votes and verdicts are read from it."""

import pandas as pd
import pytest

from cliperase.audit.auditing import plan
from cliperase.audit.verdict import KNOWN, NEVER_KNOWN, PUSHED
from paper.audits import GOALS, AuditPlace, goals, tally, verdicts, votes
from paper.results import COLUMNS
from paper.runs import Run, run_all
from paper.store import RunStore

SMALL = {"learning_rate": 1e-3, "steps": 2, "evaluate_every": 2, "forget_batch": 4, "retain_batch": 8}


@pytest.fixture
def models(base_model, tmp_path):
    for name in ("original", "retrain-leaf"):
        base_model.save(tmp_path / "models" / name)
    return tmp_path / "models"


def place_of(data, models, names=("reference-gap", "linear-probe"), **settings):
    settings, probes = plan(list(names), {"linear-probe.shots": [1], **settings}, 0)
    where = ("test", "icons", "compact", str(data), str(models / "original"), ("test",))
    return AuditPlace(*where, workers=1, settings=settings, probes=probes)


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


def test_other_probes_and_settings_are_another_run(data_folder, models, tmp_path, monkeypatch):
    monkeypatch.setattr("paper.store.RUNS", tmp_path)
    run = Run("audit", "original", "leaf", {"concept": "leaf"}, 0, "original")
    asked = [(["linear-probe"], 20), (["linear-probe"], 30), (["linear-probe", "salmu"], 20)]
    places = [place_of(data_folder, models, names, images=most) for names, most in asked]
    assert len({RunStore(place).path(run) for place in places}) == 3


POWER = pd.DataFrame(
    {"probe": probe, "measure": measure, "known": "above", "auc": auc, "threshold": threshold, "far_end": far_end}
    for probe, measure, auc, threshold, far_end in [
        ("reference-gap", "forget_accuracy", 1.0, 20.0, 0.0),
        ("reference-gap", "forget_cosine", 0.9, 0.4, -0.1),
        ("salmu", "RetFail", 0.6, 0.4, 0.1),
    ]
)  # fmt: skip


def rows_of_figures(**methods):
    """Rows of one run of each method: {method: {figure: (low, value, high)}}."""
    lines = []
    for method, figures in methods.items():
        for name, (low, value, high) in figures.items():
            for end, one in (("", value), (" low", low), (" high", high)):
                lines.append({"method": method, "concept": "leaf", "seed": "0", "metric": name + end, "value": one})
    return pd.DataFrame(lines)


def test_votes_come_from_the_intervals_and_the_thresholds():
    accuracy, cosine = "reference-gap.forget_accuracy", "reference-gap.forget_cosine"
    voted = votes(
        rows_of_figures(
            knows={accuracy: (50, 60, 70), cosine: (0.5, 0.6, 0.7), "salmu.RetFail": (0.9, 0.9, 0.9)},
            gone={accuracy: (0, 1, 5), cosine: (0.1, 0.2, 0.3)},
            pushed={accuracy: (0, 0, 5), cosine: (-0.9, -0.8, -0.7)},
        ),
        POWER,
    )
    said = voted.set_index(["method", "figure"]).vote
    assert len(voted) == 6  # a figure without power has no vote
    assert (said["knows"] == KNOWN).all()
    assert (said["gone"] == NEVER_KNOWN).all()
    assert said["pushed", cosine] == PUSHED
    assert tally(voted).loc["pushed", PUSHED] == 50
    verdict = verdicts(voted).set_index("method").verdict
    assert verdict["knows"].startswith("Not gone: 2 of 2")
    assert verdict["gone"].startswith("No trace: none of 2")


def test_goals_are_held_to_the_retrained_the_original_or_the_spread():
    power = pd.DataFrame([name.split(".") for name in GOALS], columns=["probe", "measure"])
    power = power.assign(threshold=30.0, far_end=10.0)
    found = dict.fromkeys(GOALS, (0.0, 20.0, 30.0))
    better, worse = dict(found), dict(found)
    better["reference-gap.retain_accuracy"] = (24.0, 25.0, 26.0)  # more than the original is no fault
    for name in found:
        worse[name] = (0.0, 5.0, 9.0)
    rows = rows_of_figures(original=found, retrain=found, same=found, better=better, worse=worse)
    reached = goals(rows, power)
    assert reached["same"].all()
    assert reached["better"].all()
    assert not reached["worse"].any()
    assert goals(rows, power, values=True).loc["reference-gap.retain_accuracy", "better"] == 25
