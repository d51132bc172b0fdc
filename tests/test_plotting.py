"""What the figures of the notebooks draw, and where they write names and numbers; verdicts without a paper baseline."""

import itertools
import math

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

from paper.figures.changes import Change, change_groups, change_of, names_figure
from paper.figures.dots import ZERO_SHOT, crowd, cut_grid, dot_plot
from paper.figures.grids import grid_figure
from paper.figures.labels import name_ends, name_point, name_points, spread_out
from paper.figures.plane import plane_plot
from paper.figures.style import OURS, PAPER, publish_figure, use_style
from paper.figures.trends import tens_around
from paper.ledger import baselines, beside_paper, paper_cells, paper_values
from paper.plans.sensitivity import weights_of
from paper.tables import per_concept, with_ranges

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


def test_a_grid_shows_every_number_where_it_belongs():
    rows = [f"λ_FM {fm:g}, λ_CM {cm:g}" for fm in (0.1, 3) for cm in (1, 10, 100)]
    index = pd.MultiIndex.from_tuples(map(weights_of, rows), names=["λ_FM", "λ_CM"])
    table = pd.Series([0.0, 1.0, 2.0, 3.0, 4.0, 55.5], index).unstack()
    (axis,) = grid_figure({"Forget accuracy, %": table, "again": table}).axes[:1]
    shown = {text.get_position(): text.get_text() for text in axis.texts}
    assert shown[(2.5, 1.5)] == "55.5"  # λ_FM 3 below, λ_CM 100 at the right
    assert shown[(0.5, 0.5)] == "0.0"
    assert [text.get_text() for text in axis.get_xticklabels()] == ["1", "10", "100"]
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("λ_CM", "λ_FM")


def test_the_ledger_gives_no_baseline_for_captions():
    cells = paper_cells("pairs") + paper_cells("retrieval")
    assert len(cells) == 8
    assert not any("baseline" in cell for cell in cells)


def test_values_of_the_paper_have_dashes_and_no_statements():
    assert paper_values("main")["GradDiff", "forget_accuracy"] is None
    assert paper_values("main")["CLIPErase", "retain_accuracy"] == 90.99
    assert set(paper_values("ratios").values()) == {None}


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


def in_key(figure):
    """The texts of the line below the panels."""
    (key,) = figure.legends
    return [text.get_text() for text in key.get_texts()]


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
    chance = [("forget_way_r", 20, "chance")]
    figure, axes = cut_grid(rows_of_runs(), ["original", "CLIPErase"], panels, cuts, paper, chance)
    lines = axes[0, 0].lines
    dots = [line.get_xydata()[0] for line in lines if line.get_marker() == "o"]
    assert [x for x, _ in dots] == [65, 94, 3, 6]
    assert [round(y) for _, y in dots] == [2, 2, 1, 1]
    diamonds = [line for line in lines if line.get_marker() == "D"]
    assert [(line.get_xdata()[0], line.get_markeredgecolor()) for line in diamonds] == [(10.55, PAPER)]
    assert {text.get_text() for text in axes[0, 0].texts} == {"R@1", "R@5", "chance"}
    assert in_key(figure) == ["R@1", "R@5", "paper", "lowest to highest run"]
    plt.close("all")


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ([10.0, 90.0], [10, 90]),
        ([50.0, 50.0], [43, 57]),
        ([96.0, 97.0, 98.0], [83, 97, 111]),
        ([98.0, 96.0, 97.0], [111, 83, 97]),
        ([60.0, 80.0, 82.0], [60, 74, 88]),
        ([65.0, 80.0, 82.0], [61.67, 75.67, 89.67]),  # the two in the middle push the third
    ],
)
def test_names_stand_apart_and_near_their_lines(places, expected):
    assert spread_out(places, 14) == pytest.approx(expected, abs=0.01)


def test_names_stay_within_the_panel():
    assert spread_out([99.0, 100.0, 3.0], 14, 0, 100) == pytest.approx([86, 100, 3])
    assert spread_out([1.0, 0.0], 14, 0, 100) == pytest.approx([14, 0])


def test_names_of_lines_do_not_cover_each_other():
    figure = plt.figure(figsize=(4, 3))
    axis = figure.add_subplot(xlim=(0, 30), ylim=(0, 100))
    ends = {name: (29, height) for name, height in {"GA": 1, "SSD": 0, "KL-min": 2, "CLIPErase": 50}.items()}
    name_ends(axis, ends, 32, dict.fromkeys(ends, "0.5"))
    figure.canvas.draw()
    boxes = [Text.get_window_extent(name) for name in axis.texts]  # without their lines
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
    plt.close(figure)


def test_a_point_is_named_where_nothing_loud_is_hidden():
    figure = plt.figure(figsize=(3, 3))
    axis = figure.add_subplot(xlim=(0, 10), ylim=(0, 10))
    right = axis.transData.transform([(x, y) for x in np.linspace(5.5, 9, 8) for y in (4.5, 5, 5.5)])
    standing = []
    for name in ("one", "two"):
        name_point(axis, (5, 5), name, standing, right, np.zeros((0, 2)), fontsize=8)
    first, second = standing
    assert not first.overlaps(second)
    for box in standing:
        assert not any(box.contains(*point) for point in right)
        assert axis.get_window_extent().containsx(box.x0)
    plt.close(figure)


