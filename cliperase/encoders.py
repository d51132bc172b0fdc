"""What "an image-text model" is here, and the open_clip adapter: create, load, save."""

import json
from pathlib import Path

import open_clip
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from cliperase import towers  # noqa: F401 – importing registers the small image towers with timm, hence with open_clip
from cliperase.errors import CliperaseError, reason_of
from cliperase.files import whole_file

REMEMBERED = 100_000  # texts, about 1 kB each
CONFIG_NAME, WEIGHTS_NAME = "open_clip_config.json", "open_clip_model.safetensors"

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


class ImageTextModel(nn.Module):
    """The interface that losses, loop and evaluation rely on. One adapter per model family.

    Adapters define `encode_image`, `encode_text`, `multiply_text_head`, `resize`, `logit_scale`, `image_size`, `save`.
    """

    def encode_image(self, images):
        """(N, 3, H, W) uint8 in 0…255 or float in 0…1 -> (N, D), L2-normalised, on the model's device."""
        raise TypeError("an adapter defines encode_image")

    def encode_text(self, texts):
        """List of T strings -> (T, D), L2-normalised."""
        raise TypeError("an adapter defines encode_text")

    def multiply_text_head(self, matrix):
        """Fold (D, D) into the last linear map of the text tower: text features t (before norm) become t @ matrix."""
        raise TypeError("an adapter defines multiply_text_head")

    def set_colours(self, mean, std):
        """The mean and standard deviation of each channel, three numbers in 0…1, that `pixels` normalises by."""
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)

    def resize(self, pixels):
        """(N, 3, H, W) in 0…1 -> pictures of the model's size."""
        raise TypeError("an adapter defines resize")

    def pixels(self, images):
        """(N, 3, H, W) uint8 in 0…255 or float in 0…1 -> what the image tower takes, on the model's device."""
        images = images.to(self.device, non_blocking=True)
        pixels = images.float() / 255 if images.dtype == torch.uint8 else images
        return (self.resize(pixels) - self.mean) / self.std

    def further_metrics(self, pairs, forgotten):
        """What else a model of this family can be measured by on a split: {metric: value}."""
        return {}

    def narrow_vocabulary(self, texts):
        """Leave the token embeddings that no text uses out of the parameters, where that saves something."""

    def widen_vocabulary(self):
        """Undo `narrow_vocabulary`: the parameters are the whole model's again, with what was learnt."""

    @property
    def device(self):
        return next(self.parameters()).device


class Tokens:
    """A tokenizer that remembers: the same prompts every step cost more to tokenize than to encode.

    Of a stream no caption comes twice for long, so what is remembered is dropped when it is much.
    """

    def __init__(self, tokenizer):
        self.tokenizer, self.rows = tokenizer, {}

    def __call__(self, texts):
        """List of T strings -> (T, context length) long."""
        if len(self.rows) > REMEMBERED:
            self.rows.clear()
        new = list(dict.fromkeys(text for text in texts if text not in self.rows))
        if new:
            self.rows.update(zip(new, self.tokenizer(new), strict=True))
        return torch.stack([self.rows[text] for text in texts])

    def __deepcopy__(self, memo):
        return self  # copies of a model share what is the same for all of them


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


def load_model(source, device="cpu"):
    """A saved model folder, an open_clip name with a weights tag or file such as `ViT-B-32/openai`, or `hf-hub:…`.

    A BLIP is a folder of transformers' or `blip:<hub name>`. open_clip leaves random weights where it finds none;
    here that is an error.
    """
    if is_blip(source):
        from cliperase.blip import load_blip  # transformers takes seconds to import

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


def is_blip(source):
    """A folder whose configuration says so, or `blip:<hub name>`."""
    config = Path(source) / "config.json"
    named = str(source).startswith("blip:")
    return named or (config.is_file() and read_json(config).get("model_type") == "blip")


def read_json(path):
    """A configuration file, a mapping."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CliperaseError(f"{path} cannot be read ({reason_of(error)}); train or copy the model again") from None
    if not isinstance(found, dict):
        raise CliperaseError(f"{path} holds {type(found).__name__}, not a mapping; train or copy the model again")
    return found


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


def pick_device():
    """A GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
