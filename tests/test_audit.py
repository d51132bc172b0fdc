"""The audit: a model against itself shows nothing, each planted failure is caught by the probe that should, and what is
written is whole, safe and the same again."""

import copy
import csv
import io
import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import changed_config, make_split, without
from datasets import ClassLabel
from inputs import captioned

from cliperase.audit import PROBES, create_probe, probe_class
from cliperase.audit.auditing import AuditSettings, description, measured, open_case, plain, tell_unused
from cliperase.audit.base import Measurement, NotApplicable, Probe
from cliperase.audit.case import Case, Split, Subject, invented, scores_of
from cliperase.audit.intervals import Estimate, area_of, envelope, mean_of, mean_of_table, share_of
from cliperase.audit.lira import distances, log_ratios
from cliperase.audit.membership import rate_at
from cliperase.audit.neighbours import linear_cka
from cliperase.audit.other_words import worded
from cliperase.audit.page import write_page
from cliperase.audit.quantisation import quantised
from cliperase.audit.text_attack import in_place
from cliperase.audit.verdict import finding, read_thresholds, verdict_of, vote
from cliperase.audit.wording import plural_of
from cliperase.cli import main
from cliperase.data.pairs import load_pairs, write_split
from cliperase.data.rules import Rule, forget_mask
from cliperase.data.tables import read_table
from cliperase.errors import CliperaseError
from cliperase.loop import run_loop
from cliperase.methods.fine_tune import FineTune
from cliperase.methods.leace import erasure
from cliperase.methods.null_space import projection
from cliperase.models import load_model
from cliperase.models.base import ImageTextModel
from cliperase.models.framing import Resized
from cliperase.models.openclip import create_model
from cliperase.settings import TrainSettings
from cliperase.training import PairTraining
from cliperase.unlearning import narrowed

