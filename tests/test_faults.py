"""Broken on purpose: what a downloaded file, a kill, a full disk or a flipped bit can do, and what it must not."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import open_clip
import pytest
import torch
from conftest import TINY_BLIP, killed_at, write_profile
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import YolosConfig, YolosForObjectDetection, YolosImageProcessor

from cliperase.__main__ import main as start
from cliperase.api import unlearn
from cliperase.cli import main
from cliperase.data.pairs import load_pairs
from cliperase.errors import CliperaseError
from cliperase.files import HERE, LOCK, whole_file
from cliperase.finite import is_finite
from cliperase.manifest import REPLACED, check_free, write_result
from cliperase.methods import METHODS
from cliperase.methods.base import EditMethod, LossMethod
from cliperase.metrics.scores import matching_accuracy, retrieval_recall, zero_shot_accuracy
from cliperase.metrics.tasks import MATCHING
from cliperase.models import load_model
from cliperase.models.openclip import CONFIG_NAME, WEIGHTS_NAME
from cliperase.unlearning import Recipe, Run
from paper.__main__ import main as pipeline
from paper.diffusion import create_detector
from paper.small_blip import create_blip

SHORT = {"steps": 2, "learning_rate": 1e-3, "forget_batch": 4, "retain_batch": 8, "evaluate_every": 1}


class Canary:
    """Whoever unpickles it writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.fixture
def canary(tmp_path, monkeypatch):
    """A file that must not appear, and somebody who answers every question with yes."""
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 9))
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    path = tmp_path / "code-has-run"
    yield path
    assert not path.exists()


def copied(model_folder, tmp_path, change=None):
    """A copy of a model folder, its configuration changed by `change(config)`."""
    folder = tmp_path / "model"
    shutil.copytree(model_folder, folder)
    if change:
        config = json.loads((folder / CONFIG_NAME).read_text())
        change(config)
        (folder / CONFIG_NAME).write_text(json.dumps(config))
    return folder


def add_code(folder, canary, kind="AutoTokenizer", name="tokenizer_config.json", **more):
    """Let transformers find a class with code of its own in `folder`."""
    (folder / "own.py").write_text(f"open({str(canary)!r}, 'w')\n\nclass Own:\n    pass\n")
    reference = ["own.Own", None] if kind == "AutoTokenizer" else "own.Own"
    known = json.loads((folder / name).read_text()) if (folder / name).is_file() else {}
    (folder / name).write_text(json.dumps({**known, "auto_map": {kind: reference}, **more}))


REMOTE = {
    "beside the tokenizer": lambda c: c["model_cfg"]["text_cfg"].update(
        hf_tokenizer_name="own", tokenizer_kwargs={"trust_remote_code": True}
    ),
    "in the model": lambda c: c["model_cfg"].update(trust_remote_code=True),
    "deeper": lambda c: c["model_cfg"]["vision_cfg"].update(more={"any": [{"trust_remote_code": "yes"}]}),
    "elsewhere": lambda c: c.update(anything={"trust_remote_code": 1}),
}


@pytest.mark.parametrize("case", REMOTE)
def test_a_configuration_cannot_ask_for_code(case, model_folder, tmp_path, canary):
    folder = copied(model_folder, tmp_path, REMOTE[case])
    add_code(folder, canary, tokenizer_class="Own")
    with pytest.raises(CliperaseError, match="sets trust_remote_code; no code of a model is run"):
        load_model(folder)


def test_a_repository_cannot_ask_for_code(model_folder, tmp_path, canary, monkeypatch):
    folder = copied(model_folder, tmp_path, REMOTE["beside the tokenizer"])
    add_code(folder, canary, tokenizer_class="Own")
    monkeypatch.setattr(
        open_clip.factory, "download_pretrained_from_hf", lambda *_, filename=WEIGHTS_NAME, **__: folder / filename
    )
    with pytest.raises(CliperaseError, match="sets trust_remote_code; no code of a model is run"):
        load_model("hf-hub:some/one")


