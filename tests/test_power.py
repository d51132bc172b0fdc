"""Measured power: what a figure that tells two kinds of models apart gets, and what one that does not."""

import copy
import json

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import make_split

from cliperase.audit.auditing import plan
from cliperase.audit.verdict import read_thresholds
from cliperase.data.pairs import write_split
from cliperase.errors import CliperaseError
from cliperase.settings import checked
from paper.planted import FAILURES
from paper.power import COLUMNS, NEVER, SAW, PowerStudy, Study, area, measure_power, pair_lines, powers, thresholds


def figures(saw, never, known="above", concept="cat", planted=()):
    """Lines of one figure: values of models that saw the concept and of models that did not."""
    found = [(SAW, saw), (NEVER, never), *planted]
    return pd.DataFrame(
        {"probe": "linear-probe", "measure": "recall", "unit": "%", "known": known, "concept": concept, "seed": seed,
         "model": model, "value": float(value), "seconds": 2.0}
        for model, values in found for seed, value in enumerate(values)
    )[COLUMNS]  # fmt: skip


def test_a_figure_that_tells_them_apart_has_power():
    found = powers(figures([70, 80, 90, 75], [10, 20, 15, 12])).iloc[0]
    assert found.auc == 1.0
    assert found.threshold == pytest.approx(np.percentile([10, 20, 15, 12], 95))
    assert found["finds, %"] == 100
    apart = [10 - 15, 20 - 12, 15 - 12, 12 - 15]  # each beside the middle of the three others
    low, high = np.percentile(apart, [5, 95])
    assert (found["spread low"], found["spread high"], found["least effect"]) == pytest.approx((low, high, high))
    assert found["finds beside references, %"] == 100
    assert found.far_end == pytest.approx(np.percentile([10, 20, 15, 12], 5))
    assert found.seconds == 2.0


def test_a_figure_that_is_low_where_a_concept_is_known_is_turned():
    found = powers(figures([10, 20, 15, 12], [70, 80, 90, 75], known="below")).iloc[0]
    assert found.auc == 1.0
    assert found.threshold < 75
    assert found["finds, %"] == 100


def test_a_figure_without_power_finds_few():
    same = [10, 20, 30, 40]
    found = powers(figures(same, same)).iloc[0]
    assert found.auc == 0.5
    assert found["finds, %"] == 25  # the highest of four lies above the 95th percentile


def test_concepts_are_compared_each_for_itself():
    """One concept's figures may lie above another's; that is no power."""
    easy, hard = figures([60, 62], [50, 52], concept="cat"), figures([20, 22], [10, 12], concept="dog")
    assert powers(pd.concat([easy, hard], ignore_index=True)).auc.item() == 1.0
    assert area(pd.Series([1.0, 2.0]), pd.Series([1.0, 0.0])) == 0.875  # a tie is a half


def test_planted_failures_are_counted():
    planted = [("text head projected", [90, 5, 90, 90]), ("nothing", [90, 90, 90, 90])]
    found = powers(figures([70, 80, 90, 75], [10, 20, 15, 12], planted=planted)).iloc[0]
    assert found["text head projected"] == 75
    assert found["nothing"] == 100
    assert np.isnan(found["weights rounded"])


def test_the_thresholds_are_those_that_the_audit_takes():
    probes = plan(["linear-probe"], {"linear-probe.draws": 2}, 0)[1]
    found = thresholds(powers(figures([70, 80, 90, 75], [10, 20, 15, 12])), "a study", probes)
    (threshold,) = read_thresholds(json.loads(json.dumps(found))).values()
    assert (threshold.auc, threshold.source) == (1.0, "a study")
    assert threshold.settings["draws"] == 2
    assert "shots" not in threshold.settings


def study_of(saw, never, planted=()):
    table = figures(saw, never, planted=planted).replace({"measure": {"recall": "image_recall_1_shots"}})
    return PowerStudy(powers(table), table)


def test_models_of_the_study_are_judged_by_those_of_other_seeds():
    found = study_of([90, 92, 91, 95], [10, 12, 11, 60]).judged()
    verdicts = found.assign(verdict=found.verdict.str.partition(":")[0]).set_index(["model", "seed"]).verdict
    assert (verdicts[SAW] == "Not gone").all()
    assert verdicts[NEVER].tolist() == [*3 * ["No trace"], "Not gone"]  # 60 beside 10, 11 and 12
    one = study_of([90, 92, 91, 95], [10, 12, 11, 60]).judged(references=1)
    assert len(one) == 3 * len(found)
    caught = study_of([90, 92], [10, 12], planted=[("nothing", [89])]).judged().set_index("model")
    assert caught.verdict["nothing"].startswith("Not gone")
    assert (caught.votes["nothing"], caught.known["nothing"], caught.pushed["nothing"]) == (1, 1, 0)


def test_pairs_of_models_are_audited_once(base_model, data_folder, tmp_path, monkeypatch):
    """The original stands for a model that never saw the concept, so that every figure is the same on both sides."""
    for name in ("original", "retrain-leaf"):
        base_model.save(tmp_path / "models" / name)
    study = checked(Study, {"concepts": ["leaf"], "seeds": [0], "probes": ["reference-gap"]}, "study")
    table = measure_power(study, data_folder, tmp_path / "models", tmp_path / "kept")
    assert set(table.model) == {SAW, NEVER, *FAILURES}
    values = table.pivot(index="measure", columns="model", values="value")
    assert (values[SAW] == values[NEVER]).all()
    assert (values[SAW] == values["nothing"]).all()
    assert not values["text head projected"].equals(values[SAW])
    monkeypatch.setattr("cliperase.audit.reference_gap.ReferenceGap.run", lambda probe, case: 1 / 0)
    again = measure_power(study, data_folder, tmp_path / "models", tmp_path / "kept")
    assert again.drop(columns="seconds").equals(table.drop(columns="seconds"))
    with pytest.raises(CliperaseError, match=r"models-1/original is missing; pretrain it"):
        list(study.model_copy(update={"seeds": [1]}).pairs(tmp_path / "models"))


def test_pairs_of_other_seeds_are_the_shadow_models(base_model, tmp_path):
    """Of two seeds one pair is left beside the audited one, which is too few."""
    for split in ("train", "validation", "test"):
        write_split(make_split(split, 6), tmp_path / "data", split)
    for seed in range(3):
        for name in ("original", "retrain-leaf"):
            model = copy.deepcopy(base_model)
            head = model.clip_text_tower.text_projection
            head.data += 0.1 * torch.randn(head.shape, generator=torch.Generator().manual_seed(seed))
            model.save(tmp_path / (f"models-{seed}" if seed else "models") / name)
    for seeds, found in (([0, 1], {}), ([0, 1, 2], {SAW: 6, NEVER: 6})):
        study = checked(Study, {"concepts": ["leaf"], "seeds": seeds, "probes": ["lira"]}, "study")
        pairs = list(study.pairs(tmp_path / "models"))
        lines = pair_lines(study, tmp_path / "data", tmp_path / "kept", pairs, *pairs[1])
        measures = pd.DataFrame(lines, columns=COLUMNS).groupby("model").measure.nunique()
        assert measures.to_dict() == found
