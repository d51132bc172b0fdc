"""What a method is: settings that are checked once, and either losses for the loop or one edit of the weights.

`loss` sees embeddings only (`Batch`). The other hooks also see the model, and the sets to forget and to retain.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from cliperase.batch import Batch
from cliperase.data.pairs import PairSet
from cliperase.features import Original
from cliperase.losses import consistency, retention
from cliperase.models.base import ImageTextModel
from cliperase.settings import Settings

if TYPE_CHECKING:
    from cliperase.data.shards import Stream

Batches = Callable[[int], Batch]  # of a step's number
Validate = Callable[[ImageTextModel], dict[str, float]]


class Method(Settings):
    """Base of all methods. The fields of a method are its settings; `create_method` checks them."""

    takes_steps: ClassVar[bool]
    replaces_data: ClassVar[bool] = False

    def prepare(self, model: ImageTextModel, forget: PairSet, retain: PairSet, seed: int) -> tuple[PairSet, PairSet]:
        """(forget, retain) to draw from. A method that returns other sets must set `replaces_data`."""
        return forget, retain

    def start(self, model: ImageTextModel, forget: PairSet, retain: "PairSet | Stream") -> None:
        """Edit `model` in place, once, before anything else is asked of it; by default nothing."""
        return

    def targets(
        self, model: ImageTextModel, forget: PairSet, retain: "PairSet | Stream", original: Original
    ) -> Original:
        """The `Original` whose embeddings `loss` gets as those of the original model; by default they are these.

        Called once, before the first step, with the model as it is then.
        """
        return original

    def restrict(self, model: ImageTextModel, batch: Batches) -> dict[str, Tensor]:
        """{parameter name: mask of its weights that may move}; a parameter that is not named moves freely.

        Called once, before the first step. `batch(i)` is a `Batch` with gradients.
        """
        return {}


class LossMethod(Method):
    """A method that the loop trains with. The loop adds up its terms, logs each of them and takes the step."""

    takes_steps = True

    @abstractmethod
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """{name of a term: scalar} of one step."""


def retain_loss(batch: Batch, targets: str = "identical-texts") -> Tensor:
    """L_RM of the step's retain pairs, scalar, in nats: see `losses.retention`."""
    r = batch.retain
    return retention(r.image, r.text, batch.logit_scale, r.text_ids, targets, batch.logit_bias)


def retain_divergence(batch: Batch, reading: str = "similarity", temperature: float = 1.0) -> Tensor:
    """L_CM of the step's retain pairs, scalar, in nats: see `losses.consistency`. `temperature` divides the logits."""
    before, after = batch.original_retain, batch.retain
    scale = batch.original_logit_scale / temperature
    return consistency((before.image, before.text), (after.image, after.text), scale, reading)


def all_classes(batch: Batches, least: int) -> list[Batch]:
    """The first `least` batches, and as many more as it takes to see every forgotten class."""
    first = batch(0)
    return [first, *(batch(index) for index in range(1, max(least, first.forget_steps)))]


class EditMethod(Method):
    """A method that takes no steps: it edits the weights of the model once."""

    takes_steps = False

    @abstractmethod
    def apply(self, model: ImageTextModel, batch: Batches, validate: Validate | None = None) -> None:
        """Edit `model` in place. `batch(i)` is a `Batch` with gradients.

        `validate(model)` returns metrics on validation data, among them `score` (higher is better) and `remaining`
        (percent of the forget set that is still recognised). It is None where nothing can be measured.
        """
