"""Broken on purpose: what a downloaded file, a kill, a full disk or a flipped bit can do, and what it must not."""

import io
import json
import shutil

import open_clip
import pytest
import torch
from conftest import TINY_BLIP
from transformers import YolosConfig, YolosForObjectDetection, YolosImageProcessor

from cliperase.cli import main
from cliperase.errors import CliperaseError
from cliperase.models import load_model
from cliperase.models.openclip import CONFIG_NAME, WEIGHTS_NAME
from paper.diffusion import create_detector


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
    call = ["unlearn", "--model", str(model_folder), "--data", str(data_folder), "--forget", "apple"]
    assert main([*call, "--output", str(tmp_path / "out"), "--set", "steps=1", "learning_rate=1e-3"]) == 2
    assert "delete it to start anew" in capsys.readouterr().err
