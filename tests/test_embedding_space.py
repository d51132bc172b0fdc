"""The embedding space: its numbers by hand, its sample, and the command with files that repeat byte for byte."""

import hashlib

import numpy as np
import pytest
import torch
from conftest import write_profile

from cliperase.data.pairs import load_pairs
from cliperase.errors import CliperaseError
from cliperase.features import Features
from paper.__main__ import main
from paper.embedding_space import (
    heatmap_rows,
    heatmaps,
    neighbours_of_same_class,
    relevance_metrics,
    sample,
    space_metrics,
)
from paper.plans.embedding import Embedding
from paper.results import read_results, write_arrays

PLAN = {
    "concept": "apple",
    "images_per_class": 2,
    "forgotten_images": 3,
    "heatmaps": ["lemon", "leaf"],
    "images_per_heatmap": 2,
}


def directions(*degrees):
    angles = torch.deg2rad(torch.tensor(degrees, dtype=torch.float32))
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def test_numbers_of_two_classes_by_hand():
    labels = torch.tensor([0, 0, 1, 1])
    before = Features(directions(0, 10, 90, 100), directions(0, 90))
    after = Features(directions(60, 70, 90, 100), directions(180, 90))
    found = space_metrics(before, after, labels, forgotten=0)
    cosine = lambda *degrees: np.cos(np.deg2rad(degrees)).mean()  # noqa: E731
    expected = {
        "forget_cosine": cosine(120, 110),
        "retain_cosine": cosine(0, 10),
        "forget_image_self_cosine": cosine(60, 60),
        "retain_image_self_cosine": 1,
        "forget_text_self_cosine": -1,
        "retain_text_self_cosine": 1,
        "forget_purity": 100 / 3,  # of three neighbours, all there are, one is of the class
        "retain_purity": 100 / 3,
    }
    assert found == pytest.approx(expected, abs=1e-4)


def test_an_image_is_not_its_own_neighbour_and_chunks_change_nothing():
    features = torch.nn.functional.normalize(torch.randn(1500, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    labels = torch.arange(1500) // 2
    purity = neighbours_of_same_class(features, labels, neighbours=1)
    cosines = features @ features.T
    nearest = cosines.fill_diagonal_(-2).argmax(dim=1)
    assert torch.equal(purity, (labels[nearest] == labels).float())


def test_the_sample_has_so_many_of_each_class(data_folder):
    pairs = load_pairs(data_folder, "test")
    rows = sample(pairs.labels, forgotten=0, per_class=2, of_forgotten=3)
    assert pairs.labels[rows].bincount().tolist() == [3, 2, 2, 2]
    assert len(set(rows.tolist())) == 9


def test_heatmaps_share_the_scale_of_before(data_folder):
    pairs = load_pairs(data_folder, "test")
    rows = heatmap_rows(pairs, Embedding(name="embedding", **PLAN))
    assert [pairs.class_names[label] for label in pairs.labels[rows]] == ["apple"] * 2 + ["lemon"] * 2 + ["leaf"] * 2
    before = torch.full((6, 32, 32), 2.0)
    arrays = heatmaps(pairs, rows, [before, before / 4])
    assert arrays["heatmaps"].shape == (2, 6, 32, 32)
    assert (arrays["heatmaps"][0] == 255).all()
    assert (arrays["heatmaps"][1] == 64).all()
    assert arrays["heatmap_images"].shape == (6, 32, 32, 3)
    metrics = relevance_metrics(before, before / 4, torch.tensor([0, 0, 1, 1, 2, 2]), forgotten=0)
    assert metrics == {"forget_relevance": 25.0, "retain_relevance": 25.0}


def test_the_command_repeats_byte_for_byte(tmp_path, data_folder, model_folder):
    embedding = {**PLAN, "methods": {"CLIPErase": {"learning_rate": 1e-3}}}
    path = write_profile(tmp_path, experiments={"embedding": embedding})
    shared = ["--data", str(data_folder), "--model", str(model_folder), "--profile", str(path)]
    for run in ("first", "second"):
        output, table = tmp_path / run / "space.npz", tmp_path / run / "embedding.csv"
        assert main(["experiment", "embedding", *shared, "--arrays", str(output), "--output", str(table)]) == 0
    first, second = ((tmp_path / run / "space.npz").read_bytes() for run in ("first", "second"))
    assert hashlib.sha256(first).digest() == hashlib.sha256(second).digest()

    space = np.load(tmp_path / "first" / "space.npz")
    points = 3 + 3 * 2 + 4  # sampled images and class prompts
    assert space["tsne"].shape == space["umap"].shape == (2, points, 2)
    assert np.isfinite(space["tsne"]).all()
    assert np.isfinite(space["umap"]).all()
    assert space["is_text"].sum() == 4
    assert space["classes"][space["forgotten"]] == "apple"
    table = read_results(tmp_path / "first" / "embedding.csv")
    assert set(table.method) == {"original", "CLIPErase"}
    assert set(table.experiment) == {"embedding"}
    original = table[table.method == "original"].set_index("metric").value
    assert original["forget_image_self_cosine"] == pytest.approx(1)
    assert original["retain_relevance"] == pytest.approx(100)


def test_arrays_carry_no_date(tmp_path, monkeypatch):
    arrays = {"b": np.arange(3), "a": np.zeros(2)}
    write_arrays(arrays, tmp_path / "one.npz")
    monkeypatch.setattr("time.time", lambda: 2e9)
    write_arrays(dict(reversed(arrays.items())), tmp_path / "two.npz")
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()


def test_a_concept_that_is_no_class_is_named(data_folder):
    with pytest.raises(CliperaseError, match="'pear' is no class"):
        heatmap_rows(load_pairs(data_folder, "test"), Embedding(name="embedding", **{**PLAN, "heatmaps": ["pear"]}))
