"""Relearning: how fast is the concept back when a few of its pairs are trained on again?

ILU (Wang et al. 2025) tests with one epoch on 60 samples. Here `pairs` forget pairs and a batch of retain pairs are
trained on with CLIP's contrastive loss, for `steps` steps. The share of recognised forgotten test images is taken every
`every` steps; the figure is the area under that curve, as a mean in percent. Pairs, learning rate and retain batches
are the same for every model, because a curve depends on them.

What it does not show: forgetting, where relearning is slower than in the reference. A prompt that was pushed far away
takes longer to come back than in a model that never knew the concept: that is another trace of unlearning. `retain_…`
is the accuracy on the other images at the end: where it falls, the training itself did harm.
"""

import copy
from functools import cache

import numpy as np
import torch
from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from cliperase.audit.base import Probe, compared
from cliperase.audit.case import recognised
from cliperase.audit.intervals import mean_of, share_of
from cliperase.loop import run_loop
from cliperase.losses import info_nce
from cliperase.methods.base import LossMethod
from cliperase.metrics.encode import encode_images, encode_texts
from cliperase.settings import TrainSettings
from cliperase.training import PairTraining
from cliperase.unlearning import narrowed


class Relearn(LossMethod):
    """InfoNCE over forget and retain pairs together: each is the other's negative."""

    def loss(self, batch):
        image, text, ids = (
            torch.cat([getattr(pairs, name) for pairs in (batch.forget, batch.retain)])
            for name in ("image", "text", "text_ids")
        )
        return {"InfoNCE": info_nce(image, text, batch.logit_scale, ids)}


class Relearning(Probe):
    asked = "How fast does the concept come back when the model sees a few of its pairs again?"
    figures = (
        "area_8_pairs: mean percent of forgotten test images recognised, over the steps of training on 8 pairs "
        "again. retain_accuracy_…: on the other images at the end."
    )
    means = (
        "A larger area than the reference's: the concept was hidden rather than removed. "
        "A smaller one: it was pushed further away than in a model that never knew it."
    )
    limits = (
        "Slow relearning is no proof of forgetting, and the learning rate decides how fast anything is learnt: "
        "only the comparison at the same rate counts."
    )
    source = "ILU (Wang et al., 2025), its test by relearning; the curve and its area are this project's"

    pairs: list[PositiveInt] = Field(default=[1, 8, 64], min_length=1)
    steps: PositiveInt = 20
    every: PositiveInt = 5
    learning_rate: float = Field(default=3e-5, gt=0)
    retain_batch: int = Field(default=64, ge=2)
    points: list[NonNegativeInt] = Field(default=[])  # steps after which the share is a figure of its own, for a curve

    @property
    def taken(self):
        """The steps after which the share is taken."""
        return [*range(0, self.steps, self.every), self.steps]

    @model_validator(mode="after")
    def check_points(self):
        for step in self.points:
            if step not in self.taken:
                known = ", ".join(map(str, self.taken))
                raise ValueError(f"points {step} is no step after which the share is taken; choose among {known}")
        return self

    def run(self, case):
        training, found = case.needed_training(), []
        forget = training.pairs.select(training.forgotten)
        left_out = [str(count) for count in self.pairs if count > len(forget)]
        if left_out:
            case.notes.append(f"area_… of {', '.join(left_out)} pairs is not measured: there are {len(forget)}.")
        for count in [one for one in self.pairs if one <= len(forget)] or [len(forget)]:
            chosen = torch.zeros(len(forget), dtype=torch.bool)
            chosen[np.random.default_rng([case.seed, count]).permutation(len(forget))[:count]] = True
            relearnt = cache(lambda subject, chosen=chosen: self.relearnt(case, subject, forget.select(chosen)))
            found += [
                compared(case, f"area_{count}_pairs", "%", lambda s, f=relearnt: self.area(f(s)[0])),
                compared(case, f"retain_accuracy_{count}_pairs", "%", lambda s, f=relearnt: share_of(f(s)[1]), None),
                *(self.point(case, count, step, relearnt) for step in self.points),
            ]
        return found

    def point(self, case, count, step, relearnt):
        """One point of the curve. It has no vote: the area counts it already."""
        place, name = self.taken.index(step), f"recognised_{count}_pairs_{step}_steps"
        return compared(case, name, "%", lambda subject: share_of(relearnt(subject)[0][place]), None)

    def relearnt(self, case, subject, forget):
        """(hits on the forgotten test images (points, F) from step 0 on, hits on the others at the end)."""
        model, split = copy.deepcopy(subject.model), case.test
        retain = case.training.pairs.select(~case.training.forgotten)
        settings = TrainSettings(
            steps=self.steps, learning_rate=self.learning_rate, evaluate_every=self.every,
            forget_batch=min(16, len(forget)), retain_batch=min(self.retain_batch, max(2, len(retain))), seed=case.seed,
        )  # fmt: skip
        curve = [hits(model, split, split.forgotten)]

        def watch(trained):
            curve.append(hits(trained, split, split.forgotten))
            return {"score": len(curve)}  # so that the last weights stay

        with narrowed(model, forget, retain):
            run_loop(PairTraining(model, Relearn(), settings, retain, forget), watch, progress=False)
        return np.stack(curve), hits(model, split, ~split.forgotten)

    def area(self, curve):
        """The mean over steps, by trapezoids between the points; of each image, then of all."""
        return mean_of(100 * np.trapezoid(curve.astype(float), self.taken, axis=0) / self.steps)


def hits(model, split, rows):
    """(R,) whether each of some images of a split is recognised."""
    images, texts = encode_images(model, split.pairs.images[rows]), encode_texts(model, split.texts)
    return recognised(images, texts, split.own[rows]).numpy()
