"""Unseen: its targets are what the retain rows say of the forget rows, and its loss reaches zero there."""

import copy
import dataclasses

import pytest
import torch

from cliperase.data.pairs import load_pairs
from cliperase.data.rules import forget_mask
from cliperase.errors import CliperaseError
from cliperase.features import Features, LiveFeatures, Original
from cliperase.methods import create_method
from cliperase.methods.unseen import indifferent, mean_of_own, own_tokens, regressed, spread, tokens_of
from cliperase.metrics.encode import encode_texts
from cliperase.metrics.tasks import ZERO_SHOT
from cliperase.models import load_model
from cliperase.unlearning import Recipe, Run


@pytest.fixture
def sets(training):
    mask = forget_mask(training, {"concept": "leaf"})
    return training.select(mask), training.select(~mask)


@pytest.fixture
def original(model, sets):
    forget, retain = (Features.of(model, pairs) for pairs in sets)
    return Original(forget, retain, model.logit_scale.item())


def test_the_regression_is_ridge_on_standardised_features():
    generator = torch.Generator().manual_seed(0)
    known, wanted = torch.randn(20, 3, generator=generator), torch.randn(4, 3, generator=generator)
    embeddings = torch.randn(20, 5, generator=generator)
    mean, deviation = known.mean(dim=0), known.std(dim=0, correction=0)
    scaled = torch.cat([(known - mean) / deviation, torch.ones(20, 1)], dim=1).double()
    penalty = 20 * 0.1 * torch.diag(torch.tensor([1.0, 1, 1, 0], dtype=torch.double))  # the constant is not penalised
    weights = torch.linalg.solve(scaled.T @ scaled + penalty, scaled.T @ embeddings.double())
    expected = torch.cat([(wanted - mean) / deviation, torch.ones(4, 1)], dim=1).double() @ weights
    expected = torch.nn.functional.normalize(expected, dim=1).float()
    torch.testing.assert_close(regressed(known, embeddings, wanted, 0.1), expected, atol=1e-5, rtol=1e-4)


def test_a_token_that_only_the_forget_set_has_is_not_seen(model):
    known = ["a photo of a cat", "a photo of a plum", "a drawing of a cat"]
    seen, wanted = tokens_of(model, known, ["a photo of a zebra", "a photo of a cat"])
    assert torch.equal(wanted[1], seen[0])
    assert (wanted[0] <= seen[0]).all()
    assert 0 < wanted[0].sum() < seen[0].sum()  # the template is left


def test_the_name_becomes_what_all_names_have_in_common(model, sets, original):
    """Every class has the same prompts, so of a prompt without its name the mean over the others is left."""
    texts = [sets[1].texts[number] for number in sets[1].text_ids.unique()]
    others = [text for text in texts if text.startswith("a photo of")]
    known, wanted = tokens_of(model, texts, ["a photo of a leaf"])
    found = regressed(known, encode_texts(model, texts), wanted, 1e-6)[0]
    common = torch.nn.functional.normalize(encode_texts(model, others).mean(dim=0), dim=0)
    assert found @ common > max(0.95, encode_texts(model, ["a photo of a leaf"])[0] @ common)


def test_a_forgotten_text_fits_its_own_images_no_better_than_others(model, sets, original):
    forget, retain = sets
    assert len(retain) < create_method("unseen", {}).rows  # all are seen
    found = create_method("unseen", {"stretch": 0.0}).targets(model, forget, retain, original)
    own, others = found.forget.image.mean(dim=0), original.retain.image.mean(dim=0)
    for number in forget.text_ids.unique():
        text = found.forget.text[number]
        torch.testing.assert_close(text @ own, text @ others, atol=1e-5, rtol=0)


def test_means_are_over_the_images_of_each_text():
    images = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 3.0]])
    found = mean_of_own(images, torch.tensor([[0, 1], [1, 1], [2, 0]]), 3)
    torch.testing.assert_close(found, torch.tensor([[0.5, 1.5], [1 / 3, 2 / 3], [0.0, 3.0]]))
    text = torch.tensor([[1.0, 0.0]])
    assert torch.equal(indifferent(text, text, text[0]), text)  # nothing lies between the two


def test_targets_lie_beyond_the_regression(model, sets, original):
    near, far = (
        create_method("unseen", {"stretch": stretch}).targets(model, *sets, original).forget.image
        for stretch in (0.0, 1.0)
    )
    expected = torch.nn.functional.normalize(2 * near - original.forget.image, dim=1)
    torch.testing.assert_close(far, expected)


def test_texts_that_stay_and_the_retain_rows_are_left_alone(model, sets, original):
    found = create_method("unseen", {}).targets(model, *sets, original)
    kept = torch.ones(len(sets[0].texts), dtype=torch.bool)
    kept[sets[0].text_ids.unique()] = False
    assert torch.equal(found.forget.text[kept], original.forget.text[kept])
    assert found.retain is original.retain
    lengths = torch.cat([found.forget.image, found.forget.text]).norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones_like(lengths))


