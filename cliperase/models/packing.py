"""Small models as one file that git can keep: half precision, and of the token embedding only the rows in use."""

import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save, save_file

from cliperase.cache import digest
from cliperase.errors import CliperaseError, reason_of
from cliperase.files import whole_file
from cliperase.manifest import manifest_of
from cliperase.models import load_model
from cliperase.models.compact import TOWERS, is_small
from cliperase.models.openclip import CONFIG_NAME, OpenCLIP, create_model
from cliperase.models.weights import WEIGHTS_NAME

ABOUT, TABLE = "about", "token_embedding.weight"
SMALL = 4096  # tensors of fewer numbers stay as they are: norms, biases, the temperature


def pack(source, texts, path):
    """Pack the small model in the folder `source` into the file `path`. `texts`: all captions of its training data."""
    model = load_model(source)
    if not isinstance(model, OpenCLIP) or not is_small(model.config):
        raise CliperaseError(
            f"model {source} is not one of {', '.join(TOWERS)}, the only ones that are packed; copy its folder instead"
        )
    weights = dict(model.model.state_dict())
    used = model.tokenizer(texts).unique()
    weights[TABLE] = weights[TABLE][used]
    packed = {name: tensor.half() if tensor.numel() > SMALL else tensor for name, tensor in weights.items()}
    packed = {name: tensor.contiguous() for name, tensor in packed.items()} | {"tokens": used.int()}
    with whole_file(path) as partial:
        about = {"config": model.config, "sha256": digest(packed)}
        save_file(packed, partial, metadata={ABOUT: json.dumps(about)})  # of several keys the order would be random


@torch.no_grad()
def unpack(path, folder):
    """Write the model in the file `path` as an open_clip folder. Tokens it has not learnt get random embeddings."""
    if manifest_of(folder):
        raise CliperaseError(f"output {folder} holds a result, whose weights would be replaced; name another folder")
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads(file.metadata()[ABOUT])
            packed = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 – not a mapping
        if digest(packed) != about["sha256"]:
            raise ValueError("its weights do not have the hash that it names")
        used = packed.pop("tokens").long()
        model = create_model(about["config"], seed=0)
        table = model.model.token_embedding.weight.clone()
        table[used] = packed[TABLE].float()
        model.model.load_state_dict({name: tensor.float() for name, tensor in packed.items()} | {TABLE: table})
    except Exception as error:  # safetensors, json and torch each raise their own
        raise CliperaseError(
            f"packed model {Path(path)} cannot be read ({reason_of(error)}); copy the file again"
        ) from None
    check_same(Path(folder), model)
    model.save(folder)


def check_same(folder, model):
    """Raise CliperaseError where a `folder` holds another open_clip model, which would be lost; to unpack twice is
    none."""
    held = [name for name in (CONFIG_NAME, WEIGHTS_NAME) if (folder / name).is_file()]
    weights = folder / WEIGHTS_NAME
    if held and not (weights.is_file() and weights.read_bytes() == save(model.model.state_dict())):
        raise CliperaseError(f"output {folder} holds {held[0]} of another model; name another folder, or take it away")
