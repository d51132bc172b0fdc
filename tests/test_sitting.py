"""From a model and a folder to a result with its evidence: defaults, dry run, audit, model card, comparison."""

import json
import re
import shlex
import shutil
from types import MappingProxyType, SimpleNamespace

import numpy as np
import pytest
from conftest import ROWS
from datasets import Dataset
from huggingface_hub import ModelCard
from PIL import Image

from cliperase.api import compare, preview, unlearn
from cliperase.card import command_of, hub_name, license_of, write_card
from cliperase.cli import main, override, parse, rule_of
from cliperase.data import shards as data_shards
from cliperase.data import source as data_source
from cliperase.data.pairs import write_split
from cliperase.data.source import measured_split
from cliperase.data.tables import read_table
from cliperase.defaults import TABLE, completed
from cliperase.errors import CliperaseError
from cliperase.files import write_json
from cliperase.manifest import check_result
from cliperase.models import load_model
from cliperase.models.openclip import OpenCLIP
from cliperase.preview import sentences
from cliperase.settings import read_params
from cliperase.unlearning import Recipe

APPLE = {"concept": "apple"}
SHORT = {"steps": 2, "evaluate_every": 1, "forget_batch": 4, "retain_batch": 8}
OUTSIDE = re.compile(r"(?:src|href)=\"(?!data:|#)|url\(|<script", re.IGNORECASE)


@pytest.fixture(scope="module")
def forgotten(data_folder, model_folder, tmp_path_factory):
    """A result of `cliperase unlearn` without a learning rate, and all that the command leaves beside it."""
    output = tmp_path_factory.mktemp("sitting") / "forgotten"
    settings = [f"{name}={value}" for name, value in SHORT.items()]
    call = ["unlearn", "--model", str(model_folder), "--data", str(data_folder), "--forget", "apple"]
    assert main([*call, "--set", *settings, "--output", str(output)]) == 0
    return output


def test_settings_that_nobody_gave_are_defaults_and_said(forgotten, model_folder):
    report = json.loads((forgotten / "report.json").read_text())
    weights = sum(p.numel() for p in load_model(model_folder).parameters())
    known, source = completed("CLIPErase", SHORT, weights)
    assert report["settings"] == {**known, "seed": 0}
    assert report["settings"]["steps"] == 2
    assert not {"epochs", "evaluations"} & set(report["settings"])  # `evaluations` would overrule what was given
    assert [entry["step"] for entry in report["log"]] == [1, 2]
    assert report["defaults"] == source


def test_defaults_go_from_the_smallest_models_to_any():
    lines = read_params(TABLE)["defaults"]
    sizes = [one["weights"] for one in lines]
    assert sizes == sorted(sizes)
    assert completed("CLIPErase", {}, 10**12)[1] == lines[-1]["source"]
    assert "not searched" in lines[-1]["source"]
    for one in lines:
        for method, settings in one["methods"].items():
            Recipe.of(method, {**one["loop"], **settings})
    assert completed("unseen", {}, 10)[1] == lines[0]["source"]
    assert completed("unseen", {}, 10**12) == ({}, None)
    assert completed("GA", {}, 10) == ({}, None)
    assert completed("CLIPErase", {"learning_rate": 1.0}, 10) == ({"learning_rate": 1.0}, None)


def test_the_result_has_its_audit_and_its_card(forgotten, data_folder, model_folder):
    audited = json.loads((forgotten / "audit" / "audit.json").read_text())
    assert audited["data"]["split"] == "test"
    card = ModelCard.load(forgotten / "README.md")
    assert card.data.tags == ["machine-unlearning", "clip", "cliperase"]
    assert card.data.library_name == "open_clip"
    for said in (audited["verdict"], audited["models"][1]["sha256"], '{"concept": "apple"}', "searched on"):
        assert said in card.text
    check_result(forgotten)
    report = json.loads((forgotten / "report.json").read_text())
    again = parse(shlex.split(command_of(report))[1:])
    assert (again.model, again.data, rule_of(again)) == (str(model_folder), str(data_folder), APPLE)
    assert override({}, again.set) | {"seed": again.seed} == report["settings"]
    (forgotten / "README.md").write_text("edited")
    check_result(forgotten)
    write_card(forgotten)
    assert audited["verdict"] in ModelCard.load(forgotten / "README.md").text