APPLE = {"concept": "apple"}
SMALL = {  # settings with which a probe is quick
    "linear-probe.shots": [1, 4], "linear-probe.draws": 2, "other-words.typos": 2,
    "other-words.synonyms": {"apple": ["pomme"]}, "relearning.pairs": [4], "relearning.steps": 4,
    "relearning.every": 2, "image-attack.steps": 3, "text-attack.iterations": 3,
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Four classes told apart by colour, more images of them than elsewhere in the tests."""
    folder = tmp_path_factory.mktemp("audit") / "colours"
    for split, count in {"train": 16, "validation": 4, "test": 12, "heldout": 6}.items():
        write_split(make_split(split, count), folder, split)
    return folder


@pytest.fixture(scope="module")
def knowing(base_model, data):
    """A model that has learnt the classes."""
    return taught(base_model, load_pairs(data, "train"))


def taught(model, pairs):
    """A copy of the model that has learnt from the pairs."""
    model = copy.deepcopy(model)
    settings = TrainSettings(steps=60, learning_rate=2e-3, retain_batch=32, update_norm_statistics=True)
    with narrowed(model, pairs):
        run_loop(PairTraining(model, FineTune(), settings, pairs), progress=False)
    return model.eval()


@pytest.fixture(scope="module")
def knowing_folder(knowing, tmp_path_factory):
    folder = tmp_path_factory.mktemp("knowing") / "original"
    knowing.save(folder)
    return folder


@pytest.fixture(scope="module")
def splits(data):
    def split(name):
        pairs = load_pairs(data, name)
        return Split.of(pairs, forget_mask(pairs, APPLE))

    return {name: split(name) for name in ("train", "test", "heldout")}


def case_of(splits, before, after, *references):
    subjects = [Subject(model, str(number)) for number, model in enumerate([before, after, *references])]
    return Case(
        *subjects[:2], subjects[2:], Rule.of(APPLE), splits["test"], splits["train"],
        {"heldout": splits["heldout"]} if "heldout" in splits else {}, progress=False,
    )  # fmt: skip


def probe_of(name):
    settings = {key.split(".")[1]: value for key, value in SMALL.items() if key.startswith(f"{name}.")}
    return create_probe(name, settings)


def figures(case, name):
    """{measure: Measurement} of one probe, measured anew."""
    return {one.name: one for one in probe_of(name).run(replace(case, estimates={}))}


@pytest.fixture(scope="module")
def never_knew(base_model, data):
    """The same without the concept."""
    pairs = load_pairs(data, "train")
    return taught(base_model, pairs.select(~forget_mask(pairs, APPLE)))


def noisy(model, seed):
    """A copy whose weights are a little off, in the place of one that was trained from another seed."""
    model, generator = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.add_(0.1 * weight.std() * torch.randn(weight.shape, generator=generator))
    return model


@pytest.fixture(scope="module")
def shadows(knowing, never_knew):
    """Three models that saw the concept and three that never did, as fields of a `Case`."""
    return {
        name: [Subject(noisy(model, seed), f"{name} {seed}") for seed in range(3)]
        for name, model in (("saw", knowing), ("never", never_knew))
    }


@pytest.fixture(scope="module")
def text_head_projected(knowing, splits):
    """The forgotten prompt's own direction is turned round, because of four classes it is else still the nearest."""
    model = copy.deepcopy(knowing)
    texts = Subject(model, "").texts(splits["test"].texts)
    forget, retain = texts[splits["test"].forget_texts], texts[splits["test"].retain_texts]
    model.multiply_text_head(torch.eye(texts.shape[1]) - 2 * projection(forget, retain.mean(dim=0)))
    return model


# What a model is


@pytest.mark.parametrize("name", PROBES)
def test_a_model_against_itself_shows_nothing(name, knowing, splits, shadows):
    case = replace(case_of(splits, knowing, copy.deepcopy(knowing), copy.deepcopy(knowing)), **shadows)
    found = measured(case, name, probe_of(name))
    assert found["measures"] or found["reason"]
    for measure in found["measures"]:
        assert measure["before"] == measure["after"], measure["name"]
        assert finding(measure | {"reference": None, "never": None}) in ("as the original", "too few to tell")
        if measure["reference"]:
            assert finding(measure) in ("not told apart from the reference", "too few to tell")


def test_a_projected_text_head_is_caught_by_probe_and_swap(knowing, text_head_projected, splits):
    case = case_of(splits, knowing, text_head_projected)
    assert figures(case, "reference-gap")["forget_accuracy"].after.value < 10
    assert figures(case, "linear-probe")["image_recall_4_shots"].after.value > 90
    swapped = figures(case, "encoder-swap")
    assert swapped["forget_accuracy_image_tower"].after.value > 90
    assert swapped["forget_accuracy_text_tower"].after.value < 10
    for name, left in figures(case, "token-states").items():
        if name.endswith("direction_left"):
            assert left.after.value == left.before.value == pytest.approx(100)
            assert left.never.high < 90


def test_a_disturbed_tower_is_told_from_the_other(knowing, splits):
    model = copy.deepcopy(knowing)
    with torch.no_grad():
        for weight in model.image_tower.parameters():
            weight.mul_(0.3)
    case = case_of(splits, knowing, model)
    costs, swapped = figures(case, "neighbours"), figures(case, "encoder-swap")
    assert costs["retain_image_drift"].after.low > 0.05
    assert costs["retain_text_drift"].after.value == pytest.approx(0, abs=1e-6)
    assert swapped["forget_accuracy_text_tower"].after.value == swapped["forget_accuracy_text_tower"].before.value
    assert swapped["retain_accuracy_image_tower"].after.value < swapped["retain_accuracy_image_tower"].before.low


def test_a_zeroed_word_is_caught(knowing, splits):
    """The rows of the class word's tokens: no association is unlearned, only a name is gone."""
    model = copy.deepcopy(knowing)
    words, other = model.token_rows(["apple"])[0], model.token_rows(["lemon"])[0]
    with torch.no_grad():
        model.clip_text_tower.token_embedding.weight[words[~torch.isin(words, other)]] = 0
    case = case_of(splits, knowing, model)
    assert figures(case, "encoder-swap")["forget_accuracy_image_tower"].after.value > 90
    assert figures(case, "linear-probe")["image_recall_4_shots"].after.value > 90
    assert figures(case, "neighbours")["forget_image_drift"].after.value == pytest.approx(0, abs=1e-6)
    left = figures(case, "token-states")["word_direction_left"]
    assert left.after.value < left.never.low


def test_what_rounding_undoes_is_caught(knowing, splits):
    """Every weight is moved by less than half a step of 4 bits, against the concept."""
    base, split = quantised(knowing, 4), splits["train"]
    images, own = split.pairs.images[split.forgotten], split.own[split.forgotten][:, 0]
    model = copy.deepcopy(base)
    logits = model.logit_scale * model.encode_image(images) @ model.encode_text(split.texts).T
    torch.nn.functional.cross_entropy(logits, own).backward()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1 and weight.grad is not None:
                largest = weight.abs().amax(dim=tuple(range(1, weight.dim())), keepdim=True)
                weight.add_(0.4 / 7 * largest * weight.grad.sign() * (weight.abs() < largest))
    model.zero_grad()
    case = case_of(splits, knowing, model)
    assert figures(case, "reference-gap")["forget_accuracy"].after.value < 10
    assert figures(case, "quantisation")["forget_accuracy_4_bits"].after.value > 90


def test_relearning_tells_who_knew_from_who_never_did(knowing, never_knew, splits):
    probe = create_probe("relearning", {"pairs": [8, 9999], "steps": 8, "every": 2, "learning_rate": 1e-3})
    found = measured(case_of(splits, knowing, knowing, never_knew), "relearning", probe)
    area = found["measures"][0]
    assert area["before"]["value"] > 95
    assert area["reference"]["value"] < area["before"]["value"]
    (note,) = found["notes"]
    assert note.startswith("area_… of 9999 pairs is not measured: there are ")


def test_the_points_of_a_relearning_curve_are_figures_without_a_vote(knowing, never_knew, splits):
    settings = {"pairs": [8], "steps": 4, "every": 2, "learning_rate": 1e-3, "points": [0, 2, 4]}
    case = case_of(splits, knowing, never_knew)
    found = {one["name"]: one for one in measured(case, "relearning", create_probe("relearning", settings))["measures"]}
    curve = [found[f"recognised_8_pairs_{step}_steps"] for step in settings["points"]]
    assert [one["known"] for one in curve] == [None, None, None]
    assert curve[0]["after"]["value"] == pytest.approx(figures(case, "reference-gap")["forget_accuracy"].after.value)
    first, second, third = (one["after"]["value"] for one in curve)
    assert found["area_8_pairs"]["after"]["value"] == pytest.approx((first + 2 * second + third) / 4)
    with pytest.raises(CliperaseError, match="points 3 is no step after"):
        create_probe("relearning", {**settings, "points": [3]})


def test_a_retrained_model_passes_by_another_one(knowing, never_knew, splits):
    case = case_of(splits, knowing, never_knew, copy.deepcopy(never_knew))
    for name in ("reference-gap", "linear-probe", "membership"):
        for one in measured(case, name, probe_of(name))["measures"]:
            if one["reference"]:
                assert finding(one) in ("not told apart from the reference", "too few to tell"), one["name"]
    assert figures(case, "reference-gap")["forget_accuracy"].after.value < 10


class Erased(Subject):
    """A model out of whose embeddings LEACE has taken the concept, as far as the training images tell it."""

    hash = "erased"  # the weights are those of another model

    def images(self, split):
        return super().images(split) @ self.erasure

    @classmethod
    def of(cls, model, split):
        erased = cls(model, "erased")
        features = Subject(model, "").images(split)
        erased.erasure = erasure(features, split.forgotten[:, None].double()).float()
        return erased


def test_leace_is_the_control_of_the_linear_probe(knowing, splits):
    case = replace(case_of(splits, knowing, knowing), after=Erased.of(knowing, splits["train"]))
    area = figures(case, "linear-probe")["image_area_all"]
    assert area.before.value == 1
    assert area.after.value == pytest.approx(0.5, abs=0.05)


class ByHeart(Subject):
    """A model that gives each training image the embedding of its own text."""

    hash = "by heart"

    trained = None

    def images(self, split):
        learnt = split.pairs.row_hashes[0] in self.trained.pairs.row_hashes
        return self.texts(split.texts)[split.own[:, 0]] if learnt else super().images(split)


def test_members_are_told_by_what_a_model_knows_by_heart(knowing, splits):
    case = replace(case_of(splits, knowing, knowing), after=ByHeart(knowing, "by heart"))
    case.after.trained = splits["train"]
    found = figures(case, "membership")
    assert found["area_cosine"].after.value == found["area_loss"].after.value == 1
    assert found["true_positives_at_1"].after.value == 100
    assert found["area_cosine"].before.value < 0.8


def test_the_rate_at_few_false_positives():
    half = np.arange(100)
    assert rate_at(half, half).value == 1.0
    assert rate_at(np.array([200] * 5 + [0] * 5), half).value == 50.0
    assert rate_at(half[:10], half[:10]).value == 0.0  # of ten, no false positive is allowed


def answers_of(rng, means, count):
    """(count, R) of models whose answers lie about the `means` (R,) with deviation 1."""
    return means + rng.standard_normal((count, len(means)))


def test_the_likelihood_ratio_tells_members_by_answers_of_shadow_models():
    """Images differ more than membership makes of one of them, so the answers alone tell little."""
    rng = np.random.default_rng(0)
    means = 10 * rng.standard_normal(400)
    never, saw = answers_of(rng, means, 8), answers_of(rng, means + 3, 8)
    members, others = answers_of(rng, means + 3, 1)[0], answers_of(rng, means, 1)[0]
    assert area_of(members, others).value < 0.6
    ratios = log_ratios(members, never, saw)
    assert area_of(ratios, log_ratios(others, never, saw)).value > 0.95
    assert area_of(distances(members, never), distances(others, never)).value > 0.95
    assert abs(distances(others, never).std() - 1) < 0.1
    assert np.allclose(ratios, log_ratios(members, never[::-1], rng.permutation(saw)))


def test_the_likelihood_ratio_by_hand():
    never, saw = [[-3.0], [-1.0]], [[1.0], [3.0]]  # about -2 and 2, with variance 2 and half of it for the mean
    assert log_ratios([0.0], never, saw)[0] == pytest.approx(0)
    assert log_ratios([1.0], never, saw)[0] == pytest.approx((3**2 - 1**2) / (2 * 3))
    assert distances([1.0], never)[0] == pytest.approx(3 / 3**0.5)


def test_many_shadow_models_give_each_image_a_variance_and_one_gives_none():
    spread = np.array([1.0, 5.0])
    answers = spread * np.random.default_rng(0).standard_normal((64, 2))
    few, many = (1 / np.diff([distances(asked, found) for asked in ([0, 0], [1, 1])], axis=0)[0]
                 for found in (answers[:63], answers))  # fmt: skip
    assert few[0] == few[1]
    assert many == pytest.approx(answers.std(axis=0, ddof=1) * (65 / 64) ** 0.5)
    with pytest.raises(NotApplicable, match="there is 1 shadow model beside the audited one; give at least 2"):
        distances([0.0, 0.0], answers[:1])
    with pytest.raises(NotApplicable, match="equal answers; give models that were trained from different seeds"):
        distances([0.0, 0.0], np.zeros((3, 2)))


def test_shadow_models_tell_who_saw_the_concept(knowing, never_knew, splits, shadows):
    never = shadows["never"]
    case = replace(case_of(splits, knowing, never_knew, *(one.model for one in never)), **shadows)
    found = figures(case, "lira")
    assert found["online_mean"].before.low > 0 > found["online_mean"].after.high
    assert found["offline_mean"].before.low > 3 > abs(found["offline_mean"].after.value)
    assert finding(plain(found["offline_mean"])) == "not told apart from the reference"
    few = figures(replace(case, saw=[], never=never[:2]), "lira")
    assert set(few) == {name for name in found if name.startswith("offline")}
    assert few["offline_mean"].reference is None  # beside each reference is one other, which has no variance


def test_a_model_is_not_its_own_shadow(knowing, never_knew, splits, shadows):
    case = replace(case_of(splits, knowing, never_knew), **shadows)
    with_itself = replace(case, saw=[*case.saw, case.before], never=[*case.never, case.after])
    plainly, found = figures(case, "lira"), figures(with_itself, "lira")
    assert found["offline_mean"].after == plainly["offline_mean"].after
    assert found["offline_mean"].before != plainly["offline_mean"].before


def test_images_known_by_heart_are_told_beside_shadow_models(knowing, splits, shadows):
    case = replace(case_of(splits, knowing, knowing), **shadows, after=ByHeart(knowing, "by heart"))
    case.after.trained = splits["train"]
    found = figures(case, "lira")
    assert found["offline_area"].after.value > 0.95
    assert found["offline_area"].before.value < 0.8
    assert found["offline_true_positives_at_1"].after.value > 90


@pytest.fixture(scope="module")
def matching(blip_folder, splits):
    """A BLIP whose matching head has learnt the classes."""
    model, split = load_model(blip_folder / "matching"), splits["train"]
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for rows in torch.arange(len(split.pairs)).view(4, -1).T.repeat(2, 1).split(4):
        images, own = split.pairs.images[rows.flatten()], split.own[rows.flatten(), 0]
        logits = model.matching_head(images, [split.texts] * len(own))
        torch.nn.functional.cross_entropy(logits, own).backward()
        optimizer.step(), optimizer.zero_grad()
    return model


def test_a_matching_head_that_was_left_as_it_was_is_caught(matching, splits):
    """The contrastive text head is turned round, and every cosine with it; then the matching head is emptied."""
    model = copy.deepcopy(matching)
    model.multiply_text_head(-torch.eye(model.encode_text(["apple"]).shape[1]))
    case = case_of(splits, matching, model)
    cosine, found = figures(case, "reference-gap")["forget_cosine"], figures(case, "matching-head")
    assert cosine.after.value == pytest.approx(-cosine.before.value, abs=1e-6)
    assert found["forget_accuracy"].before.value > 90
    assert found["forget_accuracy"].after == found["forget_accuracy"].before
    with torch.no_grad():
        model.model.itm_head.weight.zero_()
    assert figures(case_of(splits, matching, model), "matching-head")["forget_accuracy"].after.value == 0


# Other data, other models


def without_labels(splits, captions):
    """The splits as data without classes, of one or two captions an image."""
    found = {}
    for name, split in splits.items():
        pairs = replace(split.pairs, labels=None, class_names=[], text_ids=split.pairs.text_ids[:, :captions])
        found[name] = Split.of(pairs, split.forgotten)
    return found


OF_CAPTIONS = {
    "token-states": "captions have no names of classes",
    "matching-head": "a model here has no head that reads",  # the test below has one that does
}


@pytest.mark.parametrize("captions", [1, 2])
@pytest.mark.parametrize("name", PROBES)
def test_every_probe_takes_captions(name, captions, knowing, splits, shadows):
    case = replace(case_of(without_labels(splits, captions), knowing, copy.deepcopy(knowing)), **shadows)
    found = measured(case, name, probe_of(name))
    assert found["measures"] or found["reason"].startswith(OF_CAPTIONS[name])
    for measure in found["measures"]:
        assert measure["before"] == measure["after"], measure["name"]


class Bags(ImageTextModel):
    """Another family: mean colours, and the words of a text by their letters."""

    framing = Resized((4, 4))
    recognises = load = save = None

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.set_colours([0.5] * 3, [0.25] * 3)
        self.image_head, self.letters = torch.nn.Linear(48, 16), torch.nn.EmbeddingBag(256, 16)

    logit_scale = property(lambda self: torch.tensor(14.0))

    def resize(self, pixels):
        return torch.nn.functional.adaptive_avg_pool2d(pixels, 4)

    def encode_image(self, images):
        return torch.nn.functional.normalize(self.image_head(self.pixels(images).flatten(1)), dim=1)

    def encode_text(self, texts):
        bags = [self.letters(torch.tensor([list(text.encode())])) for text in texts]
        return torch.nn.functional.normalize(torch.cat(bags), dim=1)


def test_a_matching_head_is_asked_for_captions(matching, splits):
    for captions in (1, 2):
        found = figures(case_of(without_labels(splits, captions), matching, matching), "matching-head")
        assert found["forget_accuracy"].before.value > 90


MISSING = {  # probe -> families that have nothing to ask, and why
    "text-attack": (("bags", "BLIP"), "a text tower of another kind"),
    "token-states": (("bags", "BLIP"), "a text tower of another kind"),
    "matching-head": (("bags",), "a model here has no head that reads"),
    "lira": (("bags", "BLIP"), "there are no shadow models"),
}


@pytest.mark.parametrize("family", ["bags", "BLIP"])
@pytest.mark.parametrize("name", PROBES)
def test_every_probe_takes_a_model_of_the_interface_or_says_why_not(name, family, splits, blip_folder):
    models = [Bags() if family == "bags" else load_model(blip_folder / "matching") for _ in range(3)]
    found = measured(case_of(splits, *models), name, probe_of(name))
    families, reason = MISSING.get(name, ((), ""))
    if family in families:
        assert found["reason"].startswith(reason)
    else:
        assert found["measures"]


def test_without_training_rows_or_other_sources_a_probe_says_so(knowing, splits, shadows):
    case = replace(case_of({"test": splits["test"], "train": None}, knowing, knowing), **shadows)
    reasons = {name: measured(case, name, probe_of(name))["reason"] for name in PROBES}
    learning = {"relearning", "membership", "lira", "text-attack"}
    assert {name for name, reason in reasons.items() if reason} == {*learning, "other-sources", "matching-head"}
    assert all(reasons[name].startswith("the data have no training rows") for name in learning)
    assert {one.name.partition("_")[0] for one in probe_of("linear-probe").run(case)} == {"text"}


def test_a_probe_says_what_it_has_too_little_of(knowing, splits):
    def reason(case, name):
        return measured(case, name, probe_of(name))["reason"]

    few = {name: split.sampled(8, 0) for name, split in splits.items()}  # half of them forgotten
    case = case_of(few, knowing, knowing)
    assert reason(case, "membership") == "fewer than 5 images of the concept in training or in the measured split"
    other = create_model(changed_config(embed_dim=16), seed=0)
    assert "embeddings have different sizes" in reason(case_of(few, knowing, other), "encoder-swap")
    case.before.model = copy.deepcopy(knowing)
    case.before.model.token_rows = lambda texts: torch.arange(16).repeat(len(texts), 1)
    assert reason(case, "text-attack") == "the tokenizer has no single token for the place of the prefix"


def test_captions_that_are_all_the_same_ask_nothing():
    with pytest.raises(CliperaseError, match="all 3 images have the same captions; give data with different ones"):
        Split.of(captioned(["a"] * 3), torch.zeros(3, dtype=torch.bool))


def test_a_figure_that_is_not_finite_is_refused():
    known = Estimate(1.0, 0.0, 2.0, 3)
    with pytest.raises(CliperaseError, match="drift of the model after is nan; look at its weights"):
        plain(Measurement("drift", "cosine", known, replace(known, value=float("nan"))))


# What the figures are


def test_a_tie_is_a_miss_and_ranks_count_from_one():
    images = torch.eye(3)[:2]
    texts = torch.tensor([[1.0, 0, 0], [1.0, 0, 0], [0, 0.5, 0]])
    best, other, rank = scores_of(images, texts, torch.tensor([[0], [2]]))
    assert best.tolist() == [1.0, 0.5]
    assert other.tolist() == [1.0, 0.0]
    assert rank.tolist() == [2, 1]


def test_intervals():
    share = share_of([True] * 3 + [False] * 7)
    assert (share.value, share.count) == (30.0, 10)
    assert (round(share.low, 2), round(share.high, 2)) == (6.67, 65.25)  # tables of Clopper and Pearson
    assert share_of([False] * 60).high == pytest.approx(100 * (1 - 0.025 ** (1 / 60)))
    values = torch.randn(400, generator=torch.Generator().manual_seed(0)).numpy()
    mean = mean_of(values)
    assert mean.high - mean.low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.15)
    assert mean_of([2.0]).low is None
    drawn = mean_of_table([[0.0] * 50, [1.0] * 50])
    assert (drawn.low, drawn.high) == (0.0, 1.0)  # draws that disagree are told
    assert area_of([2, 3], [1, 2]).value == 0.875
    assert envelope([]) is None
    assert (envelope([share, mean_of([2.0])]).low, envelope([share, share]).count) == (share.low, 20)


