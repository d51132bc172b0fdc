"""open_clip's text tower, and its whole CLIP, as transformers has it and back, exactly; and the same tokens."""

import copy
import json
import string

import pytest
import torch
from conftest import TINY_VIT, changed_config
from hypothesis import given
from hypothesis import strategies as st
from test_preprocessing import picture, tensor
from test_transformers import create_clip, create_siglip, written
from transformers import CLIPImageProcessor, CLIPModel, CLIPTextModel, CLIPTokenizer

from cliperase.api import convert
from cliperase.cli import main
from cliperase.errors import CliperaseError
from cliperase.models import load_model
from cliperase.models.compact import COMPACT
from cliperase.models.openclip import create_model
from cliperase.models.text_encoder import check_tokenizer, clip_tokenizer, from_transformers, to_transformers

TEXTS = ["a photo of a apple", "a drawing of a lemon", "leaf", ""]


@torch.no_grad()
def hidden_states(model, tokens):
    """open_clip's text tower up to the projection, by its own parts."""
    tower = model.model
    states = tower.transformer(tower.token_embedding(tokens) + tower.positional_embedding, attn_mask=tower.attn_mask)
    return tower.ln_final(states)


@pytest.mark.parametrize("config", [COMPACT, changed_config(quick_gelu=True)], ids=["gelu", "quick gelu"])
def test_the_text_tower_is_converted_exactly(config):
    model = create_model(config, seed=3).eval()
    tokens = model.tokenizer(TEXTS)
    with torch.no_grad():
        found, (states, ends) = to_transformers(model)(tokens), model.token_states(TEXTS)
    assert torch.allclose(found.last_hidden_state, states, atol=1e-5)
    assert torch.equal(ends, tokens.argmax(dim=1))
    pooled = torch.nn.functional.normalize(found.pooler_output @ model.model.text_projection, dim=1)
    assert torch.allclose(pooled, model.encode_text(TEXTS), atol=1e-5)


def test_and_back_again(model):
    other = create_model(COMPACT, seed=5).eval()
    from_transformers(model, to_transformers(other))
    tokens = model.tokenizer(TEXTS)
    assert torch.equal(hidden_states(model, tokens), hidden_states(other, tokens))
    narrow = create_model(changed_config(width=64), seed=0)
    with pytest.raises(CliperaseError, match=r"is not of shape \(.+\); give one of the same architecture"):
        from_transformers(model, to_transformers(narrow))


def test_an_encoder_that_transformers_built_becomes_a_text_tower(model):
    """Not by the way back of our own conversion: its weights are drawn by transformers."""
    config = to_transformers(model).config
    torch.manual_seed(8)
    encoder = CLIPTextModel(config).eval()
    from_transformers(model, encoder)
    tokens = model.tokenizer(TEXTS)
    with torch.no_grad():
        wanted = encoder(tokens).last_hidden_state
    assert torch.allclose(hidden_states(model, tokens), wanted, atol=1e-5)


@given(st.text(alphabet=string.ascii_letters + string.digits + " .,;:?'-/()", max_size=60))
def test_the_tokenizer_is_open_clips(text):
    """Prompts of plain text without "!", the padding; open_clip's also mends HTML, control characters, encodings."""
    tokenizer, _, theirs = TOKENIZERS
    found = tokenizer([text], padding="max_length", truncation=True, return_tensors="pt").input_ids
    assert torch.equal(found, theirs([text]))


def test_the_tokenizer_pads_as_stable_diffusion_does():
    """With the end of the text; up to it the tokens are those of the other padding."""
    plain, own, _ = TOKENIZERS
    as_clip, found = (
        one(["a cat", "a photo of a cat"], padding="max_length", return_tensors="pt").input_ids for one in (plain, own)
    )
    lengths = as_clip.argmax(dim=1) + 1
    for row, other, length in zip(as_clip, found, lengths, strict=True):
        assert torch.equal(row[:length], other[:length])
        assert set(row[length:].tolist()) == {0}
        assert set(other[length:].tolist()) == {49407}


TOKENIZERS = (clip_tokenizer(24, "!"), clip_tokenizer(24), create_model(COMPACT, seed=0).tokenizer.tokenizer)


def test_a_tokenizer_without_its_files_is_refused():
    with pytest.raises(CliperaseError, match="not 49408"):
        check_tokenizer(CLIPTokenizer(), "of a broken folder")


