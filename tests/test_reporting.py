"""Changes with their intervals, what they say of a statement, tables, and the box that opens a notebook."""

import math

import pandas as pd
import pytest

from paper import verdicts
from paper.drawn import detection_table
from paper.ledger import OF_STATEMENT, VERDICTS, all_cells, bears_out, judge_ratios, ledger, outcome
from paper.results import COLUMNS
from paper.statistics import (
    change_from_original,
    compare,
    interval,
    lead,
    paired_change,
    summarise,
    summarise_each,
    wilson,
)
from paper.tables import COMPARE, markdown, publish_table, with_intervals, with_wilson
from paper.verdicts import WITHDRAWN, above, claim_above, claims, open_with, verdict

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


def runs_of(values):
    """{(method, concept): (forget, retain) of each seed} -> a table of runs."""
    lines = [
        {
            "method": method,
            "concept": concept,
            "seed": str(seed),
            "forget_accuracy": pair[0],
            "retain_accuracy": pair[1],
        }
        for (method, concept), pairs in values.items()
        for seed, pair in enumerate(pairs)
    ]
    return pd.DataFrame(lines).set_index(["method", "concept", "seed"]).astype(float)


def test_a_lead_is_paired_by_concept_or_by_run():
    concepts = ("a", "b", "c")
    runs = runs_of(
        {("ours", name): [(0, 90 + 2 * i), (0, 92 + 2 * i)] for i, name in enumerate(concepts)}
        | {("theirs", name): [(0, 90), (0, 90)] for name in concepts}
    )
    ours, theirs = runs.loc["ours"].retain_accuracy, runs.loc["theirs"].retain_accuracy
    mean, half, pairs = lead(ours, theirs)  # differences by concept: 1, 3, 5
    assert (mean, pairs) == (3, "3 concepts")
    assert half == pytest.approx(4.303 * 2 / math.sqrt(3), abs=1e-3)
    two = [series[series.index.get_level_values("concept") != "c"] for series in (ours, theirs)]
    mean, half, pairs = lead(*two)  # by run: 0, 2, 2, 4
    assert (mean, pairs) == (2, "4 runs")
    assert half == pytest.approx(3.182 * math.sqrt(8 / 3) / 2, abs=1e-3)


@pytest.mark.parametrize(("gaps", "holds"), [((2, 3, 4), True), ((10, 4, 15), False), ((20, 19, 18), False)])
def test_a_lead_is_claimed_only_where_the_interval_says_so(gaps, holds, capsys):
    index = [(method, str(i), "0") for method in ("CLIPErase", "GA") for i in range(3)]
    index = pd.MultiIndex.from_tuples(index, names=["method", "concept", "seed"])
    runs = pd.DataFrame({"average_gap": [*gaps, 10, 10, 10]}, index=index)
    claim_above(runs, "GA")
    said = capsys.readouterr().out
    assert list(above(runs, "GA").values()) == [holds]
    assert "(paired, 3 concepts)" in said
    assert ("DOES NOT HOLD" not in said) == holds


def test_a_change_from_the_original_is_of_one_concept():
    rows = table_of(
        {("original", "few"): [90], ("GA", "few"): [80, 84], ("original", "many"): [10], ("GA", "many"): [0, 0]}
    )
    assert change_from_original(rows, "forget_accuracy", "GA", "few")[0] == pytest.approx(-8)


@pytest.mark.parametrize(
    ("change", "said"), [((0, 1), "kept"), ((-9, 1), "lost"), ((9, 1), "gained"), ((-4, 3), "cannot be told")]
)
def test_a_sense_is_kept_lost_or_gained(change, said):
    assert outcome(*change, margin=5, words=("kept", "lost", "gained")) == said


def test_wilsons_interval_of_a_count():
    """Of 0 among 51 and of half of 20, as published tables have them."""
    assert wilson(0.0, 51) == pytest.approx((0, 7.0), abs=0.05)
    assert wilson(50.0, 20) == pytest.approx((29.93, 70.07), abs=0.01)
    assert with_wilson(0.0, 51) == "0.0 (0.0 to 7.0)"
    with pytest.raises(AssertionError, match="no number of 20 images"):
        wilson(51.0, 20)


