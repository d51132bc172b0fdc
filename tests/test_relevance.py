"""Relevance maps: known answers, both kinds of tower, and a model that is left as it was."""

import copy

import pytest
import torch
from conftest import TINY_VIT

from cliperase.errors import CliperaseError
from cliperase.models import load_model
from cliperase.models.openclip import create_model
from paper.relevance import (
    explainer,
    recorded_attention,
    recorded_features,
    relevance,
    relevance_map,
    rollout,
    self_attention,
    to_unit,
    weighted_rollout,
)

TEXTS = ["a photo of a apple", "a photo of a lemon", "a photo of a leaf"]


@pytest.fixture(scope="module")
def vit():
    return create_model(TINY_VIT, seed=0).eval()


@pytest.fixture(params=["compact", "vit"])
def tower(request, base_model, vit):
    return copy.deepcopy(base_model if request.param == "compact" else vit)


def noise(size=32, seed=0):
    return torch.randint(0, 256, (3, 3, size, size), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


@pytest.mark.parametrize("size", [32, 48])
def test_a_map_has_its_images_size_and_lies_between_0_and_1(tower, size):
    maps = relevance_map(tower, noise(size), TEXTS)
    assert maps.shape == (3, size, size)
    assert not maps.requires_grad
    assert maps.min() >= 0
    peaks = maps.amax(dim=(1, 2))
    assert (peaks > 0).any()
    assert all(peak in (0, pytest.approx(1)) for peak in peaks.tolist())


def test_a_second_call_and_smaller_batches_give_the_same(tower):
    first = relevance(tower, noise(), TEXTS)
    assert torch.equal(first, relevance(tower, noise(), TEXTS))
    assert torch.allclose(first, relevance(tower, noise(), TEXTS, batch_size=1), atol=1e-5)
    assert torch.allclose(first, relevance(tower, noise().float() / 255, TEXTS), atol=1e-5)


def traces(model):
    hooks = {name: (dict(m._forward_hooks), dict(m._forward_pre_hooks)) for name, m in model.named_modules()}
    attributes = {name: set(vars(m)) for name, m in model.named_modules()}
    modes = {name: m.training for name, m in model.named_modules()}
    return hooks, attributes, modes


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_stays_behind_on_the_model(tower, fails):
    tower.train()
    tower.model.visual.eval()  # a mixture of modes, as unlearning with frozen norm statistics has it
    tower.model.logit_scale.grad = torch.tensor(3.0)
    if fails:
        tower.model.visual.register_forward_hook(lambda module, inputs, output: output.no_such_attribute)
    weights, before = copy.deepcopy(tower.state_dict()), traces(tower)
    if fails:
        with pytest.raises(AttributeError):
            relevance(tower, noise(), TEXTS)
    else:
        relevance(tower, noise(), TEXTS)
    assert traces(tower) == before
    assert all(torch.equal(value, weights[key]) for key, value in tower.state_dict().items())
    gradients = {name: p.grad for name, p in tower.named_parameters() if p.grad is not None}
    assert gradients == {"model.logit_scale": torch.tensor(3.0)}


def test_frozen_weights_are_explained_alike(tower):
    free = relevance(tower, noise(), TEXTS)
    assert torch.allclose(free, relevance(tower.requires_grad_(False), noise(), TEXTS), atol=1e-6)


def test_grad_cam_finds_the_corner_where_the_feature_fires(model):
    """One channel per layer passes red on; image and text share the one direction that it feeds."""
    visual = model.model.visual
    with torch.no_grad():
        for block in visual.trunk.blocks:
            block[0].weight.zero_()
            block[0].weight[0, 0, 1, 1] = 1
        visual.head.proj.weight.zero_()
        visual.head.proj.weight[0, 0] = 1
    image = torch.zeros(1, 3, 32, 32)
    image[:, 0, 24:, 24:] = 1.0
    model.encode_text = lambda texts: torch.eye(128)[:1]
    (found,) = relevance_map(model, image, ["red"])
    row, column = divmod(int(found.argmax()), 32)
    assert row >= 24
    assert column >= 24
    assert found[:16].max() < 0.01
    assert found[:, :16].max() < 0.01
    model.encode_text = lambda texts: -torch.eye(128)[:1]  # the opposite text has no support anywhere
    assert relevance_map(model, image, ["not red"]).max() == 0


def test_contributions_sum_to_the_cosine(model):
    """At the maxima that the compact tower pools, gradient × activation adds up to the cosine."""
    from paper.relevance import cosine_gradients

    (features,), (gradients,) = cosine_gradients(model, noise(), TEXTS, recorded_features(model.image_trunk))
    expected = (model.encode_image(noise()) * model.encode_text(TEXTS)).sum(dim=1)
    assert torch.allclose((features * gradients).sum(dim=(1, 2, 3)), expected, atol=1e-5)


def test_rollout_by_hand():
    first = torch.tensor([[[0.5, 0.5], [0.0, 1.0]]])
    second = torch.tensor([[[0.0, 1.0], [1.0, 0.0]]])
    # (A + I) / 2: [[.75, .25], [0, 1]] and [[.5, .5], [.5, .5]]; second @ first
    assert torch.allclose(rollout([first, second]), torch.tensor([[[0.375, 0.625], [0.375, 0.625]]]))


def test_gradient_rollout_by_hand():
    """Two heads, one of them against the cosine: its negative product counts nothing. Then the second layer's turn."""
    first = torch.tensor([[[[0.5, 0.5], [0.0, 1.0]], [[1.0, 0.0], [1.0, 0.0]]]])
    towards = torch.tensor([[[[2.0, 4.0], [1.0, 0.0]], [[-1.0, 9.0], [-3.0, 9.0]]]])
    # relu(A * G), mean of heads: [[.5, 1], [0, 0]]; R1 = I + that = [[1.5, 1], [0, 1]]
    second = torch.tensor([[[[0.0, 1.0], [1.0, 0.0]]] * 2])
    ones = torch.ones_like(second)
    # A2 R1 = [[0, 1], [1.5, 1]]; R2 = R1 + A2 R1
    found = weighted_rollout([first, second], [towards, ones])
    assert torch.allclose(found, torch.tensor([[[1.5, 2.0], [1.5, 2.0]]]))
    other_way = weighted_rollout([second, first], [ones, towards])
    assert not torch.allclose(found, other_way)


def test_recorded_attention_is_the_towers_own_and_rollout_keeps_its_rows(vit):
    plain = vit.encode_image(noise())
    with torch.no_grad(), recorded_attention(vit.image_attention.layers) as attentions:
        assert torch.allclose(vit.encode_image(noise()), plain, atol=1e-5)
    assert [a.shape for a in attentions] == [(3, 1, 17, 17)] * 2
    rows = rollout([a.mean(dim=1) for a in attentions]).sum(dim=-1)
    assert torch.allclose(rows, torch.ones_like(rows))


def test_attention_written_out_equals_torch():
    torch.manual_seed(0)
    module, x = torch.nn.MultiheadAttention(12, 3, batch_first=True).eval(), torch.randn(2, 5, 12)
    result, weights = self_attention(module, x)
    expected, expected_weights = module(x, x, x, average_attn_weights=False)
    assert torch.allclose(result, expected, atol=1e-6)
    assert torch.allclose(weights, expected_weights, atol=1e-6)


def test_plain_rollout_ignores_the_text_and_gradients_do_not(vit):
    other = TEXTS[::-1]
    assert torch.equal(relevance(vit, noise(), TEXTS, "rollout"), relevance(vit, noise(), other, "rollout"))
    assert not torch.allclose(relevance(vit, noise(), TEXTS), relevance(vit, noise(), other))


def test_average_pooling_has_its_own_map(vit):
    pooled = copy.deepcopy(vit)
    pooled.model.visual.pool_type = "avg"
    assert relevance_map(pooled, noise(), TEXTS).max() == pytest.approx(1)


def test_scaling_to_another_models_peak():
    maps = torch.tensor([[[1.0, 2.0]], [[0.0, 0.0]]])
    assert to_unit(maps).tolist() == [[[0.5, 1.0]], [[0.0, 0.0]]]
    assert to_unit(maps, torch.tensor([4.0, 1.0])).tolist() == [[[0.25, 0.5]], [[0.0, 0.0]]]
    assert to_unit(maps, torch.tensor([1.0, 1.0])).max() == 1


def test_what_cannot_be_explained_is_named(base_model, vit, blip_folder):
    with pytest.raises(CliperaseError, match="3 images and 2 texts"):
        relevance_map(base_model, noise(), TEXTS[:2])
    with pytest.raises(CliperaseError, match="0 images"):
        relevance_map(base_model, noise()[:0], [])
    with pytest.raises(CliperaseError, match="'saliency' unknown"):
        relevance_map(vit, noise(), TEXTS, "saliency")
    with pytest.raises(CliperaseError, match="needs a ViT"):
        relevance_map(base_model, noise(), TEXTS, "rollout")
    with pytest.raises(CliperaseError, match="NoneType has no relevance map"):
        explainer(load_model(blip_folder / "matching"), "gradient")
    strange = copy.deepcopy(vit)
    strange.model.visual.attn_pool = torch.nn.Identity()
    with pytest.raises(CliperaseError, match="without attentional pooling"):
        relevance_map(strange, noise(), TEXTS)
