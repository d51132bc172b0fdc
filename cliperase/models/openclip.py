"""The open_clip adapter: any CLIP that open_clip builds, from a folder, by name, or from the hub."""

import json
from pathlib import Path

import open_clip
import torch
import torch.nn.functional as F
from open_clip.timm_model import TimmModel
from open_clip.transformer import TextTransformer, VisionTransformer
from safetensors.torch import save_file
from torch import nn

from cliperase.devices import send
from cliperase.errors import CliperaseError, reason_of
from cliperase.files import read_json, whole_file
from cliperase.models.base import ImageTextModel, PatchAttention, Tokens, refuse_code

CONFIG_NAME, WEIGHTS_NAME = "open_clip_config.json", "open_clip_model.safetensors"


class OpenCLIP(ImageTextModel):
    """Any open_clip model with its tokenizer and its preprocessing (on the device, differentiable)."""

    sources = (
        f"a folder with {CONFIG_NAME}",
        "<open_clip name>/<tag or file> (open_clip.list_models() has the names)",
        "hf-hub:<name>",
    )

    def __init__(self, model, tokenizer, config):
        """`config`: what `save` writes, a mapping with `model_cfg` and `preprocess_cfg`."""
        super().__init__()
        self.model, self.tokenizer, self.config = model, Tokens(tokenizer), config
        preprocess = config["preprocess_cfg"]
        self.set_colours(preprocess["mean"], preprocess["std"])
        size = preprocess["size"]
        self.image_size = size if isinstance(size, int) else size[0]

    @classmethod
    def recognises(cls, source):
        if Path(source).is_dir():
            return any((Path(source) / name).is_file() for name in (CONFIG_NAME, WEIGHTS_NAME))
        return str(source).startswith("hf-hub:") or str(source).split("/")[0] in open_clip.list_models()

    @classmethod
    def load(cls, source, device="cpu"):
        """open_clip leaves random weights where it finds none; here that is an error."""
        name, weights = address_of(source)
        # OpenAI's and some other weights were trained with another activation than the architecture's default
        quick = bool(weights and open_clip.get_pretrained_cfg(name, weights).get("quick_gelu"))
        options = {"pretrained": weights, "device": device, "force_quick_gelu": quick, "weights_only": True}
        try:
            safe = without_code(name, source)
            model = open_clip.create_model(name, require_pretrained=not Path(source).is_dir(), **options)
            tokenizer = open_clip.get_tokenizer(name, **safe)
        except CliperaseError:
            raise
        except Exception as error:  # open_clip, torch and safetensors each raise their own
            raise CliperaseError(
                f"model {str(source)!r} cannot be loaded ({reason_of(error)}); is it whole, and of this architecture?"
            ) from None
        check_vocabulary(tokenizer, model, source)
        config = saved_config(Path(source)) if Path(source).is_dir() else built_in_config(name, model, quick)
        return cls(model, tokenizer, config).to(device).eval()

    def save(self, folder):
        """Write `open_clip_config.json` and safetensors weights, which open_clip loads as `local-dir:`."""
        folder = Path(folder)
        weights = {name: tensor.cpu().contiguous() for name, tensor in self.model.state_dict().items()}
        with whole_file(folder / CONFIG_NAME) as config, whole_file(folder / WEIGHTS_NAME) as partial:
            config.write_text(json.dumps(self.config, indent=2) + "\n")
            save_file(weights, partial)

    @property
    def logit_scale(self):
        return self.model.logit_scale.exp()

    def resize(self, pixels):
        return fit(pixels, self.image_size)

    def encode_image(self, images):
        return self.model.encode_image(self.pixels(images), normalize=True)

    def encode_text(self, texts):
        tokens, model = self.tokenizer(texts), self.model
        plain = isinstance(model, open_clip.CLIP) and model.text_pool_type == "argmax" and model.attn_mask is not None
        if not plain:  # pooled or masked otherwise: the padding may matter
            return model.encode_text(send(tokens, self.device), normalize=True)
        length = tokens.argmax(dim=1).max() + 1  # found on the host, because to ask a GPU is to wait for it
        return self.encode_tokens(send(tokens[:, :length], self.device))

    def token_rows(self, texts):
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

    def narrow_vocabulary(self, texts):
        tower = self.clip_text_tower
        if tower is not None and type(tower.token_embedding) is nn.Embedding:
            embedding = tower.token_embedding
            if embedding.weight.requires_grad:
                used = self.tokenizer(texts).unique().to(embedding.weight.device)
                tower.token_embedding = UsedEmbedding(embedding, used)

    def widen_vocabulary(self):
        tower = self.clip_text_tower
        if tower is not None and isinstance(tower.token_embedding, UsedEmbedding):
            tower.token_embedding = tower.token_embedding.restore()

    @torch.no_grad()
    def multiply_text_head(self, matrix):
        tower = self.clip_text_tower
        multiply_head(tower.text_projection if tower is not None else None, matrix, "text")

    @torch.no_grad()
    def multiply_image_head(self, matrix):
        visual, head = self.model.visual, None
        if isinstance(visual, TimmModel):
            head = dict(visual.head.named_children()).get("proj")
        elif isinstance(visual, VisionTransformer):
            head = visual.proj
        multiply_head(head, matrix, "image")

    @property
    def clip_text_tower(self):
        # `open_clip.CLIP` holds the parts of its text tower itself, the other classes hold them in `text`
        tower = self.model if isinstance(self.model, open_clip.CLIP) else self.model.text
        return tower if isinstance(tower, (open_clip.CLIP, TextTransformer)) else None

    @property
    def image_tower(self):
        return self.model.visual

    @property
    def image_trunk(self):
        return self.model.visual.trunk if isinstance(self.model.visual, TimmModel) else None

    @property
    def image_attention(self):
        visual = self.model.visual
        if not isinstance(visual, VisionTransformer) or visual.attn_pool is not None:
            return None
        layers = [block.attn for block in visual.transformer.resblocks]
        plain = all(isinstance(layer, nn.MultiheadAttention) for layer in layers)
        if not layers or not plain or visual.pool_type not in ("tok", "avg"):
            return None
        return PatchAttention(layers, visual.grid_size, class_token=visual.pool_type == "tok")


