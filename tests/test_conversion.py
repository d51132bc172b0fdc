"""open_clip's text tower as transformers' text encoder and back, exactly; and the same tokens."""

import string

import pytest
import torch
from conftest import changed_config
from hypothesis import given
from hypothesis import strategies as st
from transformers import CLIPTextModel, CLIPTokenizer

from cliperase.errors import CliperaseError
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
        found = to_transformers(model)(tokens)
    assert torch.allclose(found.last_hidden_state, hidden_states(model, tokens), atol=1e-5)
    pooled = torch.nn.functional.normalize(found.pooler_output @ model.model.text_projection, dim=1)
    assert torch.allclose(pooled, model.encode_text(TEXTS), atol=1e-5)


def test_and_back_again(model):
    other = create_model(COMPACT, seed=5).eval()
    from_transformers(model, to_transformers(other))
    tokens = model.tokenizer(TEXTS)
    assert torch.equal(hidden_states(model, tokens), hidden_states(other, tokens))
    narrow = create_model(changed_config(width=64), seed=0)
    with pytest.raises(CliperaseError, match="is not the"):
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
