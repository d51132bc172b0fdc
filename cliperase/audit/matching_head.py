"""Matching head: does a head that reads image and text together still tell that they belong together?

A BLIP (Li et al. 2022) has such a head beside its contrastive ones. It reads the states of all patches and tokens, so
that unlearning of the contrastive features may leave it as it was. As in the paper's matching accuracy, an image's own
text stands against others, `ways` together, and the head has to give it the highest logit. They are drawn for each
image, the same for every model. By chance one of `ways` images is right.

What it does not show: what a captioner says, which is a generator of its own that `paper/captioner.py` measures.
"""

import numpy as np
import torch
from pydantic import Field, PositiveInt

from cliperase.audit.base import NotApplicable, Probe, compared
from cliperase.audit.intervals import share_of
from cliperase.metrics.encode import wordings
from cliperase.metrics.tasks import WAYS

BATCH = 50  # images at once


class MatchingHead(Probe):
    asked = "Does the head that reads an image and a text together still join the forgotten images to their texts?"
    figures = (
        "forget_accuracy, retain_accuracy: percent of forgotten and of other images whose own text gets the highest "
        "logit of the matching head, among texts that are drawn for each image."
    )
    means = (
        "A forget_accuracy above the reference's, or above chance (one in as many as there are texts): whoever asks "
        "this head instead of the cosine has the concept back."
    )
    limits = (
        "A captioner is a generator of its own, which paper/captioner.py of this project measures. Only some families, "
        "such as BLIP, have a matching head."
    )
    source = "BLIP (Li et al., ICML 2022), whose image-text matching head it is"

    ways: int = Field(default=WAYS, ge=2)  # the own text and others, as many as there are
    images: PositiveInt = 100  # of each kind at most

    def run(self, case):
        if any(subject.model.matching_head is None for subject in case.subjects):
            raise NotApplicable("a model here has no head that reads an image and a text together")
        forget, retain = (self.drawn(case, rows) for rows in (case.test.forgotten, ~case.test.forgotten))
        return [
            compared(case, "forget_accuracy", "%", lambda s: self.accuracy(case, s, forget)),
            compared(case, "retain_accuracy", "%", lambda s: self.accuracy(case, s, retain), known=None),
        ]

    def drawn(self, case, rows):
        """Numbers of at most `images` of the `rows` (N,) bool."""
        numbers = np.random.default_rng(case.seed).permutation(rows.nonzero()[:, 0].numpy())
        return torch.from_numpy(np.sort(numbers[: self.images]))

    def texts(self, case, row):
        """An image's own text, then others. The head reads one text: of a class, its prompt in the first template."""
        split = case.test
        own, others = split.own[row].numpy(), np.arange(len(split.texts))
        ways = min(self.ways, len(others) - len(own) + 1)
        rivals = np.random.default_rng([case.seed, row]).choice(np.setdiff1d(others, own), ways - 1, replace=False)
        return [wordings(split.texts[number])[0] for number in [own[0], *rivals]]

    @torch.no_grad()
    def accuracy(self, case, subject, rows):
        hits = []
        for some in rows.split(BATCH):
            texts = [self.texts(case, row) for row in some.tolist()]
            logits = subject.model.matching_head(case.test.pairs.images[some], texts)
            hits.append(logits[:, 0] > logits[:, 1:].amax(dim=1))
        return share_of(torch.cat(hits).cpu())
