"""Small CLIPs: convolutional image towers and ordinary open_clip configurations with them.

Importing this module registers the towers with timm, so that open_clip can build and load them.
"""

import torch
from timm.models import register_model
from torch import nn

from cliperase.errors import CliperaseError

TOWERS = {  # settings of `CompactConv`, by the name of the architecture
    "compact": {"widths": (16, 48, 96, 192), "halved": (True, True, True, False), "residual": 0},
    "wide": {"widths": (48, 128, 256, 256), "halved": (True, True, True, False), "residual": 2},
}
COMPACT = {  # the model of the `icons` profile
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


def model_config(architecture="compact", image_size=None):
    """The open_clip configuration of a small model, for pictures of `image_size`; all but the tower is the same."""
    if architecture not in TOWERS:
        raise CliperaseError(f"architecture {architecture!r} unknown; choose one of {', '.join(TOWERS)}")
    model, pixels = COMPACT["model_cfg"], COMPACT["preprocess_cfg"]
    size = image_size or pixels["size"]
    vision = {**model["vision_cfg"], "timm_model_name": f"cliperase_{architecture}", "image_size": size}
    return {"model_cfg": {**model, "vision_cfg": vision}, "preprocess_cfg": {**pixels, "size": size}}


def is_small(config):
    """Whether an open_clip configuration is that of a small CLIP."""
    tower = config["model_cfg"].get("vision_cfg", {}).get("timm_model_name")
    return tower in [f"cliperase_{architecture}" for architecture in TOWERS]


class CompactConv(nn.Module):
    """3×3 convolutions with batch norm, some of them `halved` by max pooling, then a global maximum.

    `residual`: convolutions of the last width whose result is added to what goes in. `forward`: (N, 3, H, W) float ->
    (N, last width). `compact`: 0.2 M parameters; learns 32×32 pictograms in about a minute on two CPU cores, where ViT
    and ResNet towers trained from scratch do not get off the ground. `wide`: 2.1 M, for photographs.
    """

    def __init__(self, widths, halved, residual):
        super().__init__()
        self.blocks = nn.ModuleList(conv_block(i, o) for i, o in zip((3, *widths[:-1]), widths, strict=True))
        self.residual = nn.ModuleList(conv_block(widths[-1], widths[-1]) for _ in range(residual))
        self.halved = halved
        self.num_features = widths[-1]
        self.default_cfg = {"pool_size": None}  # read by open_clip's TimmModel

    def reset_classifier(self, num_classes, **_):
        """open_clip asks for a headless trunk; this one never has a head."""
        if num_classes:
            raise ValueError("the small towers have no classifier; open_clip adds the projection")

    def forward_features(self, x):
        """(N, 3, H, W) -> the last feature map (N, last width, H/8, W/8)."""
        return self.forward_intermediates(x)[0]

    def forward_intermediates(self, x, **_):
        """As timm's: (the last feature map, [the map behind each convolution])."""
        x, maps = x.contiguous(memory_format=torch.channels_last), []  # 1.3 times faster on the CPU at this size
        for block, halved in zip(self.blocks, self.halved, strict=True):
            x = normalised(block, x)  # the maximum before ReLU, which changes nothing about which pixel is largest
            x = (nn.functional.max_pool2d(x, 2) if halved else x).relu_()
            maps.append(x)
        added = x
        for block in self.residual:
            added = normalised(block, added).relu_()
            maps.append(added)
        return (x + added if len(self.residual) else x), maps

    def forward_head(self, x):  # timm's name, which open_clip's `forward_intermediates` calls
        """The last feature map -> (N, last width)."""
        return x.amax(dim=(2, 3))

    def forward(self, x):
        return self.forward_head(self.forward_features(x))


def conv_block(channels_in, channels_out):
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
    )


def normalised(block, x):
    """Convolution and batch norm. With fixed statistics both are one linear map, and one pass over the pixels does."""
    convolution, norm = block
    if norm.training:
        return block(x)
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    weight, bias = convolution.weight * scale[:, None, None, None], norm.bias - norm.running_mean * scale
    return nn.functional.conv2d(x, weight, bias, padding=1)


@register_model
def cliperase_compact(pretrained=False, **_):
    """timm's entry point."""
    return untrained(pretrained, "compact")


@register_model
def cliperase_wide(pretrained=False, **_):
    """timm's entry point."""
    return untrained(pretrained, "wide")


def untrained(pretrained, architecture):
    if pretrained:
        raise ValueError("the small towers have no weights to download; train them with `python -m paper pretrain`")
    return CompactConv(**TOWERS[architecture])
