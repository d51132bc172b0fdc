"""BLIPs of transformers whose image tower may begin with convolutions, and the likelihood of a caption.

A hybrid of convolutions and a transformer: Dosovitskiy et al. 2021, section 3.1. The published BLIPs are of patches;
they load through these classes as they are.
"""

import torch
import torch.nn.functional as F
from torch import nn
from transformers import BlipForConditionalGeneration, BlipForImageTextRetrieval

from cliperase.models.blip import BLIP
from cliperase.models.compact import TOWERS, CompactConv


class Convolutions(nn.Module):
    """The compact CLIP's feature map in the place of patches: (N, 3, H, W) -> (N, width, H/8, W/8)."""

    def __init__(self, width):
        super().__init__()
        self.trunk = CompactConv(**TOWERS["compact"])
        self.projection = nn.Conv2d(self.trunk.num_features, width, 1)

    @property
    def weight(self):
        """transformers asks it for the type of numbers."""
        return self.projection.weight

    def forward(self, pixels):
        return self.projection(self.trunk.forward_features(pixels))


class Hybrid:
    """A BLIP of transformers with `Convolutions`, where `convolutional` of its vision configuration says so."""

    def __init__(self, config):
        super().__init__(config)
        if getattr(config.vision_config, "convolutional", False):
            self.vision_model.embeddings.patch_embedding = Convolutions(config.vision_config.hidden_size)


class Matching(Hybrid, BlipForImageTextRetrieval):
    """Contrastive heads and matching head."""


class Captioner(Hybrid, BlipForConditionalGeneration):
    """A decoder that writes a caption."""


def load_captioner(source, device="cpu"):
    """The adapter of a captioner: a folder or `blip:<hub name>`. It has no contrastive heads, so it encodes nothing."""
    return BLIP.load(source, device, Captioner)


def caption_logits(captioner, states, texts):
    """What a captioner expects next: (logits (N, L - 1, V), the tokens that come (N, L - 1), their mask).

    `captioner`: its adapter; `states` (N, 1 + patches, width): what its image tower gave.
    """
    tokens, mask = captioner.read(texts)
    tokens = tokens.clone()
    tokens[:, 0] = captioner.model.config.text_config.bos_token_id
    visible = torch.ones(states.shape[:2], dtype=torch.long, device=states.device)
    logits = captioner.model.text_decoder(
        input_ids=tokens, attention_mask=mask, encoder_hidden_states=states, encoder_attention_mask=visible
    ).logits
    return logits[:, :-1], tokens[:, 1:], mask[:, 1:]


def caption_loss(captioner, states, texts):
    """Cross-entropy of each caption, (N,), in nats per token."""
    return token_loss(*caption_logits(captioner, states, texts))


def token_loss(logits, tokens, mask):
    """`caption_loss` of what `caption_logits` gave."""
    each = F.cross_entropy(logits.transpose(1, 2), tokens, reduction="none")
    return (each * mask).sum(dim=1) / mask.sum(dim=1)