def test_a_summary_shows_the_worst_run_beside_its_percent():
    rows = pd.concat(
        [
            table_of({("GA", c): [1, 3] for c in "abc"}),
            table_of({("GA", c): [90, 80] for c in "abc"}, "retain_accuracy"),
        ]
    )
    metrics = ["forget_accuracy", "retain_accuracy"]
    table = with_intervals(summarise(rows, ["method"], metrics), metrics, worst=True)
    assert table.to_dict("records") == [
        {"method": "GA", "runs": 6, "forget_accuracy": "2.0 (2.0 to 2.0)", "worst forget": "3.0",
         "retain_accuracy": "85.0 (85.0 to 85.0)", "worst retain": "80.0"}
    ]  # fmt: skip


def test_published_numbers_are_numbers(tmp_path):
    shown = pd.DataFrame({"method": ["GA"], "retain": ["**90.0 ± 1.0**"]})
    publish_table(shown, "t", tmp_path, pd.DataFrame({"method": ["GA"], "retain": [90.5], "retain low": [1.5]}))
    assert pd.read_csv(tmp_path / "t.csv").retain.tolist() == [90.5]
    assert "**90.0 ± 1.0**" in (tmp_path / "t.md").read_text()
    publish_table(shown, "t", tmp_path)
    assert pd.read_csv(tmp_path / "t.csv").retain.tolist() == ["**90.0 ± 1.0**"]


def test_a_notebook_that_is_checked_writes_nothing_and_finds_another_number(tmp_path, monkeypatch):
    table = pd.DataFrame({"method": ["GA"], "retain": [90.5]})
    publish_table(table, "t", tmp_path)
    monkeypatch.setenv(COMPARE, "1")
    publish_table(table, "t", tmp_path)
    before = (tmp_path / "t.csv").read_text()
    with pytest.raises(AssertionError, match="is not what this notebook publishes"):
        publish_table(table.assign(retain=90.6), "t", tmp_path)
    assert (tmp_path / "t.csv").read_text() == before
    with pytest.raises(AssertionError, match=r"other\.md"):
        publish_table(table, "other", tmp_path)


def test_a_folder_is_made_for_what_is_published(tmp_path):
    publish_table(pd.DataFrame({"method": ["GA"]}), "t", tmp_path / "figures" / "icons" / "t")
    assert (tmp_path / "figures" / "icons" / "t" / "t.csv").is_file()


def test_who_is_better_is_told_by_the_metrics_direction():
    """By `compare`: where more is worse, as in forgetting, and where more is better."""
    values = {("GA", name): [50 + i] for i, name in enumerate("abcd")}
    values |= {("CLIPErase", name): [10 + 1.1 * i] for i, name in enumerate("abcd")}
    for metric, better in (("forget_accuracy", "CLIPErase"), ("retain_accuracy", "GA")):
        (line,) = compare(table_of(values, metric), "CLIPErase", metric, ["GA"]).to_dict("records")
        assert line["better"] == better
        assert line["pairs"] == 4


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
    three = summarise_each(table_of({("GA", "few"): [10, 12, 14]}), ["forget_accuracy"])
    assert (three["forget_accuracy low"][0], three["forget_accuracy high"][0]) == interval([10, 12, 14])
    assert math.isnan(table["forget_accuracy low"]["few", "original"])


