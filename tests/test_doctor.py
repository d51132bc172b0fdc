"""The doctor: every fault of a run is found before it, each with its remedy, and nothing is left behind."""

import pytest
import torch
from conftest import write_profile
from inputs import caption_rows, colours, write_rows

from cliperase import doctor
from cliperase.cli import main
from cliperase.data.pairs import load_pairs
from cliperase.doctor import examine, first_rows
from cliperase.methods.enmn import ENMN
from paper.__main__ import main as pipeline

SETTINGS = {"steps": 8, "learning_rate": 1e-3, "forget_batch": 2, "retain_batch": 4, "evaluate_every": 4}
RULE = {"concept": "apple"}


def findings(model, data, output, rule=RULE, method="CLIPErase", settings=SETTINGS):
    return list(examine(str(model), str(data), rule, method, settings, output))


def missing(found):
    return {one.subject: one.said for one in found if one.missing}


@pytest.mark.parametrize("method", ["CLIPErase", "ENMN", "SalUn"])
def test_a_run_that_lacks_nothing_gets_its_cost(method, model_folder, data_folder, tmp_path):
    found = findings(model_folder, data_folder, tmp_path / "out", method=method)
    assert not missing(found)
    said = {one.subject: one.said for one in found}
    assert set(said) == {"packages", "device", "method", "output", "model", "data", "disk", "time", "memory"}
    assert "to forget 8 of 32 training rows and 4 of 16" in said["data"]
    assert "s a step" in said["time"]
    assert not list((tmp_path / "out").iterdir())


def test_texts_that_cannot_be_measured_are_missing(model_folder, tmp_path):
    """What `unlearn` says before it trains: pairs need 16 texts, and a model reads the beginning of a name only."""
    captions = [(n, f"a {'red apple' if n % 2 else 'lamp'}, number {n}") for n in range(40)]
    write_rows(tmp_path / "few", caption_rows(captions))
    found = missing(findings(model_folder, tmp_path / "few", tmp_path / "out"))
    assert "matching among k=16 texts needs k - 1 rows" in found["data"]
    long = ["apple", *(" ".join(["very"] * 30 + [name]) for name in ("lamp", "plum"))]
    for split in ("train", "validation"):
        colours(tmp_path / "long", (9, 9), range(9), split, long)
    found = missing(findings(model_folder, tmp_path / "long", tmp_path / "out"))
    assert "as one text; merge the classes or rename one" in found["data"]


def test_a_profile_gets_the_time_of_all_its_runs(model_folder, data_folder, shards, tmp_path, capsys):
    loop = SETTINGS.copy()
    methods = {"CLIPErase": {"learning_rate": loop.pop("learning_rate")}}
    main = {"concepts": ["apple", "lemon"], "references": ["original", "retrain"], "methods": methods}
    path = write_profile(tmp_path, seeds=[0, 1], unlearn=loop, methods=methods, experiments={"main": main})
    call = ["doctor", "--model", str(model_folder), "--forget", "apple", "--profile", str(path)]
    call += ["--output", str(tmp_path / "out"), "--set", "lanes=2"]
    assert pipeline([*call, "--data", str(data_folder)]) == 0
    assert "h for 4 of them" in capsys.readouterr().out  # two concepts, two seeds; references take no steps
    assert pipeline([*call, "--data", str(shards)]) == 0
    assert "of them" not in capsys.readouterr().out  # its runs are not of shards


def test_a_profile_whose_searches_were_not_run_gets_its_cost(model_folder, data_folder, tmp_path, capsys):
    loop = {name: value for name, value in SETTINGS.items() if name != "learning_rate"}
    methods = {"CLIPErase": {}, "SSD": {}}
    main = {"tuned": "main", "concepts": ["apple"], "references": ["original"], "methods": methods}
    path = write_profile(tmp_path, unlearn=loop, methods=methods, experiments={"main": main})
    call = ["doctor", "--model", str(model_folder), "--data", str(data_folder), "--forget", "apple"]
    assert pipeline([*call, "--profile", str(path), "--output", str(tmp_path / "out")]) == 0
    assert "the settings are defaults" in capsys.readouterr().out


def test_shards_get_their_cost_too(model_folder, shards, tmp_path):
    found = findings(model_folder, shards, tmp_path, settings={**SETTINGS, "lanes": 2})
    assert not missing(found)
    said = {one.subject: one.said for one in found}
    assert "8 training shards; to forget 10 of 40 validation rows" in said["data"]
    assert "s a step" in said["time"]
    found = missing(findings(model_folder, shards, tmp_path, method="ENMN", settings={**SETTINGS, "lanes": 2}))
    assert "ENMN replaces the data" in found["steps"]
    found = missing(findings(tmp_path / "no-model", shards, tmp_path, rule={"concept": "zebra"}))
    assert "matches none" in found["data"]


def test_a_method_without_steps_has_no_step_to_time(model_folder, data_folder, tmp_path):
    found = findings(model_folder, data_folder, tmp_path, method="null space", settings={})
    assert "takes no steps" in found[-1].said


