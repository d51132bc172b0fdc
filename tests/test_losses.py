"""Each loss against arithmetic done here by hand, in float64, and its gradient against finite differences."""

import math

import pytest
import torch
from conftest import cases
from hypothesis import given
from hypothesis import strategies as st

from cliperase.errors import CliperaseError
from cliperase.losses import consistency, forgetting, info_nce, kl_divergence, retention, sigmoid_loss


def unit(*rows):
    return torch.nn.functional.normalize(torch.tensor(rows, dtype=torch.float64), dim=1)


X = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
T = torch.tensor([[0.6, 0.8], [1.0, 0.0]], dtype=torch.float64)
DIFFERENT, SAME = torch.tensor([0, 1]), torch.tensor([5, 5])


def softmax(values):
    total = sum(math.exp(v) for v in values)
    return [math.exp(v) / total for v in values]


def random_features(seed, n, d):
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(n, d, generator=generator, dtype=torch.float64), dim=1)


def test_forgetting_is_the_mean_dot_product_of_true_pairs():
    # pairs: (1,0)·(0.6,0.8) = 0.6 and (0,1)·(1,0) = 0
    assert forgetting(X, T).item() == pytest.approx(0.3)
    assert forgetting(X, -X).item() == pytest.approx(-1.0)  # no stop at zero


def test_retention_diagonal_by_hand():
    # similarities image × text: [[0.6, 1.0], [0.8, 0.0]], scale 2
    logits = [[1.2, 2.0], [1.6, 0.0]]
    rows = [-math.log(softmax(logits[0])[0]), -math.log(softmax(logits[1])[1])]
    columns = [-math.log(softmax([1.2, 1.6])[0]), -math.log(softmax([2.0, 0.0])[1])]
    expected = (sum(rows) / 2 + sum(columns) / 2) / 2
    assert retention(X, T, 2.0, DIFFERENT, "diagonal").item() == pytest.approx(expected)


def test_retention_with_identical_texts_spreads_the_target():
    texts = unit([1, 1], [1, 1])
    # both texts are one text: each image's target is (1/2, 1/2) over two equal logits -> log 2 per row;
    # each text has the two images as positives, logits 2·cos = (√2, √2) -> log 2 too
    assert retention(X, texts, 2.0, SAME).item() == pytest.approx(math.log(2))


def test_the_two_targets_agree_when_no_text_repeats():
    a, b = random_features(0, 5, 4), random_features(1, 5, 4)
    ids = torch.arange(5)
    assert retention(a, b, 3.0, ids).item() == pytest.approx(retention(a, b, 3.0, ids, "diagonal").item())


def test_negatives_join_the_candidates_but_not_the_mean():
    one_image, one_text = X[:1], T[:1]
    negatives = (X[1:], T[1:], torch.tensor([1]))
    # image 0 against texts (0.6, 1.0); text 0 against images (0.6, 0.8); scale 1
    expected = (-math.log(softmax([0.6, 1.0])[0]) - math.log(softmax([0.6, 0.8])[0])) / 2
    loss = info_nce(one_image, one_text, 1.0, torch.tensor([0]), negatives=negatives)
    assert loss.item() == pytest.approx(expected)


def test_a_text_that_repeats_three_times_has_exact_thirds():
    """In float64 to its last digits: thirds that were rounded in float32 would show at 1e-8."""
    images, texts, ids = random_features(0, 4, 3), random_features(1, 4, 3), torch.tensor([0, 0, 0, 1])
    logits = [[sum(a * b for a, b in zip(x, t, strict=True)) for t in texts.tolist()] for x in images.tolist()]
    columns = list(zip(*logits, strict=True))

    def term(row, i):
        positive = [0, 1, 2] if i < 3 else [3]
        return -sum(math.log(softmax(row)[j]) for j in positive) / len(positive)

    expected = sum(term(table[i], i) for table in (logits, columns) for i in range(4)) / 8
    assert retention(images, texts, 1.0, ids).item() == pytest.approx(expected, rel=1e-13)


def test_consistency_over_similarities_by_hand():
    student_text = torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
    before = [[0.6, 1.0], [0.8, 0.0]]
    after = [[0.0, 1.0], [1.0, 0.0]]

    def kl(p_logits, q_logits):
        p, q = softmax(p_logits), softmax(q_logits)
        return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))

    rows = sum(kl(p, q) for p, q in zip(before, after, strict=True)) / 2
    columns = sum(kl(p, q) for p, q in zip(zip(*before, strict=True), zip(*after, strict=True), strict=True)) / 2
    assert consistency((X, T), (X, student_text), 1.0).item() == pytest.approx(rows + columns)


def test_consistency_over_embedding_dimensions_by_hand():
    p, q = softmax([1.0, 0.0]), softmax([0.0, 1.0])
    one_way = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    student = (X[[1, 0]], T)  # both images swapped, texts kept
    assert consistency((X, T), student, 9.0, "embedding").item() == pytest.approx(one_way)


