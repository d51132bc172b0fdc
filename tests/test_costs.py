"""What erasing costs: when a goal is reached, what is counted, and how it is drawn."""

import math
import shutil
from dataclasses import replace

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
import pytest
import torch

from cliperase.metrics.tasks import task_of
from cliperase.models import load_model
from paper.figures.costs import front, minutes, pareto_plot, time_plot
from paper.plans import efficiency
from paper.plans.efficiency import CostBench, CostPlace, gflops, reached, until
from paper.runs import Run

mpl.use("Agg")
LOOP = {"steps": 3, "evaluate_every": 3, "learning_rate": 1e-3, "forget_batch": 4, "retain_batch": 8}
MANY = [f"row {number}" for number in range(12)]


@pytest.fixture(scope="module")
def bench(data_folder, model_folder, tmp_path_factory):
    """Beside the original stands the same model as what was retrained."""
    models = tmp_path_factory.mktemp("costs")
    for name in ("original", "retrain-apple"):
        shutil.copytree(model_folder, models / name)
    about = ("test", "icons", "compact", str(data_folder), str(models / "original"), ("validation",))
    return CostBench.load(CostPlace(*about, evaluations=3, retrained=True))


def measured(bench, method, monkeypatch, goals):
    """(metric -> value, the rows) of a run with these goals."""
    monkeypatch.setattr(CostBench, "goals", lambda *_: goals)
    monkeypatch.setattr(efficiency, "MOST_LOST", 100.0)  # these models know nothing
    run = Run("efficiency", method, "apple", {"concept": "apple"}, 0, method, LOOP if method == "CLIPErase" else {})
    rows = bench.rows(run)
    return {row["metric"]: row["value"] for row in rows}, rows


def test_a_row_with_steps_pays_for_those_until_its_goal(bench, monkeypatch):
    found, rows = measured(bench, "CLIPErase", monkeypatch, {"one_percent": 100.0, "retrained": -1.0})
    assert found["step_to_one_percent"] == 1  # of three, each of which was looked at
    assert found["seconds_to_one_percent"] > 0
    step = gflops(bench.again(Run("", "", "apple", {"concept": "apple"}, 0, "CLIPErase", LOOP), steps=1).carry_out)
    assert found["gflops_to_one_percent"] == pytest.approx(step)
    assert {found[f"{name}_to_retrained"] for name in ("step", "seconds", "gflops")} == {math.inf}
    assert len({(row["seconds"], row["peak_mb"]) for row in rows}) == 1  # of the run, not of what followed


def test_an_edit_costs_the_same_whatever_it_reaches(bench, monkeypatch):
    found, _ = measured(bench, "null space", monkeypatch, {"one_percent": 100.0, "retrained": 100.0})
    assert found["step_to_one_percent"] == 0
    assert 0 < found["seconds_to_one_percent"] == found["seconds_to_retrained"]
    seen = bench.again(Run("", "", "apple", {"concept": "apple"}, 0, "null space"))
    assert found["gflops_to_one_percent"] == pytest.approx(gflops(seen.carry_out))  # the last validation is no part


def test_the_goal_is_what_the_retrained_model_recognises(bench):
    run, rows = Run("efficiency", "GA", "apple", {"concept": "apple"}, 0, "GA"), bench.splits["validation"]
    retrained = load_model(bench.place.beside("retrain-apple", run))
    metrics = task_of(rows).measure(retrained, rows, rows.labels == rows.class_names.index("apple"))
    assert bench.goals(run) == {"one_percent": 1.0, "retrained": metrics["forget_accuracy"]}
    without = replace(bench, place=replace(bench.place, retrained=False))
    assert without.goals(run) == {"one_percent": 1.0}


def test_a_model_that_is_broken_has_reached_nothing():
    before = {"retain_accuracy": 96.0}
    assert reached({"remaining": 1.0, "retain_accuracy": 94.0}, 1.0, before)
    assert not reached({"remaining": 1.1, "retain_accuracy": 96.0}, 1.0, before)
    assert not reached({"remaining": 0.0, "retain_accuracy": 93.9}, 1.0, before)


def test_costs_add_up():
    assert until(4, (1.0, 10.0), (0.5, 2.0)) == [4, 3.0, 18.0]
    assert until(None, (1.0, 10.0), (0.0, 0.0)) == [math.inf] * 3
    assert gflops(lambda: torch.ones(2, 3) @ torch.ones(3, 4)) == pytest.approx(2 * 2 * 3 * 4 / 1e9)


def test_the_front_holds_what_no_cheaper_row_beats():
    cost = pd.Series({"cheap": 1.0, "as cheap": 1.0, "worse": 2.0, "dear": 3.0, "never": math.inf})
    kept = pd.Series({"cheap": 90.0, "as cheap": 91.0, "worse": 90.5, "dear": 95.0, "never": 99.0})
    assert front(cost, kept) == ["as cheap", "dear"]


def test_every_row_is_named_and_those_that_never_get_there_stand_at_the_right():
    costs = pd.DataFrame({"seconds": [2.0**number for number in range(12)]}, index=MANY)
    costs.loc[MANY[5], "seconds"] = math.inf
    kept = pd.Series([90.0 + number / 2 for number in range(12)], index=MANY)
    kept[MANY[0]] = 50.0
    figure, (axis,) = pareto_plot(costs, kept, {"seconds": "seconds"})
    written = {text.get_text() for text in axis.texts}
    assert written == {"never", "row 0 (50.0 %)", *MANY[1:]}
    points = [line.get_xydata()[0] for line in axis.lines if line.get_marker() in "ov"]
    assert max(x for x, _ in points) == points[5][0] > 2.0**11
    low, high = axis.get_ylim()
    assert all(low < y < high for _, y in points)
    plt.close(figure)


def test_a_run_with_many_metrics_takes_its_seconds_once():
    rows = pd.DataFrame(
        [("main", "GA", "cat", seed, metric, 60.0) for seed in "012" for metric in ("a", "b")]
        + [("blip", "GA", "cat", "0", "a", 30.0)],
        columns=["experiment", "method", "concept", "seed", "metric", "seconds"],
    )
    spent = minutes(rows, workers=2)
    assert spent.to_dict() == {"main": 1.5, "blip": 0.25}
    figure, axis = time_plot({"make reproduce": (spent, "0.5")})
    assert [label.get_text() for label in axis.get_yticklabels()] == ["main", "blip"]
    assert [bar.get_width() for bar in axis.patches] == [1.5, 0.25]
    plt.close(figure)
