"""Models of several families behind one interface; `load_model` finds the family."""

from pathlib import Path

import open_clip

from cliperase.errors import CliperaseError, reason_of
from cliperase.models.base import read_json
from cliperase.models.openclip import CONFIG_NAME, WEIGHTS_NAME, OpenCLIP, check_vocabulary, read_config


def load_model(source, device="cpu"):
    """A saved model folder, an open_clip name with a weights tag or file such as `ViT-B-32/openai`, or `hf-hub:…`.

    A BLIP is a folder of transformers' or `blip:<hub name>`. open_clip leaves random weights where it finds none;
    here that is an error.
    """
    if is_blip(source):
        from cliperase.models.blip import load_blip

        return load_blip(source, device)
    folder = Path(source)
    if folder.is_dir():
        for name in (CONFIG_NAME, WEIGHTS_NAME):
            if not (folder / name).is_file():
                raise CliperaseError(f"model folder {folder} holds no {name}; train or copy the model again")
        name, pretrained = f"local-dir:{folder}", None
    elif str(source).startswith("hf-hub:"):
        name, pretrained = str(source), None
    elif str(source).split("/")[0] not in open_clip.list_models():
        raise CliperaseError(
            f"model {str(source)!r} is neither a folder nor <open_clip name>/<tag or file>; "
            "open_clip.list_models() names what it has"
        )
    elif "/" not in str(source):
        raise CliperaseError(f"model {str(source)!r} names no weights; write {source}/<tag or file>")
    else:
        name, pretrained = str(source).split("/", 1)
    # OpenAI's and some other weights were trained with another activation than the architecture's default
    quick = bool(pretrained and open_clip.get_pretrained_cfg(name, pretrained).get("quick_gelu"))
    options = {"pretrained": pretrained, "device": device, "force_quick_gelu": quick}
    try:
        model = open_clip.create_model(name, require_pretrained=not folder.is_dir(), **options)
        tokenizer = open_clip.get_tokenizer(name)
    except Exception as error:  # open_clip, torch and safetensors each raise their own
        raise CliperaseError(
            f"model {str(source)!r} cannot be loaded ({reason_of(error)}); is it whole, and of this architecture?"
        ) from None
    check_vocabulary(tokenizer, model, source)
    return OpenCLIP(model, tokenizer, read_config(folder, name, model, quick)).to(device).eval()


def is_blip(source):
    """A folder whose configuration says so, or `blip:<hub name>`."""
    config = Path(source) / "config.json"
    named = str(source).startswith("blip:")
    return named or (config.is_file() and read_json(config).get("model_type") == "blip")