def test_names_of_a_crowd_stand_apart_and_hide_no_point():
    figure = plt.figure(figsize=(4, 4))
    axis = figure.add_subplot(xlim=(0, 10), ylim=(0, 10))
    points = [(4.8, 5), (5, 5.2), (5, 4.7), (5.2, 5.1), (5, 5)]
    pixels, standing = axis.transData.transform(points), []
    names = [(f"the row {i}", point, {"fontsize": 8}) for i, point in enumerate(points)]
    name_points(axis, names, standing, pixels, pixels)
    assert not any(one.overlaps(other) for one, other in itertools.combinations(standing, 2))
    assert not any(box.contains(*pixel) for box in standing for pixel in pixels)
    plt.close(figure)


EXTENTS = {"original": (96, 97), "A": (93, 95), "B": (90, 94), "C": (91, 96), "D": (4, 5)}


@pytest.mark.parametrize(
    ("changed", "left_out"),
    [
        ({}, ["D"]),
        ({"D": (60, 99)}, []),  # no gap
        ({"D": (4, 91)}, []),  # one run far off, another in the crowd: the row is shown whole
        ({"C": (4, 5)}, []),  # two of five are no few
        ({"original": (4, 5), "D": (90, 91)}, []),  # the reference stays
        (dict.fromkeys(EXTENTS, (0, 0)), []),
        (dict.fromkeys(EXTENTS, (0, 0)) | {"original": (1, 1)}, []),
        ({"D": (400, 401)}, ["D"]),
    ],
)
def test_a_few_rows_far_off_do_not_squeeze_the_others(changed, left_out):
    extents = pd.DataFrame(EXTENTS | changed, index=["min", "max"]).T
    assert [name for name in extents.index if name not in crowd(extents, "original").index] == left_out


def drawn(paper, far=4.0):
    """The axis of a dot plot of five rows, two runs each but the original; `far` is where the row "FM" stands."""
    values = {"original": [96], "CLIPErase": [95, 96], "GA": [91, 93], "FM": [far, far + 1], "KL-min": [94, 94]}
    lines = [(method, "accuracy", value) for method, runs in values.items() for value in runs]
    rows = pd.DataFrame(lines, columns=["method", "metric", "value"])
    figure, (axis,) = dot_plot(rows, list(values), paper, {"accuracy": "Accuracy, %"})
    assert figure.get_figwidth() == 7
    plt.close("all")
    return axis


def marks(axis, marker):
    """[(x, y, edge colour, face colour)] of a kind of mark."""
    return [
        (*point, line.get_markeredgecolor(), line.get_markerfacecolor())
        for line in axis.lines
        if line.get_marker() == marker
        for point in line.get_xydata()
    ]


def test_dots_are_runs_and_bars_their_means():
    axis = drawn({("GA", "accuracy"): 92.5, ("KL-min", "accuracy"): None}, far=92.0)
    assert [x for x, *_ in marks(axis, "o")] == [96, 95, 96, 91, 93, 92, 93, 94, 94]
    assert [x for x, *_ in marks(axis, "|")] == [96, 95.5, 92, 92.5, 94]
    assert [mark[:3] for mark in marks(axis, "D")] == [(92.5, 3, PAPER)]
    assert not marks(axis, "<") + marks(axis, ">")
    inks = {y: face for _, y, _, face in marks(axis, "o")}
    assert [y for y, ink in inks.items() if ink == OURS] == [4]
    bold = [label.get_text() for label in axis.get_yticklabels() if label.get_weight() == "bold"]
    assert bold == ["CLIPErase"]


def test_the_key_names_each_mark_that_is_drawn():
    axis = drawn({("GA", "accuracy"): 92.5, ("CLIPErase", "accuracy"): 94}, far=92.0)
    assert in_key(axis.figure) == ["a run", "mean", "paper"]
    assert in_key(drawn({}).figure) == ["a run", "mean", "beyond the axis, with its value"]


@pytest.mark.parametrize(("value", "shape"), [(12.46, "<"), (300, ">")])
def test_a_published_value_far_off_stands_at_the_edge_with_its_number(value, shape):
    axis = drawn({("GA", "accuracy"): value}, far=92.0)
    low, high = axis.get_xlim()
    narrow, wide = 0.06 * 5, 0.24 * 5  # of the runs, 91 to 96: the wide side has room for the number
    assert (91 - low, high - 96) == pytest.approx((wide, narrow) if shape == "<" else (narrow, wide))
    assert marks(axis, shape) == [({"<": low, ">": high}[shape], 3, PAPER, "none")]
    assert f"{value:.2f}" in [text.get_text() for text in axis.texts]
    assert not marks(axis, "D")


