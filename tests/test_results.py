"""The tidy table, its summaries and the verdicts."""

import math

import numpy as np
import pandas as pd
import pytest

from cliperase.audit.intervals import share_interval
from cliperase.errors import CliperaseError
from paper.ledger import beside_paper, paper_cells, verdict
from paper.results import COLUMNS, collect, mean_interval, read_results, rows_of, write_table
from paper.statistics import compare, images_of, in_order, interval, summarise, with_gap
from paper.tables import mark_best

ABOUT = {"profile": "icons", "experiment": "main", "dataset": "icons", "model": "compact", "method": "GA"}
ABOUT |= {"concept": "apple", "seed": "0", "split": "test", "provenance": "icons"}


def table_of(*abouts, **metrics):
    rows = [row for about in abouts for row in rows_of({**ABOUT, **about}, metrics or {"forget_accuracy": 1.0})]
    return pd.DataFrame(rows)[COLUMNS]


def test_rows_carry_unit_and_provenance(tmp_path):
    write_table(table_of({}, forget_accuracy=12.5, forget_cosine=0.25, selected_step=50), tmp_path / "r.csv")
    table = read_results(tmp_path / "r.csv").set_index("metric")
    assert table.unit.to_dict() == {"forget_accuracy": "%", "forget_cosine": "1", "selected_step": "steps"}
    assert set(table.provenance) == {"icons"}
    assert table.value["forget_accuracy"] == 12.5


def test_a_number_without_known_provenance_is_refused(tmp_path):
    write_table(table_of({"provenance": "a colleague"}), tmp_path / "r.csv")
    with pytest.raises(CliperaseError, match="provenance 'a colleague'"):
        read_results(tmp_path / "r.csv")


def test_two_values_for_one_key_are_refused(tmp_path):
    write_table(table_of({}, {}), tmp_path / "r.csv")
    with pytest.raises(CliperaseError, match="two values"):
        read_results(tmp_path / "r.csv")


def test_collect_wants_every_part_and_no_other(tmp_path):
    write_table(table_of({}), tmp_path / "parts" / "main-GA.csv")
    write_table(table_of({"method": "ENMN"}), tmp_path / "parts" / "main-ENMN.csv")
    collect(tmp_path / "parts", ["main-GA", "main-ENMN"], tmp_path / "all.csv")
    assert set(read_results(tmp_path / "all.csv").method) == {"GA", "ENMN"}
    with pytest.raises(CliperaseError, match=r"main-X.csv is missing"):
        collect(tmp_path / "parts", ["main-GA", "main-ENMN", "main-X"], tmp_path / "all.csv")
    with pytest.raises(CliperaseError, match=r"main-GA.csv is of no experiment here"):
        collect(tmp_path / "parts", ["main-ENMN"], tmp_path / "all.csv")


def test_a_table_that_cannot_be_written_leaves_the_old_one(tmp_path):
    held = tmp_path / "file"
    held.write_text("held")
    with pytest.raises(CliperaseError, match="cannot be written"):
        write_table(table_of({}), held / "r.csv")
    assert held.read_text() == "held"


def test_mean_interval_by_hand():
    mean, half = mean_interval([1.0, 2.0, 3.0])
    assert mean == 2
    assert half == pytest.approx(4.302653 * 1 / math.sqrt(3), abs=1e-5)  # t at 97.5 %, 2 degrees of freedom
    assert math.isnan(mean_interval([5.0])[1])


def runs_of(values, **about):
    """A table of `{(concept, seed): value}`."""
    return pd.concat([table_of({**about, "concept": c, "seed": s}, forget_accuracy=v) for (c, s), v in values.items()])


def test_summarise_counts_runs_and_averages_them():
    runs = runs_of({("apple", "0"): 1.0, ("apple", "1"): 3.0})
    line = summarise(runs, ["method"], ["forget_accuracy"]).iloc[0]
    assert (line.forget_accuracy, line.runs, line["forget_accuracy worst"]) == (2.0, 2, 3.0)
    assert math.isnan(line["forget_accuracy low"])  # of two seeds nothing can be said


def test_seeds_do_not_pass_for_concepts():
    """Three seeds that agree are one sample of their concept, not three."""
    runs = runs_of({(c, str(s)): v for c, v in (("apple", 1.0), ("cat", 2.0), ("key", 3.0)) for s in range(3)})
    line = summarise(runs, ["method"], ["forget_accuracy"]).iloc[0]
    assert line.runs == 9
    assert (line["forget_accuracy low"], line["forget_accuracy high"]) == interval([1.0, 2.0, 3.0])


def test_the_bootstrap_interval_by_hand():
    """Three units: 27 resamples, of which one has the mean 1, three 4/3; so 2.5 % lie between."""
    low, high = interval([1.0, 2.0, 3.0])
    assert low == pytest.approx(1 + 0.65 / 3, abs=0.01)
    assert high == pytest.approx(3 - 0.65 / 3, abs=0.01)
    assert all(math.isnan(end) for end in interval([1.0, 2.0]))
    many = interval(np.linspace(0, 1, 50))
    assert many == interval(np.linspace(0, 1, 50))  # the same on every call
    assert many[0] < 0.45 < 0.55 < many[1]


def test_no_spread_is_no_certainty():
    """0 of 80 images in every concept: the exact binomial interval of 400 images remains."""
    assert interval([0.0] * 5, images=400) == pytest.approx((0.0, 0.918), abs=1e-3)
    assert share_interval(10, 20) == pytest.approx((27.196, 72.804), abs=1e-3)
    low, high = interval([10.0, 50.0, 90.0], images=10**6)  # the spread of the concepts is wider
    assert (low, high) == interval([10.0, 50.0, 90.0])


