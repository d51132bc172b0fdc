"""Neighbours and strangers: what forgetting did to the concepts beside the forgotten one, and to those far from it.

The nearest concepts are those whose texts are nearest to the forgotten ones in the original; the farthest are the
strangers. Linear CKA (Kornblith et al. 2019) says how alike the geometry of the retained embeddings is to the
original's, and needs no common space; 1 is the same. Drift is the mean of 1 - cosine of an embedding to the original's
of the same image or text; a reference has a space of its own, so it has no drift.

What it does not show: forgetting. These are the costs. And concepts far from the forgotten one may have been in the
retain set all the same: which took no part in unlearning at all, the audit cannot know.
"""

import torch
from pydantic import Field

from cliperase.audit.base import Probe, compared
from cliperase.audit.case import comparable, found_by
from cliperase.audit.intervals import bootstrap, mean_of, share_of


class Neighbours(Probe):
    asked = "What happened to the concepts next to the forgotten one, to distant ones, and to the whole space?"
    figures = (
        "neighbour_ and stranger_accuracy: on the tenth of the retained texts that is nearest to the forgotten "
        "ones, and on the farthest tenth. …_cka: likeness of the retained embeddings' geometry, 1 is the same. "
        "…_drift: mean 1 - cosine to the original's embedding."
    )
    means = (
        "Neighbours that lose more than distant concepts: forgetting spilled over. "
        "A CKA below the reference's, or drift without an effect on accuracy: more was moved than was needed."
    )
    limits = (
        "It measures costs, not forgetting. Whether a distant concept took part in unlearning is not known. "
        "CKA of few texts is coarse."
    )
    source = "Similarity of Neural Network Representations Revisited (Kornblith et al., ICML 2019), for CKA"

    nearest: float = Field(default=0.1, gt=0, le=0.5)  # share of the retained texts; at least one

    def run(self, case):
        split, order = case.test, by_nearness(case)
        count, retained = max(1, round(self.nearest * len(order))), ~split.forgotten
        groups = {
            f"{name}_accuracy": rows & retained
            for name, chosen in (("neighbour", order[:count]), ("stranger", order[-count:]))
            for rows in [torch.isin(split.own, chosen).any(dim=1)]
        }

        def accuracy(rows):
            return lambda s: share_of(found_by(s, split, rows))

        found = [compared(case, name, "%", accuracy(rows), known=None) for name, rows in groups.items() if rows.any()]
        kept = {
            "image": lambda s: s.images(split)[retained],
            "text": lambda s: s.texts(split.texts)[split.retain_texts],
        }
        gone = {
            "image": lambda s: s.images(split)[split.forgotten],
            "text": lambda s: s.texts(split.texts)[split.forget_texts],
        }
        for tower, features in kept.items():
            if len(features(case.before)) > 2:
                found.append(compared(case, f"{tower}_cka", "CKA", alike(case.before, features), known=None))
        if not comparable(case.before, case.after, split):
            return found
        for group, towers in (("retain", kept), ("forget", gone)):
            for tower, features in towers.items():
                drift = drifted(case.before, features)
                found.append(compared(case, f"{group}_{tower}_drift", "1 - cosine", drift, None, references=False))
        return found


def by_nearness(case):
    """Numbers of the retained texts, the nearest to a forgotten one first, by the original's embeddings."""
    texts, split = case.before.texts(case.test.texts), case.test
    nearness = (texts[split.retain_texts] @ texts[split.forget_texts].T).amax(dim=1)
    return split.retain_texts[nearness.argsort(descending=True, stable=True)]


def alike(original, features):
    """The CKA of a subject's `features` with the original's, as a function of the subject."""
    return lambda subject: bootstrap(
        lambda rows: linear_cka(features(original)[rows], features(subject)[rows]), len(features(original))
    )


def linear_cka(x, y):
    """Linear CKA of (N, D) and (N, E): 0 unlike, 1 the same but for turning and scale; 0 where one is a constant."""
    x, y = (features.double() - features.double().mean(dim=0) for features in (x, y))
    scale = (x.T @ x).norm() * (y.T @ y).norm()
    return ((x.T @ y).square().sum() / scale).item() if scale > 0 else 0.0


def drifted(original, features):
    return lambda subject: mean_of(1 - (features(original) * features(subject)).sum(dim=1))
