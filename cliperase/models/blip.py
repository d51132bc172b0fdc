"""BLIP (Li et al. 2022) behind the same interface as CLIP: its contrastive heads, and beside them its matching head.

The adapter wraps `transformers.BlipForImageTextRetrieval`, from a folder or a hub name.
"""

from pathlib import Path

import torch
import torch.nn.functional as F

from cliperase.devices import send
from cliperase.errors import CliperaseError, reason_of
from cliperase.files import read_json
from cliperase.metrics.scores import draw_rivals
from cliperase.metrics.tasks import WAYS
from cliperase.models.base import ImageTextModel, Tokens, hidden_map, import_transformers, multiply_head
from cliperase.models.framing import Processed
from cliperase.models.transformers_clip import colours_of

LOGIT_SCALE = 1 / 0.07  # BLIP's starting temperature; transformers' classes do not keep the learnt one
LENGTH = 35  # tokens of a caption, as in BLIP


class BLIP(ImageTextModel):
    """A BLIP of transformers with its tokenizer and preprocessing.

    `model`: one with contrastive heads and a matching head; or one without, which only `look` and `read` serve.
    """

    sources = ("a folder of transformers with a BLIP", "blip:<hub name>")

    def __init__(self, model, tokenizer, processor):
        super().__init__()
        self.model, self.words, self.processor = model, tokenizer, processor
        self.tokenizer = Tokens(self.tokenize)
        self.set_colours(*colours_of(processor))
        self.register_buffer("scale", torch.tensor(LOGIT_SCALE), persistent=False)
        self.framing = Processed(processor)

    @classmethod
    def recognises(cls, source):
        config = Path(source) / "config.json"
        named = str(source).startswith("blip:")
        return named or (config.is_file() and read_json(config).get("model_type") == "blip")

    @classmethod
    def load(cls, source, device="cpu", kind=None):
        """`kind`: the class of transformers that is wrapped, by default `BlipForImageTextRetrieval`."""
        transformers = import_transformers()
        name, kind = str(source).removeprefix("blip:"), kind or transformers.BlipForImageTextRetrieval
        try:
            model, report = kind.from_pretrained(name, output_loading_info=True, weights_only=True, dtype=torch.float32)
            tokenizer = transformers.AutoTokenizer.from_pretrained(name, trust_remote_code=False)
            processor = transformers.BlipImageProcessor.from_pretrained(name)
        except Exception as error:  # transformers, the hub and safetensors each raise their own
            raise CliperaseError(f"BLIP {name!r} cannot be loaded ({reason_of(error)}); give a whole one") from None
        missing = sorted(report["missing_keys"])
        if missing:  # transformers fills them with random numbers
            raise CliperaseError(f"BLIP {name!r} has no weight {missing[0]!r}; give a {kind.__name__}")
        check_vocabulary(tokenizer, model, name)
        return cls(model, tokenizer, processor).to(device).eval()

    def save(self, folder):
        """Write a folder in transformers' layout: weights, configuration, tokenizer, preprocessing."""
        for part in (self.model, self.words, self.processor):
            part.save_pretrained(folder)

    def tokenize(self, texts):
        length = min(LENGTH, self.model.config.text_config.max_position_embeddings)
        settings = {"padding": "max_length", "truncation": True, "max_length": length, "return_tensors": "pt"}
        return self.words(list(texts), **settings).input_ids

    def token_rows(self, texts):
        return self.tokenizer(texts)

    def read(self, texts):
        """T strings -> token numbers and mask (T, longest), without the padding that none of them needs."""
        tokens = self.tokenizer(texts)
        mask = (tokens != self.words.pad_token_id).long()
        longest = mask.sum(dim=1).max()  # found on the host, because to ask a GPU is to wait for it
        return send(tokens[:, :longest], self.device), send(mask[:, :longest], self.device)

    @property
    def logit_scale(self):
        return self.scale

    def look(self, images):
        """(N, 3, H, W) images -> states of the image tower (N, 1 + patches, width)."""
        return self.model.vision_model(pixel_values=self.pixels(images)).last_hidden_state

    def encode_image(self, images):
        return F.normalize(self.model.vision_proj(self.look(images)[:, 0]), dim=-1)

    def image_map(self, images, depth):
        return hidden_map(self.model.vision_model, self.pixels(images), depth)

    def encode_text(self, texts):
        tokens, mask = self.read(texts)
        states = self.model.text_encoder(input_ids=tokens, attention_mask=mask, is_decoder=False).last_hidden_state
        return F.normalize(self.model.text_proj(states[:, 0]), dim=-1)

    def matching(self, states, texts):
        """Logit that text i belongs to the image of `states` (N, 1 + patches, width), row i: (N,)."""
        tokens, mask = self.read(texts)
        visible = torch.ones(states.shape[:2], dtype=torch.long, device=states.device)
        joint = self.model.text_encoder(
            input_ids=tokens, attention_mask=mask, encoder_hidden_states=states, encoder_attention_mask=visible,
            is_decoder=False,
        ).last_hidden_state  # fmt: skip
        logits = self.model.itm_head(joint[:, 0])
        return logits[:, 1] - logits[:, 0]

    def matches(self, images, texts):
        """(N, W) logits of the matching head for N images and the W texts of each."""
        ways = len(texts[0])
        states = self.look(images).repeat_interleave(ways, dim=0)
        return self.matching(states, [text for own in texts for text in own]).view(-1, ways)

    @property
    def matching_head(self):
        return self.matches

    @torch.no_grad()
    def further_metrics(self, pairs, forgotten):
        """Accuracy of the matching head among `WAYS` class prompts: the image's own, and others drawn for each row."""
        classes = len(pairs.class_names or ())
        if classes < 2:
            return {}
        prompts = [pairs.templates[0].format(name) for name in pairs.class_names]
        ways, hits = min(WAYS, classes), []
        for start in range(0, len(pairs), 50):
            own = pairs.labels[start : start + 50]
            others = torch.stack([
                draw_rivals(torch.arange(classes), label, ways - 1, seed=start + i)
                for i, label in enumerate(own.tolist())
            ])  # fmt: skip
            asked = torch.cat([own[:, None], others], dim=1)
            texts = [[prompts[i] for i in row] for row in asked.tolist()]
            logits = self.matches(pairs.images[start : start + 50], texts).cpu()
            hits.append(logits[:, 0] > logits[:, 1:].amax(dim=1))
        hits = torch.cat(hits).double()
        return {
            f"{name}_itm_accuracy@{ways}": 100 * hits[rows].mean().item()
            for name, rows in (("forget", forgotten), ("retain", ~forgotten))
            if rows.any()
        }

    @torch.no_grad()
    def multiply_text_head(self, matrix):
        multiply_head(self.model.text_proj, matrix, "text")

    @torch.no_grad()
    def multiply_image_head(self, matrix):
        multiply_head(self.model.vision_proj, matrix, "image")


def check_vocabulary(tokenizer, model, name):
    """transformers gives a tokenizer of a few tokens where it finds no files of one."""
    wanted = model.config.text_config.vocab_size
    if not 0 <= wanted - len(tokenizer) <= 2:  # [DEC] and [ENC] were added by hand to some published tokenizers
        raise CliperaseError(
            f"BLIP {name!r}: the tokenizer has {len(tokenizer)} tokens, the model {wanted}; copy all its files"
        )
