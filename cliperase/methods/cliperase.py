"""CLIPErase (Yang et al. 2025): L = λ1·L_RM + λ2·L_FM + λ3·L_CM.

L_RM is InfoNCE on Dr. L_FM is the mean dot product of the true pairs of Df. L_CM is the KL divergence of the student's
distributions on Dr from the original's; `losses.consistency` has its two readings. A λ of zero leaves its term out,
which gives the rows of the ablation.

Settings: in the paper λ1 = 1 and λ2 = λ3 = 3, tuned by hand, with Adam at 1e-6 (1e-8 on Flickr30K), batches of 16 and
20 epochs. These λ are the defaults. Ours are searched (paper/profiles) and mostly weigh L_CM above L_FM.

Known failure: L_FM has no stop at zero, so the forgotten prompt is driven away from all images, not only
from its own.
"""

from typing import Literal

from pydantic import NonNegativeFloat
from torch import Tensor

from cliperase.batch import Batch
from cliperase.losses import forgetting
from cliperase.methods.base import LossMethod, retain_divergence, retain_loss


class CLIPErase(LossMethod):
    lambda_rm: NonNegativeFloat = 1.0
    lambda_fm: NonNegativeFloat = 3.0
    lambda_cm: NonNegativeFloat = 3.0
    consistency_over: Literal["similarity", "embedding"] = "similarity"  # `losses.consistency` says what each means
    retention_targets: Literal["identical-texts", "diagonal"] = "identical-texts"  # `diagonal`: the literal InfoNCE

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        terms = {}
        if self.lambda_rm:
            terms["RM"] = self.lambda_rm * retain_loss(batch, self.retention_targets)
        if self.lambda_fm:
            terms["FM"] = self.lambda_fm * forgetting(batch.forget.image, batch.forget.text)
        if self.lambda_cm:
            terms["CM"] = self.lambda_cm * retain_divergence(batch, self.consistency_over)
        return terms