def test_a_card_quotes_no_audit_of_the_model_that_was_there_before(forgotten, data_folder, model_folder, tmp_path):
    output = tmp_path / "out"
    shutil.copytree(forgotten, output)
    unlearn(model_folder, data_folder, {"concept": "lemon"}, settings=SHORT, output=output)
    assert "Not audited" in ModelCard.load(output / "README.md").text
    (output / "audit" / "audit.json").write_text("[]")
    write_card(output)
    assert "Not audited" in ModelCard.load(output / "README.md").text


def test_a_card_takes_the_hash_of_who_has_it(tmp_path):
    """The audit has read the model, so the card does not: here is none that could be read."""
    report = {
        "model": "none", "data": "none", "method": "GA", "rule": APPLE, "rows": {"forget": 1, "retain": 2},
        "settings": {"seed": 0}, "defaults": None, "validation_before": {}, "validation_after": {}, "seconds": 1.0,
    }  # fmt: skip
    audited = {
        "verdict": "No trace.", "reasons": [],
        "models": [{"is": "original", "sha256": "a"}, {"is": "unlearned", "sha256": "b"}],
        "data": {"rows": report["rows"], "split": "test", "sha256": "c", "training_sha256": None},
    }  # fmt: skip
    write_json(tmp_path / "report.json", report)
    write_json(tmp_path / "audit" / "audit.json", audited)
    write_card(tmp_path, "b")
    assert "No trace." in ModelCard.load(tmp_path / "README.md").text
    write_card(tmp_path, "another")
    assert "Not audited" in ModelCard.load(tmp_path / "README.md").text


def test_the_licence_is_the_originals_or_unknown(forgotten, tmp_path):
    assert ModelCard.load(forgotten / "README.md").data.license is None
    original, result = tmp_path / "original", tmp_path / "result"
    original.mkdir(), result.mkdir()
    (original / "README.md").write_text("---\nlicense: apache-2.0\n---\nA model.")
    report = json.loads((forgotten / "report.json").read_text()) | {"model": str(original)}
    (result / "report.json").write_text(json.dumps(report))
    write_card(result)
    card = ModelCard.load(result / "README.md")
    assert card.data.license == "apache-2.0"
    assert "Not audited" in card.text
    assert card.data.base_model is None  # a folder of this machine is no name on the hub


BROKEN_CARDS = {
    "front matter": b"---\nlicense: [mit\n---\nA model.",
    "a list": b"---\n- license: mit\n---\nA model.",
    "no front matter": b"A model.",
    "not UTF-8": b"---\nlicense: mit\n---\nUn mod\xe8le.",
}


@pytest.mark.parametrize("case", BROKEN_CARDS)
def test_a_card_that_cannot_be_read_names_no_licence(case, tmp_path):
    (tmp_path / "README.md").write_bytes(BROKEN_CARDS[case])
    assert license_of(tmp_path) is None


def test_a_model_index_is_not_needed_for_the_licence(tmp_path):
    (tmp_path / "README.md").write_text("---\nlicense: mit\nmodel-index:\n- name: 1\n  results: broken\n---\nA model.")
    assert license_of(tmp_path) == "mit"
    assert license_of(tmp_path / "gone") is None


def test_the_base_model_is_a_name_on_the_hub_or_none(tmp_path):
    assert {name: hub_name(name) for name in HUB_NAMES} == HUB_NAMES
    assert hub_name(str(tmp_path / "gone" / "model")) is None


HUB_NAMES = {
    "ViT-B-32/openai": "timm/vit_base_patch32_clip_224.openai",
    "ViT-B-32/weights.pt": None,
    "hf-hub:laion/CLIP-ViT-B-32-laion2B-s34B-b79K": "laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
    "blip:Salesforce/blip-itm-base-coco": "Salesforce/blip-itm-base-coco",
    "pipeline:org/stable@ViT-L-14/openai": "org/stable",
    "forgotten": None,
}


def test_a_callback_gets_what_the_log_says_and_a_log_file_a_line_for_each(data_folder, model_folder, capsys):
    seen = []
    report = unlearn(model_folder, data_folder, APPLE, settings=SHORT, callback=seen.append)
    assert seen == report["log"]
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("step ")]
    assert len(lines) == len(seen)
    assert re.fullmatch(rf"step {seen[-1]['step']} of \d+, 0 s left: RM .*, FM .*, CM .*, score .*", lines[-1])


