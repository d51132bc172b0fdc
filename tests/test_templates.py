"""Classes asked with templates of the user's own."""

import json

import open_clip
import pytest
import torch
from conftest import CLASSES
from PIL import Image

from cliperase.api import evaluate
from cliperase.cli import main
from cliperase.errors import CliperaseError
from cliperase.metrics.tasks import class_embeddings
from cliperase.metrics.templates import read_templates
from cliperase.models import load_model


def test_an_ensemble_is_open_clips(model_folder):
    model, templates = load_model(model_folder), ["a photo of a {}", "{}", "a blurry picture of the {}."]
    theirs = open_clip.build_zero_shot_classifier(model.model, model.tokenizer.tokenizer, list(CLASSES), templates)
    torch.testing.assert_close(class_embeddings(model, list(CLASSES), templates), theirs.T, atol=1e-6, rtol=0)


def test_templates_come_from_a_file_a_name_or_a_list(tmp_path):
    (tmp_path / "templates.txt").write_text("a photo of a {c}\n\n{}, a drawing\n", encoding="utf-8-sig")
    assert read_templates(tmp_path / "templates.txt") == ("a photo of a {}", "{}, a drawing")
    assert read_templates(["{}"]) == ("{}",)
    assert [len(read_templates(name)) for name in ("simple", "openai")] == [7, 80]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "there is none"),
        ("a photo", "'a photo' must have one place"),
        ("{} and {}", "must have one place"),
        ("a {name}", "must have one place"),
        ("a {c} {0}", "must have one place"),
    ],
)
def test_odd_templates_are_one_line(text, message, tmp_path):
    (tmp_path / "templates.txt").write_text(text)
    with pytest.raises(CliperaseError, match=message):
        read_templates(tmp_path / "templates.txt")


def test_evaluate_asks_with_them(data_folder, model_folder, tmp_path, capsys):
    (tmp_path / "templates.txt").write_text("a photo of a {}")
    asked = ["evaluate", "--model", str(model_folder), "--data", str(data_folder), "--forget", "apple"]
    assert main([*asked, "--templates", str(tmp_path / "templates.txt")]) == 0
    usual = evaluate(model_folder, data_folder, {"concept": "apple"})
    assert json.loads(capsys.readouterr().out) == usual
    other = evaluate(model_folder, data_folder, {"concept": "apple"}, templates=["{}", "no {} at all"])
    assert other["forget_cosine"] != usual["forget_cosine"]
    assert main([*asked, "--templates", str(tmp_path / "none.txt")]) == 2
    assert "name a file with one a line, or simple or openai" in capsys.readouterr().err


def test_data_without_classes_have_no_templates(model_folder):
    rows = [(Image.new("RGB", (8, 8), (number, 0, 0)), f"picture {number}") for number in range(20)]
    with pytest.raises(CliperaseError, match="have no classes, so templates have no meaning"):
        evaluate(model_folder, {"test": rows}, templates=["{}"])