@pytest.mark.parametrize("part", ["hf_tokenizer_name", "hf_model_name"])
def test_code_that_nobody_asked_for_is_not_run_and_nobody_is_asked(part, model_folder, tmp_path, canary, capsys):
    def change(config):
        config["model_cfg"]["text_cfg"][part] = str(tmp_path / "model")

    folder = copied(model_folder, tmp_path, change)
    kind = {
        "hf_tokenizer_name": ("AutoTokenizer", "tokenizer_config.json"),
        "hf_model_name": ("AutoConfig", "config.json"),
    }
    add_code(folder, canary, *kind[part], tokenizer_class="Own", model_type="own")
    with pytest.raises(CliperaseError, match="cannot be loaded"):
        load_model(folder)
    assert "[y/N]" not in capsys.readouterr().out


def test_the_code_of_an_object_detector_is_not_run(tmp_path, canary):
    folder = tmp_path / "detector"
    names = {0: "apple"}
    config = YolosConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=[32, 32],
        patch_size=8, num_detection_tokens=4, id2label=names, label2id={"apple": 0},
    )  # fmt: skip
    YolosForObjectDetection(config).save_pretrained(folder)
    YolosImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    add_code(folder, canary, "AutoConfig", "config.json", model_type="own")
    with pytest.raises(CliperaseError, match="cannot be loaded"):
        create_detector(f"coco:{folder}", ["apple"])


def pickled_by_name(canary, model_folder, folder):
    torch.save({"state_dict": {}, "more": Canary(canary)}, folder / "weights.pt")
    return f"ViT-S-32-alt/{folder / 'weights.pt'}"


def pickled_under_another_name(canary, model_folder, folder):
    torch.save(Canary(canary), folder / "weights.bin", _use_new_zipfile_serialization=False)
    return f"ViT-S-32-alt/{folder / 'weights.bin'}"


def pickled_blip(canary, model_folder, folder):
    (folder / "config.json").write_text(json.dumps({**TINY_BLIP, "model_type": "blip"}))
    torch.save({"more": Canary(canary)}, folder / "pytorch_model.bin")
    return folder


def pickled_instead_of_safetensors(canary, model_folder, folder):
    copied(model_folder, folder)
    torch.save(Canary(canary), folder / "model" / WEIGHTS_NAME)
    return folder / "model"


PICKLES = [pickled_by_name, pickled_under_another_name, pickled_blip, pickled_instead_of_safetensors]


@pytest.mark.parametrize("pickled", PICKLES)
def test_weights_cannot_bring_code(pickled, canary, model_folder, tmp_path):
    with pytest.raises(CliperaseError, match="cannot be loaded"):
        load_model(pickled(canary, model_folder, tmp_path))


