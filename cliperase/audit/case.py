"""The case of an audit: its models with their embeddings, and its data as questions that every task can ask."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from cliperase.audit.base import NotApplicable
from cliperase.data.pairs import PairSet
from cliperase.data.rules import Rule, forget_mask
from cliperase.errors import CliperaseError
from cliperase.metrics.encode import Text, encode_images, encode_texts
from cliperase.metrics.tasks import check_prompts, prompt_of
from cliperase.models.base import ImageTextModel

INVENTED = ("dax", "wug", "blicket", "toma", "fep", "zib", "gorp", "tulver")  # words of psycholinguistics, for nothing


def invented(number: int) -> str:
    """A name that no model was taught, another one for each number."""
    rest, word = divmod(number, len(INVENTED))
    return INVENTED[word] if not rest else f"{invented(rest - 1)} {INVENTED[word]}"


@dataclass(frozen=True)
class Split:
    """Images, which of them are to be forgotten, and the texts that an image is compared with.

    `forgotten`: (N,) bool. `texts`: the prompts of all classes; where there are none, the distinct captions.
    `own`: (N, K) long, the texts that belong to each image. So zero-shot classification, matching and retrieval are
    one question: is an own text the nearest?
    """

    pairs: PairSet
    forgotten: torch.Tensor
    texts: Sequence[Text]
    own: torch.Tensor

    @classmethod
    def of(cls, pairs: PairSet, forgotten: Tensor) -> Self:
        if pairs.class_names:
            prompts = [prompt_of(name, pairs.templates) for name in pairs.class_names]
            return cls(pairs, forgotten, prompts, pairs.class_numbers[:, None])
        used, own = pairs.text_ids.unique(return_inverse=True)
        if len(used) <= pairs.text_ids.shape[1]:
            raise CliperaseError(f"all {len(pairs)} images have the same captions; give data with different ones")
        return cls(pairs, forgotten, [pairs.texts[i] for i in used.tolist()], own)

    @property
    def has_classes(self) -> bool:
        return bool(self.pairs.class_names)

    @cached_property
    def forget_texts(self) -> Tensor:
        """Numbers of the texts that belong to a forgotten image."""
        return self.own[self.forgotten].unique()

    @cached_property
    def retain_texts(self) -> Tensor:
        """Numbers of the texts that belong to none."""
        numbers = torch.arange(len(self.texts))
        return numbers[~torch.isin(numbers, self.forget_texts)]

    def sampled(self, most: int, seed: int) -> "Split":
        """At most `most` rows: half of them forgotten ones where there are as many, the others drawn of the rest."""
        if len(self.pairs) <= most:
            return self
        rng, kept = np.random.default_rng(seed), torch.zeros(len(self.pairs), dtype=torch.bool)
        forget, retain = (rng.permutation(rows.nonzero()[:, 0].numpy()) for rows in (self.forgotten, ~self.forgotten))
        forget = forget[: max(most // 2, most - len(retain))]
        kept[torch.from_numpy(np.concatenate([forget, retain[: most - len(forget)]]))] = True
        return Split.of(self.pairs.select(kept), self.forgotten[kept])


class Subject:
    """A model with its embeddings, kept because many probes ask for the same."""

    def __init__(self, model: ImageTextModel, name: str) -> None:
        self.model, self.name = model, name
        self.image_features, self.text_features = {}, {}

    def images(self, split: Split) -> Tensor:
        """(N, D) of the images of a split."""
        key = id(split.pairs)
        if key not in self.image_features:
            self.image_features[key] = split.pairs, encode_images(self.model, split.pairs.images)
        return self.image_features[key][1]

    def texts(self, texts: Sequence[Text]) -> Tensor:
        """(T, D) of T texts."""
        new = list(dict.fromkeys(text for text in texts if text not in self.text_features))
        if new:
            self.text_features.update(zip(new, encode_texts(self.model, new), strict=True))
        return torch.stack([self.text_features[text] for text in texts])

    @cached_property
    def hash(self) -> str:
        """Equal for equal weights and preprocessing."""
        digest = hashlib.sha256()
        for name, tensor in sorted((dict(self.model.named_buffers()) | self.model.state_dict()).items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


@dataclass
class Case:
    """What is audited. `test`: images that nothing was trained on; `training`: the rows of training, None where the
    data have none in memory; `others`: {name: `Split`} of other sources. `saw`, `never`: shadow models, `Subject`s that
    were trained with the concept and without it, each from another seed.

    `estimates`: {probe: {(figure, hash of a model): `Estimate`}}, what was measured already; a probe gets its own part.
    Cases that differ in the unlearned model only may share it. `notes`: sentences on what a probe was asked for and did
    not measure; a probe gets its own.
    """

    before: Subject
    after: Subject
    references: list[Subject]
    rule: Rule
    test: Split
    training: Split | None = None
    others: dict[str, Split] = field(default_factory=dict)
    seed: int = 0
    progress: bool = True
    saw: list[Subject] = field(default_factory=list)
    never: list[Subject] = field(default_factory=list)
    estimates: dict[Any, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def subjects(self) -> list[Subject]:
        return [self.before, self.after, *self.references]

    def check(self) -> None:
        """The models can be compared, and there is something of both kinds to compare them by."""
        if not self.test.forgotten.any():
            raise CliperaseError("no row of the split is to be forgotten; give another split or another rule")
        for subject in [*self.subjects, *self.saw]:
            if self.test.has_classes:
                check_prompts(subject.model, self.test.texts)

    def needed_training(self) -> Split:
        """The training rows, of both kinds; a probe that learns has none to learn from without."""
        if self.training is None or not self.training.forgotten.any():
            raise NotApplicable("the data have no training rows of the concept in memory")
        return self.training

    def spread(self, split: Split, most: int) -> Tensor:
        """(R,) numbers of at most `most` forgotten rows: evenly of the forgotten concepts, the first rows of each."""
        rows = split.forgotten.nonzero()[:, 0]
        concepts, turns = self.concepts(split)[rows], torch.zeros_like(rows)
        for one in concepts.unique():
            turns[concepts == one] = torch.arange(int((concepts == one).sum()))
        return rows[turns.argsort(stable=True)[:most].sort().values]

    def concepts(self, split: Split) -> Tensor:
        """(N,) long, equal where rows are of one concept: of a class, or of the first word of the rule they hold."""
        if split.has_classes:
            return split.own[:, 0]
        if self.rule.kind != "concepts":
            return torch.zeros(len(split.own), dtype=torch.long)
        words = [replace(self.rule, values=(word,)) for word in self.rule.values]
        return torch.stack([forget_mask(split.pairs, word, required=False) for word in words]).int().argmax(dim=0)


def scores_of(images: Tensor, texts: Tensor, own: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Cosines (N, D) × (T, D) -> (N,) best one to an own text, (N,) best one to another, (N,) rank of the own one.

    `own`: (N, K) long. The best rank is 1; a tie counts against the own text.
    """
    cosines = images @ texts.T
    mine = torch.zeros_like(cosines, dtype=torch.bool).scatter(1, own, True)
    best = cosines.masked_fill(~mine, -torch.inf).amax(dim=1)
    return (
        best,
        cosines.masked_fill(mine, -torch.inf).amax(dim=1),
        1 + ((cosines >= best[:, None]) & ~mine).sum(dim=1),
    )