def test_a_result_that_cannot_be_audited_stays(data_folder, model_folder, tmp_path, capsys, caplog, training):
    rule = json.dumps({"rows": training.row_hashes[:4]})  # no row of any other split
    call = ["unlearn", "--model", str(model_folder), "--data", str(data_folder), "--rule", rule]
    settings = [f"{name}={value}" for name, value in SHORT.items()]
    assert main([*call, "--set", *settings, "--output", str(tmp_path / "out")]) == 0
    assert "the result is not audited: no row of the split is to be forgotten" in caplog.text
    assert "Not audited" in (tmp_path / "out" / "README.md").read_text()
    check_result(tmp_path / "out")


def test_the_limit_on_broken_rows_is_that_of_the_whole_sitting(data_folder, model_folder, tmp_path, capsys, caplog):
    for split in ("train", "validation", "test"):
        table = read_table(data_folder, split)
        blank = {"image": table[0]["image"], "captions": [" "], "label": 0, "source": ""}
        write_split(Dataset.from_list([*table, blank], features=table.features), tmp_path / "data", split)
    said, out = ["--data", str(tmp_path / "data")], tmp_path / "out"
    call = ["unlearn", "--model", str(model_folder), *said, "--forget", "apple", "--output", str(out)]
    call += ["--set", *(f"{name}={value}" for name, value in SHORT.items())]
    assert main(call) == 2
    assert "broken_percent=1" in capsys.readouterr().err
    assert main([*call, "broken_percent=10"]) == 0
    assert "not audited" not in caplog.text
    assert json.loads((out / "audit" / "audit.json").read_text())["settings"]["broken_percent"] == 10
    for call in (
        ["evaluate", "--model", str(out)],
        ["compare", str(model_folder), str(out), "--output", str(tmp_path / "compared")],
        ["propose", "--model", str(out), "--query", "apple", "--output", str(tmp_path / "rule")],
    ):
        for limit, message in (("1", "are broken"), ("nan", "broken_percent is nan; give a number from 0 to 100")):
            capsys.readouterr()
            assert main([*call, *said, "--broken-percent", limit]) == 2
            assert message in capsys.readouterr().err
        assert main([*call, *said, "--broken-percent", "10"]) == 0


def test_an_audit_of_another_result_in_the_folder_is_told(forgotten, data_folder, model_folder, tmp_path, caplog):
    shutil.copytree(forgotten, tmp_path / "out")
    call = ["unlearn", "--model", str(model_folder), "--data", str(data_folder), "--no-audit"]
    call += ["--output", str(tmp_path / "out"), "--set", *(f"{name}={value}" for name, value in SHORT.items())]
    told = "out/audit is not of this result: it is of weights that were here before"
    assert main([*call, "--forget", "apple"]) == 0  # the same weights again
    assert told not in caplog.text
    assert main([*call, "--forget", "lemon"]) == 0
    assert told in caplog.text


