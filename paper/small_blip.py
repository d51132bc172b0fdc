"""A small BLIP and a captioner beside it, trained here by BLIP's three losses at once.

BLIP's image tower starts from ImageNet; the small one has the compact CLIP's convolutions in the place of its patches,
and starts from their weights (a hybrid: Dosovitskiy et al. 2021, section 3.1).
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn
from transformers import (
    BertTokenizer,
    BlipConfig,
    BlipImageProcessor,
)

from cliperase.checkpoints import remove_checkpoint
from cliperase.data.pairs import load_pairs
from cliperase.data.sampling import EpochSampler
from cliperase.errors import CliperaseError
from cliperase.features import fingerprint
from cliperase.losses import info_nce
from cliperase.models import load_model
from cliperase.models.base import pick_device
from cliperase.models.blip import BLIP, LENGTH
from cliperase.models.compact import CompactConv
from cliperase.settings import checked
from paper.hybrid_blip import Captioner, Matching, caption_loss
from paper.pretraining import AveragedSettings, LossTraining, checkpoint_beside, fix_threads, train_averaged

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "[ENC]")
SMALL = {  # a BLIP for 32×32 pictograms, 0.8 M parameters
    "vision_config": {
        "hidden_size": 96, "intermediate_size": 384, "num_hidden_layers": 2, "num_attention_heads": 4,
        "image_size": 32, "patch_size": 8, "initializer_range": 0.02,  # the default, 1e-10, is for loading only
        "convolutional": True,
    },
    "text_config": {
        "hidden_size": 96, "intermediate_size": 384, "num_hidden_layers": 2, "num_attention_heads": 4,
        "max_position_embeddings": LENGTH, "initializer_range": 0.1,  # for BERT's 0.02 the words take long to differ
    },
    "image_text_hidden_size": 96,
}  # fmt: skip


def word_tokenizer(texts):
    """A BERT tokenizer whose vocabulary is the words of `texts`."""
    words = sorted({word for text in texts for word in text.lower().split()})
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, *words])}
    tokenizer = BertTokenizer(vocab=vocabulary, model_max_length=LENGTH)
    tokenizer.add_special_tokens({"bos_token": "[DEC]"})
    if len(tokenizer) != len(vocabulary):
        raise CliperaseError(
            f"tokenizer has {len(tokenizer)} tokens of {len(vocabulary)} words; transformers lost some"
        )
    return tokenizer


def create_blip(texts, seed=0, size=SMALL):
    """(matching model, captioner), each behind the adapter, with random weights and one image tower in common."""
    tokenizer = word_tokenizer(texts)
    numbers = {
        "vocab_size": len(tokenizer),
        **{f"{name}_token_id": tokenizer.convert_tokens_to_ids(token) for name, token in
           (("bos", "[DEC]"), ("eos", "[SEP]"), ("sep", "[SEP]"), ("pad", "[PAD]"))},
    }  # fmt: skip
    config = {**size, "text_config": {**size["text_config"], **numbers}}
    torch.manual_seed(seed)
    matching = Matching(BlipConfig(**config))
    captioner = Captioner(BlipConfig(**config))
    captioner.vision_model = matching.vision_model
    half = [0.5, 0.5, 0.5]
    pixels = size["vision_config"]["image_size"]
    processor = BlipImageProcessor(image_mean=half, image_std=half, size={"height": pixels, "width": pixels})
    return BLIP(matching, tokenizer, processor), BLIP(captioner, tokenizer, processor)


class BlipSettings(AveragedSettings):
    """Settings of `pretrain_blip`."""

    batch: int = Field(default=128, ge=1)
    evaluate_every: int = Field(default=500, ge=1)


def pretrain_blip(data, start, output, settings, size=SMALL):
    """Train a small BLIP on the pairs of `data`: folders `matching` and `captioner` of `output`.

    `start`: the compact CLIP whose convolutions it starts from; all else is random. Resumes when killed. Returns the
    mean loss of the last steps.
    """
    settings = checked(BlipSettings, settings, "BLIP")
    fix_threads()
    pairs = load_pairs(data, "train")
    both = nn.ModuleList(create_blip(pairs.texts, settings.seed, size))
    start_from(both[0], start)
    both.to(pick_device())
    loss = train_averaged(BlipTraining(both, pairs, settings), output)
    for adapter, name in zip(both, ("matching", "captioner"), strict=True):
        adapter.save(Path(output) / name)
    remove_checkpoint(checkpoint_beside(output))
    return loss


def start_from(blip, source):
    """Give the convolutions of `blip`, in place, the weights that those of the compact CLIP at `source` have."""
    patches = blip.model.vision_model.embeddings.patch_embedding
    trunk = load_model(source).image_trunk
    if not isinstance(trunk, CompactConv) or trunk.num_features != patches.trunk.num_features:
        raise CliperaseError(f"model {str(source)!r} has no convolutions to start from; give a compact CLIP")
    patches.trunk.load_state_dict(trunk.state_dict())


class BlipTraining(LossTraining):
    """Contrast, matching and captioning at once (Li et al. 2022, section 3.2), over one pass of the image tower."""

    def __init__(self, both, pairs, settings):
        super().__init__(both, settings, [fingerprint(adapter, pairs) for adapter in both])
        self.pairs, self.sampler = pairs, EpochSampler(len(pairs), settings.batch, settings.seed)

    def loss(self, step):
        matching, captioner = self.model
        rows = self.sampler.batch(step)
        column = torch.randint(self.pairs.text_ids.shape[1], (), generator=self.generator)
        ids = self.pairs.text_ids[rows, column]
        texts = [self.pairs.texts[i] for i in ids.tolist()]
        states = matching.look(self.pairs.images[rows])
        image = F.normalize(matching.model.vision_proj(states[:, 0]), dim=-1)
        distinct, place = ids.unique(return_inverse=True)
        text = matching.encode_text([self.pairs.texts[i] for i in distinct.tolist()])[place]
        contrast = info_nce(image, text, matching.logit_scale, ids.to(image.device))
        return {
            "contrast": contrast,
            "match": self.match(matching, states, texts, image @ text.T, ids),
            "caption": caption_loss(captioner, states, texts).mean(),
        }

    def match(self, matching, states, texts, cosines, ids):
        """Is it the image's text? Asked of its own and of a wrong one, drawn the more often the more alike it is."""
        other = (ids[:, None] != ids[None, :]).float()
        if not other.any():
            raise CliperaseError(f"all {len(texts)} images of a batch have one text; give BLIP a larger batch")
        weights = (matching.logit_scale * cosines.detach()).softmax(dim=1).cpu() * other + 1e-6 * other
        wrong = torch.multinomial(weights, 1, generator=self.generator)[:, 0].tolist()
        asked = texts + [texts[i] for i in wrong]
        logits = matching.matching(torch.cat([states, states]), asked)
        truth = torch.cat([torch.ones(len(texts)), torch.zeros(len(texts))]).to(logits.device)
        return F.binary_cross_entropy_with_logits(logits, truth)
