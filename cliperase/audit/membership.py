"""Membership: can one tell the forgotten training images from images of the same concept that nothing was trained on?

Both sides are of the same classes, or match the same rule, so nothing but membership tells them apart. There are three
scores of an image, as in attacks on classifiers (Yeom et al. 2018; Carlini et al. 2022): cosine to its own text, the
loss of its own text among all texts, the entropy of the answer. The area under the ROC curve is ½ where there is
nothing to be told; the true positive rate at 1 % false positives shows a leak of few images that the area hides.

What it does not show: whether the concept is known, because a model may know it and hold no image. Forget rows against
retain rows would not be membership but a difference of classes. The scores are those of one model: there are no shadow
models, so no likelihood ratio (LiRA), which is a stronger attack.
"""

import numpy as np
from pydantic import PositiveInt

from cliperase.audit.base import NotApplicable, Probe, compared
from cliperase.audit.intervals import area_of, share_of

LEAST = 5  # images on each side


class Membership(Probe):
    asked = "Can one tell which images of the concept the model was once trained on?"
    means = (
        "An area of ½ and a rate of 1 %: nothing tells them apart, as in a model that saw none of them. "
        "Above: the training images left a trace. Below: they were pushed further away than unseen ones."
    )
    limits = (
        "It is about images, not about the concept. The attack knows one model; one with shadow models (LiRA) is "
        "stronger. Of few images the rate at 1 % is that at no false positive."
    )
    source = "Membership Inference Attacks From First Principles (Carlini et al., S&P 2022)"

    images: PositiveInt = 1000  # of each side at most

    def run(self, case):
        training, test = case.needed_training(), case.test
        members, others = (split.forgotten.nonzero()[:, 0][: self.images] for split in (training, test))
        if min(len(members), len(others)) < LEAST:
            raise NotApplicable(f"fewer than {LEAST} images of the concept in training or in the measured split")

        def sides(subject, score):
            return [
                score(subject, subject.images(split)[rows], texts_of(subject, split, rows), split.own[rows])
                for split, rows in ((training, members), (test, others))
            ]

        found = [
            compared(case, f"area_{name}", "AUC", lambda s, score=score: area_of(*sides(s, score)))
            for name, score in {"cosine": cosine, "loss": confidence, "entropy": certainty}.items()
        ]
        return [*found, compared(case, "true_positives_at_1", "%", lambda s: rate_at(*sides(s, confidence)))]


def texts_of(subject, split, rows):
    return subject.texts(split.texts)


def cosine(subject, images, texts, own):
    return (images[:, None] * texts[own]).sum(dim=2).mean(dim=1).numpy()


def confidence(subject, images, texts, own):
    """Minus the loss of the own texts among all, in nats."""
    return answers(subject, images, texts).gather(1, own).logsumexp(dim=1).numpy()


def certainty(subject, images, texts, own):
    """Minus the entropy of the answer, in nats."""
    logits = answers(subject, images, texts)
    return (logits.exp() * logits).sum(dim=1).numpy()


def answers(subject, images, texts):
    scale = subject.model.logit_scale.detach().float().cpu()
    return (scale * images @ texts.T).log_softmax(dim=1)


def rate_at(positive, negative, percent=1):
    """Percent of positives above a threshold that at most `percent` of the negatives pass."""
    allowed = int(percent / 100 * len(negative))
    return share_of(positive > np.sort(negative)[::-1][allowed])