def test_a_row_far_off_stands_there_too_before_what_the_paper_has():
    axis = drawn({("FM", "accuracy"): 64.12})
    low, high = axis.get_xlim()
    assert 89 < low < 91
    (ours, paper) = marks(axis, "<")
    assert (ours[0], ours[3]) == (low, "0.25")
    assert low < paper[0] < low + 0.1 * (high - low)
    assert [text.get_text() for text in axis.texts if text.get_text()[0].isdigit()] == ["4.50", "64.12"]
    assert 2 not in [y for _, y, *_ in marks(axis, "o")]


def changed():
    """The original and one row, two runs each."""
    values = {("original", "forget_accuracy"): (98, 100), ("CLIPErase", "forget_accuracy"): (0, 4)}
    values |= {("original", "retain_accuracy"): (60, 60), ("CLIPErase", "retain_accuracy"): (59, 61)}
    lines = [(*key, value) for key, runs in values.items() for value in runs]
    return pd.DataFrame(lines, columns=["method", "metric", "value"])


def test_a_change_is_the_means_and_the_runs():
    change = change_of(changed(), "forget_accuracy", "CLIPErase", PAPER, paper=1.5)
    assert change == Change(PAPER, 99, 2, [0, 4], (), 1.5)


def test_groups_show_before_after_and_the_number_after():
    sides = [
        change_of(changed(), f"{side}_accuracy", "CLIPErase", ink)
        for side, ink in (("forget", PAPER), ("retain", OURS))
    ]
    figure, axes = plt.subplots(1, 2)
    panels = {name: {"CLIPErase": sides, "GA": sides} for name in ("one head", "another")}
    labels = {name: ["forget", "retain"] for name in ("CLIPErase", "GA")}
    change_groups(axes, panels, labels, names={"GA": "GA"}, heads={"CLIPErase": "a heading"})
    for axis in axes:
        numbers = [text.get_text() for text in axis.texts if text.get_text().isdigit()]
        assert numbers == ["2", "60"] * 2
        rings = [line.get_xdata()[0] for line in axis.lines if line.get_markerfacecolor() == "white"]
        assert rings == [99, 60] * 2
        assert axis.get_ylim()[0] > axis.get_ylim()[1]  # the first group is on top
    written = [text.get_text() for text in axes[0].texts if not text.get_text().isdigit()]
    assert written == ["forget", "retain", "forget", "retain", "GA", "a heading"]
    plt.close(figure)


def test_names_are_counted_in_the_runs_that_do_not_list_them_too():
    index = pd.MultiIndex.from_tuples([("cat", "0"), ("cat", "1")], names=["concept", "seed"])
    own = pd.Series([0.0, 2.0], index=index)
    others = pd.DataFrame(
        {"concept": "cat", "seed": ["0", "0", "1"], "name": ["dog", "cow", "dog"], "value": [60, 30, 40]}
    )
    figure = names_figure(own, others, "images, %")
    assert [text.get_text() for text in figure.axes[0].texts] == ["cat  1", "dog  50", "cow  15", "anything else  34"]
    plt.close(figure)


def test_an_axis_of_percent_holds_intervals_and_runs_and_no_more_than_100():
    nan = np.nan
    means = [np.array([[50.0, 60.0], [45.0, nan], [55.0, nan]]), np.array([[95.0, 96.0], [86.0, 95.0], [104.0, 97.0]])]
    assert tens_around(means, pd.Series([33.0, 90.0])) == (30, 100)


def test_the_plane_shows_means_and_the_region_of_the_retrained_models():
    values = {"original": (90, 80), "retrain": (2, 79), "GA": (4, 77), "CLIPErase": (0, 78), "fine-tune": (60, 80)}
    rows = pd.DataFrame(
        {"method": method, "concept": concept, "metric": metric, "value": value + shift}
        for method, pair in values.items()
        for concept, shift in (("a", 0.0), ("b", 1.0))
        for metric, value in zip(("forget_accuracy", "retain_accuracy"), pair, strict=True)
    )
    figure, (whole, corner) = plane_plot(rows, list(values))
    means = {method: tuple(value + 0.5 for value in pair) for method, pair in values.items()}
    drawn = {(line.get_xdata()[0], line.get_ydata()[0]) for line in whole.lines if len(line.get_xdata()) == 1}
    assert drawn == set(means.values())
    assert {text.get_text() for text in corner.texts} == {"GA", "CLIPErase"}  # not far off, and not the region itself
    assert {text.get_text() for text in whole.texts} == {"original", "fine-tune"}
    (region,) = corner.patches
    assert (*region.get_xy(), region.get_width(), region.get_height()) == pytest.approx((2, 79, 1, 1))
    plt.close(figure)


def test_the_same_figure_is_the_same_bytes(tmp_path):
    rows = pd.concat([changed().assign(metric=metric) for metric in ZERO_SHOT])
    for run in ("one", "two"):
        with mpl.rc_context():
            use_style()
            figure, _ = dot_plot(rows, ["original", "CLIPErase"], {("CLIPErase", "forget_accuracy"): 200})
            publish_figure(figure, "figure", tmp_path / run)
        plt.close(figure)
    for kind in ("png", "svg"):
        assert (tmp_path / "one" / f"figure.{kind}").read_bytes() == (tmp_path / "two" / f"figure.{kind}").read_bytes()
