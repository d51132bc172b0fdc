"""From a sentence or examples to a forget set: what is proposed, where the cut-off lies, and what is written."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from inputs import colours
from PIL import Image

from cliperase.api import propose
from cliperase.cli import main, parse, rule_of
from cliperase.data.pairs import load_pairs
from cliperase.data.rules import forget_mask
from cliperase.errors import CliperaseError
from cliperase.proposal import Proposal, cut_of, rule_lines, standardised, write_proposal

APPLES = 8


@pytest.fixture
def knowing(monkeypatch, data_folder):
    """A model that knows what it sees: embeddings are one-hot by class, a little blurred."""
    training = load_pairs(data_folder, "train")
    names, rng = training.class_names, np.random.default_rng(0)

    def vector(name):
        out = torch.from_numpy(0.05 * rng.normal(size=8)).float()
        out[names.index(name)] += 1
        return out / out.norm()

    def encode_texts(model, texts):
        return torch.stack([vector(next((n for n in names if n in text), names[-1])) for text in texts])

    def encode_images(model, images):
        colours = torch.stack(
            [training.images[training.labels == i].float().mean((0, 2, 3)) for i in range(len(names))]
        )
        nearest = torch.cdist(images.float().mean((2, 3)), colours).argmin(1)
        return torch.stack([vector(names[i]) for i in nearest.tolist()])

    for module in ("proposal", "features"):
        monkeypatch.setattr(f"cliperase.{module}.encode_texts", encode_texts)
        monkeypatch.setattr(f"cliperase.{module}.encode_images", encode_images)
    return training


def test_a_sentence_proposes_the_rows_that_show_it(knowing, data_folder, model_folder, tmp_path, capsys):
    call = ["propose", "--model", str(model_folder), "--data", str(data_folder), "--query", "an apple on a table"]
    assert main([*call, "--output", str(tmp_path)]) == 0
    assert f"{APPLES} rows score above" in capsys.readouterr().out
    call = ["unlearn", "--model", "m", "--data", "d", "--output", "o", "--rule", str(tmp_path / "rule.yaml")]
    mask = forget_mask(knowing, rule_of(parse(call)))
    assert torch.equal(mask, knowing.labels == knowing.class_names.index("apple"))
    page = (tmp_path / "proposal.html").read_text()
    assert page.count("<img") == len(knowing)
    assert "an apple on a table" in page
    assert "http" not in page.replace("http-equiv", "")


def test_examples_propose_the_rows_that_are_like_them(knowing, data_folder, model_folder, tmp_path):
    for row in (knowing.labels == 1).nonzero()[:3, 0].tolist():
        Image.fromarray(knowing.images[row].permute(1, 2, 0).numpy()).save(tmp_path / f"{row}.png")
    (tmp_path / "._1.png").write_bytes(b"what macOS leaves")
    found = propose(model_folder, data_folder, examples=str(tmp_path), output=tmp_path / "found")  # as [tmp_path]
    assert (tmp_path / "found" / "rule.yaml").read_text().startswith("# Proposed for 3 examples.")
    assert torch.equal(forget_mask(knowing, found["rule"]), knowing.labels == 1)
    assert min(found["scores"]) > found["cut"]
    assert found["scores"] == sorted(found["scores"], reverse=True)


def test_a_rule_that_was_edited_is_not_overwritten(training, tmp_path):
    found = Proposal(training, np.linspace(0, 1, len(training)), 0.5)
    for _ in range(2):
        write_proposal(tmp_path, found, "an apple")
    rule = tmp_path / "rule.yaml"
    edited = rule.read_text().rsplit("  - ", 1)[0]
    rule.write_text(edited)
    with pytest.raises(CliperaseError, match=r"rule\.yaml was edited, or is of another proposal; name another folder"):
        write_proposal(tmp_path, found, "an apple")
    assert rule.read_text() == edited


def test_the_cut_lies_between_two_groups_of_scores():
    rng = np.random.default_rng(0)
    scores = np.concatenate([rng.normal(0, 1, 970), rng.normal(12, 1, 30)])
    cut = cut_of(scores)
    assert (scores > cut).sum() == 30
    assert cut_of(10 * scores) == pytest.approx(10 * cut, rel=0.05)
    heaps = np.concatenate([rng.normal(0, 1, 700), rng.normal(4, 0.5, 270), rng.normal(9, 0.5, 30)])
    assert (heaps > cut_of(heaps)).sum() == 30  # what does not belong is not one heap
    with pytest.raises(CliperaseError, match="all rows have the same score; give another sentence"):
        cut_of(np.zeros(100))
    assert not standardised(torch.full((5,), 0.3)).any()


def test_a_picture_in_several_rows_has_one_line(training):
    twice = replace(training, row_hashes=[training.row_hashes[row // 2] for row in range(len(training))])
    lines = list(rule_lines(Proposal(twice, np.linspace(0, 1, len(training)), 0.5), "an apple"))[2:]
    named = [line.split('"')[1] for line in lines]
    assert len(set(named)) == len(named) == len(training) // 4
    assert lines[0].split("# ")[1].startswith("1.00 ")


def test_a_caption_cannot_break_the_rule_file(training):
    texts = ["two\nlines: [", *training.texts[1:]]
    rows = Proposal(training.with_texts(texts, training.text_ids[:, 0]), np.linspace(0, 1, len(training)), 0.5)
    lines = list(rule_lines(rows, "any\nthing"))
    assert all(line.startswith(("#", "rows:", '  - "')) for line in lines)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "give a sentence, or example pictures"),
        ({"query": "apple", "examples": ["nowhere.png"]}, "example nowhere.png cannot be read .*; name another"),
    ],
)
def test_what_cannot_be_looked_for_is_said(arguments, message, data_folder, model_folder):
    with pytest.raises(CliperaseError, match=message):
        propose(model_folder, data_folder, **arguments)


def test_data_and_examples_that_are_too_few_are_said(data_folder, model_folder, shards, tmp_path):
    few, empty, rows = colours(tmp_path / "few", (9, 9)), tmp_path / "empty", [(Image.new("RGB", (8, 8)), "a")]
    empty.mkdir()
    for data, more, message in (
        (shards, {}, "are streamed, .*; give fewer"),
        (few, {}, r"has \d training rows; a cut-off needs 20"),
        ({"train": rows, "validation": rows}, {}, "data 'in memory' has 1 training rows; a cut-off needs 20"),
        (data_folder, {"examples": [empty]}, "empty: no picture in this folder; name another"),
    ):
        with pytest.raises(CliperaseError, match=message):
            propose(model_folder, data, "apple", **more)


def test_a_rule_may_stand_in_a_file(tmp_path):
    (tmp_path / "rule.yaml").write_text(json.dumps({"classes": ["apple", "plum"]}))
    call = ["evaluate", "--model", "m", "--data", "d", "--rule", str(tmp_path / "rule.yaml")]
    assert rule_of(parse(call)) == {"classes": ["apple", "plum"]}
    with pytest.raises(CliperaseError, match=r"gone.yaml"):
        rule_of(parse([*call[:-1], str(tmp_path / "gone.yaml")]))