def test_a_checkpoint_cannot_bring_code(canary, data_folder, model_folder, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    torch.save({"identity": {}, "more": Canary(canary)}, tmp_path / "out" / "checkpoint.pt")
    call = ["unlearn", "--no-audit", "--model", str(model_folder), "--data", str(data_folder), "--forget", "apple"]
    assert main([*call, "--output", str(tmp_path / "out"), "--set", "steps=1", "learning_rate=1e-3"]) == 2
    assert "delete it to start anew" in capsys.readouterr().err


def call_of(model, data, output, *settings, method="CLIPErase"):
    """The arguments of a short run of `cliperase unlearn`."""
    call = [
        "unlearn",
        "--no-audit",
        "--model",
        model,
        "--data",
        data,
        "--forget",
        "apple",
        "--output",
        output,
        "--method",
        method,
    ]
    usual = [f"{name}={value}" for name, value in SHORT.items()]
    return [str(part) for part in [*call, "--set", *usual, *settings]]


def one_line(capsys):
    """What stands on standard error: one line. Nothing stands on standard output."""
    out, err = capsys.readouterr()
    assert out == ""
    line = err.rpartition("\r")[2]  # behind a progress bar that is gone
    assert line.endswith("\n")
    assert line.count("\n") == 1, line
    return line


def with_weight(model_folder, tmp_path, name, value):
    """A copy of a model folder, the first number of one tensor replaced."""
    folder = copied(model_folder, tmp_path)
    weights = load_file(folder / WEIGHTS_NAME)
    weights[name].view(-1)[0] = value
    save_file(weights, folder / WEIGHTS_NAME)
    return folder


BROKEN = {
    "text_projection": float("nan"),
    "visual.trunk.blocks.0.1.running_var": float("inf"),
    "logit_scale": float("-inf"),
    "token_embedding.weight": float("nan"),  # of a token that no prompt has
}


@pytest.mark.parametrize("name", BROKEN)
def test_weights_that_are_not_finite_are_refused_by_name(name, data_folder, model_folder, tmp_path, capsys):
    folder = with_weight(model_folder, tmp_path, name, BROKEN[name])
    assert main(["evaluate", "--model", str(folder), "--data", str(data_folder), "--forget", "apple"]) == 2
    assert f"{name} is not finite; copy or train" in one_line(capsys)
    for method in ("CLIPErase", "SSD"):
        assert main(call_of(folder, data_folder, tmp_path / "out", method=method)) == 2
        assert f"{name} is not finite" in one_line(capsys)
        assert not (tmp_path / "out").exists()


def test_large_weights_are_no_broken_ones():
    assert is_finite(torch.full((9,), 3e38))  # their sum overflows
    assert is_finite(torch.full((9,), 6e4, dtype=torch.half))
    assert is_finite(torch.tensor([2**62]))
    assert is_finite(torch.zeros(0))
    for value in ("nan", "inf", "-inf"):
        assert not is_finite(torch.tensor([0, float(value), 1e30]))
    assert not is_finite(torch.tensor([float("inf"), float("-inf")]))


def test_a_model_whose_embeddings_are_not_finite_is_not_measured(data_folder, model_folder, tmp_path, capsys):
    folder = copied(model_folder, tmp_path, lambda c: c["preprocess_cfg"].update(std=[0.0, 1.0, 1.0]))
    assert main(["evaluate", "--model", str(folder), "--data", str(data_folder), "--forget", "apple"]) == 2
    assert "the embedding of image 0 is not finite" in one_line(capsys)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_every_metric_refuses_features_that_are_not_finite(value):
    sound, everything, ids = torch.eye(4), torch.ones(4, dtype=torch.bool), torch.arange(4)
    broken = sound.clone()
    broken[2, 1] = float(value)
    for features in ((sound, broken), (broken, sound)):
        for metric in (
            lambda image, text: zero_shot_accuracy(image, text, ids),
            lambda image, text: matching_accuracy(image, text, ids, everything),
            lambda image, text: matching_accuracy(image, text, ids, everything, k=3),
            lambda image, text: retrieval_recall(image, text, ids, everything),
        ):
            with pytest.raises(CliperaseError, match="2 is not finite"):
                metric(*features)


class BreaksAtOnce(EditMethod):
    """An edit that divides by nothing."""

    @torch.no_grad()
    def apply(self, model, batch, validate=None):
        next(model.parameters()).view(-1)[0] /= 0


class BreaksInGradient(LossMethod):
    """A loss that is finite and has no finite gradient: the root of zero."""

    def loss(self, batch):
        return {"root": (0 * batch.retain.image).pow(2).sum().sqrt()}


class BreaksInGradientOnce(BreaksInGradient):
    """The same at the last step only, after weights that were sound."""

    def loss(self, batch):
        if batch.step + 1 == batch.steps:
            return super().loss(batch)
        return {"root": batch.retain.image.sum()}


@pytest.mark.parametrize(("broken", "steps"), [(BreaksAtOnce, 1), (BreaksInGradient, 1), (BreaksInGradientOnce, 3)])
def test_broken_weights_are_not_saved_though_the_loss_is_finite(
    broken, steps, data_folder, model_folder, tmp_path, capsys, monkeypatch
):
    monkeypatch.setitem(METHODS, "broken", f"{__name__}:{broken.__name__}")
    settings = [f"steps={steps}", "evaluate_every=3"]
    assert main(call_of(model_folder, data_folder, tmp_path / "out", *settings, method="broken")) == 2
    assert re.search(rf"weights (at step {steps}|after the edit): model\.\S+ is not finite", one_line(capsys))
    assert not list((tmp_path / "out").iterdir())


def test_a_metric_of_no_rows_is_no_metric(training, base_model):
    with pytest.raises(CliperaseError, match="metric unrelated_cosine is nan; give a split with rows to forget"):
        MATCHING.measure(base_model, training, torch.ones(len(training), dtype=torch.bool))


@pytest.fixture(scope="module")
def result(data_folder, model_folder, tmp_path_factory):
    """What a run leaves. Tests must not change it."""
    folder = tmp_path_factory.mktemp("result") / "out"
    assert main(call_of(model_folder, data_folder, folder)) == 0
    return folder


def flip(path, place):
    """Another bit at the share `place` of a file."""
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1
    path.write_bytes(content)


def test_a_result_is_model_report_and_manifest(result):
    written = {CONFIG_NAME, WEIGHTS_NAME, "report.json", "manifest.json", "README.md"}
    assert {path.name for path in result.iterdir()} == written
    told = json.loads((result / "manifest.json").read_text())
    assert told["method"] == "CLIPErase"
    assert told["files"].keys() == {CONFIG_NAME, WEIGHTS_NAME, "report.json"}
    load_model(result)


@pytest.mark.parametrize("place", [0.3, 0.9, 0.999])
@pytest.mark.parametrize("name", [WEIGHTS_NAME, CONFIG_NAME, "report.json"])
def test_a_flipped_bit_of_a_result_is_one_line(name, place, result, data_folder, tmp_path, capsys):
    shutil.copytree(result, tmp_path / "copy")
    flip(tmp_path / "copy" / name, place)
    assert main(["evaluate", "--model", str(tmp_path / "copy"), "--data", str(data_folder)]) == 2
    assert f"{name} is not the file of manifest.json" in one_line(capsys)


@pytest.mark.parametrize("name", ["../outside", "/dev/zero", "a/../../outside"])
def test_a_manifest_does_not_lead_out_of_its_folder(name, result, tmp_path):
    shutil.copytree(result, tmp_path / "copy")
    (tmp_path / "copy" / "manifest.json").write_text(json.dumps({"cliperase": "1", "files": {name: "0"}}))
    with pytest.raises(CliperaseError, match="which is outside its folder; copy the model again"):
        load_model(tmp_path / "copy")
    (tmp_path / "copy" / "manifest.json").write_text(json.dumps({"name": "of an application of the web"}))
    load_model(tmp_path / "copy")


@pytest.mark.parametrize("moved", [1, 2, 3, 4])
def test_a_kill_between_the_files_of_a_result_is_seen_and_mended(
    moved, result, data_folder, model_folder, tmp_path, capsys, monkeypatch
):
    """A second run into the folder dies when so many of its three files and two manifests are there."""
    output = tmp_path / "out"
    shutil.copytree(result, output)
    replace, done = os.replace, []

    def die(source, target):
        if Path(target).parent == output and "checkpoint" not in str(target):
            if len(done) == moved:
                raise KeyboardInterrupt
            done.append(target)
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", die)
        with pytest.raises(KeyboardInterrupt):
            unlearn(model_folder, data_folder, {"concept": "lemon"}, settings=SHORT, output=output)
    capsys.readouterr()
    assert len(done) == moved
    with nullcontext() if moved == 4 else pytest.raises(CliperaseError, match=r"is not the file of manifest\.json"):
        load_model(output)  # with the fourth all is there
    unlearn(model_folder, data_folder, {"concept": "lemon"}, settings=SHORT, output=output)
    load_model(output)
    assert json.loads((output / "report.json").read_text())["rule"] == {"concept": "lemon"}
    assert len(list(output.iterdir())) == 5  # no lock, no checkpoint, nothing half-written


@pytest.fixture(scope="module")
def blip(training):
    vision = {**TINY_BLIP["vision_config"], "convolutional": False}
    return create_blip(training.texts, size={**TINY_BLIP, "vision_config": vision})[0].eval()


ABOUT = {"method": "CLIPErase", "rule": {"concept": "apple"}, "settings": {}}


def test_a_folder_that_gets_a_model_of_another_family_holds_nothing_of_the_former(blip, base_model, tmp_path):
    for model, other in ((base_model, None), (blip, CONFIG_NAME), (base_model, "config.json")):
        write_result(tmp_path, model, ABOUT)
        assert type(load_model(tmp_path)) is type(model)
        assert not other or not (tmp_path / other).exists()
    (tmp_path / CONFIG_NAME).unlink()  # by hand
    (tmp_path / "of-the-user.txt").touch()
    write_result(tmp_path, blip, ABOUT)
    assert (tmp_path / "of-the-user.txt").exists()
    held = json.loads((tmp_path / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps(held | {"files": {"../outside": "0"}}))
    with pytest.raises(CliperaseError, match="which is outside its folder"):
        write_result(tmp_path, base_model, ABOUT)


def test_a_kill_between_the_files_of_two_families_is_seen_and_mended(blip, base_model, tmp_path, monkeypatch):
    """A second run dies before each of its changes to the folder in turn."""
    for last in range(99):
        folder, changes = tmp_path / str(last), []
        write_result(folder, base_model, ABOUT)

        def counted(change, folder=folder, changes=changes, last=last):
            def changed(source, *target, **options):
                if Path(target[0] if target else source).parent == folder:
                    if len(changes) == last:
                        raise KeyboardInterrupt
                    changes.append(source)
                return change(source, *target, **options)

            return changed

        with monkeypatch.context() as patch:
            patch.setattr("os.replace", counted(os.replace))
            patch.setattr(Path, "unlink", counted(Path.unlink))
            try:
                write_result(folder, blip, ABOUT)
                break
            except KeyboardInterrupt:
                pass
        if last == 0:
            assert type(load_model(folder)) is type(base_model)
        else:
            with pytest.raises(CliperaseError, match=r"is not the file of manifest\.json"):
                load_model(folder)
        write_result(folder, blip, ABOUT)
        assert type(load_model(folder)) is type(blip)
        assert not (folder / CONFIG_NAME).exists()
    assert last > 8


@pytest.mark.parametrize("place", [0.2, 0.5, 0.8, 0.95])
def test_a_flipped_bit_of_a_checkpoint_is_one_line(place, data_folder, model_folder, tmp_path, capsys):
    output = tmp_path / "out"
    with killed_at(step=1):
        unlearn(model_folder, data_folder, {"concept": "apple"}, settings=SHORT, output=output)
    flip(output / "checkpoint.pt", place)
    capsys.readouterr()
    assert main(call_of(model_folder, data_folder, output)) == 2
    assert re.search(r"checkpoint\.pt (cannot be read|is of another run)", one_line(capsys))


def test_a_model_is_not_overwritten_by_its_own_result(data_folder, model_folder, tmp_path, capsys, monkeypatch):
    folder = copied(model_folder, tmp_path)
    before = (folder / WEIGHTS_NAME).read_bytes()
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(folder)
    for output in (folder, tmp_path / "link", ".", folder / ".." / "model"):
        assert main(call_of(folder, data_folder, output)) == 2
        assert "is the folder of the model itself" in one_line(capsys)
    assert (folder / WEIGHTS_NAME).read_bytes() == before


@pytest.mark.parametrize("source", ["blip:{}", "pipeline:{}@ViT-B-32/openai", "pipeline:elsewhere@{}"])
def test_a_model_behind_a_prefix_is_not_overwritten_by_its_own_result(source, tmp_path):
    with pytest.raises(CliperaseError, match="is the folder of the model itself"):
        check_free(tmp_path, source.format(tmp_path))
    check_free(tmp_path / "other", source.format(tmp_path))


@pytest.mark.parametrize("held", ["README.md", "report.json", "config.json", "vocab.txt", "model.safetensors"])
def test_what_no_run_has_written_is_not_replaced(held, data_folder, model_folder, tmp_path, capsys):
    (tmp_path / held).write_text("mine")
    assert main(call_of(model_folder, data_folder, tmp_path, method="SSD")) == 2
    assert f"holds {held}, which the result would replace" in one_line(capsys)
    assert (tmp_path / held).read_text() == "mine"


def test_every_file_of_a_result_is_known_as_one_that_it_would_replace(result, blip, tmp_path):
    write_result(tmp_path, blip, ABOUT)
    for folder in (result, tmp_path):
        assert all(any(path.match(pattern) for pattern in REPLACED) for path in folder.iterdir())


def test_files_that_stay_and_a_run_of_ours_do_not_stand_in_the_way(result, model_folder, tmp_path):
    shutil.copytree(result, tmp_path / "finished")
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed" / "checkpoint.pt").touch()
    (tmp_path / "killed" / "README.md").touch()
    (tmp_path / "rule.yaml").touch()
    (tmp_path / "package.json").touch()
    for folder in (tmp_path, tmp_path / "finished", tmp_path / "killed", tmp_path / "new"):
        check_free(folder, model_folder)


def test_a_checkpoint_of_another_run_is_never_deleted(data_folder, model_folder, tmp_path, capsys):
    output = tmp_path / "out"
    with killed_at(step=1):
        unlearn(model_folder, data_folder, {"concept": "apple"}, settings=SHORT, output=output)
    held = (output / "checkpoint.pt").read_bytes()
    capsys.readouterr()
    for method in ("SSD", "null space", "SLUG", "GA"):
        assert main(call_of(model_folder, data_folder, output, method=method)) == 2
        assert "checkpoint.pt is of another run" in one_line(capsys)
        assert (output / "checkpoint.pt").read_bytes() == held


def test_a_result_of_another_run_is_not_replaced_without_a_word(result, data_folder, model_folder, tmp_path, caplog):
    shutil.copytree(result, tmp_path / "out")
    assert main(call_of(model_folder, data_folder, tmp_path / "out")) == 0
    assert not caplog.records
    assert main(call_of(model_folder, data_folder, tmp_path / "out", method="SSD")) == 0
    assert "holds the result of CLIPErase with {'concept': 'apple'}" in caplog.text


def test_a_second_run_into_a_folder_ends_until_the_first_is_dead(data_folder, model_folder, tmp_path, capsys):
    output = tmp_path / "out"
    output.mkdir()
    holding = f"with only_writer({str(output)!r}):\n print(1, flush=True); time.sleep(99)"
    program = f"import time; from cliperase.files import *\n{holding}"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"1\n"
        assert main(call_of(model_folder, data_folder, output)) == 2
        assert f"process {other.pid} is writing to" in one_line(capsys)
        other.kill()
    assert (output / LOCK).read_text() == str(other.pid)
    assert main(call_of(model_folder, data_folder, output)) == 0
    assert not (output / LOCK).exists()


def test_what_a_dead_process_left_half_written_is_removed(tmp_path):
    half = "p.write_text('half'); (p.parent / '.tmp7').touch(); os.kill(os.getpid(), 9)"
    program = f"import os; from cliperase.files import *\nwith whole_file({str(tmp_path / 'x')!r}) as p:\n {half}"
    subprocess.run([sys.executable, "-c", program], check=False)
    assert len(list(tmp_path.rglob("*"))) == 3
    kept = [
        tmp_path / f".x.{HERE}.{os.getppid()}.partial",
        tmp_path / ".x.elsewhere.1.partial",
        tmp_path / ".y.partial",
    ]
    for folder in kept:
        folder.mkdir()
    with whole_file(tmp_path / "x") as partial:
        partial.write_text("whole")
    assert sorted(tmp_path.iterdir()) == sorted([*kept, tmp_path / "x"])


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600), (0o002, 0o664)])
def test_files_have_the_mode_of_the_umask(umask, mode, data_folder, model_folder, tmp_path):
    before = os.umask(umask)
    try:
        assert main(call_of(model_folder, data_folder, tmp_path / "out", method="null space")) == 0
        assert (
            main(["pack", "--model", str(model_folder), "--data", str(data_folder), "--output", str(tmp_path / "p")])
            == 0
        )
    finally:
        os.umask(before)
    for path in (tmp_path / "p", *(tmp_path / "out").iterdir()):
        assert path.stat().st_mode & 0o777 == mode, path