def own_cosines(subject: Subject, split: Split, rows: Tensor) -> Tensor:
    """(R,) mean cosine of each of these images, `rows` (R,) numbers or (N,) bool, to its own texts."""
    texts = subject.texts(split.texts)[split.own[rows]]
    return (subject.images(split)[rows][:, None] * texts).sum(dim=2).mean(dim=1)


def found_by(subject: Subject, split: Split, rows: Tensor) -> Tensor:
    """(R,) bool: whether a model finds an own text of each of these images, `rows` (N,) bool, the nearest of all."""
    return recognised(subject.images(split)[rows], subject.texts(split.texts), split.own[rows])


def recognised(images: Tensor, texts: Tensor, own: Tensor) -> Tensor:
    """(N,) bool: whether an own text is the nearest of all."""
    return scores_of(images, texts, own)[2] == 1


def comparable(one: Subject, other: Subject, split: Split) -> bool:
    """Whether two subjects' embeddings have the same size, without which they cannot lie in one space."""
    return one.texts(split.texts[:1]).shape == other.texts(split.texts[:1]).shape


def unlike(one: Subject, other: Subject, split: Split) -> str:
    """How the architecture of one subject differs from that of the other, in words; an empty text if it does not."""

    def sizes(subject: Subject) -> dict[str, str]:
        return {
            "length of embeddings": f"{subject.texts(split.texts[:1]).shape[1]}",
            "size of pictures": "×".join(map(str, subject.model.framing.size)),
            "parameters": f"{sum(weight.numel() for weight in subject.model.parameters()):,}",
        }

    mine, others = sizes(one), sizes(other)
    return "; ".join(f"{name} {mine[name]} instead of {others[name]}" for name in mine if mine[name] != others[name])
