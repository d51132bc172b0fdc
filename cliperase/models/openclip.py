"""The open_clip adapter: any CLIP that open_clip builds, from a folder, by name, or from the hub."""

import json
import logging
from contextlib import contextmanager
from pathlib import Path

import open_clip
import torch
from open_clip.timm_model import TimmModel
from open_clip.tokenizer import HFTokenizer
from open_clip.transform import PreprocessCfg, merge_preprocess_dict
from open_clip.transformer import TextTransformer, VisionTransformer
from safetensors.torch import save_file
from torch import nn

from cliperase.devices import send
from cliperase.errors import CliperaseError, reason_of
from cliperase.files import read_json, whole_file
from cliperase.models.base import ImageTextModel, PatchAttention, Tokens, layer_at, multiply_head, refuse_code
from cliperase.models.framing import INTERPOLATIONS, RESIZE_MODES, Resized
from cliperase.models.vocabulary import check_vocabulary, narrow, widen
from cliperase.models.weights import WEIGHTS_NAME, is_openais, read_weights, weights_beside

CONFIG_NAME = "open_clip_config.json"
CHOICES = {"mode": ("RGB",), "interpolation": INTERPOLATIONS, "resize_mode": RESIZE_MODES}


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
        preprocess = whole_preprocessing(config, model.visual.image_size)
        self.set_colours(preprocess["mean"], preprocess["std"])
        self.framing = Resized(*(preprocess[name] for name in ("size", "resize_mode", "interpolation", "fill_color")))

    @classmethod
    def recognises(cls, source):
        if Path(source).is_dir():
            return any((Path(source) / name).is_file() for name in (CONFIG_NAME, WEIGHTS_NAME))
        return str(source).startswith("hf-hub:") or str(source).split("/")[0] in open_clip.list_models()

    @classmethod
    def load(cls, source, device="cpu"):
        """open_clip leaves random weights where it finds none; here that is an error."""
        name, weights = address_of(source)
        in_file = weights is not None and Path(weights).is_file()
        # OpenAI's and some other weights were trained with another activation than the architecture's default
        quick = bool(weights and open_clip.get_pretrained_cfg(name, weights).get("quick_gelu"))
        try:
            safe, quick = without_code(name, source), quick or (in_file and is_openais(weights))
            options = {"force_quick_gelu": quick, "weights_only": True}
            if in_file:
                with unsaid("No pretrained weights", "Local config loaded, but no CLIP weights"):
                    towers = {"pretrained_image": False, "pretrained_text": False}  # nor of a part, from the hub
                    model = open_clip.create_model(name, load_weights=False, **options, **towers)
                read_weights(model, weights)
            else:
                model = open_clip.create_model(name, pretrained=weights, require_pretrained=True, **options)
            tokenizer = open_clip.get_tokenizer(name, **safe)
        except CliperaseError:
            raise
        except Exception as error:  # open_clip, torch and safetensors each raise their own
            raise CliperaseError(
                f"model {str(source)!r} cannot be loaded ({reason_of(error)}); give a whole one of this architecture"
            ) from None
        # pyrefly: ignore[bad-argument-type, missing-attribute] – `hasattr` tells the tokenizers apart
        tokens = len(tokenizer.tokenizer) if hasattr(tokenizer, "tokenizer") else tokenizer.vocab_size
        check_vocabulary(tokens, getattr(model, "vocab_size", 0), source)
        config = read_json(Path(source) / CONFIG_NAME) if Path(source).is_dir() else built_in(name, model)
        if quick:
            config["model_cfg"]["quick_gelu"] = True
        return cls(model, tokenizer, config).to(device).eval()

    def save(self, folder):
        """Write `open_clip_config.json` and safetensors weights, which open_clip loads as `local-dir:`."""
        folder = Path(folder)
        weights = {name: tensor.cpu().contiguous() for name, tensor in self.model.state_dict().items()}
        with whole_file(folder / CONFIG_NAME) as config, whole_file(folder / WEIGHTS_NAME) as partial:
            config.write_text(json.dumps(self.config, indent=2) + "\n")
            save_file(weights, partial)
            if isinstance(self.tokenizer.tokenizer, HFTokenizer):  # open_clip looks for its files in the folder
                self.tokenizer.tokenizer.save_pretrained(folder)

    @property
    def logit_scale(self):
        return self.model.logit_scale.exp().squeeze()

    @property
    def logit_bias(self):
        return None if self.model.logit_bias is None else self.model.logit_bias.squeeze()

    def encode_image(self, images):
        return self.model.encode_image(self.pixels(images), normalize=True)

    def image_map(self, images, depth):
        visual = self.model.visual
        if not hasattr(visual, "forward_intermediates"):
            return super().image_map(images, depth)
        return layer_at(visual.forward_intermediates(self.pixels(images))["image_intermediates"], depth)

    def encode_text(self, texts):
        tokens = self.tokenizer(texts)
        if not self.is_causal:  # pooled or masked otherwise: the padding may matter
            return self.model.encode_text(send(tokens, self.device), normalize=True)
        length = tokens.argmax(dim=1).max() + 1  # found on the host, because to ask a GPU is to wait for it
        return self.encode_tokens(send(tokens[:, :length], self.device))

    @property
    def is_causal(self):
        """Whether texts are read as in OpenAI's CLIP: from left to right, and pooled at the end token, the largest."""
        model = self.model
        return isinstance(model, open_clip.CLIP) and model.text_pool_type == "argmax" and model.attn_mask is not None

    def token_rows(self, texts):
        return self.tokenizer(texts)

    def token_states(self, texts):
        if not self.is_causal:
            return None
        tokens, model = self.tokenizer(texts), self.model
        states = model.token_embedding(send(tokens, self.device)) + model.positional_embedding
        return model.ln_final(model.transformer(states, attn_mask=model.attn_mask)), tokens.argmax(dim=1)

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
        if self.clip_text_tower is not None:
            narrow(self.clip_text_tower, self.tokenizer(texts))

    def widen_vocabulary(self):
        if self.clip_text_tower is not None:
            widen(self.clip_text_tower)

    @property
    def token_table(self):
        return self.clip_text_tower and self.clip_text_tower.token_embedding

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
        # pyrefly: ignore[bad-argument-type] – `plain` says what they are
        return PatchAttention(layers, visual.grid_size, class_token=visual.pool_type == "tok")


