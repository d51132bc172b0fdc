"""Other sources: the same concept, drawn by hands or taken by cameras that no training image came from.

A model can forget the pictures of its training data and still know the concept: "the same concept from another source"
tells. The figures are those of the reference gap. A source is another split of the data, such as `heldout`, or the test
split of other data in the schema; its classes are matched to the rule by name.

What it does not show: a low figure says little where the original's is low as well, for then nobody ever knew the
concept in this form.
"""

from cliperase.audit.base import NotApplicable, Probe, compared
from cliperase.audit.case import found_by, scores_of
from cliperase.audit.intervals import mean_of, share_of


class OtherSources(Probe):
    asked = "Does the model recognise the concept in pictures from sources that nothing was trained on?"
    figures = "As in the reference gap, the name of the source before each."
    means = "As in the reference gap: the figures should be those of a model that never saw the concept."
    limits = "Where the original does not recognise the concept in this source, nothing was there to be forgotten."
    source = "the split into sources is this project's; the gap is SalUn's (Fan et al., ICLR 2024)"

    def run(self, case):
        sources = {name: split for name, split in case.others.items() if split.forgotten.any()}
        if not sources:
            raise NotApplicable("there is no other source with the concept; give one by --other")
        return [measure for name, split in sources.items() for measure in self.of_source(case, name, split)]

    def of_source(self, case, name, split):
        def scores(subject, rows):
            return scores_of(subject.images(split)[rows], subject.texts(split.texts), split.own[rows])

        def margin(subject):
            best, other, _ = scores(subject, split.forgotten)
            return mean_of(best - other)

        def retained(subject):
            rows = ~split.forgotten
            return share_of(found_by(subject, split, rows))

        found = [
            compared(case, f"{name}_forget_accuracy", "%", lambda s: share_of(scores(s, split.forgotten)[2] == 1)),
            compared(case, f"{name}_forget_margin", "cosine", margin),
            compared(case, f"{name}_forget_cosine", "cosine", lambda s: mean_of(scores(s, split.forgotten)[0])),
        ]
        return [*found, compared(case, f"{name}_retain_accuracy", "%", retained, known=None)]
