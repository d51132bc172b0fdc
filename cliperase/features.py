"""The original model's embeddings of a data set, computed once and kept, because the losses need them at every step."""

import copy
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor

from cliperase.cache import kept
from cliperase.data.pairs import PairSet
from cliperase.data.sampling import Rows
from cliperase.metrics.encode import encode_images, encode_texts
from cliperase.models.base import ImageTextModel
from cliperase.parallel import gather

if TYPE_CHECKING:
    from cliperase.data.shards import Stream


@dataclass
class Features:
    """One model's embeddings of a `PairSet`: `image` (N, D), `text` (T, D) of its distinct `texts`."""

    image: torch.Tensor
    text: torch.Tensor

    @classmethod
    def of(cls, model: ImageTextModel, pairs: PairSet, autocast: bool = False) -> Self:
        """`autocast` as a training's setting, so that a student that has not moved has the same embeddings."""
        with encoding_precision(model, autocast):
            return cls(encode_images(model, pairs.images), encode_texts(model, pairs.texts))

    @classmethod
    def kept(cls, model: ImageTextModel, pairs: PairSet, folder: str | Path, autocast: bool = False) -> Self:
        """As `of`, kept in `folder`: one file for equal weights, preprocessing, rows, captions and precision."""

        def compute() -> dict[str, Tensor]:
            features = cls.of(model, pairs, autocast)
            return {"image": features.image, "text": features.text}

        key = [fingerprint(model, pairs), *(["autocast"] if autocast else [])]
        return cls(**kept(folder, "features", key, compute))

    def select(self, mask: Tensor) -> "Features":
        return Features(self.image[mask], self.text)

    def lookup(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """Embeddings (B, D) of the images and of the captions that a step drew."""
        return self.image[rows.index], self.text[rows.text_rows]


def encoding_precision(model: ImageTextModel, autocast: bool) -> torch.autocast:
    """A context in which encoders run in bfloat16, if `autocast`."""
    return torch.autocast(model.device.type, torch.bfloat16, enabled=autocast)


class LiveFeatures:
    """The original's embeddings of streamed rows: the model computes them at each step."""

    def __init__(self, model: ImageTextModel) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False)

    @torch.no_grad()
    def lookup(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """As of `Features`; with several processes each encodes the images that it has."""
        image = gather(self.model.encode_image(rows.images), len(rows.captions))
        return image, self.model.encode_text(rows.captions)


def fingerprint(model: ImageTextModel, pairs: "PairSet | Stream") -> str:
    """Equal for equal weights, preprocessing, rows and captions."""
    digest = hashlib.sha256(f"{pairs.fingerprint()} {model.framing!r}".encode())
    for name, tensor in [*model.state_dict().items(), *model.named_buffers()]:
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:24]


def selection(pairs: PairSet, forgotten: Tensor) -> str:
    """Equal for equal validation rows and equal rows among them that are to be forgotten."""
    return hashlib.sha256(pairs.fingerprint().encode() + forgotten.numpy().tobytes()).hexdigest()[:24]


@dataclass
class Original:
    """The original model's embeddings and temperature, so that it does not have to run at every step."""

    forget: Features
    retain: Features | LiveFeatures
    logit_scale: float

    def of(self, name: str) -> Features | LiveFeatures:
        """The embeddings of the set `name`, "forget" or "retain"."""
        return self.forget if name == "forget" else self.retain
