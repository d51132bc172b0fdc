"""Linear probe of each encoder: can logistic regression on frozen embeddings still learn the concept from few examples?

"An Illusion of Unlearning?" (AISTATS 2026) has SalUn at 0 % output accuracy and 93 % by a probe, and the *retrained*
model at 77 %. So an absolute number says nothing: the gap to a retrained model does. Where there are classes, the probe
tells all of them and `recall` is that of the forgotten ones: to tell one class from the rest is so easy that it has
little power. `area` is the ROC curve's of that, forget against retain images: all there is where there are no classes,
and with them the control, because LEACE (Belrose et al. 2023) must stand at ½ there.

`shots`: examples of each class (captions: of each kind), drawn `draws` times; 0 is all there are, once. The texts of a
class are its prompts in several templates, half of which are learnt from; beside the classes stand words that mean
nothing, whose recall is that of names that nobody taught.

What it does not show: that the model uses what is there. And little without a reference.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from pydantic import Field, NonNegativeInt, PositiveInt

from cliperase.audit.base import Probe, compared
from cliperase.audit.case import INVENTED
from cliperase.audit.intervals import area_of, mean_of_table
from cliperase.audit.wording import TEMPLATES


@dataclass(frozen=True)
class Examples:
    """What is learnt from and what is asked: functions of a subject that give its embeddings, and their targets."""

    learnt: Callable
    targets: torch.Tensor
    asked: Callable
    wanted: torch.Tensor
    binary: bool = False  # forget against retain, and no more classes

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
    figures = (
        "image_recall_4_shots: percent of the forgotten test images that a probe puts right which learnt from 4 "
        "images of each class; text_…: from prompts. image_area_…: the ROC curve's, forgotten images against all "
        "others."
    )
    means = (
        "More than a retrained model at the same number of examples: the encoder still has the concept ready. "
        "With all examples even a model that never knew it learns it, so the few-example figures count."
    )
    limits = (
        "A high figure alone proves nothing: retrained models reach high ones too. "
        "And it does not say that the model's own answers use what is there."
    )
    source = "An Illusion of Unlearning? (AISTATS 2026); LEACE (Belrose et al., NeurIPS 2023) as the control"

    shots: list[NonNegativeInt] = Field(default=[1, 4, 16, 64, 0], min_length=1)
    draws: PositiveInt = 3
    classes: int = Field(default=100, ge=2)  # of more, the nearest to the concept in the original's texts are told
    inverse_penalty: float = Field(default=10.0, gt=0)  # scikit-learn's C

    def run(self, case):
        if not case.test.has_classes:
            return self.measured(case, "image", self.kinds(case), self.shots)
        told = self.told_apart(case)
        never = self.prompts(case, told, invented=True)
        found = self.measured(case, "text", self.prompts(case, told), self.shots, never)
        if case.training is None:  # the texts need no training rows
            return found
        control = self.measured(case, "image", self.kinds(case), [0])
        return [*self.measured(case, "image", self.images(case, told), self.shots), *control, *found]

    def kinds(self, case):
        """The images to be forgotten against the others."""
        training, test = case.needed_training(), case.test
        return Examples(
            lambda s: s.images(training), training.forgotten.long(),
            lambda s: s.images(test), test.forgotten.long(), binary=True,
        )  # fmt: skip

    def images(self, case, told):
        """Training images of the classes `told`; the forgotten test images are asked."""
        training, test = case.needed_training(), case.test
        rows, labels = torch.isin(training.pairs.labels, told), test.pairs.labels
        return Examples(
            lambda s: s.images(training)[rows], training.pairs.labels[rows],
            lambda s: s.images(test)[test.forgotten], labels[test.forgotten],
        )  # fmt: skip

    def prompts(self, case, told, invented=False, read=lambda subject, texts: subject.texts(texts)):
        """Every class, and words that mean nothing, in every template: the even ones are learnt from, the odd asked.

        The forgotten classes are asked, or the `invented` ones. `read(subject, texts)`: (T, D) what is learnt from.
        """
        names, forget = [*case.test.pairs.class_names, *INVENTED], case.test.forget_texts  # numbered as the classes
        unknown = torch.arange(len(names) - len(INVENTED), len(names))
        learnt, asked, wanted = torch.cat([told, unknown]), TEMPLATES[1::2], unknown if invented else forget

        def texts(templates, numbers):
            return [template.format(names[number]) for number in numbers.tolist() for template in templates]

        return Examples(
            lambda s: read(s, texts(TEMPLATES[::2], learnt)), learnt.repeat_interleave(len(TEMPLATES[::2])),
            lambda s: read(s, texts(asked, wanted)), wanted.repeat_interleave(len(asked)),
        )  # fmt: skip

    def told_apart(self, case):
        """Numbers of the classes that the probe tells apart: the forgotten ones, and the nearest to them."""
        texts, forget = case.before.texts(case.test.texts), case.test.forget_texts
        nearness = (texts @ texts[forget].T).amax(dim=1).index_fill(0, forget, torch.inf)
        return nearness.argsort(descending=True, stable=True)[: max(self.classes, len(forget) + 1)].sort().values

    def measured(self, case, tower, examples, listed, never=None):
        """A measurement for each number of shots that there are examples for; `never`: those of what nobody taught."""
        figure, unit = ("area", "AUC") if examples.binary else ("recall", "%")
        left_out = [str(shots) for shots in listed if shots >= examples.smallest]
        if left_out:
            case.notes.append(
                f"{tower}_{figure} of {', '.join(left_out)} shots is not measured: the smallest class has "
                f"{examples.smallest} examples, and a draw takes fewer than there are."
            )
        return [
            compared(
                case, f"{tower}_{figure}_{f'{shots}_shots' if shots else 'all'}", unit,
                lambda s, shots=shots: self.estimate(case, s, examples, shots),
                never=never and (lambda s, shots=shots: self.estimate(case, s, never, shots)),
            )
            for shots in listed if shots < examples.smallest
        ]  # fmt: skip

    def estimate(self, case, subject, examples, shots):
        """Recall of what is asked; of two kinds, the area under the curve of all draws together."""
        have, asked, answers = examples.learnt(subject).numpy(), examples.asked(subject).numpy(), []
        for number in range(self.draws if shots else 1):
            rows = examples.draw(shots, np.random.default_rng([case.seed, shots, number]))
            answers.append(self.fitted(have[rows], examples.targets[rows].numpy()))
        wanted = examples.wanted.numpy()
        if examples.binary:
            scores = sum(answer.decision_function(asked) for answer in answers)
            # pyrefly: ignore[unsupported-operation] – a sum of arrays, because there is a draw
            return area_of(scores[wanted == 1], scores[wanted == 0])
        return mean_of_table([100.0 * (answer.predict(asked) == wanted) for answer in answers])

    def fitted(self, features, targets):
        from sklearn.linear_model import LogisticRegression

        found = LogisticRegression(C=self.inverse_penalty, max_iter=1000, class_weight="balanced")
        with warnings.catch_warnings():  # many classes of one example each are meant
            warnings.filterwarnings("ignore", message="The number of unique classes")
            return found.fit(features, targets)