def test_an_image_of_the_retain_set_keeps_its_embedding(model, sets, original):
    """The regression has seen it: with as many features as images, and hardly a penalty, it is remembered."""
    few = sets[1].select(torch.arange(len(sets[1])) < 8)
    before = Features.of(model, few)
    found = create_method("unseen", {"penalty": 1e-9, "stretch": 0.0}).targets(
        model, few, few, Original(before, before, 1.0)
    )
    torch.testing.assert_close(found.forget.image, before.image, atol=1e-3, rtol=1e-3)


def test_rows_are_drawn_evenly():
    assert spread(5, 10).tolist() == [0, 1, 2, 3, 4]
    assert spread(100, 3).tolist() == [0, 49, 99]


def test_the_loop_trains_towards_the_targets(model, sets, original):
    recipe = Recipe.of("unseen", {"learning_rate": 3e-3, "steps": 30, "forget_batch": 8, "retain_batch": 16})
    towards = recipe.method.targets(model, *sets, original).forget
    student = copy.deepcopy(model)
    Run(student, recipe, *sets, progress=False).carry_out()
    before, after = (Features.of(one, sets[0]) for one in (model, student))
    used = sets[0].text_ids.unique()
    for name, rows in (("image", slice(None)), ("text", used)):
        distances = [(getattr(one, name)[rows] - getattr(towards, name)[rows]).norm() for one in (before, after)]
        assert distances[1] < 0.8 * distances[0], name


def test_tokens_that_only_the_forget_set_has_are_drawn_anew(model, sets):
    student, method = copy.deepcopy(model), create_method("unseen", {"new_tokens": True})
    own = own_tokens(model, *(pairs.texts_used() for pairs in reversed(sets)))
    assert len(own)
    method.start(student, *sets)
    before, after = (one.token_table.weight.detach() for one in (model, student))
    changed = (before != after).any(dim=1).nonzero()[:, 0]
    assert torch.equal(changed, own)
    lengths = before.norm(dim=1).median().expand(len(own))
    torch.testing.assert_close(after[own].norm(dim=1), lengths)
    method.start(again := copy.deepcopy(model), *sets)
    assert torch.equal(again.token_table.weight, student.token_table.weight)
    create_method("unseen", {}).start(untouched := copy.deepcopy(model), *sets)
    assert torch.equal(untouched.token_table.weight, model.token_table.weight)


def test_a_text_with_a_new_token_is_taught_what_the_model_says_by_now(model, sets):
    student, method = copy.deepcopy(model), create_method("unseen", {"new_tokens": True})
    method.start(student, *sets)
    numbers = sets[0].text_ids.clone()
    numbers[0] = stays = sets[1].text_ids[0]  # a text of the retain set: all its tokens stay
    forget = dataclasses.replace(sets[0], text_ids=numbers)
    texts = forget.texts_used()
    found = method.as_new(student, torch.zeros(len(texts), 128), forget, sets[1])
    kept = torch.tensor([text in [sets[1].texts[number] for number in stays] for text in texts])
    assert kept.any()
    assert not kept.all()
    assert not found[kept].any()  # the regression speaks
    torch.testing.assert_close(found[~kept], encode_texts(student, texts)[~kept])


def test_new_tokens_do_not_reach_what_the_score_is_held_against(model, sets, data_folder):
    validation = load_pairs(data_folder, "validation")
    recipe = Recipe.of("unseen", {"new_tokens": True, "steps": 1, "learning_rate": 1e-9, "retain_batch": 8})
    forgotten, student = validation.labels == 0, copy.deepcopy(model)
    history = Run(student, recipe, *sets, validation, forgotten, progress=False).carry_out()
    before, after = (ZERO_SHOT.measure(one, validation, forgotten) for one in (model, student))
    assert history.validation["score"] == pytest.approx(ZERO_SHOT.score(after, before))


def test_new_tokens_need_a_table(model, sets, monkeypatch):
    monkeypatch.setattr(type(model), "token_table", None)
    with pytest.raises(CliperaseError, match="shows no table of token embeddings; leave out new_tokens"):
        create_method("unseen", {"new_tokens": True}).start(model, *sets)
    create_method("unseen", {}).start(model, *sets)


def test_streamed_rows_are_refused(model, sets, original):
    streamed = Original(original.forget, LiveFeatures(model), 1.0)
    with pytest.raises(CliperaseError, match="unseen needs all retain rows in memory; give tables"):
        create_method("unseen", {}).targets(model, *sets, streamed)


def test_the_map_of_a_small_tower_is_that_of_its_convolutions(model, training):
    maps = [model.image_map(training.images[:2], depth) for depth in (0.01, 0.5, 1.0)]
    assert [tuple(one.shape[1:]) for one in maps] == [(16, 16, 16), (48, 8, 8), (192, 4, 4)]
    features = model.image_trunk.forward_features(model.pixels(training.images[:2]))
    assert torch.equal(maps[2], features)


def test_the_map_of_a_blip_is_a_square_of_patches(blip_folder, training):
    small = load_model(blip_folder / "matching")
    found = small.image_map(training.images[:2], 0.5)
    assert found.shape[0] == 2
    assert found.shape[2] == found.shape[3]
    states = small.look(training.images[:2])
    assert found.shape[1:].numel() == states[:, 1:].shape[1:].numel()
