"""Query arithmetic (ours; with word vectors Mikolov et al. 2013): q ← q - strength·(q·c)·c. What users of a search do
by hand, here in closed form in the text head.

c is the direction of the forgotten texts' mean embedding. The multiple of c that a query q loses is `strength` times
its own part along c, so one linear map does it for every query, and a query without such a part stays as it is.

Settings: at strength 1 nothing along c is left, and above it a query is turned away from c. It is searched
(paper/profiles). `batches` batches tell the texts, and more where these do not show every forgotten class.

Known failure: all texts of a CLIP share a direction, which is a part of c: every query loses some of it. The null space
method leaves that part alone. Images keep their place.
"""

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, PositiveInt

from cliperase.methods.base import Batches, EditMethod, Validate, all_classes
from cliperase.models.base import ImageTextModel


class QueryArithmetic(EditMethod):
    strength: NonNegativeFloat = 1.0
    batches: PositiveInt = 8  # batches whose texts are seen; more where these do not show every forgotten class

    @torch.no_grad()
    def apply(self, model: ImageTextModel, batch: Batches, validate: Validate | None = None) -> None:
        forget = torch.cat([seen.forget.text for seen in all_classes(batch, self.batches)])
        concept = F.normalize(forget.mean(dim=0), dim=0)
        identity = torch.eye(len(concept), device=concept.device)
        model.multiply_text_head(identity - self.strength * torch.outer(concept, concept))