def test_a_run_is_not_resumed_with_other_validation_rows(data_folder, model_folder, tmp_path):
    training, seen = (load_pairs(data_folder, split) for split in ("train", "validation"))
    forget = training.labels == 0
    recipe = Recipe.of("CLIPErase", SHORT)

    def run(validation, forgotten):
        student = load_model(model_folder)
        Run(student, recipe, training.select(forget), training.select(~forget), validation, forgotten,
            checkpoint=tmp_path / "c.pt", progress=False).carry_out()  # fmt: skip

    with killed_at(step=1):
        run(seen, seen.labels == 0)
    fewer = torch.arange(len(seen)) > 0
    turned = replace(seen, images=seen.images.flip(3))
    for rows, mask in (
        (seen, seen.labels == 1),
        (seen.select(fewer), seen.labels[fewer] == 0),
        (turned, seen.labels == 0),
    ):
        with pytest.raises(CliperaseError, match=r"another run \(validation rows was"):
            run(rows, mask)
    run(seen, seen.labels == 0)


def program(call, **options):
    """The command line in a process of its own. It hears interrupts, also where a shell that runs the tests in the
    background has them ignored."""
    command, heard = (
        [sys.executable, "-m", "cliperase.cli", *call],
        partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=heard, **options)


def test_an_interrupt_is_one_line_and_the_run_goes_on(data_folder, model_folder, tmp_path):
    output = tmp_path / "out"
    call = call_of(model_folder, data_folder, output, "steps=100000", "evaluate_every=5")
    with program(call, stdout=subprocess.DEVNULL) as run:
        for _ in range(600):
            if (output / "checkpoint.pt").exists():
                break
            time.sleep(0.1)
        run.send_signal(signal.SIGINT)
        said = run.stderr.read()
    assert run.returncode == 130
    assert said.endswith("a training goes on from its last checkpoint when the same command is given again\n")
    assert "Traceback" not in said
    assert {path.name for path in output.iterdir()} == {"checkpoint.pt"}


