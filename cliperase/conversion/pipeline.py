"""A copy of a diffusers pipeline that reads with the text tower of a model."""

import shutil
from pathlib import Path

import torch

from cliperase.conversion.parity import SAMPLE, parity
from cliperase.files import read_json
from cliperase.models.base import import_transformers
from cliperase.models.pipeline import INDEX, PROJECTED, fitting, head_of, parts_of, read_encoder
from cliperase.models.text_encoder import to_transformers


def write_pipeline(model, folder, into):
    """Copy the pipeline `into` and put the text tower of `model`, an `OpenCLIP`, in the place of the encoder that fits.

    The encoder keeps its configuration, so that the pipeline's own conventions hold: Stable Diffusion 2 leaves out the
    last layer of its CLIP, Stable Diffusion XL reads the last layer but one and, of its second encoder, the projection.
    Weights are float32. Returns its name, and the parity of every layer's states and of the embedding.
    """
    text, into = to_transformers(model), Path(into)
    name, kind, config = fitting(into, text.config)
    copy_parts(into, folder, without=name)
    encoder = getattr(import_transformers(), kind)(config).float()
    fill(encoder, text, model)
    prefix = "" if kind == PROJECTED else "text_model."  # as published: transformers 4 takes random weights without
    weights = {f"{prefix}{key}": tensor for key, tensor in encoder.state_dict().items()}
    encoder.save_pretrained(folder / name, state_dict=weights)
    found = parity(*states_of(model, read_encoder(folder / name, kind).to(model.device)))
    return {"encoder": name, **found}


def copy_parts(source, folder, without):
    """Copy what the index of the pipeline names, without one part, and the licence; not files of weights beside it,
    which hold the encoder as it was."""
    index = read_json(source / INDEX)
    for part in source.iterdir():
        if part.is_dir() and part.name in index and part.name != without:
            shutil.copytree(part, folder / part.name)
    for path in (source / INDEX, *source.glob("LICENSE*")):
        shutil.copy(path, folder)


def fill(encoder, text, model):
    """Give a new `encoder` the weights of `text`, the whole `CLIPTextModel` of `model`, and the projection."""
    own, projection = parts_of(encoder)
    weights = text.state_dict()
    own.load_state_dict({name: weights[name] for name in own.state_dict()})
    if projection is not None:
        projection.load_state_dict({"weight": head_of(model).detach().T})


@torch.no_grad()
def states_of(model, encoder):
    """(those of the model's own tower, those of the encoder): {"layers": (layers, T, L, width), "states", "embedding"}.

    "states": (T, L, width), behind the final norm. "embedding": (T, D), of an encoder that has a projection.
    """
    text, projection = parts_of(encoder)
    tokens, count = model.tokenizer(list(SAMPLE)).to(model.device), text.config.num_hidden_layers
    found = model.model.forward_intermediates(text=tokens, normalize=False)
    layers, made = torch.stack(found["text_intermediates"][:count]), encoder(tokens, output_hidden_states=True)
    own = {"layers": layers, "states": model.clip_text_tower.ln_final(layers[-1])}
    theirs = {"layers": torch.stack(made.hidden_states[1:]), "states": made.last_hidden_state}
    if projection is not None:
        own["embedding"], theirs["embedding"] = found["text_features"], made.text_embeds
    return own, theirs
