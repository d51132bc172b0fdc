"""Token states: what is left of the concept in the states of a text's tokens, which a generator reads?

A text-to-image model reads every token's state behind the last layer, the padding's too, and not the one vector that an
image is compared with. So a text tower whose last projection forgot still draws. Three places are looked at: the last
token of the `word`, the `end` of the text, and the `padding` behind it, as its mean; each state is taken to length 1.

`…_recall`: the text part of the linear probe, on these states. It tells the classes apart, and words that mean
nothing, by prompts in half of the templates; prompts of the forgotten classes in the other half are asked.
`…_direction_left`: in the original, the concept's prompts differ from the mean of the retained ones by a direction, one
in each template. How much of it is in the same difference in the unlearned model, in percent? A model with a space of
its own has no such figure; the same of words that mean nothing stands beside it.

What it does not show: whether a picture or a sentence comes of it. That needs a generator: `paper/diffusion.py` and
`paper/captioner.py` of this project measure detection and naming rates. And a word's own token tells any two words
apart, known or not, so that little follows from a high recall without a reference.
"""

from functools import cache

import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeInt

from cliperase.audit.base import NotApplicable, compared
from cliperase.audit.case import INVENTED
from cliperase.audit.intervals import mean_of
from cliperase.audit.linear_probe import LinearProbe
from cliperase.audit.wording import TEMPLATES

BATCH = 250  # prompts at once
PLACES = ("word", "end", "padding")


class TokenStates(LinearProbe):
    asked = "What is left of the concept in the states of a text's tokens, which an image generator reads?"
    figures = (
        "Of the states at the word's last token, at the end of the text and in the padding behind it. "
        "…_direction_left: how much of the direction by which the concept's prompts differed from the retained ones in "
        "the original is still there, in percent. …_recall_4_shots: percent of the concept's prompts that a linear "
        "probe puts right which learnt from 4 prompts of each class."
    )
    means = (
        "A direction that is left, more than with invented words: a generator still reads the concept, whatever the "
        "zero-shot answer says. A recall above the reference's: its prompts are still told from others."
    )
    limits = (
        "No picture is drawn and no sentence written: that needs a generator, which paper/diffusion.py and "
        "paper/captioner.py of this project measure. At the word itself any two words are told apart, known or not."
    )
    source = "this project; the text part of the linear probe, one layer earlier"

    shots: list[NonNegativeInt] = Field(default=[4], min_length=1)

    def run(self, case):
        if not case.test.has_classes:
            raise NotApplicable("captions have no names of classes whose prompts could be told apart")
        if any(subject.model.token_states([""]) is None for subject in case.subjects):
            raise NotApplicable("a text tower of another kind than CLIP's has no token states that a generator reads")
        told, names = self.told_apart(case), [*case.test.pairs.class_names, *INVENTED]
        words = [*(names[number] for number in told.tolist()), *INVENTED]
        prompts = {template.format(word): word for word in words for template in TEMPLATES}

        @cache
        def states(subject):
            return states_of(subject.model, prompts)

        found = []
        for place in PLACES:

            def read(subject, texts, place=place):
                return torch.stack([states(subject)[text][PLACES.index(place)] for text in texts])

            found += self.directions(case, place, told, read)
            asked, never = (self.prompts(case, told, invented, read) for invented in (False, True))
            found += self.measured(case, place, asked, self.shots, never)
        return found

    def directions(self, case, place, told, read):
        """The measurement of what is left of the original's direction at a place; none of a model of another width."""
        forget, names = case.test.forget_texts, case.test.pairs.class_names
        retained = [names[number] for number in told[~torch.isin(told, forget)].tolist()]

        def away(subject, words):
            """(words, templates, W) states less the mean of the retained classes."""
            texts = [template.format(word) for word in [*words, *retained] for template in TEMPLATES]
            table = read(subject, texts).unflatten(0, (-1, len(TEMPLATES)))
            return table[: len(words)] - table[len(words) :].mean(dim=0)

        concept = [names[number] for number in forget.tolist()]
        direction = away(case.before, concept).mean(dim=0)
        if away(case.after, concept).shape[-1] != direction.shape[-1]:
            return []

        def left(subject, words=concept):
            share = (away(subject, words) * direction).sum(dim=2) / direction.square().sum(dim=1)
            return mean_of(100 * share.flatten())

        name = f"{place}_direction_left"
        # it is 100 in the original by definition, so what it tells of other models was not measured: no vote
        return [compared(case, name, "%", left, known=None, references=False, never=lambda s: left(s, INVENTED))]


@torch.no_grad()
def states_of(model, prompts):
    """{prompt: (places, W) states at `PLACES`, each L2-normalised, on the CPU}. `prompts`: {prompt: the word in it}."""
    texts, special, found = list(prompts), model.token_rows([""]), {}
    for start in range(0, len(texts), BATCH):
        some = texts[start : start + BATCH]
        states, ends = (tensor.cpu() for tensor in model.token_states(some))
        rows, names = (model.token_rows(listed) for listed in (some, [prompts[text] for text in some]))
        names = names.masked_fill(torch.isin(names, special), -1)
        of_word = (rows[:, :, None] == names[:, None]).any(dim=2)
        last = of_word.int().cumsum(dim=1).argmax(dim=1)  # where the count comes to its most
        each, behind = torch.arange(len(some)), torch.arange(rows.shape[1]) > ends[:, None]
        padding = (states * behind[:, :, None]).sum(dim=1)
        at = torch.stack([states[each, last], states[each, ends], padding], dim=1).float()
        found.update(zip(some, F.normalize(at, dim=2), strict=True))
    return found
