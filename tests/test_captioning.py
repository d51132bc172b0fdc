"""The captioner: probabilities and losses by hand, what a caption says, and one unlearning from end to end."""

import copy
import math

import pandas as pd
import pytest
import torch
from conftest import write_profile

from cliperase.errors import CliperaseError
from cliperase.loop import Loop
from cliperase.settings import checked
from paper.__main__ import main
from paper.captioner import (
    CaptionSettings,
    caption_metrics,
    captions_of,
    loss_terms,
    name_probability,
    names_in,
    unlearn_captioner,
)
from paper.hybrid_blip import caption_logits, caption_loss, load_captioner
from paper.results import read_results

LOOP = {"steps": 2, "learning_rate": 1e-3, "forget_batch": 4, "retain_batch": 8, "evaluate_every": 1}


@pytest.fixture
def captioner(blip_folder):
    return load_captioner(blip_folder / "captioner")


def test_the_probability_of_a_name_by_hand(captioner, training):
    """`a photo of a apple`: four tokens before the name, one of it."""
    states = captioner.look(training.images[:3])
    logits, tokens, _ = caption_logits(captioner, states, ["a photo of a apple"] * 3)
    assert captioner.words.convert_ids_to_tokens(tokens[0, 4].item()) == "apple"
    by_hand = logits[:, 4].softmax(dim=1)[:, tokens[0, 4]]
    assert torch.allclose(name_probability(captioner, states, "apple"), by_hand)


def test_the_terms_by_hand(captioner, training):
    forget, retain, captions = training.images[:2], training.images[8:10], ["a photo of a lemon"] * 2
    wanted = ("ascent", "forgetting", "retention", "consistency")
    terms = loss_terms(captioner, captioner, "apple", forget, retain, captions, wanted)
    states = captioner.look(forget)
    p = name_probability(captioner, states, "apple")
    assert terms["forgetting"].item() == pytest.approx(-sum(math.log(1 - x) for x in p.tolist()) / 2, rel=1e-4)
    assert terms["ascent"].item() == pytest.approx(
        -caption_loss(captioner, states, ["a photo of a apple"] * 2).mean().item(), rel=1e-5
    )
    assert terms["consistency"].item() == pytest.approx(0, abs=1e-6)  # a model does not differ from itself
    logits, tokens, mask = caption_logits(captioner, captioner.look(retain), captions)
    each = -logits.log_softmax(dim=2).gather(2, tokens[..., None])[..., 0]
    said = [row[kept.bool()].mean() for row, kept in zip(each, mask, strict=True)]
    assert terms["retention"].item() == pytest.approx(sum(said).item() / 2, rel=1e-5)
    for name in wanted:
        captioner.zero_grad()
        only = loss_terms(captioner, captioner, "apple", forget, retain, captions, (name,))
        assert set(only) == {name}
        assert only[name].item() == pytest.approx(terms[name].item(), rel=1e-5, abs=1e-6)


def test_consistency_by_hand_runs_from_the_original_to_the_student(captioner, training):
    """KL(original ‖ student), mean over the tokens of the captions, which the other way round is another number."""
    student, retain, captions = copy.deepcopy(captioner), training.images[8:10], ["a photo of a lemon"] * 2
    with torch.no_grad():
        for weight in student.parameters():
            weight.add_(0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
        found = loss_terms(student, captioner, "apple", retain, retain, captions, ("consistency",))["consistency"]
        before, after = (
            caption_logits(model, model.look(retain), captions)[0].softmax(dim=2).double()
            for model in (captioner, student)
        )
        mask = caption_logits(captioner, captioner.look(retain), captions)[2].bool()
    by_hand, backwards = (
        (one * (one / other).log()).sum(dim=2)[mask].mean().item() for one, other in ((before, after), (after, before))
    )
    assert found.item() == pytest.approx(by_hand, rel=1e-3)
    assert abs(by_hand - backwards) > 0.01 * by_hand


def test_forgetting_lowers_the_probability_of_the_name(captioner, training):
    forget = training.images[:4]
    states = captioner.look(forget)
    before = name_probability(captioner, states, "apple").mean().item()
    optimizer = torch.optim.SGD(captioner.parameters(), lr=0.1)
    terms = loss_terms(captioner, None, "apple", forget, None, None, ("forgetting",))
    terms["forgetting"].backward()
    optimizer.step()
    states = captioner.look(forget)
    assert name_probability(captioner, states, "apple").mean().item() < before


def test_the_longest_name_in_a_caption_counts():
    names = ["apple", "Apple logo", "ice cream"]
    said = ["a photo of a apple", "a photo of a apple logo", "pineapple", "ice cream", ""]
    assert names_in(said, names) == ["apple", "Apple logo", "", "ice cream", ""]


def test_a_name_counts_in_the_plural_and_before_a_stop():
    """As captioners of photographs write."""
    said = ["two apples on a table", "an apple.", "a red Apple, cut", "the apple's core", "two buses", "applesauce"]
    assert names_in(said, ["apple", "bus"]) == ["apple", "apple", "apple", "apple", "bus", ""]


def test_metrics_by_hand(training):
    rows = training.select(torch.isin(torch.arange(len(training)), torch.tensor([0, 8, 16, 24])))  # one of each class
    true = [rows.class_names[i] for i in rows.labels.tolist()]
    said = ["" if name == "apple" else "apple" if name == "plum" else name for name in true]
    assert caption_metrics(said, rows, "apple") == {
        "naming_rate": 0.0,
        "caption_accuracy": pytest.approx(200 / 3),
        "false_naming_rate": pytest.approx(100 / 3),
        "naming_rate@no class": 100.0,
    }


def test_an_unlearning_keeps_its_best_step_and_leaves_the_original_alone(captioner, training):
    before = {name: value.clone() for name, value in captioner.state_dict().items()}
    model, history = unlearn_captioner(captioner, training, training, "apple", "CLIPErase", LOOP)
    assert 0 <= history.validation["score"] <= 100
    assert history.best_step in (1, 2)
    assert all(torch.equal(value, before[name]) for name, value in captioner.state_dict().items())
    assert any(not torch.equal(value, before[name]) for name, value in model.state_dict().items())
    again, *_ = unlearn_captioner(captioner, training, training, "apple", "CLIPErase", LOOP)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    assert len(captions_of(model, training.images[:3])) == 3


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({**LOOP, "lambda_fm": 1.0}, "no setting 'lambda_fm'"),
        ({"steps": 2}, "needs a setting 'learning_rate'"),
        ({**LOOP, "learning_rate": "1e-3"}, "learning_rate is '1e-3'; give a number"),
        ({**LOOP, "steps": 2.5}, "steps is 2.5"),
        ({**LOOP, "steps": True}, "steps is True"),
    ],
)
def test_settings_that_are_none(settings, said):
    assert checked(CaptionSettings, LOOP, "captioning") == CaptionSettings(**LOOP)
    with pytest.raises(CliperaseError, match=said):
        checked(CaptionSettings, settings, "captioning")


