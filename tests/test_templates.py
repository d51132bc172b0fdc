"""Classes asked with templates of the user's own."""

import json

import open_clip
import pytest
import torch
from conftest import CLASSES, square
from PIL import Image

from cliperase.api import AuditOptions, audit, evaluate, unlearn
from cliperase.audit.auditing import AuditSettings, open_case
from cliperase.cli import main
from cliperase.data.prompts import reworded
from cliperase.data.source import load_run
from cliperase.data.templates import USUAL, read_templates
from cliperase.errors import CliperaseError
from cliperase.files import read_json
from cliperase.metrics.tasks import class_embeddings
from cliperase.models import load_model
from cliperase.settings import TrainSettings


def test_an_ensemble_is_open_clips(model_folder):
    model, templates = load_model(model_folder), ["a photo of a {}", "{}", "a blurry picture of the {}."]
    theirs = open_clip.build_zero_shot_classifier(model.model, model.tokenizer.tokenizer, list(CLASSES), templates)
    torch.testing.assert_close(class_embeddings(model, list(CLASSES), templates), theirs.T, atol=1e-6, rtol=0)


def test_templates_come_from_a_file_a_name_or_a_list(tmp_path):
    (tmp_path / "templates.txt").write_text("a photo of a {c}\n\n{}, a drawing\n", encoding="utf-8-sig")
    assert read_templates(tmp_path / "templates.txt") == ("a photo of a {}", "{}, a drawing")
    assert read_templates(["{}"]) == ("{}",)
    assert read_templates(open_clip.SIMPLE_IMAGENET_TEMPLATES) == read_templates("simple")
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


DRAWN = ("a drawing of a {}", "{} in a box")
ONE_STEP = {"steps": 1, "learning_rate": 1e-6}


def texts_of(pairs, row):
    return [pairs.texts[i] for i in pairs.text_ids[row].tolist()]


@pytest.mark.parametrize("stream", [False, True])
def test_training_pairs_are_written_with_them(data_folder, stream):
    """The prompt gives way to the class in each template; captions of a row's own stay behind, and rules see them as
    before."""
    asked = (data_folder, {"caption_pattern": "photo of a apple"}, square(16), TrainSettings(stream=stream, lanes=1))
    validation, forgotten, training = load_run(*asked, DRAWN)
    assert texts_of(training.forget, 0) == ["a drawing of a apple", "apple in a box"]
    assert validation.templates == DRAWN
    assert forgotten.sum() == load_run(*asked)[1].sum()
    if stream:
        captions = {one for column in (0, 1) for one in training.retain.rows(0, column, None)[1]}
        assert training.retain.fingerprint() != load_run(*asked)[2].retain.fingerprint()
    else:
        captions = set(training.retain.texts_used(0)) | set(training.retain.texts_used(1))
    assert captions <= {template.format(name) for template in DRAWN for name in CLASSES}
    assert len(captions) > len(DRAWN)


def test_a_row_keeps_its_own_captions_behind_the_templates():
    captions = ["a photo of a cat", "my cat", "a drawing of a cat"]
    assert reworded(captions, "cat", DRAWN) == ["a drawing of a cat", "cat in a box", "my cat"]


def test_unlearn_is_selected_with_them_and_says_so(data_folder, model_folder, tmp_path):
    (tmp_path / "mine.txt").write_text("\n".join(DRAWN))
    asked = ["unlearn", "--model", str(model_folder), "--data", str(data_folder), "--forget", "apple", "--no-audit"]
    asked += ["--set", "steps=1", "learning_rate=1e-6", "--output", str(tmp_path / "result")]
    assert main([*asked, "--templates", str(tmp_path / "mine.txt")]) == 0
    report, manifest = (read_json(tmp_path / "result" / name) for name in ("report.json", "manifest.json"))
    measured = evaluate(model_folder, data_folder, {"concept": "apple"}, "validation", templates=DRAWN)
    assert report["validation_before"] == measured
    assert report["templates"] == manifest["templates"] == list(DRAWN)
    card = (tmp_path / "result" / "README.md").read_text()
    assert "--templates templates.txt" in card
    assert "\n".join(DRAWN) in card
    assert "templates" not in unlearn(model_folder, data_folder, {"concept": "apple"}, settings=ONE_STEP)


PROBED = ("reference-gap", "encoder-swap", "other-words", "image-attack", "text-attack", "salmu")
QUICK = {"image-attack.steps": 1, "text-attack.iterations": 1, "other-words.typos": 1}


def test_an_audit_reads_the_rule_on_captions_as_the_data_have_them(data_folder, model_folder):
    rule, asked = {"caption_pattern": "photo of a apple"}, (AuditSettings(),)
    case, usual = (
        open_case([model_folder] * 2, data_folder, rule, "test", None, *asked, templates=one) for one in (DRAWN, USUAL)
    )
    for found, known in (
        (case.test, usual.test),
        (case.training, usual.training),
        *zip(case.others.values(), usual.others.values(), strict=True),
    ):
        assert found.forgotten.any()
        assert found.forgotten.tolist() == known.forgotten.tolist()


def test_probes_ask_with_them(data_folder, model_folder, tmp_path):
    """The figures that are zero-shot accuracies are those of `evaluate`, and an invented word stands in each template,
    too."""
    rule = {"concept": "apple"}

    def audited(templates, probes=PROBED):
        settings = {name: value for name, value in QUICK.items() if name.partition(".")[0] in probes}
        options = AuditOptions(probes=probes, settings=settings, templates=templates)
        result = audit(model_folder, model_folder, data_folder, rule, options=options, output=tmp_path / "audit")
        measures = {(p["probe"], m["name"]): m for p in result["probes"] for m in p["measures"]}
        assert not [one["reason"] for one in result["probes"] if one["reason"]]
        return result, measures

    result, found = audited(DRAWN)
    measured = evaluate(model_folder, data_folder, rule, templates=DRAWN)
    for probe, name, metric in (
        ("reference-gap", "forget_cosine", "forget_cosine"), ("reference-gap", "retain_accuracy", "retain_accuracy"),
        ("encoder-swap", "forget_accuracy_text_tower", "forget_accuracy"), ("salmu", "IntraIdSim", "forget_cosine"),
    ):  # fmt: skip
        assert found[probe, name]["after"]["value"] == pytest.approx(measured[metric], abs=1e-5), (probe, name)
    assert result["data"]["templates"] == list(DRAWN)
    assert "{} in a box" in (tmp_path / "audit" / "page.html").read_text()
    usual, before = audited(None, ("reference-gap",))
    assert "templates" not in usual["data"]
    cosines = [one["reference-gap", "forget_cosine"]["never"] for one in (found, before)]
    assert cosines[0] != cosines[1]