def test_a_dry_run_trains_nothing_and_shows_the_rows(data_folder, model_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("cliperase.api.Run", None)
    call = ["unlearn", "--model", str(model_folder), "--data", str(data_folder), "--forget", "apple", "--dry-run"]
    assert main([*call, "--output", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "8 are forgotten and 24 kept" in said
    assert "near it: 'a photo of a" in said
    assert "min for the run" in said
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["preview.html"]
    page = (tmp_path / "out" / "preview.html").read_text()
    assert page.count("<img") == ROWS["train"]
    assert page.count('src="data:image/png;base64,') == ROWS["train"]
    assert not OUTSIDE.search(page.replace('src="data:', ""))


READ = {"data_folder": (data_source, "load_pairs"), "shards": (data_shards, "collect")}  # what reads a split of it


@pytest.mark.parametrize("source", READ)
def test_a_dry_run_loads_model_and_data_once_and_looks_before_it_trains(
    source, model_folder, tmp_path, capsys, monkeypatch, request
):
    data, loads, reads = request.getfixturevalue(source), [], []
    settings = {"learning_rate": 1e-2, "lanes": 2} | SHORT
    shown = [one for one in sentences(preview(model_folder, data, APPLE, settings=settings)) if "near it" in one]
    load, read = OpenCLIP.load, getattr(*READ[source])
    monkeypatch.setattr(OpenCLIP, "load", lambda *given: loads.append(given) or load(*given))
    monkeypatch.setattr(*READ[source], lambda *given: reads.append(given) or read(*given))
    call = ["unlearn", "--model", str(model_folder), "--data", str(data), "--forget", "apple", "--dry-run"]
    assigned = [f"{name}={value}" for name, value in settings.items()]
    assert main([*call, "--set", *assigned, "--output", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "s a step" in said
    assert [line for line in said.splitlines() if "near it" in line] == shown
    assert (len(loads), len(reads)) == (1, 2)  # of the data a training and a validation split


def test_what_is_at_risk_comes_first(data_folder, model_folder):
    found = preview(model_folder, data_folder, APPLE, settings={"steps": 1, "learning_rate": 1.0})
    shares = [one["taken_for"] for one in found["at_risk"]]
    assert len(shares) == 3
    assert shares == sorted(shares, reverse=True)
    assert all("apple" not in one["text"] for one in found["at_risk"])
    with pytest.raises(CliperaseError, match="no setting 'lambda'"):
        preview("gone", data_folder, APPLE, settings={"lambda": 1.0})


def test_two_models_side_by_side(forgotten, data_folder, model_folder, tmp_path, capsys):
    call = ["compare", str(model_folder), str(forgotten), "--data", str(data_folder), "--forget", "apple"]
    assert main([*call, "--query", "a <b>red</b> thing", "--output", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "comparison.json").read_text())
    changes = [one["change"] for one in found["harm"]]
    assert changes == sorted(changes)
    assert sum(one["images"] for one in found["harm"]) == found["data"]["rows"] == 16
    accuracy = sum(one["images"] * one["after"]["value"] for one in found["harm"] if not one["forgotten"]) / 12
    assert accuracy == pytest.approx(found["metrics"]["after"]["retain_accuracy"])
    assert [one["text"] for one in found["queries"]][:2] == ["a <b>red</b> thing", "a photo of a apple"]
    assert len(found["maps"]["before"]) == 16
    page = (tmp_path / "comparison.html").read_text()
    assert "a &lt;b&gt;red&lt;/b&gt; thing" in page
    assert not OUTSIDE.search(page)


def test_a_model_beside_itself_loses_nothing(data_folder, model_folder):
    found = compare(model_folder, model_folder, data_folder)
    asked, listed = (compare(model_folder, model_folder, data_folder, queries=one) for one in ("odd", ["odd"]))
    assert asked == listed != found
    assert {one["change"] for one in found["harm"]} == {0.0}
    assert found["metrics"]["before"] == found["metrics"]["after"]
    assert all(query["before"] == query["after"] for query in found["queries"])
    assert found["data"]["forgotten"] == 0


def test_data_that_can_be_read_once_are_enough_for_two_models(model_folder):
    noise = ((Image.effect_noise((8, 8), 50), f"noise {number}") for number in range(20))
    found = compare(model_folder, model_folder, {"test": noise})
    assert found["data"]["source"] == "in memory"
    assert found["data"]["rows"] == 20
    assert found["metrics"]["before"] == found["metrics"]["after"]


def test_numbers_of_numpy_and_any_mapping_are_taken(data_folder, model_folder, tmp_path):
    rule = MappingProxyType(APPLE)
    settings = MappingProxyType({"batches": np.int64(1), "strength": np.float32(0.5)})
    unlearn(model_folder, data_folder, rule, "query arithmetic", settings, np.int64(3), tmp_path)
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["rule"], report["settings"]) == (APPLE, {"batches": 1, "strength": 0.5, "seed": 3})
    with pytest.raises(CliperaseError, match="forget rule 'apple': give one of"):
        unlearn("gone", data_folder, "apple")


def test_the_split_that_a_result_is_measured_on(data_folder, monkeypatch):
    assert measured_split(data_folder) == "test"
    monkeypatch.setattr("cliperase.data.source.open_source", lambda _: SimpleNamespace(splits=lambda: ["train"]))
    assert measured_split("photos") == "validation"


def test_unlearn_in_python_writes_a_card_too(data_folder, model_folder, tmp_path):
    report = unlearn(model_folder, data_folder, APPLE, settings=SHORT, output=tmp_path / "out")
    assert set(report["validation_after"]) == set(report["validation_before"])
    card = (tmp_path / "out" / "README.md").read_text()
    assert "Not audited" in card
    assert "rows in Python" not in card
    rows = {split: read_table(data_folder, split) for split in ("train", "validation")}
    unlearn(model_folder, rows, APPLE, settings=SHORT, output=tmp_path / "rows")
    card = (tmp_path / "rows" / "README.md").read_text()
    assert "save them in a folder, and name it in the place of `in memory`." in card