def estimate(value, low, high):
    return {"value": value, "low": low, "high": high, "count": 9}


def measure(after, reference=None, known="above"):
    return {"before": estimate(90, 80, 95), "after": after, "reference": reference, "never": None, "known": known}


def test_findings_and_votes():
    low, middle, high = estimate(5, 1, 9), estimate(12, 8, 30), estimate(60, 50, 70)
    assert finding(measure(high, low)).startswith("more than the reference")
    assert finding(measure(low, high)).endswith("over-forgetting")
    assert finding(measure(low, high, known="below")).startswith("more than the reference")
    assert finding(measure(low, high, known=None)) == "lower than the reference"
    assert finding(measure(middle, low)) == "not told apart from the reference"
    assert finding(measure(low)) == "lower than the original"
    assert finding(measure(low) | {"never": middle}) == "lower than the original, as an invented word"
    assert finding(measure(high) | {"never": middle}) == "lower than the original, above an invented word"


(THRESHOLD,) = read_thresholds(
    {"linear-probe.x": {"threshold": 10.0, "auc": 0.95, "source": "a study", "settings": {"draws": 3}}}
).values()
ABOVE, BETWEEN, BELOW = estimate(60, 50, 70), estimate(12, 8, 30), estimate(5, 1, 9)


def said(after, reference=None, known="above", name="linear-probe.x", settings=None, before=None, **threshold):
    found = measure(after, reference, known) | ({"before": before} if before else {})
    return vote(name, found, THRESHOLD.model_copy(update=threshold), settings)