def test_an_interrupt_while_the_program_is_being_imported_is_one_line(monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setattr("builtins.__import__", Mock(side_effect=KeyboardInterrupt))
        assert start() == 130
    assert "cliperase: interrupted" in one_line(capsys)


@pytest.fixture
def photos_of_apples(tmp_path):
    """Folders of two classes, in two splits."""
    for split in ("train", "val"):
        for number, name in enumerate(["apple", "苹果"] * 6):
            path = tmp_path / "photos" / split / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (32, 32), (9 * number, len(split), 0)).save(path)
    return tmp_path / "photos"


def test_signs_that_the_output_cannot_show_are_escaped(photos_of_apples, model_folder, tmp_path):
    call = [*call_of(model_folder, photos_of_apples, tmp_path / "out"), "--dry-run"]
    with program(call, stdout=subprocess.PIPE, env=os.environ | {"PYTHONIOENCODING": "ascii"}) as run:
        out, said = run.communicate()
    assert run.returncode == 0, said
    assert r"images of 32 \xd7 32 pixels" in out


def test_a_name_with_a_line_end_is_told_in_one_line(photos_of_apples, model_folder, tmp_path, capsys):
    deep = photos_of_apples / "train" / "apple" / "a\nb"
    deep.mkdir()
    shutil.copy(photos_of_apples / "train" / "apple" / "0.png", deep)
    assert main(call_of(model_folder, photos_of_apples, tmp_path / "out")) == 2
    assert r"train/apple/a\nb/0.png lies 2 folders deep" in one_line(capsys)


