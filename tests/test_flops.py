"""The cost of the profile `paper`: counted steps of a small stand-in, and the sums of its plans."""

from pathlib import Path

import pytest

from benchmarks.flops import CARDS, MODEL, PEAK, UTILISATION, costs, count, page, planned, work
from paper.commands.doctor import runs_of
from paper.experiments import experiment_of
from paper.params import read_profile
from paper.runs import Run

PAPER = read_profile("paper")
VALIDATION, TEST = 5000, 10_000
LOOP = {"epochs": 20.0, "evaluations": 20, "forget_batch": 16, "retain_batch": 16, "learning_rate": 1e-6}


def run(method="CLIPErase", rule=None, **more):
    return Run("main", method, "apple", rule or {"concept": "apple"}, 0, method, LOOP, **more)


def test_a_larger_batch_costs_more_and_an_image_the_same():
    steps, image = count("compact", [(2, 2), (4, 4)])
    small, large = steps.values()
    assert 0 < image < small < large < 2.5 * small


def test_a_run_takes_its_epochs_and_encodes_what_it_looks_at():
    batch, steps, images = work(run(), VALIDATION, TEST)
    assert (batch, steps) == ((16, 16), 563)  # 20 times 450 images of a class
    assert images == 45_000 + (1 + 20) * VALIDATION + TEST
    assert work(run(rule={"classes": ["apple", "clock"]}), VALIDATION, TEST)[1] == 1125
    assert work(run(absent=("a",) * 30), VALIDATION, TEST)[2] == images - 0.3 * 45_000
    assert work(run("null space"), VALIDATION, TEST) == (None, 0, 45_000 + VALIDATION + TEST)
    assert work(run("original"), VALIDATION, TEST) == (None, 0, VALIDATION + TEST)


def test_the_plans_have_the_runs_of_the_profile():
    runs = planned(PAPER)
    trained = [one for one in runs["main"] if work(one, VALIDATION, TEST)[1]]
    assert len(trained) == runs_of(experiment_of(PAPER, "main"), PAPER)
    assert {"search of main", "search of ratios"} < set(runs)


def test_the_page_has_the_runs_and_steps_of_the_plans():
    text = (Path(__file__).parent.parent / "benchmarks" / "results" / "paper_flops.md").read_text()
    for name, runs in planned(PAPER).items():
        steps = sum(work(one, VALIDATION, TEST)[1] for one in runs)
        assert f"| {name} | {len(runs):,} | {steps:,} |" in text, "run `python -m benchmarks.flops`"


def test_the_table_is_the_sum_of_its_runs():
    table = costs({"main": [run(), run()], "search of main": [run()]}, {(16, 16): 1000.0}, 10.0, VALIDATION)
    main, total = table.loc["main"], table.loc["all of these"]
    assert main.runs == 2
    assert main["PFLOP of steps"] == pytest.approx(2 * 563 * 1000 / 1e6)
    assert main["PFLOP of encoding"] == pytest.approx(2 * 160_000 * 10 / 1e6)
    assert table.loc["search of main", "PFLOP of encoding"] == pytest.approx(150_000 * 10 / 1e6)
    work_of_all = total["PFLOP of steps"] + total["PFLOP of encoding"]
    assert total["hours, one A100"] == pytest.approx(work_of_all * 1e15 / (PEAK * 1e12 * UTILISATION) / 3600)
    assert total[f"hours, {CARDS} A100"] == pytest.approx(total["hours, one A100"] / CARDS)
    text = page(PAPER, table, {(16, 16): 1000.0}, 10.0)
    assert "| main | 2 | 1,126 | 1.1 |" in text
    assert MODEL in text
    assert "`captioning`" in text