def test_a_vote_hangs_on_the_limits_and_on_the_interval():
    assert [said(one) for one in (BELOW, BETWEEN, ABOVE)] == ["as never known", "undecided", "still known"]
    assert said(BELOW, known="below", before=estimate(2, 1, 3)) == "still known"
    assert said(BELOW, far_end=9.5).startswith("pushed away")
    assert said(estimate(9, 9, 9.8), far_end=9.5) == "as never known"
    beside = {"spread": [-20.0, 20.0]}  # of a reference; the others are not asked
    assert said(BETWEEN, estimate(40, 30, 50), **beside) == "as never known"
    assert said(BELOW, estimate(40, 30, 50), **beside).startswith("pushed away")
    assert said(ABOVE, estimate(12, 8, 30), **beside) == "still known"
    assert said(ABOVE, **beside) == "still known"


def test_a_figure_abstains_where_it_could_say_nothing_else():
    low = estimate(2, 1, 3)
    assert said(ABOVE, estimate(40, 30, 50), known="below", before=low, spread=[-20.0, 20.0]) == "as never known"
    assert "original does not pass" in said(ABOVE, estimate(95, 90, 99), spread=[-20.0, 20.0])  # it cannot reach 115
    assert "original does not pass" in said(BELOW, before=estimate(4, 1, 9))
    assert "too few" in said(estimate(0, 0, 97.5))  # of one image, in the original 80 to 95
    assert "too few" in said(estimate(5, None, None))
    assert "draws 3, and here it is 5" in said(ABOVE, settings={"draws": 5})
    assert said(ABOVE, settings={"draws": 3, "classes": 7}) == "still known"
    assert vote("linear-probe.x", measure(ABOVE), None) == "no vote: power not measured"
    assert said(ABOVE, auc=0.6).startswith("no vote: its area")
    assert said(ABOVE, name="salmu.IntraIdSim") == "no vote: reference-gap.forget_cosine says the same"
    assert said(ABOVE, name="encoder-swap.forget_accuracy_text_tower").startswith("no vote: a model with a space")


