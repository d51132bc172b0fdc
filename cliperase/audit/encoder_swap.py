"""Encoder swap (ours): the unlearned image tower with the original's text tower, and the reverse. Which tower forgot?

A tower that still answers with the original's other half has kept what it knew: whoever holds the original, which for
public models is everybody, has the concept back without a step of training.

What it does not show: a tower may have turned its whole space, so that it no longer fits the original's other half
and still knows everything. `retain_…` tells: where it falls too, the swap says nothing. A reference that was trained
anew has a space of its own, so it has no figure here.
"""

from cliperase.audit.base import NotApplicable, Probe, compared
from cliperase.audit.case import comparable, recognised
from cliperase.audit.intervals import share_of


class EncoderSwap(Probe):
    asked = "Which of the two towers forgot: does one of them still work with the original's other half?"
    figures = (
        "…_image_tower: the unlearned image tower with the original's text tower; …_text_tower: the reverse. "
        "forget_… and retain_…: accuracy on the forgotten and on the other images."
    )
    means = (
        "A high forget accuracy of a swapped pair says that this half of the unlearned model is as the original's. "
        "Then the concept is back as soon as somebody takes the other half from the original."
    )
    limits = (
        "A low one says little where retained images fall as well: the tower may have turned its space and kept all. "
        "A retrained model has a space of its own, so there is no reference."
    )
    source = "this project; the towers are told apart as in the probe of each encoder"

    def run(self, case):
        split, original = case.test, case.before
        if not comparable(original, case.after, split):
            raise NotApplicable("the two models' embeddings have different sizes, so their towers cannot be swapped")

        def accuracy(rows, image_of=None, text_of=None):
            def of(subject):
                images = (image_of or subject).images(split)[rows]
                return share_of(recognised(images, (text_of or subject).texts(split.texts), split.own[rows]))

            return of

        swaps = {"image_tower": {"text_of": original}, "text_tower": {"image_of": original}}
        return [
            compared(
                case, f"{group}_accuracy_{name}", "%", accuracy(rows, **halves), references=False,
                known="above" if group == "forget" else None,
            )
            for name, halves in swaps.items()
            for group, rows in (("forget", split.forgotten), ("retain", ~split.forgotten))
        ]  # fmt: skip