@pytest.mark.parametrize("targets", ["identical-texts", "diagonal"])
def test_retention_gradient(targets):
    a, b = random_features(2, 4, 3).requires_grad_(), random_features(3, 4, 3).requires_grad_()
    ids = torch.tensor([0, 1, 0, 2])
    assert torch.autograd.gradcheck(lambda x, y: retention(x, y, 4.0, ids, targets), (a, b))


@pytest.mark.parametrize("reading", ["similarity", "embedding"])
def test_consistency_gradient(reading):
    original = (random_features(4, 4, 3), random_features(5, 4, 3))
    a, b = random_features(6, 4, 3).requires_grad_(), random_features(7, 4, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, y: consistency(original, (x, y), 4.0, reading), (a, b))


def test_forgetting_gradient():
    a, b = random_features(8, 4, 3).requires_grad_(), random_features(9, 4, 3).requires_grad_()
    assert torch.autograd.gradcheck(forgetting, (a, b))


@cases(30)
@given(seed=st.integers(0, 10**6), n=st.integers(2, 6), d=st.integers(2, 6), scale=st.floats(0.5, 20))
def test_properties_of_the_losses(seed, n, d, scale):
    a, b = random_features(seed, n, d), random_features(seed + 1, n, d)
    ids = torch.arange(n)
    shuffled = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    assert -1 - 1e-12 <= forgetting(a, b).item() <= 1 + 1e-12
    loss = retention(a, b, scale, ids)
    assert loss.item() >= 0
    assert retention(b, a, scale, ids).item() == pytest.approx(loss.item())  # symmetric in the modalities
    assert retention(a[shuffled], b[shuffled], scale, ids[shuffled]).item() == pytest.approx(loss.item())
    for reading in ("similarity", "embedding"):
        assert consistency((a, b), (a, b), scale, reading).item() == pytest.approx(0, abs=1e-10)
        assert consistency((a, b), (b, a), scale, reading).item() >= -1e-12


def log_sigmoid(value):
    return -math.log1p(math.exp(-value))


def test_the_sigmoid_loss_by_hand():
    # similarities image × text: [[0.6, 1.0], [0.8, 0.0]], scale 2, bias -1: logits [[0.2, 1.0], [0.6, -1.0]]
    apart = [log_sigmoid(0.2) + log_sigmoid(-1.0), log_sigmoid(-0.6) + log_sigmoid(-1.0)]
    assert sigmoid_loss(X, T, 2.0, -1.0, DIFFERENT).item() == pytest.approx(-sum(apart) / 2)
    assert sigmoid_loss(X, T, 2.0, -1.0, SAME, "diagonal").item() == pytest.approx(-sum(apart) / 2)
    together = [log_sigmoid(0.2) + log_sigmoid(1.0), log_sigmoid(0.6) + log_sigmoid(-1.0)]
    assert sigmoid_loss(X, T, 2.0, -1.0, SAME).item() == pytest.approx(-sum(together) / 2)


def test_retention_is_the_sigmoid_loss_where_there_is_a_bias():
    bias = torch.tensor(-1.0, dtype=torch.float64)
    expected = sigmoid_loss(X, T, 2.0, bias, SAME, "diagonal").item()
    assert retention(X, T, 2.0, SAME, "diagonal", bias).item() == pytest.approx(expected)
    assert retention(X, T, 2.0, SAME, "diagonal").item() != pytest.approx(expected)
    with pytest.raises(CliperaseError, match="'all' unknown"):
        retention(X, T, 2.0, SAME, "all", bias)


def test_the_sigmoid_losss_gradient():
    a, b = random_features(2, 4, 3).requires_grad_(), random_features(3, 4, 3).requires_grad_()
    bias, ids = torch.tensor(-2.0, dtype=torch.float64).requires_grad_(), torch.tensor([0, 1, 0, 2])
    assert torch.autograd.gradcheck(lambda x, y, z: sigmoid_loss(x, y, 4.0, z, ids), (a, b, bias))


def test_kl_divergence_is_asymmetric_and_uses_the_original_first():
    p, q = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 0.0]])
    a = softmax([2.0, 0.0])
    assert kl_divergence(p, q).item() == pytest.approx(sum(x * math.log(x / 0.5) for x in a), abs=1e-6)
    assert kl_divergence(q, p).item() == pytest.approx(sum(0.5 * math.log(0.5 / x) for x in a), abs=1e-6)


def test_unknown_options_are_named():
    with pytest.raises(CliperaseError, match="'cosine' unknown"):
        consistency((X, T), (X, T), 1.0, "cosine")
    with pytest.raises(CliperaseError, match="'all' unknown"):
        retention(X, T, 1.0, DIFFERENT, "all")
