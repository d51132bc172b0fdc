"""Evaluation against counting by hand."""

from dataclasses import replace

import pytest
import torch
from conftest import cases
from hypothesis import given
from hypothesis import strategies as st

from cliperase.errors import CliperaseError
from cliperase.metrics import scores as evaluate
from cliperase.metrics.scores import draw_rivals, matching_accuracy, retrieval_recall, zero_shot_accuracy
from cliperase.metrics.tasks import ZERO_SHOT, zero_shot_metrics
from cliperase.models.base import ImageTextModel


@cases(40)
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

    token_rows = ImageTextModel.token_rows  # equal strings are one text

    def encode_image(self, images):
        return torch.nn.functional.one_hot(images.float().mean(dim=(2, 3)).argmax(dim=1), 4).float()

    def encode_text(self, texts):
        directions = {"apple": [1, 0, 0, 0], "lemon": [0.6, 0, 0, 0.8], "leaf": [0, 1, 0, 0], "plum": [0, 0, 1, 0]}
        return torch.tensor([directions[text.split()[-1]] for text in texts]).float()


def test_zero_shot_metrics_by_hand(training):
    # apple is red, lemon is red and green (red is brighter), leaf green, plum blue:
    # apple 100 %; of the retain set lemon is taken for apple, leaf and plum are right: 2 of 3
    metrics = zero_shot_metrics(Oracle(), training, training.labels == 0)
    assert metrics["forget_accuracy"] == 100
    assert metrics["retain_accuracy"] == pytest.approx(200 / 3)
    assert metrics["forget_cosine"] == pytest.approx(1.0)
    assert metrics["unrelated_cosine"] == pytest.approx(1 / 3)  # lemons stand at the apple prompt


def test_a_split_without_the_concept_has_only_retention(training):
    nothing = torch.zeros(len(training), dtype=torch.bool)
    assert set(zero_shot_metrics(Oracle(), training, nothing)) == {"retain_accuracy"}


def test_no_images_is_an_error_not_a_nan():
    with pytest.raises(CliperaseError, match="no images"):
        zero_shot_accuracy(torch.zeros(0, 4), torch.eye(4), torch.zeros(0, dtype=torch.long))


def test_a_tie_in_zero_shot_is_a_miss():
    prompts = torch.eye(3)[[0, 0, 1]]  # two classes with equal features
    images = torch.eye(3)[[0, 0, 1, 2]]
    assert zero_shot_accuracy(images, prompts, torch.tensor([0, 1, 2, 0])) == 25  # only the third is told apart
    assert zero_shot_accuracy(torch.ones(2, 3), torch.ones(3, 3), torch.tensor([0, 2])) == 0
    with pytest.raises(CliperaseError, match="embedding of image 0 is not finite"):
        zero_shot_accuracy(torch.full((2, 3), torch.nan), prompts, torch.tensor([0, 2]))


@pytest.mark.parametrize(
    ("forget", "retain", "score"),
    [
        (0.0, 60.0, 100.0),  # nothing is found of the forget set, all of the rest
        (0.0, 64.0, 100.0),  # a rise is no gap
        (10.0, 60.0, 95.0),
        (0.0, 50.0, 95.0),
        (30.0, 60.0, 85.0),  # a method that does nothing
        (0.0, 0.0, 70.0),  # one that destroys everything
    ],
)
def test_the_selection_score_is_the_average_gap_to_the_best_there_can_be(forget, retain, score):
    before = {"forget_accuracy": 30.0, "retain_accuracy": 60.0}
    assert ZERO_SHOT.score({"forget_accuracy": forget, "retain_accuracy": retain}, before) == pytest.approx(score)


def test_the_selection_score_without_forget_rows_is_what_is_kept():
    assert ZERO_SHOT.score({"retain_accuracy": 50.0}, {"retain_accuracy": 60.0}) == 90.0


def unit_vectors(rows, generator, width=6):
    return torch.nn.functional.normalize(torch.randn(rows, width, generator=generator, dtype=torch.double), dim=1)


def random_pairs(seed, n, texts):
    """Features of n images and their texts, some texts shared, at least two different; about half are queries."""
    generator = torch.Generator().manual_seed(seed)
    text_ids = torch.randint(texts, (n,), generator=generator)
    text_ids[:2] = torch.tensor([0, 1])
    queries = torch.rand(n, generator=generator) < 0.5
    queries[0] = True
    return unit_vectors(n, generator), unit_vectors(texts, generator)[text_ids], text_ids, queries


