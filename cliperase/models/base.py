"""What an image-text model is: the interface that losses, loop, metrics and methods rely on."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

import torch
from torch import Tensor, nn

from cliperase.errors import CliperaseError
from cliperase.models.framing import Framing

if TYPE_CHECKING:
    from cliperase.data.pairs import PairSet

REMEMBERED = 100_000  # texts, about 1 kB each
Layer = TypeVar("Layer")


@dataclass(frozen=True)
class PatchAttention:
    """Self-attention over patches: what a map of relevance needs of a vision transformer.

    `layers`: first to last; their tokens are the class token, then the patches row by row. `grid`: rows and columns of
    patches. `class_token`: the features come from that token; otherwise they are the mean of the patches.
    """

    layers: list[nn.MultiheadAttention]
    grid: tuple[int, int]
    class_token: bool


class ImageTextModel(nn.Module, ABC):
    """An image-text model. Each family has one adapter, a subclass, named in `cliperase.models.FAMILIES`.

    An adapter defines what is abstract here, and sets `framing`: how pictures come to the size that the image tower
    takes. `sources`: how the sources of the family are written, for the message about one that nobody knows.
    """

    sources: ClassVar[tuple[str, ...]] = ()
    framing: Framing
    mean: Tensor  # of each channel, as `set_colours` sets it
    std: Tensor

    @classmethod
    @abstractmethod
    def recognises(cls, source: str | Path) -> bool:
        """Whether `load` is to load this source. Cheap: it reads no weights."""

    @classmethod
    @abstractmethod
    def load(cls, source: str | Path, device: str | torch.device = "cpu") -> Self:
        """The model of `source` in evaluation mode; CliperaseError where it is not whole."""

    @abstractmethod
    def save(self, folder: str | Path) -> None:
        """Write a folder that `recognises` and `load` take, and that gives the same embeddings bit for bit."""

    @abstractmethod
    def encode_image(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) uint8 in 0…255 or float in 0…1 -> (N, D), L2-normalised, on the model's device."""

    @abstractmethod
    def encode_text(self, texts: list[str]) -> Tensor:
        """T strings -> (T, D), L2-normalised."""

    def token_rows(self, texts: list[str]) -> Tensor:
        """(T, L) of T strings: equal rows are one text to the model, however the strings differ.

        An adapter that cuts or cleans texts gives their tokens; default: only equal strings are one text.
        """
        number = {text: i for i, text in enumerate(dict.fromkeys(texts))}
        return torch.tensor([[number[text]] for text in texts])

    @property
    @abstractmethod
    def logit_scale(self) -> Tensor:
        """The temperature as a multiplier of cosines, a scalar."""

    @property
    def logit_bias(self) -> Tensor | None:
        """What is added to the logits, a scalar, of a model that was trained with the sigmoid loss (SigLIP).

        Default: None, it was trained with the softmax loss of CLIP, in which a bias would cancel out.
        """
        return None

    def multiply_text_head(self, matrix: Tensor) -> None:
        """Fold (D, D) into the last linear map of the text tower: text features t (before norm) become t @ matrix;
        default: this family has none to edit."""
        raise CliperaseError("the text tower has no linear projection to edit; choose another method")

    def multiply_image_head(self, matrix: Tensor) -> None:
        """Fold (D, D) into the last linear map of the image tower, likewise; default: this family has none to edit."""
        raise CliperaseError("the image tower has no linear projection to edit; choose another method")

    def image_map(self, images: Tensor, depth: float) -> Tensor:
        """The feature map (N, C, h, w) behind a share `depth`, above 0 and at most 1, of the image tower's layers.

        `images` as in `encode_image`. Default: this family shows none of its layers.
        """
        raise CliperaseError("the image tower shows no layer before its last; choose another method")

    def token_states(self, texts: list[str]) -> tuple[Tensor, Tensor] | None:
        """What a generator reads of T strings: the states (T, L, W) of their tokens behind the last layer, those of the
        padding too, and (T,) the place of each text's end. L as in `token_rows`. Default: None, this family shows none.
        """
        return None

    @property
    def matching_head(self) -> Callable[[Tensor, list[list[str]]], Tensor] | None:
        """What reads an image and a text together: a function of images (N, 3, H, W) and N lists of W strings, that
        gives (N, W) logits that they belong together; default: None, this family has no such head."""
        return None

    def further_metrics(self, pairs: "PairSet", forgotten: Tensor) -> dict[str, float]:
        """What else a model of this family can be measured by on a split: {metric: value}; default: nothing.

        `pairs`: N rows; `forgotten`: (N,) bool.
        """
        return {}

    def narrow_vocabulary(self, texts: list[str]) -> None:
        """Leave the token embeddings that no text uses out of the parameters; default: keep them all."""

    def widen_vocabulary(self) -> None:
        """Undo `narrow_vocabulary`: the parameters are the whole model's again, with what was learnt."""

    @property
    def token_table(self) -> nn.Embedding | None:
        """The embeddings of tokens, (vocabulary, width); default: None, this family shows none."""
        return None

    @property
    def image_tower(self) -> nn.Module | None:
        """The module whose output (N, D) is the image features before their norm; default: None, there is none."""
        return None

    @property
    def image_trunk(self) -> nn.Module | None:
        """The part of a convolutional tower whose `forward_features` gives a map (N, C, h, w); default: None."""
        return None

    @property
    def image_attention(self) -> PatchAttention | None:
        """The layers of an image tower that is a plain vision transformer; default: None, it is another one."""
        return None

    @property
    def clip_text_tower(self) -> nn.Module | None:
        """CLIP's own text tower, with open_clip's names: `token_embedding`, `positional_embedding`, `transformer`,
        `ln_final`; default: None, the model reads text in another way."""
        return None

    def set_colours(self, mean: list[float], std: list[float]) -> None:
        """The mean and standard deviation of each channel, three numbers in 0…1, that `pixels` normalises by."""
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)

    def pixels(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) uint8 in 0…255 or float in 0…1 -> what the image tower takes, on the model's device.

        Images of the model's size have been framed, see `Framing`.
        """
        framed = images.to(self.device, non_blocking=True)
        if tuple(framed.shape[-2:]) != tuple(self.framing.size):
            framed = self.framing(framed)
        pixels = framed.float() / 255 if images.dtype == torch.uint8 else framed
        return (pixels - self.mean) / self.std

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device


class Tokens:
    """A tokenizer with a cache: tokenizing the same prompts at every step costs more than encoding them.

    Captions of a stream rarely come twice, so everything is dropped when there is much of it.
    """

    def __init__(self, tokenizer: Callable[[list[str]], Tensor]) -> None:
        self.tokenizer, self.rows = tokenizer, {}

    def __call__(self, texts: list[str]) -> Tensor:
        """T strings -> (T, context length) long."""
        if len(self.rows) > REMEMBERED:
            self.rows.clear()
        new = list(dict.fromkeys(text for text in texts if text not in self.rows))
        if new:
            self.rows.update(zip(new, self.tokenizer(new), strict=True))
        return torch.stack([self.rows[text] for text in texts])

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # copies of a model share the cache


def layer_at(layers: Sequence[Layer], depth: float) -> Layer:
    """The last of the `layers` that lie within a share `depth` of them; at least the first."""
    return layers[max(1, round(depth * len(layers))) - 1]


def hidden_map(tower: nn.Module, pixels: Tensor, depth: float) -> Tensor:
    """`ImageTextModel.image_map` of a vision transformer of transformers; a class token, which comes first, is left
    out."""
    tokens = layer_at(tower(pixel_values=pixels, output_hidden_states=True).hidden_states[1:], depth)
    side = math.isqrt(tokens.shape[1])
    return tokens[:, -side * side :].transpose(1, 2).unflatten(2, (side, side))


def multiply_head(head: object, matrix: Tensor, tower: str) -> None:
    """Let the linear map `head`, a layer or a parameter that is multiplied from the right, be followed by `matrix`.

    `matrix`: (D, D), in place. `tower` names it in the error for what is no linear map.
    """
    if isinstance(head, nn.Linear):
        head.weight.copy_(matrix.T @ head.weight)
        if head.bias is not None:
            head.bias.copy_(head.bias @ matrix)
    elif isinstance(head, nn.Parameter):
        head.copy_(head @ matrix)
    else:
        raise CliperaseError(f"the {tower} tower has no linear projection to edit; choose a method that trains")


def import_transformers() -> ModuleType:
    """transformers, quiet. It takes a second and may be missing, so only the families that need it ask."""
    try:
        import transformers
    except ImportError as error:
        raise CliperaseError(f"this model needs transformers ({error}); pip install 'transformers>=5.0'") from None
    transformers.utils.logging.disable_progress_bar()
    return transformers


def refuse_code(config: object, source: str | Path) -> None:
    """Raise CliperaseError if a configuration, at any depth, wants code of the model's own to run."""
    if isinstance(config, dict) and "trust_remote_code" in config:
        raise CliperaseError(
            f"the configuration of model {str(source)!r} sets trust_remote_code; no code of a model is run: take the "
            "key out, or take another model"
        )
    for part in config.values() if isinstance(config, dict) else config if isinstance(config, list) else ():
        refuse_code(part, source)


def pick_device() -> torch.device:
    """A GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
