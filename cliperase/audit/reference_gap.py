"""Reference gap: what a model says of the forgotten images, beside a model that was trained without them.

The gap to a retrained model is the measure of the unlearning literature (SalUn, Fan et al. 2024). It is read in both
directions: a prompt that is further from its images than in the retrained model was pushed away, not forgotten.
`average_gap` is the mean distance, in points, over accuracy of the forgotten training images, of the retained training
images and of the retained test images; SalUn adds a membership attack, which here is a probe of its own.

What it does not show: whether the knowledge is gone from the towers. Moving one prompt is enough to pass.
"""

from cliperase.audit.base import Measurement, Probe, compared
from cliperase.audit.case import INVENTED, found_by, scores_of
from cliperase.audit.intervals import exactly, mean_of, share_of
from cliperase.metrics.tasks import prompt_of


class ReferenceGap(Probe):
    asked = "Does the model still join the forgotten images to their own texts, and how far did it push them apart?"
    figures = (
        "forget_…: accuracy, mean rank of the own text (1 is the nearest), margin to the best other text, cosine "
        "to the own text. unrelated_cosine: of the forgotten texts to the other images. average_gap: mean "
        "distance, in points, to the references' accuracies."
    )
    means = (
        "The figures should be those of a model that never saw the concept. More: it is recognised. Less, above all a "
        "cosine below that of an unrelated or an invented word: the pair was pushed apart, which is not forgetting."
    )
    limits = "It sees the answers only. A model that moved one prompt and kept everything else passes."
    source = "SalUn (Fan et al., ICLR 2024)"

    def run(self, case):
        split, rows = case.test, case.test.forgotten

        def scores(subject):
            texts = subject.texts(split.texts)
            return scores_of(subject.images(split)[rows], texts, split.own[rows])

        def margin(subject):
            best, other, _ = scores(subject)
            return mean_of(best - other)

        def unrelated(subject):
            prompts = subject.texts(split.texts)[split.forget_texts]
            return mean_of((subject.images(split)[~rows] @ prompts.T).mean(dim=1))

        def invented(subject):
            prompts = subject.texts([prompt_of(word, split.pairs.templates) for word in INVENTED])
            return mean_of((subject.images(split)[rows] @ prompts.T).mean(dim=1))

        def retained(subject):
            return share_of(found_by(subject, split, ~rows))

        found = [
            compared(case, "forget_accuracy", "%", lambda s: share_of(scores(s)[2] == 1)),
            compared(case, "forget_rank", "rank", lambda s: mean_of(scores(s)[2]), known="below"),
            compared(case, "forget_margin", "cosine", margin),
            compared(case, "forget_cosine", "cosine", lambda s: mean_of(scores(s)[0]), never=invented),
            compared(case, "unrelated_cosine", "cosine", unrelated, known=None),
            compared(case, "retain_accuracy", "%", retained, known=None),
        ]
        return found + average_gap(case)


def average_gap(case):
    """The mean distance to the references' accuracies; nothing without references or training rows."""
    if not case.references or case.training is None:
        return []
    groups = [(case.training, case.training.forgotten), (case.training, ~case.training.forgotten)]
    groups = [(split, rows) for split, rows in [*groups, (case.test, ~case.test.forgotten)] if rows.any()]

    def accuracies(subject):
        return [share_of(found_by(subject, split, rows)).value for split, rows in groups]

    wanted = [sum(values) / len(values) for values in zip(*map(accuracies, case.references), strict=True)]

    def gap(subject):
        return exactly(sum(abs(a - b) for a, b in zip(accuracies(subject), wanted, strict=True)) / len(wanted))

    return [Measurement("average_gap", "points", gap(case.before), gap(case.after), known=None)]
