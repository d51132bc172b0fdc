"""What the project set out to reach, in the published results: kept as it was set."""

from pathlib import Path

import pytest

from paper.results import read_results
from paper.statistics import runs_of, same_of
from paper.tables import experiment_rows

RESULTS = Path(__file__).parent.parent / "metrics" / "icons" / "results.csv"


def runs(experiment, split="test"):
    return runs_of(experiment_rows(RESULTS, experiment, split))


def test_every_run_of_cliperase_forgets_to_one_percent():
    assert (runs("main").loc["CLIPErase"].forget_accuracy <= 1.0).all()


@pytest.mark.xfail(reason="1 of 15 runs loses 1.51 points with settings that were chosen blind", strict=True)
def test_every_run_of_cliperase_keeps_within_one_and_a_half_points():
    table = runs("main")
    lost = same_of(table, "original").retain_accuracy - table.retain_accuracy
    assert (lost.loc["CLIPErase"] <= 1.5).all()


def test_cliperase_keeps_within_one_and_a_half_points_on_average_of_every_concept():
    table = runs("main")
    lost = same_of(table, "original").retain_accuracy - table.retain_accuracy
    assert (lost.loc["CLIPErase"].groupby("concept").mean() <= 1.5).all()


def test_the_detector_of_generated_pictures_is_right_about_nine_in_ten():
    table = read_results(RESULTS)
    found = table[(table.experiment == "diffusion") & (table.metric == "detector_accuracy")]
    assert len(found) == 2  # drawings like the generator's, and drawings like the detector's own
    assert (found.value >= 90).all()


def test_before_forgetting_each_concept_is_drawn_in_85_percent_of_its_pictures():
    table = read_results(RESULTS)
    drawn = table[(table.experiment == "diffusion") & (table.method == "original") & (table.split == "generated")]
    means = drawn[drawn.metric.str.startswith("detection_rate@")].groupby("metric").value.mean()
    assert len(means) >= 10
    assert (means >= 85).all()


def test_the_other_concepts_are_drawn_as_before_within_five_points():
    table = runs("diffusion", "generated").groupby(["method", "concept"]).mean()
    before = table.loc["original"]
    assert ((table.loc["CLIPErase"] - before).other_detection_rate.abs() <= 5).all()


def test_every_run_on_blip_forgets_to_one_percent_and_every_captioner_names_at_most_five():
    """By the head that unlearning works on; the matching head does not follow, and the notebook says so."""
    assert (runs("blip").loc["CLIPErase"].forget_accuracy <= 1).all()
    assert (runs("captioning").loc["CLIPErase"].naming_rate <= 5).all()


def test_cliperase_keeps_what_blip_and_the_captioner_knew_within_five_points():
    for experiment, kept in (("blip", "retain_accuracy"), ("captioning", "caption_accuracy")):
        means = runs(experiment)[kept].groupby("method").mean()
        assert means["original"] - means["CLIPErase"] <= 5, experiment
