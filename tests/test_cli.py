"""The command line: it works on one's own model, and bad input gives one clear line and exit code 2."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import shtab
import torch
import yaml
from conftest import PROFILE, ROWS, make_split, write_profile

from cliperase import memory
from cliperase.cli import main, override, parse, rule_of, settings_of
from cliperase.data.pairs import load_pairs, write_split
from cliperase.errors import CliperaseError
from cliperase.models import load_model
from cliperase.models.compact import COMPACT
from cliperase.models.openclip import CONFIG_NAME, WEIGHTS_NAME
from cliperase.options import options
from paper.__main__ import main as pipeline
from paper.environment import VARIABLES


@pytest.fixture
def params(tmp_path):
    return write_profile(tmp_path)


def unlearn(model, data, params, output, *more):
    return main(
        [
            "unlearn",
            "--no-audit",
            "--model",
            str(model),
            "--data",
            str(data),
            "--params",
            str(params),
            "--output",
            str(output),
            *more,
        ]
    )


def test_a_rule_without_training_rows_is_told_before_the_model_is_measured(
    data_folder, model_folder, params, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("cliperase.metrics.tasks.encode_images", None)  # calling it would raise
    validation = load_pairs(data_folder, "validation").row_hashes[:1]
    rule = f"{{rows: ['{validation[0]}']}}"
    assert unlearn(model_folder, data_folder, params, tmp_path / "out", "--rule", rule) == 2
    assert "matches no row" in capsys.readouterr().err


def test_unlearning_writes_a_model_and_a_report(data_folder, model_folder, params, tmp_path, capsys):
    output = tmp_path / "forgotten"
    assert unlearn(model_folder, data_folder, params, output, "--forget", "apple", "--set", "lambda_fm=2") == 0
    report = json.loads((output / "report.json").read_text())
    assert report["rows"] == {"forget": 8, "retain": 24}
    assert report["settings"]["lambda_fm"] == 2
    assert len(report["log"]) == 2
    assert json.loads(capsys.readouterr().out) == report
    load_model(output)
    assert not list(output.glob("*checkpoint*"))
    assert main(["evaluate", "--model", str(output), "--data", str(data_folder), "--forget", "apple"]) == 0
    assert set(json.loads(capsys.readouterr().out)) >= {"forget_accuracy", "retain_accuracy"}
    assert main(["evaluate", "--model", str(model_folder), "--data", str(data_folder)]) == 0
    assert set(json.loads(capsys.readouterr().out)) == {"retain_accuracy", "retain_images"}  # nothing is forgotten


BAD = {
    "a concept that matches no row": (["--forget", "pear"], "'pear' matches no row"),
    "a rule that matches all rows": (["--rule", "{caption_pattern: photo}"], "matches all"),
    "nothing to forget": ([], "give --forget"),
    "an output that only a shell could find": (["--forget", "apple", "--output", "~/out"], "write the whole path"),
    "a λ that is not a number": (
        ["--forget", "apple", "--set", "lambda_fm=much"],
        "CLIPErase: lambda_fm is 'much'; give a number",
    ),
    "a learning rate that YAML reads as text": (
        ["--forget", "apple", "--set", "learning_rate='1e-5'"],
        "training: learning_rate is '1e-5'; give a number",
    ),
    "an unknown method": (["--forget", "apple", "--method", "CLIP-erase"], "unknown; choose one of"),
    "a setting without a value": (["--forget", "apple", "--set", "lambda_fm"], "NAME=VALUE"),
    "a λ that is nan": (["--forget", "apple", "--set", "lambda_fm=.nan"], "lambda_fm is nan; give a finite number"),
    "a λ without end": (["--forget", "apple", "--set", "lambda_fm=1e999"], "lambda_fm is inf; give a finite number"),
    "a λ below zero": (["--forget", "apple", "--set", "lambda_cm=-1"], "lambda_cm is -1; give at least 0"),
    "an unknown setting": (
        ["--forget", "apple", "--set", "lambda=1"],
        "CLIPErase has no setting 'lambda'; it and its loop have lambda_rm",
    ),
    "a setting that is not YAML": (["--forget", "apple", "--set", "lambda_fm=[1"], "--set 'lambda_fm=[1' is not YAML"),
    "a setting without a name": (["--forget", "apple", "--set", "=1"], "--set '=1': write NAME=VALUE"),
    "a concept and a rule": (
        ["--forget", "apple", "--rule", "{concept: lemon}"],
        "1 × --forget and 1 × --rule were given",
    ),
    "two rules": (
        ["--rule", "{concept: apple}", "--rule", "{concept: lemon}"],
        "2 × --rule were given; give one --rule",
    ),
    "a reference without an audit": (["--forget", "apple", "--reference", "model"], "leave out --no-audit"),
    "a rule that is not YAML": (["--rule", "{classes: [apple"], "--rule '{classes: [apple' is not YAML"),
}


def test_settings_are_yaml_values_and_add_up():
    call = ["unlearn", "--model", "m", "--data", "d", "--output", "o", "--set", "learning_rate=1e-5", "steps=010"]
    given = parse([*call, "--set", "captions=random", "autocast=true", "--set", "steps=7"]).set
    assert override({"steps": 3, "seed": 1}, given) == {
        "learning_rate": 1e-5, "steps": 7, "captions": "random", "autocast": True, "seed": 1,
    }  # fmt: skip
    assert override({}, parse(call).set) == {
        "learning_rate": 1e-5,
        "steps": 10,
    }  # nothing is left of another call
    assert override({}, ["name=a=b"]) == {"name": "a=b"}


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("methods:\n  CLIPErase:\n", {}),
        ("unlearn:\nmethods:\n", {}),
        ("unlearn: {steps: 2}\nmethods:\n  CLIPErase: {lambda_fm: 2}\n", {"steps": 2, "lambda_fm": 2}),
        ("methods:\n  CLIPErase: 7\n", "'CLIPErase' of the parameters is 7, not a mapping"),
        (
            "steps: 2\nlearning_rate: 1e-5\n",
            "have neither a section unlearn nor methods.CLIPErase, and nothing else of",
        ),
        ("methods:\n  SSD: {alpha: 2}\n", "have neither a section unlearn nor methods.CLIPErase"),
        ("methods: []\n", r"'methods' of the parameters is \[\], not a mapping"),
    ],
)
def test_an_empty_section_of_the_parameters_is_no_settings(text, settings, tmp_path):
    (tmp_path / "params.yaml").write_text(text)
    call = ["unlearn", "--model", "m", "--data", "d", "--output", "o", "--params", str(tmp_path / "params.yaml")]
    if isinstance(settings, dict):
        assert settings_of(parse(call)) == settings
    else:
        with pytest.raises(CliperaseError, match=settings):
            settings_of(parse(call))


def test_every_concept_and_every_value_of_a_list_counts(data_folder):
    call = ["audit", "m", "n", "--data", str(data_folder), "--output", "o", "--forget", "apple"]
    given = parse([*call, "--forget", "pear", "--reference", "a", "b", "--reference", "c", "--probes", "lira"])
    assert rule_of(given) == {"concepts": ["apple", "pear"]}
    assert given.reference == ["a", "b", "c"]
    assert given.probes == ["lira"]
    assert rule_of(parse(call)) == {"concept": "apple"}
    evaluating = parse(["evaluate", "--model", "m", "--data", "d"])
    assert rule_of(evaluating, required=False) is None


def test_a_learning_rate_is_written_as_anywhere_else(data_folder, model_folder, params, tmp_path, capsys):
    settings = ["--set", "learning_rate=1e-5", "--set", "lambda_fm=2"]
    assert unlearn(model_folder, data_folder, params, tmp_path / "out", "--forget", "apple", *settings) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["settings"] == {**PROFILE["unlearn"], "learning_rate": 1e-5, "lambda_fm": 2, "seed": 0}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_exit_2(case, data_folder, model_folder, params, tmp_path, capsys):
    more, message = BAD[case]
    output = tmp_path / "held"
    output.mkdir()
    (output / WEIGHTS_NAME).write_text("held")
    assert unlearn(model_folder, data_folder, params, output, *more) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("cliperase: ")
    assert len(error.strip().splitlines()) == 1
    assert [p.name for p in output.iterdir()] == [WEIGHTS_NAME]
    assert (output / WEIGHTS_NAME).read_text() == "held"


def test_a_rule_may_lie_in_a_file_of_any_name(tmp_path):
    (tmp_path / "rule.json").write_text('{"concept": "apple"}')
    call = ["evaluate", "--model", "m", "--data", "d", "--rule"]
    assert rule_of(parse([*call, str(tmp_path / "rule.json")])) == {"concept": "apple"}
    long = f"{{concept: {'apple ' * 99}}}"
    assert rule_of(parse([*call, long])) == {"concept": ("apple " * 99).strip()}


def test_bad_files_are_one_line_and_exit_2(data_folder, model_folder, params, tmp_path, capsys):
    blocked = tmp_path / "blocked"
    blocked.write_text("held")
    truncated = tmp_path / "truncated"
    truncated.mkdir()
    for shard in data_folder.glob("*.parquet"):
        (truncated / shard.name).write_bytes(shard.read_bytes()[:2000])
    broken, latin, listed = (tmp_path / f"{name}.yaml" for name in ("broken", "latin", "listed"))
    broken.write_text("a: [")
    latin.write_bytes("seeds: [é]".encode("latin-1"))
    listed.write_text("unlearn: [1]")
    config, empty = tmp_path / "config", tmp_path / "empty"
    for folder in (config, empty):
        folder.mkdir()
        (folder / WEIGHTS_NAME).write_bytes((model_folder / WEIGHTS_NAME).read_bytes())
    (config / CONFIG_NAME).write_text("{")
    (config / "config.json").write_text("[]")
    (empty / CONFIG_NAME).write_text(json.dumps({**COMPACT, "preprocess_cfg": {"resize_mode": "crop"}}))
    cases = [
        (tmp_path / "no-model", data_folder, params, tmp_path / "out", "neither a folder nor"),
        (model_folder, tmp_path / "no-data", params, tmp_path / "out", "cannot be read"),
        (model_folder, truncated, params, tmp_path / "out", "cannot be read"),
        (model_folder, data_folder, tmp_path / "no-params", tmp_path / "out", "parameters"),
        (model_folder, data_folder, broken, tmp_path / "out", "parameters"),
        (model_folder, data_folder, latin, tmp_path / "out", "parameters"),
        (model_folder, data_folder, listed, tmp_path / "out", "section 'unlearn' of the parameters is [1]"),
        (config, data_folder, params, tmp_path / "out", "config.json holds list, not a mapping"),
        (empty, data_folder, params, tmp_path / "out", "preprocess_cfg: resize_mode is 'crop'"),
        (model_folder, data_folder, params, blocked / "out", "cannot be written"),
    ]
    for model, data, parameters, output, message in cases:
        assert unlearn(model, data, parameters, output, "--forget", "apple") == 2
        error = capsys.readouterr().err
        assert message in error
        assert len(error.strip().splitlines()) == 1
    assert blocked.read_text() == "held"


def test_a_checkpoint_of_another_run_stops_and_is_kept(data_folder, model_folder, params, tmp_path, capsys):
    output = tmp_path / "out"
    output.mkdir()
    (output / "checkpoint.pt").write_text("not a checkpoint")
    assert unlearn(model_folder, data_folder, params, output, "--forget", "apple") == 2
    assert "delete it to start anew" in capsys.readouterr().err
    assert (output / "checkpoint.pt").read_text() == "not a checkpoint"


def test_pretraining_can_leave_a_concept_out(data_folder, params, tmp_path):
    output = tmp_path / "models" / "retrain-apple"
    arguments = ["pretrain", "--data", str(data_folder), "--profile", str(params), "--output", str(output)]
    assert pipeline([*arguments, "--without", "apple"]) == 0
    load_model(output)
    assert [p.name for p in output.parent.iterdir()] == ["retrain-apple"]


def test_the_manifest_takes_rules_of_concepts_or_of_an_experiment(data_folder, tmp_path, capsys):
    rules, output = {"fruit": {"caption_pattern": "apple|lemon"}}, tmp_path / "manifest.csv"
    path = write_profile(tmp_path, experiments={"pairs": {"rules": rules}, "ratios": {}})
    arguments = ["manifest", "--data", str(data_folder), "--profile", str(path), "--output", str(output)]
    images = sum(ROWS.values())  # of a class, all splits
    of_rules = (["--rules", "experiments.pairs.rules"], "fruit", 2 * images)
    for more, name, count in (([], "apple", images), of_rules):
        assert pipeline([*arguments, *more]) == 0
        assert (pd.read_csv(output, keep_default_na=False).forgotten_by == name).sum() == count
    assert pipeline([*arguments, "--rules", "experiments.ratios.rules"]) == 2
    assert "no section 'experiments.ratios.rules'" in capsys.readouterr().err


def test_a_wrong_profile_experiment_or_search_is_one_line(data_folder, model_folder, params, tmp_path, capsys):
    shared = ["--data", str(data_folder), "--model", str(model_folder), "--output", str(tmp_path / "t.csv")]
    wrong = write_profile(tmp_path, concepts=3).rename(tmp_path / "wrong.yaml")
    right = write_profile(tmp_path)
    for arguments, message in (
        (["experiment", "main", "--profile", str(wrong)], "concepts is 3; give a list"),
        (["experiment", "main", "--profile", str(right)], "no section 'experiments.main'"),
        (["experiment", "gone", "--profile", str(right)], "experiment 'gone' unknown"),
        (["experiment", "main", "--profile", "gone"], "profile 'gone' unknown"),
        (["tune", "--profile", str(right), "--ranges", str(tmp_path / "gone.yaml")], "no search of profile 'test'"),
        (["tune", "--profile", str(right)], "no search of profile 'test'"),
    ):
        assert pipeline([*arguments, *shared]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert len(error.strip().splitlines()) == 1


def test_a_model_of_the_hub_becomes_a_folder(model_folder, tmp_path, capsys):
    path = write_profile(tmp_path, hub={"original": str(model_folder)})
    assert (
        pipeline(["fetch", "original", "--profile", str(path), "--output", str(tmp_path / "models" / "original")]) == 0
    )
    one, other = load_model(model_folder), load_model(tmp_path / "models" / "original")
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert pipeline(["fetch", "reader", "--profile", str(path), "--output", str(tmp_path / "reader")]) == 2
    assert "fetches no model 'reader'; it fetches original" in capsys.readouterr().err


def test_captions_without_classes_are_selected_by_retrieval(data_folder, model_folder, params, tmp_path, capsys):
    captions = tmp_path / "captions"
    captions.mkdir()
    for split in ("train", "validation", "test"):
        write_split(make_split(split).remove_columns("label"), captions, split)
    output = tmp_path / "forgotten"
    assert unlearn(model_folder, captions, params, output, "--rule", r"{caption_pattern: '\bapple\b'}") == 0
    report = json.loads(capsys.readouterr().out)
    chosen = next(entry["validation"] for entry in report["log"] if entry["step"] == report["selected_step"])
    assert chosen["remaining"] == chosen["forget_image_retrieval_r@10"]
    assert chosen["score"] == max(entry["validation"]["score"] for entry in report["log"])
    evaluated = ["evaluate", "--model", str(output), "--data", str(captions), "--forget", "apple"]
    assert main(evaluated) == 0
    assert "retain_text_retrieval_r@1" in json.loads(capsys.readouterr().out)


def test_a_method_without_steps_needs_none(data_folder, model_folder, params, tmp_path, capsys):
    bare = yaml.safe_load(params.read_text()) | {"unlearn": {}, "methods": {}}
    params.write_text(yaml.safe_dump(bare))
    output = tmp_path / "out"
    assert unlearn(model_folder, data_folder, params, output, "--forget", "apple", "--method", "GA") == 2
    assert "GA needs learning_rate" in capsys.readouterr().err
    assert not (output / WEIGHTS_NAME).exists()
    settings = ["--method", "null space", "--set", "steps=1", "forget_batch=4", "retain_batch=8"]
    assert unlearn(model_folder, data_folder, params, output, "--forget", "apple", *settings) == 0
    assert json.loads((output / "report.json").read_text())["selected_step"] == 0


@pytest.mark.skipif("AVX" not in torch.backends.cpu.get_cpu_capability(), reason="not an x86 processor with AVX2")
def test_the_pipeline_uses_kernels_that_every_machine_has(tmp_path):
    """So that its numbers are the same on processors with wider vectors; what the caller has set stays."""
    code = (
        "import sys, torch; from paper.__main__ import main; "
        "main(['collect', 'nowhere', '--output', sys.argv[1]]); print(torch.backends.cpu.get_cpu_capability())"
    )
    plain = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    for more, capability in (({}, "AVX2"), ({"ATEN_CPU_CAPABILITY": "default"}, "DEFAULT")):
        command = [sys.executable, "-c", code, str(tmp_path / "t.csv")]
        done = subprocess.run(command, env=plain | more, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == capability


def test_a_missing_extra_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "paper.small_blip", raising=False)
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert pipeline(["pretrain_blip", "--data", "none", "--model", "none", "--output", str(tmp_path / "blip")]) == 2
    assert "package transformers is not installed; run `pip install transformers`" in capsys.readouterr().err


def test_a_shell_completes_commands_and_options():
    script = shtab.complete(options(), "bash")
    assert all(word in script for word in ("unlearn", "compare", "--dry-run", "--templates"))


def test_peak_memory_is_unknown_where_the_system_does_not_tell(monkeypatch):
    monkeypatch.setattr(memory, "Path", lambda path: Path("/nowhere") / path.strip("/"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert memory.peak_megabytes() > 0  # by `resource`, as on macOS
    monkeypatch.setitem(sys.modules, "resource", None)
    assert math.isnan(memory.peak_megabytes())
