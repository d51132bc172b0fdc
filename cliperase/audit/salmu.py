"""The measures of SALMUBench under their names, so that numbers can be set beside each other.

| name | there | here |
|---|---|---|
| RetFail | mean reciprocal rank of the true caption among 2,001 | the same, with 2,000 retained texts or fewer |
| AssocStr | mean cosine of the forget set's pairs | of the forgotten training pairs |
| IntraIdSim | of the same identity, an association held out | of the forgotten concept, test pairs |
| InterIdSim | of identities held out | of the retained concepts, test pairs |
| leakage_rate | share of rows whose association beats a generic caption | the same, `generic` being that caption |

A method is "utility-efficient" there if over 99 % of the leakage is gone and under 1 % of the general accuracy is lost;
`leakage_gone` and `utility_lost` are these two. The interval of the leakage rate is that of a bootstrap over
identities, here over the forgotten classes; where there is one class or none, it is the exact one over images.

What it does not show: its identities are persons and ours are concepts, so only the names of the figures are the same,
and a low cosine is not forgetting: a clean model stands at 0.14 there, well above zero.
"""

import numpy as np
import torch
from pydantic import PositiveInt

from cliperase.audit.base import Known, Measurement, Probe, compared
from cliperase.audit.case import INVENTED, Split, found_by, own_cosines
from cliperase.audit.intervals import exactly, mean_of, mean_of_table, share_of
from cliperase.metrics.tasks import prompt_of


class SALMU(Probe):
    asked = "How does the model stand in the figures of SALMUBench?"
    figures = (
        "RetFail: mean reciprocal rank of the own text among retained ones. AssocStr, IntraIdSim, InterIdSim: "
        "mean cosine of forgotten training pairs, forgotten test pairs, retained test pairs. leakage_rate: share "
        "of images nearer to their own text than to a generic one. leakage_gone, utility_lost: percent of the "
        "original's."
    )
    means = (
        "AssocStr and IntraIdSim should be as in the reference, and InterIdSim as before. "
        "Utility-efficient, there, is over 99 % of the leakage gone and under 1 % of the accuracy lost."
    )
    limits = "Its benchmark is of persons, so only the names are the same; a cosine near zero is not forgetting."
    source = "SALMUBench; the mapping to concepts is this project's"

    rivals: PositiveInt = 2000
    generic: str = "a photo"

    def run(self, case):
        split, rows = case.test, case.test.forgotten
        pairs: dict[str, tuple[Split, torch.Tensor, Known]] = {
            "IntraIdSim": (split, rows, "above"),
            "InterIdSim": (split, ~rows, None),
        }
        if case.training is not None and case.training.forgotten.any():
            pairs = {"AssocStr": (case.training, case.training.forgotten, "above"), **pairs}
        found = [compared(case, "RetFail", "MRR", lambda s: mean_of(self.reciprocal_ranks(case, s)))]
        for name, (part, chosen, known) in pairs.items():
            found.append(
                compared(case, name, "cosine", lambda s, p=part, c=chosen: mean_of(own_cosines(s, p, c)), known)
            )
        leaks = compared(
            case, "leakage_rate", "%", lambda s: self.leakage(case, s), never=lambda s: self.mistaken(case, s)
        )
        return [*found, leaks, *efficiency(case, leaks)]

    def reciprocal_ranks(self, case, subject):
        """(F,) of each forgotten image: one over the rank of its own text among retained texts that the seed draws."""
        split, texts = case.test, subject.texts(case.test.texts)
        drawn = np.random.default_rng(case.seed).permutation(split.retain_texts.numpy())[: self.rivals]
        images = subject.images(split)[split.forgotten]
        own = (images[:, None] * texts[split.own[split.forgotten]]).sum(dim=2).amax(dim=1, keepdim=True)
        return 1 / (1 + (images @ texts[torch.from_numpy(drawn)].T >= own).sum(dim=1)).double()

    def leakage(self, case, subject):
        split, rows = case.test, case.test.forgotten
        generic = subject.images(split)[rows] @ subject.texts([self.generic])[0]
        leaks = own_cosines(subject, split, rows) > generic
        identities = split.own[rows, 0]
        if not split.has_classes or len(identities.unique()) < 2:
            return share_of(leaks)
        return mean_of([100 * leaks[identities == one].double().mean().item() for one in identities.unique()])

    def mistaken(self, case, subject):
        """The leakage rate of words that mean nothing."""
        images = subject.images(case.test)[case.test.forgotten]
        invented = images @ subject.texts([prompt_of(word, case.test.pairs.templates) for word in INVENTED]).T
        return mean_of_table(100.0 * (invented > images @ subject.texts([self.generic]).T).T)


def efficiency(case, leaks):
    """What went of the original's leakage and of its accuracy on the retained images, in percent of it."""
    split, rows = case.test, ~case.test.forgotten

    def accuracy(subject):
        return found_by(subject, split, rows).double().mean().item()

    def gone(before, after):
        return exactly(100 * (1 - after / before)) if before else exactly(0)

    after, before = (accuracy(subject) for subject in (case.after, case.before))
    return [
        Measurement("leakage_gone", "%", exactly(0), gone(leaks.before.value, leaks.after.value), known="below"),
        Measurement("utility_lost", "%", exactly(0), gone(before, after), known=None),
    ]