def vit(**preprocess):
    """A CLIP with a vision transformer."""
    return {**TINY_VIT, "preprocess_cfg": TINY_VIT["preprocess_cfg"] | preprocess}


def quick():
    config = copy.deepcopy(TINY_VIT)
    config["model_cfg"] |= {"quick_gelu": True}
    config["model_cfg"]["vision_cfg"] |= {"norm_kwargs": {"eps": 1e-3}, "head_width": 16}
    return config


WHOLE = {"shortest": vit(), "squash, bilinear": vit(resize_mode="squash", interpolation="bilinear"), "quick": quick()}


@pytest.mark.parametrize("config", WHOLE.values(), ids=WHOLE)
def test_a_whole_clip_is_converted_and_back(config, tmp_path, capsys):
    """Of two libraries: the other one's own class, tokenizer and image processor give the embeddings."""
    model = create_model(config, seed=3).eval()
    model.save(tmp_path / "one")
    for source, to, output in (("one", "transformers", "two"), ("two", "open_clip", "three")):
        assert main(["convert", "--model", str(tmp_path / source), "--to", to, "--output", str(tmp_path / output)]) == 0
        parity = json.loads(capsys.readouterr().out)["lowest cosines to the original"]
        assert min(parity.values()) > 1 - 1e-6
    shot = picture((40, 48))
    theirs, words = (kind.from_pretrained(tmp_path / "two") for kind in (CLIPModel, CLIPTokenizer))
    pixels = CLIPImageProcessor.from_pretrained(tmp_path / "two")(shot, return_tensors="pt").pixel_values
    tokens = words(TEXTS, padding=True, return_tensors="pt").input_ids
    with torch.no_grad():
        found = theirs.eval()(input_ids=tokens, pixel_values=pixels)
    for one in (model, load_model(tmp_path / "three")):
        assert torch.allclose(found.text_embeds, one.encode_text(TEXTS), atol=1e-5)
        assert torch.allclose(found.image_embeds, one.encode_image(tensor(shot)), atol=1e-5)
        assert found.logits_per_image.div(found.image_embeds @ found.text_embeds.T).mean().item() == pytest.approx(
            one.logit_scale.item(), rel=1e-4
        )
    again = load_model(tmp_path / "three").model.state_dict()
    assert all(torch.equal(value, again[name]) for name, value in model.model.state_dict().items())


def test_what_is_not_converted_is_said(model_folder, tmp_path, capsys):
    changed = copy.deepcopy(TINY_VIT)
    changed["model_cfg"]["vision_cfg"]["pool_type"] = "avg"
    create_model(changed, seed=3).save(tmp_path / "pooled")
    create_model(vit(resize_mode="longest"), seed=3).save(tmp_path / "padded")
    changed["model_cfg"]["vision_cfg"] = {**TINY_VIT["model_cfg"]["vision_cfg"], "no_ln_pre": True}
    create_model(changed, seed=3).save(tmp_path / "bare")
    siglip, cropped = written(tmp_path / "siglip", create_siglip), written(tmp_path / "cropped", create_clip)
    mixed = written(tmp_path / "mixed", lambda: create_clip(hidden_act="gelu"))
    capsys.readouterr()  # what transformers says of writing
    cases = [
        (model_folder, "transformers", tmp_path / "new", "only a CLIP of two transformers"),
        (model_folder, "open_clip", tmp_path / "new", "is not converted to open_clip"),
        (tmp_path / "pooled", "transformers", tmp_path / "new", "the converted model differs"),
        (tmp_path / "padded", "transformers", tmp_path / "new", "cannot resize as Resized"),
        (tmp_path / "pooled", "transformers", model_folder, "is not empty"),
        (tmp_path / "bare", "transformers", tmp_path / "new", "the weights are not those of a CLIPModel"),
        (siglip, "open_clip", tmp_path / "new", "only a CLIPModel with CLIP's own tokens"),
        (mixed, "open_clip", tmp_path / "new", "no CLIP with the activations gelu, quick_gelu"),
        (cropped, "open_clip", tmp_path / "new", "open_clip cannot prepare pictures as this image processor does"),
    ]
    for source, to, output, said in cases:
        assert main(["convert", "--model", str(source), "--to", to, "--output", str(output)]) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
    with pytest.raises(CliperaseError, match="format 'keras' unknown; choose one of open_clip, transformers"):
        convert(model_folder, "keras", tmp_path / "new")
    assert not (tmp_path / "new").exists() or not list((tmp_path / "new").iterdir())