def test_a_one_cycle_run_is_timed_by_fewer_steps_than_a_cycle_has(model_folder, data_folder, tmp_path):
    found = findings(model_folder, data_folder, tmp_path, settings={**SETTINGS, "schedule": "one-cycle"})
    assert not missing(found)


def test_memory_counts_what_the_measured_steps_do_not_hold(model_folder, data_folder, tmp_path):
    said = findings(model_folder, data_folder, tmp_path, settings={**SETTINGS, "resident": True})[-1].said
    assert "GB for the best weights and a checkpoint" in said
    assert "GB for resident images" in said


def test_too_little_memory_for_a_step_is_missing(model_folder, data_folder, tmp_path, monkeypatch):
    def no_memory(*args, **kwargs):
        raise torch.OutOfMemoryError("tried to allocate")

    monkeypatch.setattr(doctor.Run, "carry_out", no_memory)
    assert "set micro_batch" in missing(findings(model_folder, data_folder, tmp_path))["memory"]


@pytest.mark.parametrize("retain_batch", [2, 4])
def test_noise_is_learnt_before_the_steps_and_takes_time_by_its_texts(
    retain_batch, model_folder, data_folder, tmp_path, monkeypatch
):
    clock, texts = [0.0], []

    def ten_minutes(self, model, forget, retain, seed):
        clock[0] += 600
        texts.extend([*forget.texts_used(0), *retain.texts_used(0)])
        return forget, retain

    monkeypatch.setattr(doctor.time, "perf_counter", lambda: clock[0])  # only noise takes time
    monkeypatch.setattr(ENMN, "prepare", ten_minutes)
    monkeypatch.setattr(doctor, "seconds_of", lambda *args: 0.0)
    settings = {**SETTINGS, "retain_batch": retain_batch}
    said = {one.subject: one.said for one in findings(model_folder, data_folder, tmp_path, RULE, "ENMN", settings)}
    minutes = 10 * len(load_pairs(data_folder, "train").texts_used(0)) / len(texts)
    assert f"about {minutes:.1f} min for the run" in said["time"]


def test_every_fault_is_found_at_once(data_folder, tmp_path):
    found = missing(findings(tmp_path / "no-model", tmp_path / "no-data", tmp_path, method="GA", settings={"steps": 8}))
    assert set(found) == {"method", "model", "data"}
    assert "learning_rate" in found["method"]
    assert "no-data" in found["data"]


def test_an_output_that_cannot_be_written_is_one_fault(model_folder, data_folder, tmp_path):
    (tmp_path / "file").write_text("held")
    found = missing(findings(model_folder, data_folder, tmp_path / "file" / "out"))
    assert set(found) == {"output"}


def test_an_output_with_files_of_others_is_one_fault(model_folder, data_folder, tmp_path):
    (tmp_path / "README.md").write_text("mine")
    found = missing(findings(model_folder, data_folder, tmp_path, method="null space", settings={}))
    assert set(found) == {"output"}
    assert "holds README.md" in found["output"]


def test_the_checkpoint_of_a_killed_run_is_a_warning(tmp_path):
    (tmp_path / "checkpoint.pt").touch()
    found = findings(tmp_path / "no-model", tmp_path / "no-data", tmp_path)
    assert "output" not in missing(found)
    (said,) = (one.said for one in found if one.warning)
    assert said.startswith(f"{tmp_path / 'checkpoint.pt'} is there: the run that left it goes on from it, any other")


def test_a_full_disk_and_an_old_package_are_missing(model_folder, data_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 10})())
    monkeypatch.setattr(
        doctor.metadata, "requires", lambda name: ["torch>=999", "no-such-package", "numpy", "x; extra == 'y'"]
    )
    found = [one for one in findings(model_folder, data_folder, tmp_path) if one.missing]
    assert [one.subject for one in found] == ["packages", "packages", "disk"]
    assert "torch>=999 is needed, found" in found[0].said
    assert "pip install 'no-such-package'" in found[1].said


def test_the_first_rows_bring_only_their_captions(training):
    few = first_rows(training.select(training.labels == 2), 3)
    assert len(few) == 3
    assert few.texts == ["a drawing of a leaf", "a photo of a leaf"]
    assert [few.texts[i] for i in few.text_ids[:, 0].tolist()] == ["a photo of a leaf"] * 3


def test_the_command_prints_a_line_each_and_fails_with_one(model_folder, data_folder, tmp_path, capsys):
    call = ["doctor", "--model", str(model_folder), "--data", str(data_folder), "--output", str(tmp_path)]
    settings = ["--set", *(f"{name}={value}" for name, value in SETTINGS.items())]
    assert main([*call, "--forget", "apple", *settings]) == 0
    assert capsys.readouterr().out.startswith("ok      packages ")
    assert main([*call, "--forget", "pear", *settings]) == 2
    said = capsys.readouterr()
    assert "MISSING data     " in said.out
    assert said.err == "cliperase: 1 problems must be fixed before the run; see the lines marked MISSING\n"