def create_model(config, seed=0):
    """A new model of an open_clip configuration, with random weights from `seed`."""
    register_towers(config)
    torch.manual_seed(seed)
    model = open_clip.CLIP(**config["model_cfg"])
    tokenizer = open_clip.SimpleTokenizer(context_length=config["model_cfg"]["text_cfg"]["context_length"])
    return OpenCLIP(model, tokenizer, config)


def multiply_head(head, matrix, tower):
    """Let the linear map `head`, a layer without bias or a parameter, be followed by `matrix`, in place."""
    if isinstance(head, nn.Linear) and head.bias is None:
        head.weight.copy_(matrix.T @ head.weight)
    elif isinstance(head, nn.Parameter):
        head.copy_(head @ matrix)
    else:
        raise CliperaseError(f"the {tower} tower has no linear projection to edit; choose a method that trains")


class UsedEmbedding(nn.Module):
    """A token embedding that trains only the rows of the tokens in `used`; the other rows stay as they are.

    Unused rows have no gradient, but Adam would read and write the whole table at every step. In a small model the
    table is most of the weights. Weight decay does not reach the unused rows.
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


def address_of(source):
    """(name, weights) as open_clip asks for them: the weights of a folder or of the hub lie with its configuration."""
    folder = Path(source)
    if folder.is_dir():
        for name in (CONFIG_NAME, WEIGHTS_NAME):
            if not (folder / name).is_file():
                raise CliperaseError(f"model folder {folder} holds no {name}; train or copy the model again")
        return f"local-dir:{folder}", None
    if str(source).startswith("hf-hub:"):
        return str(source), None
    name, _, weights = str(source).partition("/")
    if not weights:
        raise CliperaseError(f"model {str(source)!r} names no weights; write {name}/<tag or file>")
    return name, weights


def without_code(name, source):
    """What `get_tokenizer` is to be told, so that no code of a model's folder or repository runs.

    A configuration that asks for it is refused. Where transformers makes a part, it must not ask on the terminal.
    """
    folder = Path(source)
    config = read_json(folder / CONFIG_NAME) if folder.is_dir() else open_clip.get_model_config(name)
    refuse_code(config, source)
    register_towers(config)
    text = (config.get("model_cfg", config) or {}).get("text_cfg") or {}
    if not text.get("hf_tokenizer_name") and not text.get("hf_model_name"):
        return {}
    from transformers import dynamic_module_utils

    dynamic_module_utils.TIME_OUT_REMOTE_CODE = 0  # seconds that it waits for an answer: it refuses at once
    return {"trust_remote_code": False} if text.get("hf_tokenizer_name") else {}


def register_towers(config):
    """Let timm know our small towers, where a configuration names one."""
    if "cliperase_" in json.dumps(config):
        import cliperase.models.compact  # noqa: F401


def check_vocabulary(tokenizer, model, source):
    """Refuse a tokenizer much smaller than the embedding: transformers makes one of a few tokens if files lack.

    A complete tokenizer may have a few tokens less than the embedding has rows, which are often rounded up.
    """
    tokens = len(tokenizer.tokenizer) if hasattr(tokenizer, "tokenizer") else tokenizer.vocab_size
    rows = getattr(model, "vocab_size", 0)
    if tokens < rows / 2:
        raise CliperaseError(
            f"tokenizer of model {str(source)!r} has {tokens} tokens, the model {rows}; are its files all there?"
        )


def saved_config(folder):
    """The configuration of a model folder; it must say how pictures are prepared."""
    config = read_json(folder / CONFIG_NAME)
    for name in ("size", "mean", "std"):
        if name not in (config.get("preprocess_cfg") or {}):
            raise CliperaseError(f"{folder / CONFIG_NAME} has no preprocess_cfg with {name!r}; copy the model again")
    return config


def built_in_config(name, model, quick_gelu):
    """The configuration that `save` writes of a model that came by its name."""
    preprocess = open_clip.get_model_preprocess_cfg(model)
    kept = {key: preprocess[key] for key in ("size", "mean", "std")}
    model_config = open_clip.get_model_config(name) | ({"quick_gelu": True} if quick_gelu else {})
    return {"model_cfg": model_config, "preprocess_cfg": kept}
