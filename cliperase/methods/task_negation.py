"""Task negation (Ilharco et al. 2023): θ ← θ - α·(θ_ft - θ), where θ_ft is θ fine-tuned on the forget set.

θ_ft is trained with InfoNCE on Df; the retain pairs of a step are further negatives, held constant, because the pairs
of one forgotten class share one text and have nothing to tell apart. The difference θ_ft - θ is the task's vector; its
opposite makes the model worse at the task.

Settings: as published, α is the largest of 0.05, 0.10 … 1 that keeps 95 % of the accuracy elsewhere, the image encoder
alone is fine-tuned, with AdamW at 1e-5 for 2,000 steps of 128, and the class prompts stay. Here all weights take part,
α is `scale`, and a small model needs few steps. α and the rate are searched (paper/profiles).

Known failure: a concept that the original knows well has next to no vector, because there is nothing left to learn.
What fine-tuning changes beside the concept is turned round too.
"""

import torch
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from cliperase.methods.base import Batches, EditMethod, Validate
from cliperase.methods.gradient_ascent import pairs_against
from cliperase.models.base import ImageTextModel


class TaskNegation(EditMethod):
    scale: NonNegativeFloat = 1.0  # α
    fine_tune_steps: PositiveInt = 60
    fine_tune_rate: PositiveFloat = 1e-5

    def apply(self, model: ImageTextModel, batch: Batches, validate: Validate | None = None) -> None:
        before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        optimizer = torch.optim.AdamW(model.parameters(), lr=self.fine_tune_rate, weight_decay=0.0)
        for step in range(self.fine_tune_steps):
            optimizer.zero_grad()
            seen = batch(step)
            pairs_against(seen, seen.forget, seen.retain).backward()
            optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(before[name] - self.scale * (parameter - before[name]))