def test_the_ledger_lists_every_cell_and_gives_no_number_to_what_was_not_run(tmp_path):
    about = {"profile": "icons", "dataset": "icons", "model": "compact", "concept": "apple", "seed": "0"}
    about |= {"split": "test", "unit": "%", "provenance": "icons", "seconds": 0.0, "peak_mb": 1}
    values = {("original", "forget_accuracy"): 95.0, ("original", "retain_accuracy"): 96.0}
    values |= {("CLIPErase", "forget_accuracy"): 1.0, ("CLIPErase", "retain_accuracy"): 95.0}
    values |= {("GradDiff", "forget_accuracy"): 3.0}
    rows = [
        {**about, "experiment": "main", "method": m, "metric": metric, "value": v} for (m, metric), v in values.items()
    ]
    path = tmp_path / "results.csv"
    pd.DataFrame(rows)[COLUMNS].to_csv(path, index=False)
    other = tmp_path / "other.csv"
    pd.DataFrame(rows[:2])[COLUMNS].to_csv(other, index=False)
    table = ledger({"here": path, "there": other})
    assert len(table) == len(all_cells())
    found = table[table.experiment == "main"].set_index(["method", "metric"])
    verdicts = found["here: verdict"]
    assert verdicts["CLIPErase", "forget_accuracy"] == "weak match"  # nothing is left in both
    assert verdicts["CLIPErase", "retain_accuracy"] == "differs"  # the paper's rises, ours falls
    assert found["here, change"]["CLIPErase", "retain_accuracy"] == "-1.00"
    assert found["paper, change"]["CLIPErase", "retain_accuracy"] == "+18.14"
    assert verdicts["GradDiff", "forget_accuracy"] == "not known to us"
    assert found.here["GradDiff", "forget_accuracy"] == "3.00"
    assert verdicts["ENMN", "retain_accuracy"] == "not run"
    assert set(found["there: verdict"]) == {"not run"}
    absent = table[table["here: verdict"] == "not run"]
    assert set(absent.here) == set(absent["here, change"]) == {"–"}
    assert {*table["here: verdict"], *table["there: verdict"]} <= set(VERDICTS)


def test_ratios_are_judged_by_their_intervals():
    metrics = {"GA": ("retain_accuracy", [(90, 50), (91, 52), (89, 48)]), "CLIPErase": ("retain_accuracy", None)}
    lines = []
    for seed, (few, many) in enumerate(metrics["GA"][1]):
        for concept, value in (("3 % of classes", few), ("30 % of classes", many)):
            for method, shift in (
                ("GA", 0.0),
                ("CLIPErase", 95.0 - value),
                ("original", 95.5 - value),
                ("GradDiff", 0),
            ):
                for metric in ("forget_accuracy", "retain_accuracy"):
                    lines.append([method, concept, str(seed), metric, value + shift])
    rows = pd.DataFrame(lines, columns=["method", "concept", "seed", "metric", "value"])
    judged = judge_ratios(rows).set_index(["method", "metric"]).verdict
    assert judged["GA", "retain_accuracy"] == "same direction"
    assert judged["GA", "forget_accuracy"] == "differs"  # the paper's gets worse, this one falls
    assert judged["CLIPErase", "retain_accuracy"] == "same direction"


def test_generated_pictures_are_judged_concept_by_concept(tmp_path):
    about = {"profile": "icons", "dataset": "icons", "model": "compact", "experiment": "diffusion"}
    about |= {"split": "generated", "unit": "%", "provenance": "icons", "seconds": 0.0, "peak_mb": 1}
    rates = {("original", "apple"): (99.0, 95.0), ("original", "bicycle"): (99.0, 95.0)}
    rates |= {("CLIPErase", "apple"): (50.0, 94.0), ("CLIPErase", "bicycle"): (9.0, 60.0)}
    rows = [
        {**about, "method": method, "concept": concept, "seed": seed, "metric": metric, "value": value + int(seed)}
        for (method, concept), values in rates.items()
        for metric, value in zip(("detection_rate", "other_detection_rate"), values, strict=True)
        for seed in "01"
    ]
    path = tmp_path / "results.csv"
    pd.DataFrame(rows)[COLUMNS].to_csv(path, index=False)
    table = ledger({"here": path}).query("experiment == 'diffusion'").set_index(["method", "concept", "metric"])
    assert table["here: verdict"].to_dict() == {
        ("original", "apple", "detection_rate"): "match",
        ("original", "bicycle", "detection_rate"): "differs",
        ("CLIPErase", "apple", "detection_rate"): "same direction",  # 99 -> 50 is half of 100 -> 2
        ("CLIPErase", "bicycle", "detection_rate"): "match",
        ("CLIPErase", "apple", "other_detection_rate"): "same direction",
        ("CLIPErase", "bicycle", "other_detection_rate"): "differs",
    }
    assert table.here["CLIPErase", "bicycle", "other_detection_rate"] == "-35.0 ± 0.0 points"


