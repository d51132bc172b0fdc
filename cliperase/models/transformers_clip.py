"""CLIP and SigLIP of transformers: a local folder of a `CLIPModel` or a `SiglipModel` behind the same interface."""

from pathlib import Path

import torch
import torch.nn.functional as F

from cliperase.devices import send
from cliperase.errors import CliperaseError, reason_of
from cliperase.files import read_json
from cliperase.models.base import ImageTextModel, Tokens, hidden_map, import_transformers, multiply_head, refuse_code
from cliperase.models.framing import Processed
from cliperase.models.vocabulary import check_vocabulary, narrow, widen

KINDS = {  # model_type of a configuration -> transformers' classes of the model and of its image processor
    "clip": ("CLIPModel", "CLIPImageProcessor"),
    "siglip": ("SiglipModel", "SiglipImageProcessor"),
}
FLEXIBLE = "siglip2"  # SigLIP 2 of one fixed resolution is of type siglip
OLD_END = 2  # `eos_token_id` of configurations in which it is wrong; transformers then pools at the largest token


class TransformersCLIP(ImageTextModel):
    """A `CLIPModel` or `SiglipModel` with its tokenizer and the settings of its image processor."""

    sources = ("a folder of transformers with a CLIP or SigLIP",)

    def __init__(self, model, tokenizer, processor):
        super().__init__()
        self.model, self.words, self.processor = model, tokenizer, processor
        self.tokenizer = Tokens(self.tokenize)
        self.framing = Processed(processor)
        self.set_colours(*colours_of(processor))
        self.siglip = model.config.model_type == "siglip"
        self.length = min(model.config.text_config.max_position_embeddings, tokenizer.model_max_length)

    @classmethod
    def recognises(cls, source):
        config = Path(source) / "config.json"
        return config.is_file() and read_json(config).get("model_type") in {*KINDS, FLEXIBLE}

    @classmethod
    def load(cls, source, device="cpu"):
        """transformers leaves random weights where it finds none; here that is an error."""
        config = read_json(Path(source) / "config.json")
        refuse_code(config, source)
        if config["model_type"] == FLEXIBLE:
            raise CliperaseError(
                f"model {str(source)!r} is a SigLIP 2 of flexible resolution (NaFlex); take one of a fixed resolution, "
                "whose model_type is siglip"
            )
        transformers = import_transformers()
        model_class, processor_class = (getattr(transformers, name) for name in KINDS[config["model_type"]])
        only_local = {"local_files_only": True}
        try:
            model, report = model_class.from_pretrained(
                source, output_loading_info=True, weights_only=True, dtype=torch.float32, **only_local
            )
            tokenizer = transformers.AutoTokenizer.from_pretrained(source, trust_remote_code=False, **only_local)
            processor = processor_class.from_pretrained(source, **only_local)
        except Exception as error:  # transformers and safetensors each raise their own
            raise CliperaseError(
                f"model {str(source)!r} cannot be loaded ({reason_of(error)}); give a whole one"
            ) from None
        check_whole(model, report, source)
        check_vocabulary(len(tokenizer), model.config.text_config.vocab_size, source)
        loaded = cls(model, tokenizer, processor)
        check_size(loaded, source)
        return loaded.to(device).eval()

    def save(self, folder):
        """Write a folder in transformers' layout: weights, configuration, tokenizer, image processor."""
        for part in (self.model, self.words, self.processor):
            part.save_pretrained(folder)

    def tokenize(self, texts):
        settings = {"padding": "max_length", "truncation": True, "max_length": self.length, "return_tensors": "pt"}
        return self.words(list(texts), **settings).input_ids

    def token_rows(self, texts):
        return self.tokenizer(texts)

    @property
    def logit_scale(self):
        return self.model.logit_scale.exp().squeeze()

    @property
    def logit_bias(self):
        return self.model.logit_bias.squeeze() if self.siglip else None

    def encode_image(self, images):
        return F.normalize(self.model.get_image_features(pixel_values=self.pixels(images)).pooler_output, dim=-1)

    def image_map(self, images, depth):
        return hidden_map(self.model.vision_model, self.pixels(images), depth)

    def encode_text(self, texts):
        tokens = self.tokenizer(texts)
        if not self.siglip:  # SigLIP sees its padding and pools the last place
            tokens = tokens[:, : self.longest(tokens)]
        features = self.model.get_text_features(input_ids=send(tokens, self.device)).pooler_output
        return F.normalize(features, dim=-1)

    def longest(self, tokens):
        """The places up to the last end of a text: CLIP's attention is causal, so that nothing behind it matters."""
        return self.ends(tokens).max() + 1

    def ends(self, tokens):
        end = self.model.config.text_config.eos_token_id
        return tokens.argmax(dim=1) if end == OLD_END else (tokens == end).int().argmax(dim=1)

    def token_states(self, texts):
        if self.siglip:  # whose text tower no generator here reads
            return None
        tokens = self.tokenizer(texts)
        return self.model.text_model(input_ids=send(tokens, self.device)).last_hidden_state, self.ends(tokens)

    def narrow_vocabulary(self, texts):
        narrow(self.model.text_model.embeddings, self.tokenizer(texts))

    def widen_vocabulary(self):
        widen(self.model.text_model.embeddings)

    @property
    def token_table(self):
        return self.model.text_model.embeddings.token_embedding

    @torch.no_grad()
    def multiply_text_head(self, matrix):
        multiply_head(self.model.text_model.head if self.siglip else self.model.text_projection, matrix, "text")

    @torch.no_grad()
    def multiply_image_head(self, matrix):
        # SigLIP's image tower ends with a sum, in its pooling by attention
        multiply_head(None if self.siglip else self.model.visual_projection, matrix, "image")

    @property
    def image_tower(self):
        return self.model.vision_model.head if self.siglip else self.model.visual_projection


def colours_of(processor):
    """Mean and standard deviation in 0…1 that give what the `processor` gives, however it scales 0…255."""
    scale = 255 * processor.rescale_factor if processor.do_rescale else 255.0
    mean, std = (processor.image_mean, processor.image_std) if processor.do_normalize else ([0.0] * 3, [1.0] * 3)
    return [value / scale for value in mean], [value / scale for value in std]


def check_whole(model, report, source):
    """Every weight was in the files: transformers fills the others with random numbers."""
    absent = sorted(report["missing_keys"]) or sorted(str(key) for key in report["mismatched_keys"])
    if absent:
        raise CliperaseError(f"model {str(source)!r} has no weight {absent[0]!r} of its shape; copy the model again")
    if not model.config.vision_config.to_dict().get("vision_use_head", True):
        raise CliperaseError(f"model {str(source)!r} has no head that pools an image; take another model")


def check_size(loaded, source):
    """The image processor gives the size that the image tower takes."""
    side = loaded.model.config.vision_config.image_size
    wanted = (side, side) if isinstance(side, int) else tuple(side)
    if loaded.framing.size != wanted:
        raise CliperaseError(
            f"model {str(source)!r}: its image processor gives pictures of {loaded.framing.size} (height, width), its "
            f"image tower takes {wanted}; correct size or crop_size in preprocessor_config.json"
        )
