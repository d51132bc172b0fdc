"""Files of open_clip's weights: which one of a folder is meant, whether it is OpenAI's, and how it is read."""

import zipfile
from pathlib import Path

import open_clip
import torch
from safetensors import safe_open

from cliperase.errors import CliperaseError

WEIGHTS_NAME = "open_clip_model.safetensors"
WEIGHTS_NAMES = (  # of a folder, in open_clip's order
    WEIGHTS_NAME, "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin", "open_clip_pytorch_model.pth",
    "model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth",
)  # fmt: skip
SUFFIXES = (".safetensors", ".bin", ".pt", ".pth")
OPENAIS = {"input_resolution", "context_length", "vocab_size"}  # numbers that OpenAI's models alone hold beside weights


def weights_beside(folder):
    """The file of weights in a model folder: the one with a usual name, else the only one."""
    for name in WEIGHTS_NAMES:
        if (folder / name).is_file():
            return str(folder / name)
    others = sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES)
    if not others:
        raise CliperaseError(f"model folder {folder} holds no {WEIGHTS_NAME} nor other weights; copy the model again")
    if len(others) > 1:
        listed = " and ".join(path.name for path in others[:2])
        raise CliperaseError(f"model folder {folder} holds the weights {listed}; leave one, or name it {WEIGHTS_NAME}")
    return str(others[0])


def is_openais(path):
    """Whether the weights in a file say that they are OpenAI's, which need QuickGELU. No weight is read."""
    suffix = Path(path).suffix
    if suffix in (".npz", ".npy"):  # Google's
        return False
    if suffix == ".safetensors":
        with safe_open(path, "pt") as file:
            return set(file.keys()) >= OPENAIS
    check_no_code(path)
    found = torch.load(path, map_location="meta", weights_only=True)
    return set(found.get("state_dict", found)) >= OPENAIS


def check_no_code(path):
    """Refuse a TorchScript archive, the form in which OpenAI publishes its models: it is code."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(name.endswith("/constants.pkl") for name in archive.namelist()):
                raise CliperaseError(
                    f"weights {path} are a TorchScript archive, and no code of a model is run; write the tag openai "
                    "for OpenAI's weights, or save the state_dict of the archive"
                )


def read_weights(model, path):
    """Give an open_clip `model` the weights in a file."""
    reading = model.register_load_state_dict_pre_hook(leave_numbers_out)
    try:
        open_clip.load_checkpoint(model, path, weights_only=True)
    finally:
        reading.remove()


def leave_numbers_out(model, weights, *_):
    for name in OPENAIS:
        weights.pop(name, None)
