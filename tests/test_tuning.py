"""The search: which candidate is chosen, and that the control for retention has a rule of its own."""

from pathlib import Path

import pandas as pd
import pytest
import yaml

from cliperase.metrics.tasks import ZERO_SHOT
from paper.choices import main, retention_control, summarise_search
from paper.params import read_profile
from paper.results import write_table
from paper.search import SEARCHES, Search, searches_of

ROOT = Path(__file__).parent.parent

METRICS = ["selection_score", "forget_accuracy", "retain_accuracy", "forget_cosine", "unrelated_cosine"]

CANDIDATES = {"fine-tune": [{"learning_rate": 1e-3}, {"learning_rate": 1e-5}], "SSD": [{"alpha": 2.0}, {"alpha": 3.0}]}
SEARCH = Search(experiments=["main"], concepts=["dog"], seed=0, standard_error=0.2, candidates=CANDIDATES)


def searched(scores, retains, cosines=None):
    """Tidy rows of two concepts whose means are the given ones."""
    lines = []
    for name in scores:
        for concept, shift in (("dog", -1.0), ("umbrella", 1.0)):
            values = {"selection_score": scores[name] + shift, "retain_accuracy": retains[name] + shift}
            values["forget_cosine"] = (cosines or {}).get(name, 0.0)
            for metric in METRICS:
                lines.append([name, concept, metric, values.get(metric, 0.0)])
    return pd.DataFrame(lines, columns=["method", "concept", "metric", "value"])


def test_the_best_mean_score_is_chosen_and_of_equals_the_first():
    table = searched(
        {"fine-tune 0": 60, "fine-tune 1": 20, "SSD 0": 50, "SSD 1": 50},
        {"fine-tune 0": 70, "fine-tune 1": 96, "SSD 0": 90, "SSD 1": 99},
    )
    summary = summarise_search(table, SEARCH, ZERO_SHOT)
    summary = pd.concat([summary, retention_control(summary, ZERO_SHOT)], ignore_index=True)
    chosen = summary.query("chosen == 'yes'").set_index("method")
    assert chosen.candidate.to_dict() == {"SSD": 0, "fine-tune": 0, "fine-tune retention": 1}
    assert yaml.safe_load(chosen.settings["fine-tune retention"]) == {"method": "fine-tune", "learning_rate": 1e-5}
    assert chosen.selection_score["fine-tune"] == 60
    assert chosen.retain_accuracy["fine-tune retention"] == 96


def test_within_a_standard_error_the_surer_forgetting_is_chosen_and_never_beyond_it():
    retains = {"SSD 0": 90, "SSD 1": 91, "SSD 2": 92}
    listed = {"SSD": [{"alpha": a} for a in (1.0, 2.0, 3.0)], "fine-tune": [{"learning_rate": 1e-3}]}
    scores = {"SSD 0": 50.0, "SSD 1": 49.9, "SSD 2": 49.0, "fine-tune 0": 1.0}
    cosines = {"SSD 0": 0.2, "SSD 1": -0.1, "SSD 2": -0.9}
    table = searched(scores, {**retains, "fine-tune 0": 90}, cosines)
    chosen = (
        summarise_search(table, SEARCH.model_copy(update={"candidates": listed}), ZERO_SHOT)
        .query("chosen == 'yes'")
        .set_index("method")
    )
    assert chosen.candidate["SSD"] == 1


BUDGETS = {"icons-main": 8, "icons-captions": 4, "icons-blip": 4, "cifar-main": 4, "cifar-captions": 3}


@pytest.mark.parametrize("name", [path.stem for path in SEARCHES.glob("*.yaml")])
def test_every_row_of_a_search_has_the_same_budget(name):
    search = searches_of(name.split("-")[0])[name]
    assert {len(candidates) for candidates in search.candidates.values()} == {BUDGETS[name]}
    assert not set(search.concepts) & set(read_profile(name.split("-")[0]).concepts)


def test_the_tables_of_all_searches(tmp_path, monkeypatch):
    """From the parts of a profile's searches to one table, and a published one for each kind of task."""
    parts, published = tmp_path / "parts", pd.read_csv(ROOT / "metrics" / "cifar" / "tuning.csv")
    for name, experiment in (("main", "tuning"), ("retrieval", "tuning retrieval")):
        write_table(published[published.experiment == experiment], parts / f"{name}.csv")
    call = ["choices", "--profile", "cifar", "--parts", str(parts), "--output", str(tmp_path / "tuning.csv")]
    monkeypatch.setattr("sys.argv", [*call, "--publish-to", str(tmp_path / "figures")])
    main()
    assert (tmp_path / "tuning.csv").read_bytes() == (ROOT / "metrics" / "cifar" / "tuning.csv").read_bytes()
    for path in (ROOT / "figures" / "cifar" / "tuning").iterdir():
        assert (tmp_path / "figures" / path.name).read_bytes() == path.read_bytes()
