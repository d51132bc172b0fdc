"""Both encoders as ONNX: what onnxruntime makes of the written files alone is what the model makes."""

import copy
import json

import numpy as np
import onnxruntime
import open_clip
import pytest
import torch
from conftest import TINY_VIT
from inputs import word_tokenizer_of
from test_preprocessing import picture, tensor
from test_transformers import create_siglip, written
from tokenizers import Tokenizer
from transformers import AutoImageProcessor, AutoTokenizer

from cliperase.cli import main
from cliperase.conversion import onnx
from cliperase.errors import CliperaseError
from cliperase.models import load_model
from cliperase.models.openclip import OpenCLIP, create_model

TEXTS = ["a photo of a apple", "lemon", "a drawing of a leaf that is rather long", "a  Plum, in two", "lemon " * 40]


@pytest.fixture(scope="module", params=["open_clip", "SigLIP of transformers"])
def converted(request, model_folder, tmp_path_factory):
    """(the model, the folder of its graphs, what the command printed)."""
    folder = tmp_path_factory.mktemp("onnx")
    source = model_folder if request.param == "open_clip" else written(folder / "siglip", create_siglip)
    with pytest.MonkeyPatch.context() as patch:
        if request.param != "open_clip":
            patch.setattr(onnx, "LARGEST", 0)  # the weights of large models lie beside the graph
        assert main(["convert", "--model", str(source), "--to", "onnx", "--output", str(folder / "graphs")]) == 0
    assert len(list((folder / "graphs" / "onnx").iterdir())) == (2 if request.param == "open_clip" else 4)
    return load_model(source), folder / "graphs", json.loads((folder / "graphs" / "report.json").read_text())


def embeddings(folder, tower, gives, **inputs):
    session = onnxruntime.InferenceSession(folder / "onnx" / f"{tower}_model.onnx")
    return session.run([gives], inputs)[0]


@torch.no_grad()
def test_the_files_alone_give_the_embeddings(converted):
    model, folder, report = converted
    words = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokens = np.array([found.ids for found in words.encode_batch(TEXTS)])
    texts = embeddings(folder, "text", "text_embeds", input_ids=tokens)
    assert np.abs(texts - model.encode_text(TEXTS).numpy()).max() < 1e-4
    shots = [picture((40, 48), seed) for seed in range(5)]
    pixels = AutoImageProcessor.from_pretrained(folder)(shots, return_tensors="np").pixel_values
    images = embeddings(folder, "vision", "image_embeds", pixel_values=pixels)
    ours = model.encode_image(torch.cat([tensor(shot) for shot in shots])).numpy()
    assert np.abs(images - ours).max() < 1e-4
    assert min(report["lowest cosines to the original"].values()) > 1 - 1e-6
    assert max(report["largest differences"].values()) < 1e-4
    assert report["logit_scale"] == pytest.approx(model.logit_scale.item())
    assert report.get("logit_bias") == (None if model.logit_bias is None else model.logit_bias.item())
    again = AutoTokenizer.from_pretrained(folder)(TEXTS, padding="max_length", truncation=True).input_ids
    assert again == tokens.tolist()


def create_words(**text):
    """A CLIP of open_clip that sees its padding, as SigLIP does, with a tokenizer of transformers."""
    config = copy.deepcopy(TINY_VIT)
    config["model_cfg"]["text_cfg"] |= {"no_causal_mask": True, **text}
    return config, create_model(config, seed=3).eval()


@pytest.mark.parametrize("clean", ["whitespace", "lower", "canonicalize"])
def test_texts_are_cleaned_as_open_clip_does(clean, tmp_path):
    word_tokenizer_of(TEXTS).save_pretrained(tmp_path)
    theirs = open_clip.tokenizer.HFTokenizer(str(tmp_path), context_length=16, clean=clean)
    config, model = create_words(vocab_size=len(theirs.tokenizer))
    texts = [*TEXTS, "A_photo  of\t(a) {apple}!", "  plum's lemon-leaf ~ $in^two` "]
    before = theirs(texts)
    words, _ = onnx.preparation_of(OpenCLIP(model.model, theirs, config))
    found = words.backend_tokenizer.encode_batch(texts)
    assert [each.ids for each in found] == before.tolist() == theirs(texts).tolist()


def test_what_is_not_written_is_said(blip_folder, tmp_path, monkeypatch, capsys):
    create_words()[1].save(tmp_path / "seen")
    changed = copy.deepcopy(TINY_VIT)
    changed["preprocess_cfg"] |= {"resize_mode": "longest"}
    create_model(changed).save(tmp_path / "padded")
    create_model(TINY_VIT).save(tmp_path / "whole")

    def refused(source):
        command = ["convert", "--model", str(source), "--to", "onnx", "--output", str(tmp_path / "new")]
        assert main(command) == 2
        assert not list((tmp_path / "new").iterdir())
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        return error

    assert "give a CLIP or a SigLIP" in refused(blip_folder / "matching")
    assert "the converted model differs" in refused(tmp_path / "seen")  # open_clip pads it with another token
    assert "cannot resize as Resized" in refused(tmp_path / "padded")
    with monkeypatch.context() as patch:
        patch.setattr(torch.onnx, "export", lambda *arguments, **options: 1 / 0)
        assert "torch cannot export the image tower (division by zero)" in refused(tmp_path / "whole")
    monkeypatch.setattr(onnx, "find_spec", lambda name: None if name == "onnxscript" else name)
    assert "ONNX needs onnxscript; pip install onnxscript" in refused(tmp_path / "whole")


def test_a_tokenizer_that_cannot_be_written_is_refused(tmp_path):
    model = load_model(written(tmp_path / "siglip", create_siglip))
    model.words = object()
    with pytest.raises(CliperaseError, match=r"tokenizer object has no tokenizer\.json; take a model with one"):
        onnx.preparation_of(model)
