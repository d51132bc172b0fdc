"""Linear probe of each encoder: can logistic regression on frozen embeddings still learn the concept from few examples?

"An Illusion of Unlearning?" (AISTATS 2026) has SalUn at 0 % output accuracy and 93 % by a probe, and the *retrained*
model at 77 %. So an absolute number says nothing: the gap to a retrained model does. LEACE (Belrose et al. 2023) is the
control that must read chance. Where there are classes, the probe tells all of them and its recall of the forgotten ones
is measured, because telling one class from the rest is so easy that it has no power. Captions without classes
have no such rivals: there the area under the ROC curve of forget against retain rows is.

`shots`: examples of each class (captions: of each kind), drawn `draws` times; 0 is all there are, once. The texts of a
class are its prompts in several templates, half of which are learnt from.

What it does not show: that the model uses what is there. And little without a reference.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from pydantic import Field, PositiveInt

from cliperase.audit.base import NotApplicable, Probe, compared
from cliperase.audit.intervals import area_of, mean_of_table
from cliperase.audit.wording import TEMPLATES


@dataclass(frozen=True)
class Examples:
    """What is learnt from and what is asked: functions of a subject that give its embeddings, and their targets."""

    learnt: Callable
    targets: torch.Tensor
    asked: Callable
    wanted: torch.Tensor

    @property
    def smallest(self):
        """Examples of the class that has the fewest."""
        return int(torch.unique(self.targets, return_counts=True)[1].min())

    def draw(self, shots, rng):
        """Numbers of `shots` rows of each class, or of all that there are."""
        classes = [(self.targets == one).nonzero()[:, 0].numpy() for one in self.targets.unique()]
        return np.concatenate([rng.permutation(rows)[: shots or None] for rows in classes])


class LinearProbe(Probe):
    asked = "Can a linear classifier still learn the concept from a few examples, on the frozen embeddings?"
    means = (
        "More than a retrained model at the same number of examples: the encoder still has the concept ready. "
        "With all examples even a model that never knew it learns it, so the few-example figures count."
    )
    limits = (
        "A high figure alone proves nothing: retrained models reach high ones too. "
        "And it does not say that the model's own answers use what is there."
    )
    source = "An Illusion of Unlearning? (AISTATS 2026); LEACE (Belrose et al., NeurIPS 2023) as the control"

    shots: list[int] = Field(default=[1, 4, 16, 64, 0], min_length=1)
    draws: PositiveInt = 3
    classes: int = Field(default=100, ge=2)  # of more, the nearest to the concept in the original's texts are told
    inverse_penalty: float = Field(default=10.0, gt=0)  # scikit-learn's C

    def run(self, case):
        if not case.test.has_classes:
            return self.measured(case, "image", self.kinds(case))
        told = self.told_apart(case)
        found = self.measured(case, "text", self.prompts(case, told))
        try:
            return self.measured(case, "image", self.images(case, told)) + found
        except NotApplicable:  # no training rows: the texts need none
            return found

    def kinds(self, case):
        """Images of data without classes: those to be forgotten against the others."""
        training, test = case.needed_training(), case.test
        return Examples(
            lambda s: s.images(training), training.forgotten.long(), lambda s: s.images(test), test.forgotten.long()
        )

    def images(self, case, told):
        """Training images of the classes `told`; the forgotten test images are asked."""
        training, test = case.needed_training(), case.test
        rows, labels = torch.isin(training.pairs.labels, told), test.pairs.labels
        return Examples(
            lambda s: s.images(training)[rows], training.pairs.labels[rows],
            lambda s: s.images(test)[test.forgotten], labels[test.forgotten],
        )  # fmt: skip

    def prompts(self, case, told):
        """Every class in every template: the even templates are learnt from, the odd ones asked."""
        names, forget = case.test.pairs.class_names, case.test.forget_texts  # with classes, texts are numbered as they

        def texts(templates, numbers):
            return [template.format(names[number]) for number in numbers.tolist() for template in templates]

        learnt, asked = TEMPLATES[::2], TEMPLATES[1::2]
        return Examples(
            lambda s: s.texts(texts(learnt, told)), told.repeat_interleave(len(learnt)),
            lambda s: s.texts(texts(asked, forget)), forget.repeat_interleave(len(asked)),
        )  # fmt: skip

    def told_apart(self, case):
        """Numbers of the classes that the probe tells apart: the forgotten ones, and the nearest to them."""
        texts, forget = case.before.texts(case.test.texts), case.test.forget_texts
        nearness = (texts @ texts[forget].T).amax(dim=1).index_fill(0, forget, torch.inf)
        return nearness.argsort(descending=True, stable=True)[: max(self.classes, len(forget) + 1)].sort().values

    def measured(self, case, tower, examples):
        """A measurement for each number of shots that there are examples for."""
        return [
            compared(case, f"{tower}_{self.figure(case)[0]}_{f'{shots}_shots' if shots else 'all'}",
                     self.figure(case)[1], lambda s, shots=shots: self.estimate(case, s, examples, shots))
            for shots in self.shots if shots < examples.smallest
        ]  # fmt: skip

    def figure(self, case):
        return ("recall", "%") if case.test.has_classes else ("area", "AUC")

    def estimate(self, case, subject, examples, shots):
        """Recall of the classes that are asked; without classes, the area under the curve of all draws together."""
        have, asked, answers = examples.learnt(subject).numpy(), examples.asked(subject).numpy(), []
        for number in range(self.draws if shots else 1):
            rows = examples.draw(shots, np.random.default_rng([case.seed, shots, number]))
            answers.append(self.fitted(have[rows], examples.targets[rows].numpy()))
        if not case.test.has_classes:
            scores, wanted = sum(answer.decision_function(asked) for answer in answers), examples.wanted.numpy()
            return area_of(scores[wanted == 1], scores[wanted == 0])
        return mean_of_table(
            np.stack([100.0 * (answer.predict(asked) == examples.wanted.numpy()) for answer in answers])
        )

    def fitted(self, features, targets):
        from sklearn.linear_model import LogisticRegression

        found = LogisticRegression(C=self.inverse_penalty, max_iter=1000, class_weight="balanced")
        with warnings.catch_warnings():  # many classes of one example each are meant
            warnings.filterwarnings("ignore", message="The number of unique classes")
            return found.fit(features, targets)
