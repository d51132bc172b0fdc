"""The small CLIPs of this repository: ordinary open_clip configurations."""

import open_clip
import torch

from cliperase.errors import CliperaseError
from cliperase.models.openclip import OpenCLIP

COMPACT = {  # the model of the `icons` profile; an ordinary open_clip configuration
    "model_cfg": {
        "embed_dim": 128,
        "vision_cfg": {
            "timm_model_name": "cliperase_compact",
            "timm_model_pretrained": False,
            "timm_pool": "",
            "timm_proj": "linear",
            "image_size": 32,
        },
        "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 128, "heads": 4, "layers": 2},
    },
    "preprocess_cfg": {"size": 32, "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]},
}
ARCHITECTURES = {"compact": "cliperase_compact", "wide": "cliperase_wide"}  # image towers; all else is the same


def create_model(config=COMPACT, seed=0):
    """A new open_clip model with random weights from `seed`."""
    torch.manual_seed(seed)
    model = open_clip.CLIP(**config["model_cfg"])
    tokenizer = open_clip.SimpleTokenizer(context_length=config["model_cfg"]["text_cfg"]["context_length"])
    return OpenCLIP(model, tokenizer, config)


def model_config(architecture="compact", image_size=None):
    """The open_clip configuration of a small model, for pictures of `image_size`."""
    if architecture not in ARCHITECTURES:
        raise CliperaseError(f"architecture {architecture!r} unknown; choose one of {', '.join(ARCHITECTURES)}")
    model, pixels = COMPACT["model_cfg"], COMPACT["preprocess_cfg"]
    size = image_size or pixels["size"]
    vision = {**model["vision_cfg"], "timm_model_name": ARCHITECTURES[architecture], "image_size": size}
    return {"model_cfg": {**model, "vision_cfg": vision}, "preprocess_cfg": {**pixels, "size": size}}
