"""Membership: can one tell the forgotten training images from images of the same concept that nothing was trained on?

Both sides are of the same classes, or match the same rule, so nothing but membership tells them apart. There are three
scores of an image, as in attacks on classifiers (Yeom et al. 2018; Carlini et al. 2022): cosine to its own text, the
loss of its own text among the retained texts, the entropy of that answer. The area under the ROC curve is ½ where
nothing can be told; the true positive rate at 1 % false positives shows a leak of few images that the area hides.

What it does not show: whether the concept is known, because a model may know it and hold no image. Forget rows against
retain rows would not be membership but a difference of classes. The scores are those of one model; `lira` compares it
with shadow models, which is a stronger attack.
"""

import numpy as np
import torch
from pydantic import PositiveInt

from cliperase.audit.base import NotApplicable, Probe, compared
from cliperase.audit.case import own_cosines
from cliperase.audit.intervals import area_of, share_of

LEAST = 5  # images on each side
SCORES = {  # of the cosine to the own text and the log-probabilities of own text and rivals: higher for a member
    "cosine": lambda own, answer: own,
    "loss": lambda own, answer: answer[:, 0],
    "entropy": lambda own, answer: (answer.exp() * answer).sum(dim=1),
}


class Membership(Probe):
    asked = "Can one tell which images of the concept the model was once trained on?"
    figures = (
        "area_…: the ROC curve's, of training images against unseen ones, by cosine, loss or entropy. "
        "true_positives_at_1: percent of training images found at 1 % false alarms, by loss."
    )
    means = (
        "An area of ½ and a rate of 1 %: nothing tells them apart, as in a model that saw none of them. "
        "Above: the training images left a trace. Below: they were pushed further away than unseen ones."
    )
    limits = (
        "It is about images, not about the concept. The attack knows one model; one with shadow models, lira, is "
        "stronger. Of few images the rate at 1 % is that at no false positive."
    )
    source = "Membership Inference Attacks From First Principles (Carlini et al., S&P 2022)"

    images: PositiveInt = 1000  # of each side at most

    def run(self, case):
        matched = matched_rows(case, self.images)

        def sides(subject, score):
            """The scores of the training images and of the others, against the same rivals."""
            for split, rows in matched:
                cosines = cosines_of(subject, split, rows, case.test)
                scale = subject.model.logit_scale.detach().float().cpu()
                yield score(cosines[:, 0], (scale * cosines).log_softmax(dim=1)).numpy()

        found = [
            compared(case, f"area_{name}", "AUC", lambda s, score=score: area_of(*sides(s, score)))
            for name, score in SCORES.items()
        ]
        return [*found, compared(case, "true_positives_at_1", "%", lambda s: rate_at(*sides(s, SCORES["loss"])))]


def matched_rows(case, most):
    """[(`Split`, row numbers)]: training images of the concept, then images of it that no model saw; `most` of each."""
    training = case.needed_training()
    found = [(split, case.spread(split, most)) for split in (training, case.test)]
    if min(len(rows) for _, rows in found) < LEAST:
        raise NotApplicable(f"fewer than {LEAST} images of the concept in training or in the measured split")
    return found


def cosines_of(subject, split, rows, test):
    """(R, 1 + rivals) of some images to their own text, the mean of several, and to the retained texts of `test`."""
    images = subject.images(split)[rows]
    own = own_cosines(subject, split, rows)
    return torch.cat([own[:, None], images @ subject.texts(test.texts)[test.retain_texts].T], dim=1)


def rate_at(positive, negative):
    """Percent of positives above a threshold that at most one percent of the negatives pass."""
    allowed = len(negative) // 100
    return share_of(positive > np.sort(negative)[::-1][allowed])