def test_the_images_behind_a_cell_are_counted_once():
    tables = []
    for concept, forgotten in (("apple", 80), ("cat", 60)):
        for seed in "01":
            about = {"concept": concept, "seed": seed}
            tables.append(table_of(about, forget_accuracy=1.0, forget_images=forgotten, retain_images=6000))
    rows = pd.concat(tables)
    assert images_of(rows, "forget_accuracy") == 140
    assert images_of(rows, "retain_accuracy") == 6000
    assert images_of(rows, "forget_cosine") is None
    assert images_of(rows[rows.metric == "forget_accuracy"], "forget_accuracy") is None


def test_comparison_is_paired_and_adjusted():
    concepts = ["a", "b", "c", "d"]
    tables = []
    for method, shift in (("ours", 0.0), ("far", 9.0), ("near", 0.0)):
        wobble = [0.1, -0.2, 0.15, -0.05] if method != "ours" else [0.0] * 4
        values = {(c, "0"): 10.0 * i + shift + w for i, (c, w) in enumerate(zip(concepts, wobble, strict=True))}
        tables.append(runs_of(values, method=method))
    found = compare(pd.concat(tables), "ours", "forget_accuracy", ["far", "near"]).set_index("against")
    assert found.better.to_dict() == {"far": "ours", "near": ""}
    assert found.difference["far"] == pytest.approx(-9.0)
    from scipy.stats import ttest_1samp

    assert found["p (Holm)"]["far"] == pytest.approx(2 * ttest_1samp([9.1, 8.8, 9.15, 8.95], 0).pvalue)


def gap_rows(values):
    """Tidy rows of {(method, concept, seed): (forget, retain)}."""
    return pd.concat(
        table_of({"method": m, "concept": c, "seed": s}, forget_accuracy=forget, retain_accuracy=retain)
        for (m, c, s), (forget, retain) in values.items()
    )


def gaps(values):
    found = with_gap(gap_rows(values)).query("metric == 'average_gap'")
    return found.set_index(["method", "concept", "seed"]).value.to_dict()


def test_the_average_gap_is_taken_to_the_retrained_model_of_the_same_concept():
    values = {("original", "a", "0"): (90, 80), ("retrain", "a", "0"): (2, 84), ("GA", "a", "0"): (0, 80)}
    values |= {("GA", "a", "1"): (2, 90)}  # seeds share the one reference; a rise above it is a gap too
    found = gaps(values)
    assert found["GA", "a", "0"] == 3.0
    assert found["GA", "a", "1"] == 3.0
    assert found["retrain", "a", "0"] == 0.0
    assert found["original", "a", "0"] == 46.0
    own = gaps(values | {("retrain", "a", "1"): (2, 90)})  # the reference of the same seed, where there is one
    assert own["GA", "a", "1"] == 0.0


def test_without_a_retrained_model_the_gap_is_taken_to_the_best_there_can_be():
    found = gaps({("original", "a", "0"): (40, 80), ("GA", "a", "0"): (10, 70), ("fine-tune", "a", "0"): (0, 85)})
    assert found == {("original", "a", "0"): 20.0, ("GA", "a", "0"): 10.0, ("fine-tune", "a", "0"): 0.0}


def test_tables_are_sorted_and_marked_by_rule():
    values = {"weak": (50, 99), "good": (0, 95), "original": (99, 98), "harsh": (0, 40)}
    rows = with_gap(gap_rows({(method, "a", "0"): pair for method, pair in values.items()}))
    ordered = in_order(summarise(rows, ["method"], ["average_gap"]))
    assert list(ordered.method) == ["original", "good", "weak", "harsh"]
    assert ordered.average_gap.tolist() == [49.5, 1.5, 25.0, 29.0]
    text = ordered.astype(str)
    assert list(mark_best(text, ordered, "average_gap").average_gap) == ["49.5", "**1.5**", "25.0", "29.0"]


@pytest.mark.parametrize(
    ("ours", "paper", "our_baseline", "paper_baseline", "expected"),
    [
        (10.0, 12.0, 95.0, 86.0, "match"),
        (40.0, 12.0, 95.0, 86.0, "same direction"),
        (71.0, 2.0, 98.0, 100.0, "differs"),  # a quarter of the way is another finding
        (0.5, 0.0, 95.0, 86.0, "weak match"),
        (97.0, 12.0, 95.0, 86.0, "differs"),
        (94.5, 12.0, 95.0, 86.0, "differs"),  # has hardly moved
        (90.7, 89.96, 96.5, 72.85, "differs"),  # close, but one has fallen and the other risen
        (90.7, 89.96, math.nan, math.nan, "match"),
        (90.0, 60.0, 90.0, 60.5, "differs"),  # neither moved: no direction to share
        (None, 12.0, 95.0, 86.0, "not run"),
        (math.nan, 12.0, 95.0, 86.0, "not run"),
    ],
)
def test_verdicts(ours, paper, our_baseline, paper_baseline, expected):
    assert verdict(ours, paper, our_baseline, paper_baseline) == expected


def test_a_row_that_was_not_run_has_no_number():
    summary = pd.DataFrame({"method": ["original"], "forget_accuracy": [90.0], "retain_accuracy": [91.0]})
    table = beside_paper(summary, "main", "icons")
    assert len(table) == sum(cell["value"] is not None for cell in paper_cells("main"))
    assert set(table.verdict) == {"not run"}
    assert table.ours.isna().all()
    assert set(table["provenance of ours"]) == {"–"}
