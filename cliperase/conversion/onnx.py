"""Both encoders of a CLIP or SigLIP as ONNX: they run without this library, and without torch.

The layout and the names are those of the hub: `onnx/vision_model.onnx` takes `pixel_values` and gives `image_embeds`,
`onnx/text_model.onnx` takes `input_ids` and gives `text_embeds`. Beside them lie the files of tokenizer and image
processor. Pixels are prepared outside of the graph, by the image processor, as for the models of the hub.
"""

import copy
import logging
import re
import string
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from open_clip.tokenizer import HFTokenizer, get_clean_fn
from torch import nn

from cliperase.conversion.clip import processor_of
from cliperase.conversion.parity import SAMPLE, embeddings_of, noise_of, parity
from cliperase.errors import CliperaseError, reason_of
from cliperase.models.base import import_transformers
from cliperase.models.openclip import OpenCLIP
from cliperase.models.text_encoder import clip_tokenizer
from cliperase.models.transformers_clip import TransformersCLIP

PACKAGES = ("onnx", "onnxruntime", "onnxscript")
LARGEST = 2**31 - 2**20  # bytes of one ONNX file; larger weights lie in a file beside it
GRAPHS = {"image": ("vision_model", "pixel_values", "image_embeds"), "text": ("text_model", "input_ids", "text_embeds")}


class Encoder(nn.Module):
    """One encoder of a model: its inputs, a batch, to L2-normalised embeddings."""

    def __init__(self, model, encode):
        super().__init__()
        self.model, self.encode = model, encode

    def forward(self, values):
        return F.normalize(self.encode(values), dim=-1)


def write_onnx(model, folder, into=None):
    """Write the encoders of an `OpenCLIP` or a `TransformersCLIP`; returns their parity, as onnxruntime runs them.

    `logit_scale` and, of a SigLIP, `logit_bias` are in what is returned: the multiplier of cosines, and what is added.
    """
    absent = [name for name in PACKAGES if find_spec(name) is None]
    if absent:
        raise CliperaseError(f"ONNX needs {' and '.join(absent)}; pip install {' '.join(absent)}")
    model = model.cpu().eval()
    encoders, own = encoders_of(model), embeddings_of(model)
    words, processor = preparation_of(model)
    words.save_pretrained(folder)
    processor.save_pretrained(folder)
    tokens = tokens_of(folder)
    with torch.no_grad():  # the file of the tokenizer means the same texts
        parity({"text": own["text"]}, {"text": encoders["text"](tokens)})
    inputs = {"image": model.pixels(noise_of(model.framing.size)), "text": tokens}
    (folder / "onnx").mkdir()
    for tower, encode in encoders.items():
        export(Encoder(model, encode).eval(), inputs[tower][:2], folder, tower)
    biased = {} if model.logit_bias is None else {"logit_bias": model.logit_bias.item()}
    return {**parity(own, run(folder, inputs)), "logit_scale": model.logit_scale.item(), **biased}


def encoders_of(model):
    """{"image": prepared pixels (N, 3, H, W) -> (N, D), "text": tokens (T, L) -> (T, D)}, before their norm."""
    own = model.model
    if isinstance(model, OpenCLIP):
        return {"image": own.encode_image, "text": own.encode_text}
    if isinstance(model, TransformersCLIP):
        return {
            "image": lambda pixels: own.get_image_features(pixel_values=pixels).pooler_output,
            "text": lambda tokens: own.get_text_features(input_ids=tokens).pooler_output,
        }
    raise CliperaseError(f"a model of type {type(model).__name__} is not converted to onnx; give a CLIP or a SigLIP")


def preparation_of(model):
    """(tokenizer, image processor), of transformers. The tokenizer's file cleans, cuts and pads as the model does."""
    transformers = import_transformers()
    if isinstance(model, TransformersCLIP):
        words, length, processor = model.words, model.length, model.processor
    else:
        own, processor = model.tokenizer.tokenizer, processor_of(model, transformers)
        length, plain = own.context_length, not isinstance(own, HFTokenizer)
        words = clip_tokenizer(length) if plain else cleaning(own)
    if not isinstance(words, transformers.PreTrainedTokenizerFast):
        raise CliperaseError(f"tokenizer {type(words).__name__} has no tokenizer.json; take a model with one")
    words.backend_tokenizer.enable_truncation(length)
    words.backend_tokenizer.enable_padding(length=length, pad_id=words.pad_token_id, pad_token=words.pad_token)
    return words, processor


def cleaning(own):
    """The tokenizer inside an `HFTokenizer` of open_clip, made to clean texts as that does before it asks it."""
    from tokenizers import Regex, normalizers

    words = copy.deepcopy(own.tokenizer)
    steps: list[normalizers.Normalizer] = [normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    if own.clean_fn is not get_clean_fn("whitespace"):
        steps.insert(0, normalizers.Lowercase())
    if own.clean_fn is get_clean_fn("canonicalize"):
        marks = Regex(f"[{re.escape(string.punctuation)}]")
        steps = [normalizers.Replace("_", " "), normalizers.Replace(marks, ""), *steps]
    before = words.backend_tokenizer.normalizer
    words.backend_tokenizer.normalizer = normalizers.Sequence([*steps, *([before] if before else [])])
    return words


def tokens_of(folder):
    """(3, L) of `SAMPLE`, by the tokenizer's file alone."""
    from tokenizers import Tokenizer

    words = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return torch.tensor([found.ids for found in words.encode_batch(list(SAMPLE))])


def export(encoder, example, folder, tower):
    """Write one graph for batches of any size. What torch cannot export is one line."""
    name, takes, gives = GRAPHS[tower]
    logging.getLogger("onnxscript").setLevel(logging.ERROR)  # it tells what it left as it was
    size = sum(weight.numel() * weight.element_size() for weight in encoder.parameters())
    try:
        torch.onnx.export(
            encoder, (example,), folder / "onnx" / f"{name}.onnx", input_names=[takes], output_names=[gives],
            dynamic_shapes=({0: torch.export.Dim("batch")},), external_data=size > LARGEST, dynamo=True, verbose=False,
        )  # fmt: skip
    except Exception as error:  # torch, onnxscript and onnx each raise their own
        raise CliperaseError(
            f"torch cannot export the {tower} tower ({reason_of(error)}); take another model"
        ) from None


def run(folder, inputs):
    """The embeddings of the `inputs`, {"image": …, "text": …}, by onnxruntime."""
    import onnxruntime

    made = {}
    for tower, (name, takes, gives) in GRAPHS.items():
        session = onnxruntime.InferenceSession(folder / "onnx" / f"{name}.onnx", providers=["CPUExecutionProvider"])
        made[tower] = torch.from_numpy(session.run([gives], {takes: inputs[tower].numpy()})[0])
    return made
