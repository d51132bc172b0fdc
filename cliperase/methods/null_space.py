"""Null space (ours; the projection is that of Ravfogel et al. 2020): head ← head·(I - strength·u·uᵀ), closed form.

u is what is distinctive of the forget text: with v the forget texts' mean embedding and m the direction of the retain
texts' mean, the unit vector of v - m·(v·m). Taking out all of v would leave the forget text without a direction, a
division of noise by noise; so it keeps what every text has. Ravfogel et al. take u from trained classifiers, many in
turn, and project any representation; here it is one direction, of the texts themselves, in the text head.

Settings: a projection has strength 1, which is the default. The searches (paper/profiles) chose 1 on the pictograms and
1.1 on the photographs. Below 1 a part of u stays, above it u is turned round. `batches` retain batches make the mean.

Known failure: every text goes through the edited head, so texts that share the removed direction move too. Images
keep their place, and a linear probe finds the concept in them as before.
"""

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, PositiveInt

from cliperase.errors import CliperaseError
from cliperase.methods.base import EditMethod


class NullSpace(EditMethod):
    strength: NonNegativeFloat = 1.0
    batches: PositiveInt = 8  # retain batches whose texts make the mean

    @torch.no_grad()
    def apply(self, model, batch, validate=None):
        seen = [batch(index) for index in range(self.batches)]
        direction = distinctive(
            torch.cat([b.forget.text for b in seen]).mean(dim=0), torch.cat([b.retain.text for b in seen]).mean(dim=0)
        )
        identity = torch.eye(len(direction), device=direction.device)
        model.multiply_text_head(identity - self.strength * torch.outer(direction, direction))


def distinctive(forget, retain):
    """(D,) unit vector: the part of `forget` (D,) that is orthogonal to `retain` (D,)."""
    common = F.normalize(retain, dim=0)
    rest = forget - common * (forget @ common)
    if rest.norm() < 1e-4 * forget.norm():
        raise CliperaseError("null space: forget and retain texts point the same way; nothing distinctive to remove")
    return F.normalize(rest, dim=0)