def create_model(config, seed=0):
    """A new model of an open_clip configuration, with random weights from `seed`."""
    register_towers(config)
    torch.manual_seed(seed)
    model = open_clip.CLIP(**config["model_cfg"])
    tokenizer = open_clip.SimpleTokenizer(context_length=config["model_cfg"]["text_cfg"]["context_length"])
    return OpenCLIP(model, tokenizer, config)


def address_of(source):
    """(name, weights) as open_clip asks for them: the weights of the hub lie with its configuration."""
    folder = Path(source)
    if folder.is_dir():
        if not (folder / CONFIG_NAME).is_file():
            raise CliperaseError(f"model folder {folder} holds no {CONFIG_NAME}; train or copy the model again")
        return f"local-dir:{folder}", weights_beside(folder)
    if str(source).startswith("hf-hub:"):
        return str(source), None
    name, _, weights = str(source).partition("/")
    if not Path(weights).is_file() and not open_clip.get_pretrained_cfg(name, weights):
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(name))
        raise CliperaseError(f"model {str(source)!r} names no weights; write {name}/<file> or a tag: {tags}")
    return name, weights


@contextmanager
def unsaid(*starts):
    """No warning that begins so: open_clip warns of random weights before it is given others."""

    def other(record):
        return not record.getMessage().startswith(starts)

    logging.getLogger().addFilter(other)
    try:
        yield
    finally:
        logging.getLogger().removeFilter(other)


def without_code(name, source) -> dict:
    """What `get_tokenizer` is to be told, so that no code of a model's folder or repository runs.

    A configuration that asks for it is refused. Where transformers makes a part, it must not ask on the terminal.
    """
    config = read_json(Path(source) / CONFIG_NAME) if Path(source).is_dir() else open_clip.get_model_config(name)
    refuse_code(config, source)
    register_towers(config)
    # pyrefly: ignore[missing-attribute] – `recognises` knows the name, so there is a configuration
    text = (config.get("model_cfg", config) or {}).get("text_cfg") or {}
    if not text.get("hf_tokenizer_name") and not text.get("hf_model_name"):
        return {}
    from transformers import dynamic_module_utils

    # pyrefly: ignore[bad-assignment] – it is inferred as the one number 15
    dynamic_module_utils.TIME_OUT_REMOTE_CODE = 0  # seconds that it waits for an answer: it refuses at once
    return {"trust_remote_code": False} if text.get("hf_tokenizer_name") else {}


def register_towers(config):
    """Let timm know our small towers, where a configuration names one."""
    if "cliperase_" in json.dumps(config):
        import cliperase.models.compact  # noqa: F401


def built_in(name, model) -> dict:
    """The configuration that `save` writes of a model that came by its name."""
    return {"model_cfg": open_clip.get_model_config(name), "preprocess_cfg": open_clip.get_model_preprocess_cfg(model)}


def whole_preprocessing(config, size) -> dict:
    """The `preprocess_cfg` of a configuration, each key that it lacks as open_clip has it; `size` is the image tower's.

    `size` is (height, width) then, `mean` and `std` are three numbers. What cannot be meant is a CliperaseError.
    """
    found = merge_preprocess_dict(PreprocessCfg(), config.get("preprocess_cfg") or {})
    for name, allowed in CHOICES.items():
        if found[name] not in allowed:
            raise CliperaseError(f"preprocess_cfg: {name} is {found[name]!r}; give one of {', '.join(allowed)}")
    for name, count in (("mean", 3), ("std", 3), ("fill_color", 1)):
        values = list(found[name]) if isinstance(found[name], list | tuple) else [found[name]] * count
        if len(values) != count or not all(isinstance(value, int | float) for value in values):
            raise CliperaseError(f"preprocess_cfg: {name} is {found[name]!r}; give {count} number{'s' * (count > 1)}")
        found[name] = values if count > 1 else values[0]
    return found | {"size": (size, size) if isinstance(size, int) else tuple(size)}
