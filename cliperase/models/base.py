"""What an image-text model is here: the interface that losses, loop and evaluation rely on."""

import json

import torch
from torch import nn

from cliperase.errors import CliperaseError, reason_of

REMEMBERED = 100_000  # texts, about 1 kB each


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

    def text_rows(self, texts):
        """(T, L) of T strings: equal rows are one text to the model, however the strings differ. Adapters that cut or
        clean texts give their tokens; by default only equal strings are one text."""
        number = {text: i for i, text in enumerate(dict.fromkeys(texts))}
        return torch.tensor([[number[text]] for text in texts])

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


def read_json(path):
    """A configuration file, a mapping."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CliperaseError(f"{path} cannot be read ({reason_of(error)}); train or copy the model again") from None
    if not isinstance(found, dict):
        raise CliperaseError(f"{path} holds {type(found).__name__}, not a mapping; train or copy the model again")
    return found


def pick_device():
    """A GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