SECTION = {"model_name": "tiny BLIP", "concepts": ["apple"], "search_concepts": ["leaf"], "search_seed": 100,
           "validation_images": 2, "loop": {"steps": 1, "forget_batch": 4, "retain_batch": 8}}  # fmt: skip


def test_a_section_without_a_needed_name_is_one_line(tmp_path, capsys):
    path = write_profile(tmp_path, experiments={"captioning": SECTION})
    shared = ["--data", "none", "--model", "none", "--output", str(tmp_path / "t.csv"), "--profile", str(path)]
    assert main(["experiment", "captioning", *shared]) == 2
    assert "experiments.captioning of profile test needs a setting 'candidates'" in capsys.readouterr().err


def test_search_concepts_may_not_be_reported_ones(tmp_path, capsys):
    section = SECTION | {"search_concepts": ["apple"], "candidates": {}}
    path = write_profile(tmp_path, experiments={"captioning": section})
    shared = ["--data", "none", "--model", "none", "--output", str(tmp_path / "t.csv"), "--profile", str(path)]
    assert main(["experiment", "captioning", *shared]) == 2
    assert "overlap the reported" in capsys.readouterr().err


def test_a_killed_experiment_goes_on_to_the_same_table(data_folder, blip_folder, tmp_path, monkeypatch):
    candidates = {"GA": [{"learning_rate": 1e-3}], "CLIPErase": [{"learning_rate": 1e-3}, {"learning_rate": 2e-3}]}
    path = write_profile(tmp_path, seeds=[0, 1], experiments={"captioning": SECTION | {"candidates": candidates}})
    shared = [
        "--data",
        str(data_folder),
        "--model",
        str(blip_folder / "captioner"),
        "--output",
        str(tmp_path / "t.csv"),
    ]
    monkeypatch.setattr("paper.captioner.RUNS", tmp_path / "runs")
    step, taken = Loop.step, []

    def die(loop, number):
        taken.append(number)
        if len(taken) == 6:
            raise KeyboardInterrupt
        step(loop, number)

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "step", die)
        assert main(["experiment", "captioning", "--profile", str(path), *shared]) == 130
    assert list((tmp_path / "runs").rglob("*.pt"))
    assert main(["experiment", "captioning", "--profile", str(path), *shared]) == 0
    table = read_results(tmp_path / "t.csv")
    assert not list((tmp_path / "runs").rglob("*.pt"))
    assert main(["experiment", "captioning", "--profile", str(path), *shared]) == 0
    whole = read_results(tmp_path / "t.csv")
    timed = ["seconds", "peak_mb"]
    pd.testing.assert_frame_equal(table.drop(columns=timed), whole.drop(columns=timed))
    tested = table[table.split == "test"]
    assert set(zip(tested.method, tested.seed, strict=True)) == {
        ("original", "0"), ("GA", "0"), ("GA", "1"), ("CLIPErase", "0"), ("CLIPErase", "1")
    }  # fmt: skip
    searched = table[table.concept == "search"]
    assert set(searched.method) == {"GA 0", "CLIPErase 0", "CLIPErase 1"}
    assert set(searched.split) == {"validation"}
