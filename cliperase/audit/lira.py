"""LiRA: do the answers on the forgotten training images look like those of models that saw them, or that never did?

The likelihood ratio attack of Carlini et al. 2022. Shadow models are models of other seeds, some trained with the
concept and some without. Of each image, the confidence of its own text among the retained texts is taken, as log-odds.
Those of the shadow models of one kind make a Gaussian, with a variance of the image's own from `MANY` models on; of
fewer, one variance of all images is steadier. `online` is the log likelihood ratio of the two Gaussians at the audited
model's answer. `offline` needs no model that saw the concept: how many standard deviations the answer lies above those
of the models that did not. A model is never its own shadow.

`mean` is of the forgotten training images: it says whether the model answers as one that learnt the concept. `area` and
`true_positives_at_1` set them beside images of the same concept that no model saw, as in `membership`: they say whether
those very images were learnt. Of an unseen image there is no model that saw it, so its Gaussian is of models that saw
others of the concept. For the training images the two Gaussians may lie further apart, and then `online_area` lies
below ½ in a model that saw neither; `offline_area` is about ½ there.

What it does not show: whether the towers still know the concept, because only answers are read, and one moved prompt
moves them all. U-LiRA (Hayes et al. 2024) unlearns the shadow models as well, and is stronger still.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import torch
from pydantic import PositiveInt
from scipy.stats import norm

from cliperase.audit.base import NotApplicable, Probe, compared
from cliperase.audit.intervals import area_of, mean_of
from cliperase.audit.membership import cosines_of, matched_rows, rate_at

LEAST, MANY = 2, 64  # shadow models of a kind: for a variance; for one of each image
FIGURES = (  # (name, unit or that of the kind, function of the scores of training images and of unseen ones)
    ("mean", None, lambda seen, unseen: mean_of(seen)),
    ("area", "AUC", area_of),
    ("true_positives_at_1", "%", rate_at),
)


class LiRA(Probe):
    asked = "Do the answers on the forgotten training images look like those of models that saw them, or never did?"
    figures = (
        "online_mean: mean log likelihood ratio, above 0 where models that saw the concept fit better. offline_mean: "
        "how many standard deviations the answers lie above those of models that never saw it. …_area: the ROC "
        "curve's, of training images against unseen ones of the concept. …_true_positives_at_1: percent of training "
        "images found at 1 % false alarms."
    )
    means = (
        "A mean above the references': the model answers as one that learnt the concept. An area above theirs: these "
        "very images left a trace."
    )
    limits = (
        "It reads answers: a moved prompt changes them all and leaves the towers as they were. online_area can lie "
        "below ½ in a model that saw none of the images, so only beside references it says something. The shadow "
        "models were not unlearnt, as those of U-LiRA are."
    )
    source = "Membership Inference Attacks From First Principles (Carlini et al., S&P 2022)"

    images: PositiveInt = 1000  # of each side at most

    def run(self, case):
        if not case.never:
            raise NotApplicable("there are no shadow models; give at least 2 that never saw the concept, as references")
        sides = [part_of(*side) for side in matched_rows(case, self.images)]
        kinds: dict[str, tuple[Callable[..., Any], str, list]] = {"offline": (distances, "deviations", [case.never])}
        if case.saw:
            kinds["online"] = log_ratios, "nats", [case.never, case.saw]

        @cache
        def answers(subject):
            return [log_odds(subject, side, case.test) for side in sides]

        def scores(subject, ratio, shadows):
            """Of the training images and of the unseen ones, (R,) each."""
            others = [[one for one in models if one.hash != subject.hash] for models in shadows]
            for side, asked in enumerate(answers(subject)):
                yield ratio(asked, *([answers(one)[side] for one in models] for models in others))

        return [
            compared(
                case, f"{kind}_{name}", unit or of_kind,
                lambda s, f=figure, ratio=ratio, shadows=shadows: f(*scores(s, ratio, shadows)),
                references=len(case.never) > LEAST,  # a reference is held to the others
            )
            for kind, (ratio, of_kind, shadows) in kinds.items()
            for name, unit, figure in FIGURES
        ]  # fmt: skip


def part_of(split, rows):
    """Some rows of a `Split` with all its texts, so that a shadow model need not read the others."""
    mask = torch.zeros(len(split.pairs), dtype=torch.bool).index_fill(0, rows, True)
    return replace(split, pairs=split.pairs.select(mask), forgotten=split.forgotten[mask], own=split.own[mask])


def log_odds(subject, split, test):
    """(R,) of the own text of each image among the retained texts of `test`."""
    rows = torch.arange(len(split.pairs))
    logits = subject.model.logit_scale.detach().float().cpu() * cosines_of(subject, split, rows, test)
    return (logits[:, 0] - logits[:, 1:].logsumexp(dim=1)).double().numpy()


def log_ratios(asked, never, saw):
    """(R,) log likelihood ratio of the answers `asked` (R,): above 0 where models that saw the images fit better.

    `never`, `saw`: (S, R), the answers of shadow models on the same images.
    """
    return norm.logpdf(asked, *gaussians(saw)) - norm.logpdf(asked, *gaussians(never))


def distances(asked, never):
    """(R,) how many standard deviations the answers `asked` (R,) lie above those of shadow models `never` (S, R)."""
    means, deviations = gaussians(never)
    return (np.asarray(asked) - means) / deviations


def gaussians(answers):
    """(means (R,), standard deviations (R,)) of one more model's answers, as of S shadow models' `answers` (S, R).

    The variance is larger by 1 / S, because the mean is as unsure.
    """
    answers = np.asarray(answers)
    count = len(answers)
    if count < LEAST:
        raise NotApplicable(f"of one kind there is {count} shadow model beside the audited one; give at least {LEAST}")
    variances = answers.var(axis=0, ddof=1)
    if count < MANY:
        variances = np.full_like(variances, variances.mean())
    if not variances.all():
        raise NotApplicable("shadow models give equal answers; give models that were trained from different seeds")
    return answers.mean(axis=0), np.sqrt(variances * (1 + 1 / count))
