"""Text attack: is there a prompt, not one of words, that brings the concept back?

As in UnlearnDiffAtk (Zhang et al. 2024), whose setting is the default: a prefix of 3 tokens before the forgotten texts,
40 iterations of AdamW at 0.01 with weight decay 0.1. Here the prefix lies in the space of token embeddings, where it
need not be a word, and one prefix serves all forgotten texts. It is sought on forgotten training images, so that their
own texts win among all texts, and its success is measured on test images.

What it does not show: whether somebody could type it, because no token has these embeddings. And a prefix has freedom
enough to describe a new thing: the gap to the reference counts, or to the same attack with a word that means nothing in
place of the concept.
"""

from contextlib import contextmanager

import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeFloat, PositiveInt

from cliperase.audit.base import NotApplicable, Probe, compared
from cliperase.audit.case import invented, recognised
from cliperase.audit.intervals import share_of
from cliperase.devices import send
from cliperase.metrics.encode import averaged, wordings
from cliperase.metrics.tasks import prompt_of

PLACE = "!"  # a token of its own in CLIP's vocabulary, which the prefix takes the place of


class TextAttack(Probe):
    asked = "Is there a prompt, found by optimisation, that brings the concept back?"
    figures = (
        "success: percent of forgotten test images whose own text, behind the prefix that was found, is the nearest."
    )
    means = (
        "More success than on the reference, or with an invented word: the text tower still has a way to the concept."
    )
    limits = (
        "The prompt is not made of words, and the search can also build something new. "
        "Success alone, without a reference's, says little."
    )
    source = "UnlearnDiffAtk (Zhang et al., ECCV 2024), with the prefix in the space of embeddings"

    tokens: int = Field(default=3, ge=1, le=8)
    iterations: PositiveInt = 40
    learning_rate: float = Field(default=0.01, gt=0)
    weight_decay: NonNegativeFloat = 0.1
    images: int = Field(default=64, ge=1)  # forgotten training images that the prefix is sought on

    def run(self, case):
        case.needed_training()
        for subject in case.subjects:
            self.check(subject.model, case.test.texts)
        return [
            compared(
                case, "success", "%", lambda s: self.success(case, s), never=lambda s: self.success(case, s, never=True)
            )
        ]  # fmt: skip

    def check(self, model, texts):
        if model.clip_text_tower is None:
            raise NotApplicable("a text tower of another kind than CLIP's has no token embeddings to attack here")
        tokens = model.token_rows(self.prefixed(texts))[:, 1 : 1 + self.tokens]
        if len(tokens.unique()) != 1:
            raise NotApplicable("the tokenizer has no single token for the place of the prefix")

    def prefixed(self, texts):
        """The wordings of all texts, behind the prefix."""
        return [f"{PLACE} " * self.tokens + one for text in texts for one in wordings(text)]

    def success(self, case, subject, never=False):
        """The share of forgotten test images that the prefixed texts win; `never`: invented words in their place."""
        split, rows = case.test, case.test.forgotten
        prefix = self.sought(case, subject, never)
        with torch.no_grad():
            texts = self.texts(subject, split, split.forget_texts, prefix, never).cpu()
        return share_of(recognised(subject.images(split)[rows], texts, split.own[rows]))

    def sought(self, case, subject, never):
        """(tokens, width) the prefix that lets the first own texts of forgotten images win."""
        model, split, rows = subject.model, case.training, case.spread(case.training, self.images)
        own, images = split.own[rows, 0], send(subject.images(split)[rows], model.device)
        table = model.clip_text_tower.token_embedding.weight
        place = model.token_rows(self.prefixed([""]))[0, 1].item()
        prefix = table[place].detach().clone().repeat(self.tokens, 1).requires_grad_()
        optimizer = torch.optim.AdamW([prefix], lr=self.learning_rate, weight_decay=self.weight_decay)
        for _ in range(self.iterations):
            texts = self.texts(subject, split, own.unique(), prefix, never)
            logits = model.logit_scale.detach() * images @ texts.T
            (prefix.grad,) = torch.autograd.grad(F.cross_entropy(logits, send(own, model.device)), [prefix])
            optimizer.step()
        return prefix.detach()

    def texts(self, subject, split, numbers, prefix, never):
        """(T, D) embeddings of a split's texts on the model's device, those of some `numbers` behind the prefix."""
        model, templates = subject.model, split.pairs.templates
        asked = [split.texts[number] for number in numbers.tolist()]
        if never:
            asked = [prompt_of(invented(number), templates) for number in range(len(asked))]
        with in_place(model, prefix):
            attacked = averaged(model.encode_text(self.prefixed(asked)).float(), asked)
        return send(subject.texts(split.texts), model.device).index_copy(0, send(numbers, model.device), attacked)


@contextmanager
def in_place(model, prefix):
    """In here the tokens behind the start of every text have the embeddings `prefix`."""

    def put(module, tokens, embeddings):
        return torch.cat(
            [embeddings[:, :1], prefix.expand(len(embeddings), -1, -1), embeddings[:, 1 + len(prefix) :]], 1
        )

    hook = model.clip_text_tower.token_embedding.register_forward_hook(put)
    try:
        yield
    finally:
        hook.remove()