def test_a_verdict_counts_votes_and_names_few_probes():
    votes = {"a": {"vote": "still known", "finding": ""}, "b": {"vote": "as never known", "finding": ""}}
    assert verdict_of({"a": votes["a"]}, False)["verdict"].startswith("Not gone: 1 of 1")
    assert verdict_of(votes, False)["verdict"].startswith("Undecided: 1 of 2")  # one of two may be chance
    assert verdict_of({**votes, "c": votes["a"]}, False)["verdict"].startswith("Not gone: 2 of 3")
    assert verdict_of({"b": votes["b"]}, False)["verdict"].startswith(
        "No trace: none of 1 figures with a vote, of b alone"
    )
    assert "alone" not in verdict_of(dict.fromkeys("bcd", votes["b"]), False)["verdict"]
    known = measure(BELOW, ABOVE) | {
        "vote": "as never known",
        "finding": "",
        "threshold": THRESHOLD.told(measure(BELOW)),
    }
    assert verdict_of({"x": known}, True)["reasons"][-1].startswith(
        "The reference itself lies beyond the usual limit by x"
    )
    assert verdict_of({}, False)["verdict"].startswith("No verdict")


def test_cka_minds_neither_turning_nor_scale():
    x = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    turned = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(1)))[0]
    assert linear_cka(x, 3 * x @ turned + 1) == pytest.approx(1)
    assert linear_cka(x, torch.randn(50, 6, generator=torch.Generator().manual_seed(2))) < 0.5


