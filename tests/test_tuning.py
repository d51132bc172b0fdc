"""The search: its candidates, its rounds, and which candidate is chosen."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import yaml
from conftest import PROFILE

from cliperase.errors import CliperaseError
from cliperase.metrics.tasks import ZERO_SHOT
from cliperase.settings import checked
from paper.choices import chosen_settings, lines_of, main, summarise_search
from paper.code import read_by_search
from paper.experiments import experiment_of
from paper.params import Profile, read_profile
from paper.results import COLUMNS, write_table
from paper.search import Candidates, Search, between, drawn_from, read_search, run_search

ROOT = Path(__file__).parent.parent
METRICS = ["selection_score", "forget_accuracy", "retain_accuracy", "forget_cosine", "unrelated_cosine", "used_budget"]
RANGES = {"fine-tune": {"learning_rate": [1e-5, 1e-1]}, "SSD": {"alpha": [1.0, 16.0]}}
SEARCH = Search(["dog"], RANGES, seed=0, drawn=2)  # fine-tune at 1e-3 and 1e-4, SSD at 4 and 2


def searched(scores, retains, concepts=("dog", "umbrella"), budget=50.0):
    """Tidy rows of some concepts whose means are the given ones."""
    lines = []
    for name in scores:
        for concept in concepts:
            values = {"selection_score": scores[name], "retain_accuracy": retains[name], "used_budget": budget}
            lines += [[name, concept, metric, values.get(metric, 0.0)] for metric in METRICS]
    return pd.DataFrame(lines, columns=["method", "concept", "metric", "value"])


def test_the_best_mean_score_is_chosen_and_of_equals_the_first():
    table = searched(
        {"fine-tune 0": 60, "fine-tune 1": 20, "SSD 0": 50, "SSD 1": 50},
        {"fine-tune 0": 70, "fine-tune 1": 96, "SSD 0": 90, "SSD 1": 99},
    )
    chosen = lines_of("main", table, SEARCH).query("chosen == 'yes'").set_index("method")
    assert chosen.candidate.to_dict() == {"SSD": 0, "fine-tune": 0, "fine-tune retention": 1}
    assert yaml.safe_load(chosen.settings["fine-tune retention"]) == {"method": "fine-tune", "learning_rate": 1e-4}
    assert chosen.score["fine-tune"] == 60
    assert chosen.retain["fine-tune retention"] == 96
    assert set(chosen.measured) == {"forget_accuracy, retain_accuracy"}


def test_a_larger_model_is_searched_at_lower_rates_and_otherwise_alike():
    paper, icons = (read_search(read_profile(name), "main").ranges for name in ("paper", "icons"))
    assert set(paper) == set(icons)
    for row, ranges in icons.items():
        for name, value in ranges.items():
            rate = name in ("learning_rate", "fine_tune_rate")
            assert paper[row][name] == (pytest.approx([0.01 * end for end in value]) if rate else value), (row, name)


def test_only_candidates_of_every_round_are_chosen():
    """One that did well on the first concepts alone has proved less."""
    first = searched({"SSD 0": 90, "SSD 1": 99, "fine-tune 0": 1, "fine-tune 1": 1}, dict.fromkeys(
        ["SSD 0", "SSD 1", "fine-tune 0", "fine-tune 1"], 90))  # fmt: skip
    further = searched({"SSD 0": 90}, {"SSD 0": 90}, ["fish"])
    summary = summarise_search(pd.concat([first, further], ignore_index=True), SEARCH, ZERO_SHOT)
    assert summary.query("method == 'SSD' and chosen == 'yes'").candidate.item() == 0
    assert summary.query("method == 'SSD'").runs.tolist() == [3, 2]


def test_runs_whose_budget_ran_out_are_counted():
    names = ["SSD 0", "SSD 1", "fine-tune 0", "fine-tune 1"]
    for budget, counted in ((100.0, 2), (99.0, 0)):
        table = searched(dict.fromkeys(names, 1), dict.fromkeys(names, 1), budget=budget)
        assert set(summarise_search(table, SEARCH, ZERO_SHOT)["ran out"]) == {counted}


def test_candidates_fill_their_ranges():
    listed = drawn_from({"learning_rate": [1e-5, 1e-1], "layers": [1, 8]}, 12)
    assert len(listed) == 12
    assert all(1e-5 <= one["learning_rate"] <= 1e-1 and one["layers"] in range(1, 9) for one in listed)
    decades = [
        len([one for one in listed if low <= one["learning_rate"] < 10 * low]) for low in (1e-5, 1e-4, 1e-3, 1e-2)
    ]
    assert decades == [3, 3, 3, 3]  # evenly in the logarithm
    assert drawn_from({}, 12) == [{}]
    assert drawn_from({"method": "GA", "learning_rate": [1e-3, 1e-1]}, 1) == [{"method": "GA", "learning_rate": 1e-2}]
    assert between(1e-4, 1e-2, 0.5) == 1e-3
    assert between(2, 32, 0.5) == 8


def test_settings_at_an_edge_are_named():
    search = replace(SEARCH, ranges={"SSD": {"alpha": [1.0, 100.0], "dampening": [0.1, 1.0]}})
    assert search.at_edge("SSD", {"alpha": 1.5, "dampening": 0.5}) == ["alpha"]
    assert search.at_edge("SSD", {"alpha": 10.0, "dampening": 0.99}) == ["dampening"]
    assert search.at_edge("SSD", {"alpha": 10.0, "dampening": 0.3}) == []


@pytest.mark.parametrize("ends", [[1.0], [2.0, 1.0], [0.0, 1.0], [1.0, 2.0, 3.0]])
def test_a_range_has_two_rising_ends(ends):
    with pytest.raises(CliperaseError, match=r"range of alpha for 'SSD' is .* two rising numbers above zero"):
        replace(SEARCH, ranges={"SSD": {"alpha": ends}})


def test_the_second_round_has_the_best_of_the_first_and_further_concepts(data_folder, model_folder):
    section = {"concepts": ["apple"], "references": [], "methods": {"null space": {"rank": 1}}, "tuned": "main"}
    profile = checked(Profile, PROFILE | {"experiments": {"main": section}}, "p")
    ranges = {"null space": {"strength": [0.01, 1.0]}}
    search = Search(["leaf"], ranges, seed=100, drawn=3, further=["plum"], kept=1)
    table = run_search(profile, search, "main", data_folder, model_folder)
    scores = table[(table.metric == "selection_score") & (table.concept == "leaf")].set_index("method").value
    assert list(scores.index) == ["null space 0", "null space 1", "null space 2"]
    assert set(table[table.concept == "plum"].method) == {scores.idxmax()}
    with pytest.raises(CliperaseError, match="search concept 'apple' is among the reported ones"):
        run_search(profile, replace(search, further=["apple"]), "main", data_folder, model_folder)


SEARCHED = [(name, one) for name in ("icons", "cifar") for one in read_profile(name).search["experiments"]]


@pytest.mark.parametrize(("profile", "experiment"), SEARCHED, ids=[f"{one}-{two}" for one, two in SEARCHED])
def test_every_row_of_a_search_has_the_same_budget(profile, experiment):
    profile = read_profile(profile)
    search = read_search(profile, experiment)
    assert {len(listed) for row, listed in search.listed().items() if search.ranges[row]} == {search.drawn}
    assert not {*search.concepts, *search.further} & set(profile.concepts)


@pytest.mark.parametrize(("profile", "experiment"), SEARCHED, ids=[f"{one}-{two}" for one, two in SEARCHED])
def test_a_search_reads_those_settings_of_its_experiment_that_its_stage_depends_on(
    profile, experiment, tmp_path, monkeypatch
):
    profile = read_profile(profile)
    search, whole, section = read_search(profile, experiment), experiment_of(profile, experiment), {"name": experiment}
    section |= read_by_search(profile.experiments[experiment])
    names, found = [*getattr(whole, "set_aside", []), "another"], []
    (tmp_path / whole.part).mkdir(parents=True)
    for one in (whole, type(whole).model_construct(**section)):  # what the second lacks is an error, or a default
        monkeypatch.setattr("paper.search.experiment_of", lambda profile, name, one=one: one)
        tried = Candidates(profile, search, experiment, names)
        place = tried.experiment.place(profile, "data", tmp_path, ["validation"])
        found.append((tried.runs([*search.concepts, *search.further]), place))
    assert found[0] == found[1]


def test_every_tuned_row_was_searched():
    for name in ("icons", "cifar"):
        profile = read_profile(name)
        for section in profile.experiments.values():
            if "tuned" in section:
                searched, chosen = read_search(profile, section["tuned"]), profile.chosen[section["tuned"]]
                rows = {row if row in chosen else row.split(", ")[0] for row in section["methods"]}  # or its variant
                assert rows - {"fine-tune retention"} <= {*searched.listed()}
                assert rows <= {*chosen}


def test_the_search_for_several_classes_draws_from_those_set_aside():
    """Smaller draws are part of the larger, and none has a class that a result is about."""
    profile = read_profile("icons")
    ratios, search = experiment_of(profile, "ratios"), read_search(profile, "ratios")
    names = [*ratios.set_aside, *(f"another {i}" for i in range(77 - len(ratios.set_aside)))]
    asked = [*search.concepts, *search.further]
    drawn = sorted((set(ratios.searched(concept, 100, names)[0]["classes"]) for concept in asked), key=len)
    assert [len(one) for one in drawn] == [2, 8, 15, 23]
    assert drawn[0] < drawn[1] < drawn[2] < drawn[3] <= set(ratios.set_aside)
    assert ratios.searched("30 % of classes", 100, names)[1] == {"forget_batch": 64}
    runs = ratios.plan(profile, SimpleNamespace(class_names=names))
    assert not set(ratios.set_aside) & {name for run in runs for name in run.rule["classes"]}
    with pytest.raises(CliperaseError, match="'dog', which is no draw; draws are 3 % of classes, 10 %"):
        ratios.searched("dog", 100, names)
    few = ratios.model_copy(update={"set_aside": ["dog"]})
    with pytest.raises(CliperaseError, match="3 % of 77 classes are 2; there are 1 to draw from"):
        few.searched("3 % of classes", 100, names)


def test_the_published_table_and_the_adopted_choices(tmp_path, monkeypatch):
    """From the table of a search to a published one, and to the file that experiments read."""
    monkeypatch.setattr("paper.choices.read_search", lambda profile, experiment: SEARCH)
    monkeypatch.setattr("paper.choices.CHOSEN", tmp_path)
    names = {"SSD 0": 50, "SSD 1": 60, "fine-tune 0": 60, "fine-tune 1": 50}
    table = searched(names, names)
    about = dict.fromkeys(COLUMNS, "x") | {"seed": "0", "provenance": "icons", "seconds": 0.0, "peak_mb": 0.0}
    write_table(table.assign(**{name: value for name, value in about.items() if name not in table})[COLUMNS],
                tmp_path / "part.csv")  # fmt: skip
    call = ["choices", "--profile", "icons", "--publish-to", str(tmp_path / "published")]
    monkeypatch.setattr("sys.argv", [*call, "--table", str(tmp_path / "part.csv")])
    main()
    expected = {
        "SSD": {"alpha": 2.0},
        "fine-tune": {"learning_rate": 1e-3},
        "fine-tune retention": {"method": "fine-tune", "learning_rate": 1e-3},
    }
    assert chosen_settings(tmp_path / "published" / "main.csv") == expected
    monkeypatch.setattr("sys.argv", [*call, "--adopt"])
    main()
    assert yaml.safe_load((tmp_path / "icons.yaml").read_text()) == {"main": expected}


@pytest.mark.parametrize("profile", ["icons", "cifar"])
def test_experiments_have_the_published_choices(profile):
    published = {path.stem: chosen_settings(path) for path in (ROOT / "figures" / profile / "tuning").glob("*.csv")}
    assert read_profile(profile).chosen == published