@cases(40)
@given(seed=st.integers(0, 10**6), n=st.integers(2, 25), texts=st.integers(2, 12))
def test_matching_against_all_is_the_brute_force_count(seed, n, texts):
    images, text_features, text_ids, queries = random_pairs(seed, n, texts)
    hits = {"image_to_text": 0, "text_to_image": 0}
    for row in queries.nonzero()[:, 0].tolist():
        by_image = [float(images[row] @ text) for text in text_features]
        by_text = [float(text_features[row] @ image) for image in images]
        hits["image_to_text"] += bool(text_ids[by_image.index(max(by_image))] == text_ids[row])
        hits["text_to_image"] += bool(text_ids[by_text.index(max(by_text))] == text_ids[row])
    expected = {way: pytest.approx(100 * count / int(queries.sum())) for way, count in hits.items()}
    assert matching_accuracy(images, text_features, text_ids, queries) == expected


@cases(40)
@given(seed=st.integers(0, 10**6), n=st.integers(8, 25), k=st.integers(2, 4))
def test_k_way_matching_is_the_brute_force_count_over_its_rivals(seed, n, k):
    images, text_features, _, queries = random_pairs(seed, n, 12)
    text_ids = torch.arange(n) // 2  # each text twice
    hits = {"image_to_text": 0, "text_to_image": 0}
    for row in queries.nonzero()[:, 0].tolist():
        rivals = draw_rivals(text_ids, row, k - 1, seed).tolist()
        assert len(set(rivals)) == k - 1
        assert all(text_ids[rival] != text_ids[row] for rival in rivals)
        own = float(images[row] @ text_features[row])
        hits["image_to_text"] += all(own > float(images[row] @ text_features[rival]) + 1e-12 for rival in rivals)
        hits["text_to_image"] += all(own > float(text_features[row] @ images[rival]) + 1e-12 for rival in rivals)
    got = matching_accuracy(images, text_features, text_ids, queries, k=k, seed=seed)
    assert got == {way: pytest.approx(100 * count / int(queries.sum())) for way, count in hits.items()}


def test_matching_by_chance_is_one_in_k():
    images, text_features, text_ids, _ = random_pairs(0, 1500, 400)
    everything = torch.ones(1500, dtype=torch.bool)
    for accuracy in matching_accuracy(images, text_features, text_ids, everything, k=10).values():
        assert accuracy == pytest.approx(10, abs=4)


def test_rivals_hang_on_the_row_and_the_seed_alone():
    text_ids = torch.arange(40)
    assert draw_rivals(text_ids, 3, 9, 0).tolist() == draw_rivals(text_ids, 3, 9, 0).tolist()
    assert draw_rivals(text_ids, 3, 9, 0).tolist() != draw_rivals(text_ids, 3, 9, 1).tolist()
    assert draw_rivals(text_ids, 3, 9, 0).tolist() != draw_rivals(text_ids, 4, 9, 0).tolist()


@pytest.mark.parametrize("k", [None, 3])
def test_a_collapsed_model_matches_nothing(k):
    everything, text_ids, features = torch.ones(4, dtype=torch.bool), torch.arange(4), torch.ones(4, 2)
    matched = matching_accuracy(features, features, text_ids, everything, k=k)
    assert matched == {"image_to_text": 0, "text_to_image": 0}
    assert set(retrieval_recall(features, features, text_ids, everything, ks=(1, 3)).values()) == {0}


def test_matching_names_what_is_missing():
    features, everything = torch.eye(4), torch.ones(4, dtype=torch.bool)
    with pytest.raises(CliperaseError, match="all 4 rows have one text; give a pool"):
        matching_accuracy(features, features, torch.zeros(4), everything)
    with pytest.raises(CliperaseError, match=r"k=4 .* of the 4 rows of the split 2 have one; give more texts"):
        matching_accuracy(features, features, torch.tensor([0, 0, 1, 1]), everything, k=4)
    with pytest.raises(CliperaseError, match=r"k=1 .* at least one"):
        matching_accuracy(features, features, torch.arange(4), everything, k=1)
    with pytest.raises(CliperaseError, match="none of 4 rows is a query; mark at least one"):
        matching_accuracy(features, features, torch.arange(4), ~everything)