def test_a_result_among_its_data_is_refused(photos_of_apples, model_folder, capsys, monkeypatch):
    monkeypatch.chdir(photos_of_apples)
    for output in ("out", photos_of_apples / "train" / ".." / "out"):
        assert main(call_of(model_folder, ".", output)) == 2
        assert "lies in data '.'; name a folder elsewhere" in one_line(capsys)
    assert (
        main(["audit", str(model_folder), str(model_folder), "--data", ".", "--forget", "apple", "--output", "a"]) == 2
    )
    assert "lies in data '.'; name a folder elsewhere" in one_line(capsys)
    for call in (["compare", str(model_folder), str(model_folder)], ["propose", "--model", str(model_folder)]):
        assert main([*call, "--data", ".", "--output", "a"]) == 2
        assert "lies in data '.'; name a folder elsewhere" in one_line(capsys)


def test_a_reader_that_has_gone_is_no_traceback(data_folder, model_folder):
    call = ["evaluate", "--model", str(model_folder), "--data", str(data_folder), "--forget", "apple"]
    reader, writer = os.pipe()
    os.close(reader)
    with program(call, stdout=writer) as run:
        os.close(writer)
        assert run.stderr.read() == ""
    assert run.returncode == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_an_output_that_is_full_is_one_line(data_folder, model_folder):
    call = ["evaluate", "--model", str(model_folder), "--data", str(data_folder), "--forget", "apple"]
    with open("/dev/full", "w") as full, program(call, stdout=full) as run:
        assert run.stderr.read() == "cliperase: standard output is full; make room, or write to a file elsewhere\n"
    assert run.returncode == 2


