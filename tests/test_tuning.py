"""The search: which candidate is chosen, and that the control for retention has a rule of its own."""

from pathlib import Path

import pandas as pd
import pytest
import yaml

from cliperase.metrics.tasks import ZERO_SHOT
from paper.choices import retention_control, summarise_search

ROOT = Path(__file__).parent.parent

METRICS = ["selection_score", "forget_accuracy", "retain_accuracy", "forget_cosine", "unrelated_cosine"]

CANDIDATES = {"fine-tune": [{"learning_rate": 1e-3}, {"learning_rate": 1e-5}], "SSD": [{"alpha": 2.0}, {"alpha": 3.0}]}
SEARCH = {"candidates": CANDIDATES, "standard_error": 0.2}


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
        summarise_search(table, SEARCH | {"candidates": listed}, ZERO_SHOT).query("chosen == 'yes'").set_index("method")
    )
    assert chosen.candidate["SSD"] == 1


LISTS = {
    "tuning": {"search": (8, "search"), "captions": (4, "search_captions"), "blip": (4, "search_blip")},
    "profiles/cifar/tuning": {"search": (4, "search"), "captions": (3, "search_captions")},
}


@pytest.mark.parametrize("folder", LISTS)
def test_every_row_of_the_search_has_the_same_budget(folder):
    stages = yaml.safe_load((ROOT / folder / "dvc.yaml").read_text())["stages"]
    for name, (budget, stage) in LISTS[folder].items():
        search = yaml.safe_load((ROOT / folder / f"{name}.yaml").read_text())
        assert {len(candidates) for candidates in search["candidates"].values()} == {budget}
        stage = stages[stage]
        assert set(stage["foreach"] if "foreach" in stage else stage["matrix"]["row"]) == set(search["candidates"])