def test_rounding_keeps_each_channels_largest_weight_and_few_levels(knowing):
    model = quantised(knowing, 4)
    for name, weight in knowing.named_parameters():
        rounded = model.get_parameter(name)
        if weight.dim() > 1:
            row, levels = weight[0].detach(), rounded[0].detach().unique()
            assert len(levels) <= 15
            assert levels.abs().max() == pytest.approx(row.abs().max().item(), rel=1e-5)
        else:
            assert torch.equal(weight, rounded)


def test_wordings(knowing, splits):
    assert [plural_of(word) for word in ("apple", "fire lorry", "toy", "box", "computer mouse")] == [
        "apples", "fire lorries", "toys", "boxes", "computer mice",
    ]  # fmt: skip
    case = case_of(without_labels(splits, 1), knowing, knowing)
    words = worded(case, ["an image of {}"], lambda name: "pomme")
    assert words[:2] == ["an image of a photo of a pomme", "an image of a photo of a leaf"]
    with pytest.raises(CliperaseError, match="synonyms of 'pear', which is not forgotten; give those of apple"):
        create_probe("other-words", {"synonyms": {"pear": ["x"]}}).run(case)
    assert len({invented(number) for number in range(600)}) == 600


def test_the_prefix_moves_the_text_and_is_gone_afterwards(knowing, splits):
    subject, probe = Subject(copy.deepcopy(knowing), ""), create_probe("text-attack", {})
    (text,) = probe.prefixed(["a photo of a apple"])
    with torch.no_grad():
        before = subject.model.encode_text([text])
        with in_place(subject.model, torch.ones(3, 128)):
            assert not torch.allclose(subject.model.encode_text([text]), before, atol=1e-3)
        assert torch.equal(subject.model.encode_text([text]), before)


def test_the_image_attack_stays_in_its_budget(knowing, splits):
    split, probe = splits["test"], create_probe("image-attack", {"budget": 2.0})
    images, own = split.pairs.images[:4], split.own[:4].flip(0)
    attacked = probe.attacked(knowing, images, Subject(knowing, "").texts(split.texts), own)
    assert 0 < (255 * attacked - images).abs().max() <= 2 + 1e-3
    assert attacked.min() >= 0
    assert attacked.max() <= 1


# What is written


def run(data, before, after, output, *more):
    assigned = [f"{name}={json.dumps(value)}" for name, value in SMALL.items()]
    call = ["audit", str(before), str(after), "--data", str(data), "--forget", "apple", "--output", str(output)]
    chosen = more[more.index("--probes") + 1 :] if "--probes" in more else PROBES
    of_chosen = [one for one in assigned if one.partition(".")[0] in chosen]
    return main([*call, *(["--set", *of_chosen] if of_chosen else []), *more])


@pytest.fixture(scope="module")
def audited(data, knowing_folder, text_head_projected, base_model, tmp_path_factory):
    """The folder of a whole audit by the command line."""
    folder = tmp_path_factory.mktemp("audited")
    text_head_projected.save(folder / "forgotten")
    base_model.save(folder / "reference")
    thresholds = folder / "thresholds.yaml"
    thresholds.write_text("linear-probe.image_recall_1_shots: {threshold: 60, auc: 0.9, source: a study of tests}\n")
    more = ["--reference", str(folder / "reference"), "--thresholds", str(thresholds)]
    assert run(data, knowing_folder, folder / "forgotten", folder / "out", *more) == 0
    return folder / "out"


def test_a_reference_that_cannot_be_one_and_training_rows_are_refused(audited, data, knowing_folder, tmp_path, capsys):
    forgotten = audited.parent / "forgotten"
    for reference in (knowing_folder, forgotten):
        assert run(data, knowing_folder, forgotten, tmp_path / "out", "--reference", str(reference)) == 2
        assert "reference 1 has the weights of the" in capsys.readouterr().err
    assert run(data, knowing_folder, forgotten, tmp_path / "out", "--split", "train") == 2
    assert "split 'train' holds images that the models were trained on" in capsys.readouterr().err


