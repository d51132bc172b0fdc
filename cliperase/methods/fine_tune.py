"""Fine-tune (a baseline of Golatkar et al. 2020): L = L_RM on the retain set, nothing on the forget set.

It is the control for retention that *rises*: what this row gains is training, not unlearning.

Settings: the learning rate is the only one. As a baseline in the published code of SalUn (Fan et al. 2024) it runs for
10 epochs at 0.01. We have two rows (paper/profiles): the rate of `fine-tune` is chosen by the score that all rows have,
that of `fine-tune retention` by retention alone.

Known failure: it hardly forgets, because nothing pulls the forget pairs apart. At a learning rate that separates them
it also damages the retain pairs.
"""

from torch import Tensor

from cliperase.batch import Batch
from cliperase.methods.base import LossMethod, retain_loss


class FineTune(LossMethod):
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        return {"RM": retain_loss(batch)}