def test_a_single_pair_to_retain_is_refused(data_folder, model_folder, tmp_path, capsys):
    for method in ("CLIPErase", "GradDiff", "fine-tune"):
        assert main(call_of(model_folder, data_folder, tmp_path / "out", "retain_batch=1", method=method)) == 2
        assert "retain_batch is 1; give at least 2, because" in one_line(capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["../../x", "/x", "a/b", "..", "a\\b", ".hidden"])
def test_names_of_a_profile_never_become_paths(name, data_folder, model_folder, tmp_path, capsys):
    own = {"concepts": ["apple"], "references": [], "methods": {name: {"method": "GA", "learning_rate": 1e-3}}}
    settings = {"main": own}
    rows = [{"experiments": settings}, {"methods": {name: {}}}] if name != "a/b" else []  # a slash tells a variant
    for changes in ({"concepts": [name]}, {"profile": name}, *rows):
        profile = write_profile(tmp_path, **changes)
        call = ["experiment", "main", "--profile", profile, "--data", data_folder, "--model", model_folder]
        assert pipeline([str(part) for part in [*call, "--output", tmp_path / "t.csv"]]) == 2
        assert "becomes a part of file names" in one_line(capsys)
    assert {path.name for path in tmp_path.iterdir()} == {"profile.yaml"}


def test_metrics_are_written_whole_or_not_at_all(data_folder, model_folder, tmp_path, monkeypatch):
    path = tmp_path / "metrics.json"
    path.write_text("held")

    def die(source, target):
        raise KeyboardInterrupt

    call = ["evaluate", "--model", str(model_folder), "--data", str(data_folder), "--output", str(path)]
    with monkeypatch.context() as patch:
        patch.setattr("os.replace", die)
        assert main(call) == 130
    assert path.read_text() == "held"
    assert list(tmp_path.iterdir()) == [path]
    assert main(call) == 0
    assert json.loads(path.read_text()).keys() == {"retain_accuracy", "retain_images"}