def test_the_result_is_whole(audited):
    def refuse(constant):
        raise AssertionError(constant)

    result = json.loads((audited / "audit.json").read_text(), parse_constant=refuse)
    assert result["schema"] == 1
    assert [one["probe"] for one in result["probes"]] == list(PROBES)
    assert [len(one["sha256"]) for one in result["models"]] == [64] * 3
    assert len({one["sha256"] for one in result["models"]}) == 3
    assert result["data"]["rows"] == {"forget": 12, "retain": 36}
    assert result["verdict"].startswith("Not gone: 1 of 1 figures")
    assert result["reasons"][0] == "Still known by linear-probe.image_recall_1_shots."
    voting = {one["name"]: one["vote"] for probe in result["probes"] for one in probe["measures"]}
    assert voting["image_recall_4_shots"] == "no vote: power not measured"
    assert {"heldout_forget_accuracy", "synonym_mean", "area_4_pairs"} <= set(voting)
    rows = list(csv.DictReader(io.StringIO((audited / "rows.csv").read_text())))
    assert {"reference-gap.forget_accuracy.after", "linear-probe.image_recall_1_shots.reference low"} <= {
        row["name"] for row in rows
    }
    assert all(float(row["value"]) == float(row["value"]) for row in rows)


def test_shadow_models_are_named_in_the_result(data, knowing_folder, shadows, tmp_path):
    folders = {one.name: tmp_path / one.name for one in (*shadows["saw"], *shadows["never"])}
    for one in (*shadows["saw"], *shadows["never"]):
        one.model.save(folders[one.name])
    saw, never = ([str(folders[one.name]) for one in shadows[kind]] for kind in ("saw", "never"))
    more = ["--reference", *never, "--shadow", *saw, "--probes", "lira"]
    assert run(data, knowing_folder, knowing_folder, tmp_path / "out", *more) == 0
    result = json.loads((tmp_path / "out" / "audit.json").read_text())
    named = [one["is"] for one in result["models"]]
    assert named == ["original", "unlearned", *(f"{kind} {i}" for kind in ("reference", "shadow") for i in (1, 2, 3))]
    assert [one["sha256"] for one in result["models"]][5:] == [one.hash for one in shadows["saw"]]
    (probe,) = result["probes"]
    assert len(probe["measures"]) == 6
    assert probe["measures"][0]["vote"] == "no vote: power not measured"
    page = (tmp_path / "out" / "page.html").read_text()
    assert "models trained without the concept:\n3)" in page


