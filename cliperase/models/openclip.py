"""The open_clip adapter."""

import json
from pathlib import Path

import open_clip
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from cliperase.errors import CliperaseError
from cliperase.files import whole_file
from cliperase.models import towers  # noqa: F401 – registers the small image towers with timm, hence with open_clip
from cliperase.models.base import ImageTextModel, Tokens, read_json

CONFIG_NAME, WEIGHTS_NAME = "open_clip_config.json", "open_clip_model.safetensors"


class UsedEmbedding(nn.Module):
    """A token embedding whose parameters are the rows of the tokens in `used`; other tokens are looked up and stay.

    A row that no text uses has no gradient, but Adam reads and writes its whole table every step, and in a
    small model that table is most of the weights. Weight decay does not reach the rows that are left out.
    """

    def __init__(self, embedding, used):
        super().__init__()
        self.whole, self.used = (embedding,), used  # in a tuple: its table is no parameter of this module
        self.weight = nn.Parameter(embedding.weight.detach()[used])
        number = torch.full((embedding.num_embeddings,), -1, device=used.device)
        number[used] = torch.arange(len(used), device=used.device)
        self.register_buffer("number", number, persistent=False)

    def forward(self, tokens):
        number, table = self.number[tokens], self.whole[0].weight.detach()
        rows = F.embedding(number.clamp(min=0), self.weight)
        return torch.where((number >= 0)[..., None], rows, F.embedding(tokens, table))

    @torch.no_grad()
    def restore(self):
        """The ordinary embedding, its used rows as they are now."""
        self.whole[0].weight[self.used] = self.weight
        return self.whole[0]


class OpenCLIP(ImageTextModel):
    """Any open_clip model with its tokenizer and its preprocessing (on the device, differentiable)."""

    def __init__(self, model, tokenizer, config):
        super().__init__()
        self.model, self.tokenizer, self.config = model, Tokens(tokenizer), config
        preprocess = config["preprocess_cfg"]
        self.set_colours(preprocess["mean"], preprocess["std"])
        size = preprocess["size"]
        self.image_size = size if isinstance(size, int) else size[0]

    @property
    def logit_scale(self):
        """Temperature as a multiplier of cosines, scalar tensor."""
        return self.model.logit_scale.exp()

    def resize(self, pixels):
        return fit(pixels, self.image_size)

    def encode_image(self, images):
        return self.model.encode_image(self.pixels(images), normalize=True)

    def encode_text(self, texts):
        tokens = self.tokenizer(texts).to(self.device)
        model = self.model
        plain = isinstance(model, open_clip.CLIP) and model.text_pool_type == "argmax" and model.attn_mask is not None
        if not plain:  # pooled or masked otherwise: the padding may matter
            return model.encode_text(tokens, normalize=True)
        return self.encode_tokens(tokens[:, : tokens.argmax(dim=1).max() + 1])

    def text_rows(self, texts):
        return self.tokenizer(texts)

    def encode_tokens(self, tokens):
        """Encode without the padding: attention is causal and the end token, the largest, is what is pooled,
        so nothing behind the longest text's end can matter; with short prompts it is most of the work."""
        length, model = tokens.shape[1], self.model
        shortened = {
            "positional_embedding": model.positional_embedding[:length],
            "attn_mask": model.attn_mask[:length, :length],
        }
        out = torch.func.functional_call(model, shortened, kwargs={"image": None, "text": tokens})
        return out["text_features"] if isinstance(out, dict) else out[1]

    @property
    def text_tower(self):
        return getattr(self.model, "text", self.model)

    def narrow_vocabulary(self, texts):
        embedding = getattr(self.text_tower, "token_embedding", None)
        if type(embedding) is nn.Embedding and embedding.weight.requires_grad:
            used = self.tokenizer(texts).unique().to(embedding.weight.device)
            self.text_tower.token_embedding = UsedEmbedding(embedding, used)

    def widen_vocabulary(self):
        embedding = getattr(self.text_tower, "token_embedding", None)
        if isinstance(embedding, UsedEmbedding):
            self.text_tower.token_embedding = embedding.restore()

    @torch.no_grad()
    def multiply_text_head(self, matrix):
        head = getattr(self.text_tower, "text_projection", None)
        if isinstance(head, nn.Linear) and head.bias is None:
            head.weight.copy_(matrix.T @ head.weight)
        elif isinstance(head, nn.Parameter):
            head.copy_(head @ matrix)
        else:
            raise CliperaseError("the text tower has no linear projection to edit; choose a method that trains")

    def save(self, folder):
        """Write `open_clip_config.json` and safetensors weights, which open_clip loads as `local-dir:`."""
        folder = Path(folder)
        weights = {name: tensor.cpu().contiguous() for name, tensor in self.model.state_dict().items()}
        with whole_file(folder / CONFIG_NAME) as config, whole_file(folder / WEIGHTS_NAME) as partial:
            config.write_text(json.dumps(self.config, indent=2) + "\n")
            save_file(weights, partial)


def fit(pixels, size):
    """(N, 3, H, W) in 0…1 -> (N, 3, size, size) as CLIP does it: the shorter side to `size`, then the middle."""
    height, width = pixels.shape[-2:]
    if (height, width) == (size, size):
        return pixels
    scale = size / min(height, width)
    height, width = max(size, round(height * scale)), max(size, round(width * scale))
    pixels = F.interpolate(pixels, (height, width), mode="bicubic", antialias=True).clamp(0, 1)
    top, left = (height - size) // 2, (width - size) // 2
    return pixels[..., top : top + size, left : left + size]


def check_vocabulary(tokenizer, model, source):
    """Text towers of transformers have its tokenizers, and it makes one of a few tokens where it finds no files.

    A whole one may have fewer tokens than the embedding has rows, which are often rounded up, but not half as many.
    """
    tokens = len(tokenizer.tokenizer) if hasattr(tokenizer, "tokenizer") else tokenizer.vocab_size
    rows = getattr(model, "vocab_size", 0)
    if tokens < rows / 2:
        raise CliperaseError(
            f"tokenizer of model {str(source)!r} has {tokens} tokens, the model {rows}; are its files all there?"
        )


def read_config(folder, name, model, quick_gelu=False):
    """The configuration `save` writes: the folder's own, or a built-in model's."""
    if folder.is_dir():
        return whole_config(read_json(folder / CONFIG_NAME), folder)
    preprocess = open_clip.get_model_preprocess_cfg(model)
    kept = {key: preprocess[key] for key in ("size", "mean", "std")}
    model_config = open_clip.get_model_config(name) | ({"quick_gelu": True} if quick_gelu else {})
    return {"model_cfg": model_config, "preprocess_cfg": kept}


def whole_config(config, folder):
    """The configuration of a folder, if it says how pictures are prepared."""
    for name in ("size", "mean", "std"):
        if name not in (config.get("preprocess_cfg") or {}):
            raise CliperaseError(f"{folder / CONFIG_NAME} has no preprocess_cfg with {name!r}; copy the model again")
    return config
