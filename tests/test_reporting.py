"""Changes with their intervals, and what they say of a statement."""

import math

import pandas as pd
import pytest

from cliperase.reporting import OF_STATEMENT, VERDICTS, bears_out, paired_change, summarise_each

LOW, HIGH = {"method": "GA", "concept": "few"}, {"method": "GA", "concept": "many"}


def table_of(values, metric="forget_accuracy"):
    """{(method, concept): value of each seed} -> tidy rows."""
    return pd.DataFrame(
        {"method": method, "concept": concept, "seed": str(seed), "metric": metric, "value": float(value)}
        for (method, concept), runs in values.items()
        for seed, value in enumerate(runs)
    )


def test_a_change_is_paired_by_seed():
    rows = table_of({("GA", "many"): [13, 24, 32], ("GA", "few"): [10, 20, 30]}).iloc[::-1]
    mean, half = paired_change(rows, "forget_accuracy", LOW, HIGH)
    assert mean == pytest.approx(3)
    assert half == pytest.approx(4.303 / math.sqrt(3), abs=1e-3)  # differences 3, 4, 2: standard deviation 1


def test_a_single_reference_is_paired_with_every_seed():
    rows = table_of({("original", "few"): [90], ("GA", "few"): [80, 82, 84]})
    mean, half = paired_change(rows, "forget_accuracy", {"method": "original", "concept": "few"}, LOW)
    assert mean == pytest.approx(-8)
    assert half == pytest.approx(4.303 * 2 / math.sqrt(3), abs=1e-3)


def test_a_change_refuses_two_values_of_one_seed():
    rows = table_of({("GA", "few"): [1, 2], ("GA", "many"): [3, 4]})
    with pytest.raises(ValueError, match="duplicate"):
        paired_change(rows, "forget_accuracy", {"method": "GA"}, HIGH)


@pytest.mark.parametrize(
    ("mean", "half", "expected", "answer"),
    [
        (-5, 4, "falls", True),
        (-5, 6, "falls", None),
        (5, 4, "falls", False),
        (5, 4, "rises", True),
        (-5, 4, "rises", False),
        (0, 0, "rises", None),
        (1, 1, "stays", True),
        (1, 1.5, "stays", None),
        (-4, 1, "stays", False),
        (4, 1, "stays", False),
        (0, 9, "stays", None),
        *((-50, math.nan, expected, None) for expected in ("falls", "rises", "stays")),
    ],
)
def test_what_an_interval_says_of_a_statement(mean, half, expected, answer):
    assert bears_out(mean, half, expected) is answer
    assert OF_STATEMENT[answer] in VERDICTS


def test_each_concept_has_its_interval_over_seeds():
    rows = table_of({("GA", "few"): [10, 12], ("GA", "many"): [50, 50], ("original", "few"): [90]})
    table = summarise_each(rows, ["forget_accuracy"]).set_index(["concept", "method"])
    assert table.forget_accuracy.to_dict() == {("few", "GA"): 11, ("few", "original"): 90, ("many", "GA"): 50}
    assert table["forget_accuracy ±"]["few", "GA"] == pytest.approx(12.706, abs=1e-3)
    assert table["forget_accuracy ±"]["many", "GA"] == 0
    assert math.isnan(table["forget_accuracy ±"]["few", "original"])