class Outline(HTMLParser):
    """The levels of headings, the addresses that a page asks for, and its tables with and without captions."""

    def __init__(self, page):
        super().__init__()
        self.headings, self.addresses, self.tags, self.ids = [], [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag[0] == "h" and tag[1:].isdigit():
            self.headings.append(int(tag[1:]))
        for name, value in attributes:
            if name in ("src", "href", "action", "data"):
                self.addresses.append(value)
            if name == "id":
                self.ids.append(value)


def test_the_page_asks_for_nothing_and_has_an_order(audited):
    page = (audited / "page.html").read_text()
    outline = Outline(page)
    assert all(address.startswith("#") and address[1:] in outline.ids for address in outline.addresses)
    assert not {"script", "link", "img", "iframe"} & set(outline.tags)
    assert "url(" not in page
    assert "@import" not in page
    assert outline.headings[0] == 1
    assert outline.headings.count(1) == 1
    assert all(b - a <= 1 for a, b in zip(outline.headings, outline.headings[1:], strict=False))
    assert outline.tags.count("table") == outline.tags.count("caption") > 2
    assert len(outline.ids) == len(set(outline.ids))
    assert outline.tags.count("svg") == page.count('role="img" aria-label="')
    assert page.index("Verdict") < page.index("Asked:")
    for name in PROBES:
        assert f'id="{name}"' in page


def test_text_is_escaped_in_the_page(audited, tmp_path):
    result = json.loads((audited / "audit.json").read_text())
    bad = '<script>alert("1")</script>'
    result["rule"] = result["data"]["source"] = result["models"][0]["source"] = result["verdict"] = bad
    result["probes"][0]["reason"] = result["probes"][1]["measures"][0]["name"] = bad
    write_page(tmp_path / "page.html", result)
    page = (tmp_path / "page.html").read_text()
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 6


def timeless(folder):
    """All files of a result, seconds and the keys of the probes left out."""
    return {
        path.relative_to(folder).as_posix(): without(json.loads(path.read_text()), "seconds") if path.suffix == ".json"
        else path.read_text() for path in folder.rglob("*.*") if path.suffix in (".json", ".csv")
    }  # fmt: skip


def test_a_model_that_frames_pictures_in_another_way_is_asked_anew(data, knowing_folder, tmp_path):
    shutil.copytree(knowing_folder, tmp_path / "squashing")
    path = tmp_path / "squashing" / "open_clip_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"preprocess_cfg": config["preprocess_cfg"] | {"resize_mode": "squash"}}))
    one, other = (
        open_case([folder] * 2, data, APPLE, "test", None, AuditSettings()) for folder in (knowing_folder, path.parent)
    )
    assert one.after.hash == other.after.hash
    assert description(one) != description(other)


def test_classes_in_another_order_in_another_split_are_the_same_classes(data, knowing_folder, tmp_path):
    for split in ("train", "validation", "test"):
        table = read_table(data, split)
        if split == "test":
            names = table.features["label"].names[::-1]
            labels = [len(names) - 1 - label for label in table["label"][:]]
            table = table.remove_columns("label").add_column("label", labels, feature=ClassLabel(names=names))
        write_split(table, tmp_path / "data", split)
    one, other = (
        open_case([knowing_folder] * 2, folder, APPLE, "test", None, AuditSettings())
        for folder in (data, tmp_path / "data")
    )
    assert one.test.pairs.class_names != other.test.pairs.class_names
    assert other.training.pairs.class_names == other.test.pairs.class_names
    (figure, *_), (same, *_) = (
        [m["after"]["value"] for m in measured(case, "linear-probe", create_probe("linear-probe", {}))["measures"]]
        for case in (one, other)
    )
    assert figure == pytest.approx(same, abs=1e-6)
    with pytest.raises(CliperaseError, match="class 'apple' is in one of two splits and not in the other; give all"):
        one.training.pairs.with_classes(["fig", *one.test.pairs.class_names[1:]])


def test_an_interrupted_audit_goes_on_to_the_same_result(
    data, knowing_folder, text_head_projected, tmp_path, monkeypatch
):
    text_head_projected.save(tmp_path / "forgotten")
    names = ["reference-gap", "encoder-swap", "linear-probe"]
    call = (data, knowing_folder, tmp_path / "forgotten")
    assert run(*call, tmp_path / "whole", "--probes", *names) == 0
    ran = []

    def counted(kind, interrupted=()):
        whole = kind.run

        def wrapper(self, case):
            ran.append(kind)
            if kind in interrupted:
                raise KeyboardInterrupt
            return whole(self, case)

        monkeypatch.setattr(kind, "run", wrapper)
        return whole

    kinds = [probe_class(name) for name in names]
    wholes = [counted(kind, interrupted=kinds[2:]) for kind in kinds]
    assert run(*call, tmp_path / "killed", "--probes", *names) == 130
    assert not (tmp_path / "killed" / "audit.json").exists()
    monkeypatch.setattr(kinds[2], "run", wholes[2])
    ran.clear()
    assert run(*call, tmp_path / "killed", "--probes", *names) == 0
    assert not ran  # the finished ones are taken as they are
    assert timeless(tmp_path / "killed") == timeless(tmp_path / "whole")
    assert run(data, knowing_folder, knowing_folder, tmp_path / "killed", "--probes", names[0], names[2]) == 0
    assert ran == kinds[:1]  # another model: measured again


BAD = {
    "an unknown probe": (["--probes", "x-ray"], "probe 'x-ray' unknown; choose one of reference-gap"),
    "a setting of a probe": (
        ["--set", "linear-probe.draws=0"],
        "probe linear-probe: draws is 0; give a number above 0",
    ),
    "bits that are no number of levels": (
        ["--set", "quantisation.bits=[1]"],
        "probe quantisation: bits.0 is 1; give at least 2",
    ),
    "a number of examples below zero": (
        ["--set", "linear-probe.shots=[1, -1]"],
        "probe linear-probe: shots.1 is -1; give at least 0",
    ),
    "an unknown setting": (["--set", "draws=1"], "audit has no setting 'draws'"),
    "a probe that does not run": (
        ["--set", "salmu.rivals=3", "--probes", "encoder-swap"],
        "'salmu.rivals' is of a probe that does not run",
    ),
    "a split that is not there": (["--split", "dev"], "split 'dev' cannot be read"),
    "a seed among the settings": (["--set", "seed=1"], "seed is not a setting; give --seed"),
    "too few images": (["--set", "images=5"], "audit: images is 5; give at least 10"),
    "another source that is not there": (["--other", "nowhere"], "cannot be read"),
    "two other sources of one name": (["--other", "a/x", "b/x"], "two other sources have one name among x, x"),
    "a reference that is not there": (["--reference", "nowhere"], "model 'nowhere' is neither a folder"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line(name, data, knowing_folder, tmp_path, capsys):
    more, said = BAD[name]
    assert run(data, knowing_folder, knowing_folder, tmp_path, *more) == 2
    error = capsys.readouterr().err.strip()
    assert said in error
    assert len(error.splitlines()) == 1


def test_thresholds_are_checked():
    with pytest.raises(CliperaseError, match=r"threshold 'x\.y' is of no probe"):
        read_thresholds({"x.y": {}})
    with pytest.raises(CliperaseError, match=r"threshold linear-probe\.a: auc is 2; give at most 1"):
        read_thresholds({"linear-probe.a": {"threshold": 1, "auc": 2, "source": "s"}})


def test_a_threshold_of_no_figure_is_told(caplog):
    limit = {"threshold": 1, "auc": 0.9, "source": "s"}
    known = read_thresholds(dict.fromkeys(("salmu.AssocStr", "salmu.AssocStrength", "membership.loss"), limit))
    results = [{"probe": "salmu", "measures": [{"name": "AssocStr"}]}, {"probe": "membership", "measures": []}]
    tell_unused(known, results)
    (told,) = caplog.messages  # nothing was measured of membership
    assert told.startswith("threshold salmu.AssocStrength is of no figure")


def test_every_probe_says_what_it_asks_and_what_it_does_not_show():
    for name in PROBES:
        kind = probe_class(name)
        assert issubclass(kind, Probe)
        assert kind.asked.endswith("?")
        assert all(text.endswith(".") for text in (kind.figures, kind.means, kind.limits))
        assert kind.source
        head = __import__(kind.__module__, fromlist=["_"]).__doc__
        assert "What it does not show:" in head


@pytest.mark.parametrize("name", PROBES)
def test_every_probe_and_its_settings_are_documented(name):
    page = (Path(__file__).parent.parent / "docs" / "audit.md").read_text()
    (line,) = [line for line in page.splitlines() if line.startswith(f"| `{name}` |")]
    settings = {f"`{key}={value!r}`" for key, value in vars(create_probe(name, {})).items()}
    assert settings == set(re.findall(r"`\w+=[^`]*`", line))
