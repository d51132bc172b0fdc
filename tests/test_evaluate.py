"""Evaluation against counting by hand."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cliperase.errors import CliperaseError
from cliperase.evaluate import forgetting_metrics, selection_score, zero_shot_accuracy


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 30), classes=st.integers(2, 9))
def test_zero_shot_accuracy_is_the_brute_force_count(seed, n, classes):
    generator = torch.Generator().manual_seed(seed)
    images = torch.nn.functional.normalize(torch.randn(n, 5, generator=generator), dim=1)
    prompts = torch.nn.functional.normalize(torch.randn(classes, 5, generator=generator), dim=1)
    labels = torch.randint(classes, (n,), generator=generator)
    hits = 0
    for image, label in zip(images, labels.tolist(), strict=True):
        cosines = [float((image * prompt).sum()) for prompt in prompts]
        hits += cosines.index(max(cosines)) == label
    assert zero_shot_accuracy(images, prompts, labels) == pytest.approx(100 * hits / n)


class Oracle(torch.nn.Module):
    """Embeds images by their brightest channel and the prompts as fixed directions."""

    def encode_image(self, images):
        return torch.nn.functional.one_hot(images.float().mean(dim=(2, 3)).argmax(dim=1), 4).float()

    def encode_text(self, texts):
        directions = {"apple": [1, 0, 0, 0], "lemon": [0.6, 0, 0, 0.8], "leaf": [0, 1, 0, 0], "plum": [0, 0, 1, 0]}
        return torch.tensor([directions[text.split()[-1]] for text in texts]).float()


def test_forgetting_metrics_by_hand(training):
    # apple is red, lemon is red and green (red is brighter), leaf green, plum blue:
    # apple 100 %; of the retain set lemon is taken for apple, leaf and plum are right: 2 of 3
    metrics = forgetting_metrics(Oracle(), training, training.labels == 0)
    assert metrics["forget_accuracy"] == 100
    assert metrics["retain_accuracy"] == pytest.approx(200 / 3)
    assert metrics["forget_cosine"] == pytest.approx(1.0)
    assert metrics["unrelated_cosine"] == pytest.approx(1 / 3)  # lemons stand at the apple prompt


def test_a_split_without_the_concept_has_only_retention(training):
    nothing = torch.zeros(len(training), dtype=torch.bool)
    assert set(forgetting_metrics(Oracle(), training, nothing)) == {"retain_accuracy"}


def test_no_images_is_an_error_not_a_nan():
    with pytest.raises(CliperaseError, match="no images"):
        zero_shot_accuracy(torch.zeros(0, 4), torch.eye(4), torch.zeros(0, dtype=torch.long))


def test_selection_score_is_the_harmonic_mean():
    assert selection_score({"forget_accuracy": 0.0, "retain_accuracy": 100.0}) == pytest.approx(100)
    assert selection_score({"forget_accuracy": 50.0, "retain_accuracy": 100.0}) == pytest.approx(200 / 3)
    assert selection_score({"forget_accuracy": 100.0, "retain_accuracy": 90.0}) == 0
