"""Null space: what is distinctive of the forget text is projected out of the text head, in closed form.

With v the forget texts' mean embedding and m the direction of the retain texts' mean, u is the unit vector of
v - m·(v·m), and the head is multiplied by I - strength·u·uᵀ. Taking out all of v would leave the forget text
without a direction, a division of noise by noise; so it keeps what every text has. Only the text head changes:
images keep their place, and a linear probe finds the concept in them as before. Known failure: every text goes through
the edited head, so texts that share the removed direction move too.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from cliperase.errors import CliperaseError


@dataclass(frozen=True)
class NullSpace:
    strength: float = 1.0
    batches: int = 8  # retain batches whose texts make the mean

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
