"""SLUG (Cai et al. 2024): one layer, one gradient, θ ← θ - s·‖θ‖·g_f/‖g_f‖ with s found by binary search.

1. One gradient g_f of the forget loss (the mean cosine of true pairs) and g_r of InfoNCE on Dr. 2. Layers on the Pareto
front of high importance ‖g_f‖/‖θ‖ and low |cos(g_f, g_r)|; the most important `layers` of them are tried. Embeddings
and positions are no layers, as in the published code: a word's own rows are the word, not what it is associated with.
3. Binary search on validation data: s is larger while more than `tolerance` percent of the forget set is still
recognised, else smaller. The best score of all is kept. Seconds instead of minutes.

Settings: the published code tries every layer on the front, with one front for each tower; it starts at s = 0.1,
doubles it until no forget image has its class among the first five, then bisects, 10 measurements a layer. Ours has
one front for both towers and bisects below `largest_step`, 5 measurements a layer; `layers` and `largest_step` are
searched (paper/profiles).

Known failure: one layer holds more than one concept; neighbours go with it.
"""

import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor

from cliperase.batch import Batch
from cliperase.errors import CliperaseError
from cliperase.losses import forgetting
from cliperase.methods.base import Batches, EditMethod, Validate, retain_loss
from cliperase.methods.gradients import mean_over_batches, trainable
from cliperase.models.base import ImageTextModel

NO_LAYERS = ("embedding", "position", "pos_embed")  # parts of a parameter's name; timm has its own for positions


class SLUG(EditMethod):
    layers: PositiveInt = 2
    search_steps: PositiveInt = 5
    largest_step: NonNegativeFloat = 1.0  # relative to the layer's norm
    tolerance: NonNegativeFloat = 1.0  # percent
    batches: PositiveInt = 8

    @torch.no_grad()
    def apply(self, model: ImageTextModel, batch: Batches, validate: Validate | None = None) -> None:
        if validate is None:
            raise CliperaseError("SLUG searches its step on validation data, and there are none; give some")
        untouched = validate(model)
        if "remaining" not in untouched:
            raise CliperaseError(
                "SLUG searches its step on validation rows to forget; the rule matches none, so choose another method"
            )
        with torch.enable_grad():
            g_forget = mean_over_batches(model, forget_loss, batch, self.batches)
            g_retain = mean_over_batches(model, retain_loss, batch, self.batches)
        layers = pareto_layers(model, g_forget, g_retain)[: self.layers]
        found = [self.search(model, name, g_forget[name], validate) for name in layers]
        best = max(found, key=lambda one: one[0], default=None)
        if best and best[0] > untouched["score"]:  # the untouched model may be the best there is
            model.get_parameter(best[1]).copy_(best[2])

    def search(
        self, model: ImageTextModel, name: str, gradient: Tensor, validate: Validate
    ) -> tuple[float, str, Tensor]:
        """(score, layer name, its weights) of the best step in one layer; leaves the model as it was."""
        parameter = model.get_parameter(name)
        start, low, high = parameter.clone(), 0.0, self.largest_step
        direction = gradient * start.norm() / gradient.norm()
        found = []
        for _ in range(self.search_steps):
            step = (low + high) / 2
            parameter.copy_(start - step * direction)
            metrics = validate(model)
            found.append((metrics["score"], name, parameter.clone()))
            low, high = (step, high) if metrics["remaining"] > self.tolerance else (low, step)
        parameter.copy_(start)
        return max(found, key=lambda one: one[0])


def forget_loss(batch: Batch) -> Tensor:
    return forgetting(batch.forget.image, batch.forget.text)


def pareto_layers(model: ImageTextModel, g_forget: dict[str, Tensor], g_retain: dict[str, Tensor]) -> list[str]:
    """Names of weight matrices on the Pareto front, the most important first."""
    rated = []
    for name, parameter in trainable(model):
        if any(part in name for part in NO_LAYERS):
            continue
        f, r = g_forget[name].flatten(), g_retain[name].flatten()
        if parameter.ndim >= 2 and f.norm() > 0:
            alignment = torch.nn.functional.cosine_similarity(f, r, dim=0).abs().item()
            rated.append((f.norm().item() / parameter.norm().item(), alignment, name))
    rated.sort(key=lambda one: (-one[0], one[1]))
    front, least = [], float("inf")
    for _, alignment, name in rated:  # by falling importance: on the front where alignment is a new low
        if alignment < least:
            front.append(name)
            least = alignment
    return front