def random_captions(seed, n, captions):
    """Features of n images and of their captions, the number of which differs by image, in random order."""
    generator = torch.Generator().manual_seed(seed)
    extra = torch.randint(n, (captions,), generator=generator)
    owner = torch.cat([torch.arange(n), extra])[torch.randperm(n + captions, generator=generator)]
    queries = torch.rand(n, generator=generator) < 0.5
    queries[0] = True
    return unit_vectors(n, generator), unit_vectors(len(owner), generator), owner, queries


def found_in_topk(scores, positive, k):
    """(Q,) whether the recall among the first k is above 0, for scores and positive (Q, C).

    Restates `recall_at_k` of LAION-AI/CLIP_benchmark (`clip_benchmark/metrics/zeroshot_retrieval.py`), and the `> 0`
    by which `evaluate` there makes it the recall@k of papers on CLIP: 1 where any of a query's own is found.
    """
    top = scores.topk(k, dim=1).indices
    found = torch.nn.functional.one_hot(top, scores.shape[1]).sum(dim=1) * positive
    return (found.sum(dim=1) / positive.sum(dim=1)) > 0


@cases(40)
@given(seed=st.integers(0, 10**6), n=st.integers(5, 25), captions=st.integers(0, 60))
def test_retrieval_recall_is_clip_benchmarks(seed, n, captions):
    images, texts, owner, queries = random_captions(seed, n, captions)
    scores = texts @ images.T
    positive = torch.nn.functional.one_hot(owner, n)
    expected = {}
    for k in (1, 3, 5):
        by_text, by_image = found_in_topk(scores, positive, k), found_in_topk(scores.T, positive.T, k)
        expected[f"image_retrieval_r@{k}"] = pytest.approx(100 * by_text[queries[owner]].double().mean().item())
        expected[f"text_retrieval_r@{k}"] = pytest.approx(100 * by_image[queries].double().mean().item())
    assert retrieval_recall(images, texts, owner, queries, ks=(1, 3, 5)) == expected


@cases(20)
@given(seed=st.integers(0, 10**6))
def test_retrieval_recall_is_the_brute_force_count(seed):
    images, texts, owner, queries = random_captions(seed, 9, 20)
    counts = {"image": [], "text": []}
    for row in queries.nonzero()[:, 0].tolist():
        ranking = sorted(range(len(texts)), key=lambda caption: -float(images[row] @ texts[caption]))
        counts["text"].append(any(owner[caption] == row for caption in ranking[:2]))
    for caption in range(len(texts)):
        if queries[owner[caption]]:
            ranking = sorted(range(len(images)), key=lambda row: -float(texts[caption] @ images[row]))
            counts["image"].append(bool(owner[caption] in ranking[:2]))
    expected = {f"{way}_retrieval_r@2": pytest.approx(100 * sum(c) / len(c)) for way, c in counts.items()}
    assert retrieval_recall(images, texts, owner, queries, ks=(2,)) == expected


def test_chunks_change_nothing(monkeypatch):
    images, texts, owner, queries = random_captions(1, 23, 40)
    whole = retrieval_recall(images, texts, owner, queries)
    pairs = random_pairs(1, 23, 9)
    matched = [matching_accuracy(*pairs, k=k) for k in (None, 4)]
    for limit, value in (("CHUNK", 5), ("MOST_SCORES", 50)):
        monkeypatch.setattr(evaluate, limit, value)
        assert retrieval_recall(images, texts, owner, queries) == whole
        assert [matching_accuracy(*pairs, k=k) for k in (None, 4)] == matched


def test_retrieval_names_what_is_missing():
    features, owner = torch.eye(3), torch.tensor([0, 0, 1])
    with pytest.raises(CliperaseError, match="image row 2 has no caption; leave it out"):
        retrieval_recall(features, features, owner, torch.ones(3, dtype=torch.bool))
    with pytest.raises(CliperaseError, match="none of 3 rows is a query"):
        retrieval_recall(features, features, owner, torch.zeros(3, dtype=torch.bool))


def test_rows_without_labels_have_no_class_numbers(training):
    with pytest.raises(CliperaseError, match="these rows have no labels; give data with classes"):
        _ = replace(training, labels=None).class_numbers
