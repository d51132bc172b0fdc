"""What the notebooks of captions share: verdicts without a paper baseline, ranges, the grid of cuts."""

import math

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
import pytest

from cliperase.ledger import baselines, beside_paper, paper_cells
from cliperase.plotting import PAPER, cut_grid, name_a_diamond, spread_out
from cliperase.reporting import per_concept, with_ranges

mpl.use("Agg")
FORGET, RETAIN = "forget_image_retrieval_r@10", "retain_image_retrieval_r@10"
PUBLISHED = [
    {"method": "CLIPErase", "metric": FORGET, "value": 10.55},
    {"method": "GradDiff", "metric": FORGET, "value": 7.82},
]


def verdicts(forget, retain):
    """Verdicts {(method, metric): text} for ours `{method: value}`, against the ledger's cells of `retrieval`."""
    summary = pd.DataFrame({FORGET: forget, RETAIN: retain}).rename_axis("method").reset_index()
    table = beside_paper(summary, "retrieval", "icons")
    return {(line.method, line.metric): line.verdict for line in table.itertuples()}


def test_the_ledger_gives_no_baseline_for_captions():
    cells = paper_cells("pairs") + paper_cells("retrieval")
    assert len(cells) == 8
    assert not any("baseline" in cell for cell in cells)


def test_without_a_baseline_the_order_of_the_two_rivals_is_the_direction():
    """Paper, forget: CLIPErase 10.55 above GradDiff 7.82; retain: 50.35 above 47.13."""
    forget = {"original": 95.0, "CLIPErase": 30.0, "GradDiff": 20.0}
    retain = {"original": 95.0, "CLIPErase": 80.0, "GradDiff": 90.0}
    assert verdicts(forget, retain) == {
        ("CLIPErase", FORGET): "same direction",
        ("GradDiff", FORGET): "same direction",
        ("CLIPErase", RETAIN): "differs",
        ("GradDiff", RETAIN): "differs",
    }


def test_a_match_needs_no_order():
    found = verdicts({"CLIPErase": 9.0, "GradDiff": 9.5}, {"CLIPErase": 80.0, "GradDiff": 79.5})
    assert {found[method, FORGET] for method in ("CLIPErase", "GradDiff")} == {"match"}
    assert {found[method, RETAIN] for method in ("CLIPErase", "GradDiff")} == {"differs"}  # half a point is no order


def test_a_rival_that_was_not_run_gives_no_order():
    found = verdicts({"CLIPErase": 30.0}, {"CLIPErase": 80.0})
    assert found["CLIPErase", FORGET] == "differs"
    assert found["GradDiff", FORGET] == "not run"


def test_baselines():
    ours = pd.Series({"original": 95.0, "CLIPErase": 30.0, "GradDiff": 20.0})
    assert baselines({**PUBLISHED[0], "baseline": 86.08}, PUBLISHED, ours) == (95.0, 86.08)
    assert baselines(PUBLISHED[0], PUBLISHED, ours) == (20.0, 7.82)
    assert baselines(PUBLISHED[1], PUBLISHED, ours) == (30.0, 10.55)
    alone = {"method": "GA", "metric": FORGET, "value": 1.0}
    dash = {"method": "GradDiff", "metric": FORGET, "value": None}
    for cell, cells in ((alone, [*PUBLISHED, alone]), (PUBLISHED[0], [PUBLISHED[0], dash])):
        assert all(math.isnan(value) for value in baselines(cell, cells, ours))


def rows_of_runs():
    """One direction, two cuts, the original and one row on two concepts."""
    values = {("original", "apple", "0"): (60, 90), ("original", "cat", "0"): (70, 98)}
    values |= {("CLIPErase", "apple", seed): (1, 2 + int(seed)) for seed in "012"}
    values |= {("CLIPErase", "cat", seed): (5, 9) for seed in "012"}
    lines = [(*key, f"forget_way_r@{cut}", pair[i]) for key, pair in values.items() for i, cut in enumerate((1, 5))]
    return pd.DataFrame(lines, columns=["method", "concept", "seed", "metric", "value"])


def test_ranges_are_of_runs():
    summary = pd.DataFrame({"method": ["CLIPErase"], "runs": [6], "forget_way_r@1": [3.0], "forget_way_r@5": [6.0]})
    table = with_ranges(summary, rows_of_runs(), {"way": "there"}, {"R@1": "forget_{}_r@1", "R@5": "forget_{}_r@5"})
    assert table.to_dict("records") == [
        {"method": "CLIPErase", "direction": "there", "runs": 6, "R@1": "3.0 (1.0 to 5.0)", "R@5": "6.0 (2.0 to 9.0)"}
    ]


def test_per_concept_averages_seeds():
    table = per_concept(rows_of_runs(), ["original", "CLIPErase"], {"forget_way_r@5": "forget"})
    assert table.to_dict("list") == {
        "method": ["original", "CLIPErase"],
        "forget, apple": ["90.0", "3.0"],
        "forget, cat": ["98.0", "9.0"],
    }


def test_the_grid_draws_means_guides_and_the_paper():
    paper = {("CLIPErase", "forget_way_r@5"): 10.55}
    panels, cuts = [[("forget_way_r", "Forget")]], {1: "R@1", 5: "R@5"}
    _, axes = cut_grid(rows_of_runs(), ["original", "CLIPErase"], panels, cuts, paper, [("forget_way_r", 20, "chance")])
    lines = axes[0, 0].lines
    dots = [line.get_xydata()[0] for line in lines if line.get_marker() == "o"]
    assert [x for x, _ in dots] == [65, 94, 3, 6]
    assert [round(y) for _, y in dots] == [2, 2, 1, 1]
    diamonds = [line for line in lines if line.get_marker() == "D"]
    assert [(line.get_xdata()[0], line.get_markeredgecolor()) for line in diamonds] == [(10.55, PAPER)]
    assert {text.get_text() for text in axes[0, 0].texts} == {"R@1", "R@5", "chance", "paper"}
    plt.close("all")


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ([10.0, 90.0], [10, 90]),
        ([50.0, 50.0], [43, 57]),
        ([96.0, 97.0, 98.0], [83, 97, 111]),
        ([60.0, 80.0, 82.0], [60, 74, 88]),
        ([65.0, 80.0, 82.0], [61.67, 75.67, 89.67]),  # the two in the middle push the third
    ],
)
def test_names_stand_apart_and_near_their_lines(places, expected):
    assert spread_out(places, 14) == pytest.approx(expected, abs=0.01)


def test_the_paper_is_named_where_nothing_stands():
    axis = plt.figure().add_subplot()
    for x, y, style in ((5, 3, "D"), (14, 3, "o"), (1, 2, "D"), ([9, 60], [2, 2], "-"), (1, 1, "D"), (40, 1, "o")):
        axis.plot(x, y, style)
    name_a_diamond(axis)
    assert [text.xy[1] for text in axis.texts] == [1]
    plt.close("all")