def test_rates_of_pictures_stand_beside_the_papers():
    values = {("original", "apple"): (100, 90), ("CLIPErase", "apple"): (50, 90)}
    metrics = ("detection_rate", "other_detection_rate", "false_detection_rate")
    rows = pd.concat(
        table_of({key: [pair[min(i, 1)]] * 2 for key, pair in values.items()}, metric)
        for i, metric in enumerate(metrics)
    )
    runs = rows.pivot_table(index=["method", "concept", "seed"], columns="metric", values="value")
    table = detection_table(summarise_each(rows, list(metrics)), runs, 10, 11).set_index("method")
    assert table.loc["original", ["paper", "difference", "verdict"]].tolist() == ["100", "+0.0", "match"]
    assert table.loc["CLIPErase", ["paper", "difference", "verdict"]].tolist() == ["2", "+48.0", "same direction"]
    assert table["by seed"].tolist() == ["100.0 to 100.0", "50.0 to 50.0"]
    assert table["others seen"]["CLIPErase"] == with_wilson(90, 110)


def measured(profile="icons"):
    """Rows of two ratios, with what the box says of them."""
    rows = table_of(
        {("original", "10 % of classes"): [90], ("GA", "3 % of classes"): [1, 2], ("GA", "10 % of classes"): [3]}
    )
    return rows.assign(profile=profile, dataset="cifar100", model="wide", provenance="real-data")


def boxed(monkeypatch, *arguments, **said):
    """The text of a box."""
    shown = []
    monkeypatch.setattr(verdicts, "display", shown.append)
    open_with(*arguments, paper="It forgets.", here="It does.", **said)
    return shown[0].data


def test_the_box_says_claim_finding_verdict_and_what_was_measured(monkeypatch):
    text = boxed(monkeypatch, "polysemy", measured(), tested={"it forgets": True})
    assert all(line.startswith(">") for line in text.splitlines())
    assert "**The paper.** It forgets." in text
    assert "**Here.** It does." in text
    assert "**Verdict: holds.** All 1 claims" in text
    assert "concepts 3 % of classes, 10 % of classes; seeds 0, 1; provenance real-data" in text
    assert "Withdrawn" not in text


@pytest.mark.parametrize("notebook", WITHDRAWN)
def test_the_box_says_what_is_withdrawn_and_why(monkeypatch, notebook):
    for profile in ("icons", "cifar"):
        text = boxed(monkeypatch, notebook, measured(profile), tested={"it forgets": True})
        for each in WITHDRAWN[notebook]:
            said = f"**Withdrawn until it is run again:** {each.finding}, because {each.because}."
            assert (said in text) == (profile in each.profiles)


@pytest.mark.parametrize(
    ("tested", "unlike", "said"),
    [
        ({"a": True, "b": True}, {}, "**Verdict: holds.** All 2 claims tested below hold."),
        ({"a": True, "b": False}, {}, "**Verdict: holds in part.** 1 of 2 claims fails: b."),
        ({"a": False, "b": False}, {}, "**Verdict: does not hold.** 2 of 2 claims fail: a; b."),
        (
            {"a": True},
            {"it rises": True, "it sinks": False},
            "**Verdict: holds in part.** All 1 claims tested below hold. Unlike in the paper, it rises.",
        ),
    ],
)
def test_a_verdict_follows_from_the_claims(tested, unlike, said):
    assert verdict(tested, unlike) == said


def test_claims_are_printed_as_the_readme_reads_them(capsys):
    claims({"it forgets": True, "it keeps": False}, papers={"it forgets"})
    claims({"the detector sees": True}, others="sanity")
    assert capsys.readouterr().out.splitlines() == [
        "holds (the paper's): it forgets",
        "DOES NOT HOLD (ours): it keeps",
        "holds (sanity): the detector sees",
    ]


def test_a_table_shows_gaps_as_dashes_and_text_as_it_stands():
    shown = markdown(pd.DataFrame({"n": [1.0, math.nan], "text": ["1e5", "–"]}))
    assert [cell.strip() for cell in shown.splitlines()[2].split("|")[1:3]] == ["1.00", "1e5"]
    assert [cell.strip() for cell in shown.splitlines()[3].split("|")[1:3]] == ["–", "–"]
