"""Embeddings of a whole data set by one model: what the losses need of the original, computed once and kept."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from cliperase.evaluate import encode_images, encode_texts
from cliperase.files import whole_file


@dataclass
class Features:
    """One model's embeddings of a `PairSet`: `image` (N, D), `text` (T, D) of its distinct `texts`."""

    image: torch.Tensor
    text: torch.Tensor

    @classmethod
    def of(cls, model, pairs):
        return cls(encode_images(model, pairs.images), encode_texts(model, pairs.texts))

    @classmethod
    def kept(cls, model, pairs, folder):
        """As `of`, kept in `folder` under a name made of the weights and the rows, and memory-mapped from there."""
        path = Path(folder) / f"{fingerprint(model, pairs)}.safetensors"
        try:
            tensors = load_file(path)
            return cls(tensors["image"], tensors["text"])
        except (OSError, SafetensorError):  # not there yet, or a run died while writing
            features = cls.of(model, pairs)
        with whole_file(path) as partial:
            save_file({"image": features.image, "text": features.text}, partial)
        return features

    def select(self, mask):
        return Features(self.image[mask], self.text)


def fingerprint(model, pairs):
    """Equal for equal weights, preprocessing, rows and captions, whatever files they came from."""
    digest = hashlib.sha256("\n".join([*pairs.row_hashes, *pairs.texts]).encode())
    for name, tensor in [*model.state_dict().items(), *model.named_buffers()]:
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:24]


@dataclass
class Original:
    """What the losses need of the original model, so that it need not run every step."""

    forget: Features
    retain: Features
    logit_scale: float
