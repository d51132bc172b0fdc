"""The metrics of each kind of data, and the score that selects checkpoints.

Data with classes are judged by zero-shot accuracy, images with one caption by k-way matching, images with
several captions by retrieval; `task_of` tells which. Every task gives the same cosines beside its accuracies.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from cliperase.errors import CliperaseError
from cliperase.metrics.encode import Text, encode_images, encode_texts, number_texts, wordings
from cliperase.metrics.scores import draw_rivals, matching_accuracy, retrieval_recall, zero_shot_accuracy

if TYPE_CHECKING:
    from cliperase.data.pairs import PairSet
    from cliperase.models.base import ImageTextModel

WAYS = 16  # candidates of a matching decision: the paper's batch size


@dataclass(frozen=True)
class Task:
    """`metrics(model, pairs, forgotten) -> {metric: value}`, and which metrics, in percent, must fall and stay."""

    metrics: Callable[..., dict[str, float]]
    forget: str
    retain: str

    def measure(self, model: "ImageTextModel", pairs: "PairSet", forgotten: Tensor, **more: Any) -> dict[str, float]:
        """The metrics, each a finite number, and how many images are behind those of the forget and the retain rows."""
        metrics = self.metrics(model, pairs, forgotten, **more)
        metrics |= {f"{name}_images": int(rows.sum()) for name, rows in groups(forgotten)}
        broken = [name for name, value in metrics.items() if not math.isfinite(value)]
        if broken:
            raise CliperaseError(
                f"metric {broken[0]} is {metrics[broken[0]]}; give a split with rows to forget and rows to retain"
            )
        return metrics

    def validate(
        self, model: "ImageTextModel", pairs: "PairSet", forgotten: Tensor, before: Mapping[str, float]
    ) -> dict[str, float]:
        """The metrics with `score`, which selects checkpoints and settings, and `remaining`, what must fall, which is
        not there where nothing is forgotten. `before`: the metrics of the original model."""
        metrics = self.measure(model, pairs, forgotten)
        remaining = {"remaining": metrics[self.forget]} if self.forget in metrics else {}
        return {**metrics, "score": self.score(metrics, before), **remaining}

    def score(self, metrics: Mapping[str, float], before: Mapping[str, float]) -> float:
        """100 less the average gap, in points, to the best result there can be: nothing of the forget set is found,
        and of the rest no less than the original finds.

        The average gap is the unlearning literature's (SalUn, Fan et al. 2024), which takes it to a retrained model.
        Who unlearns has none, so the gap is taken to this bound; a rise of the retain metric is no gap. Without forget
        rows, because all of them may be training rows, the retain metric alone counts.
        """
        lost = max(0.0, before[self.retain] - metrics[self.retain])
        gaps = [lost, *([metrics[self.forget]] if self.forget in metrics else [])]
        return float(100 - sum(gaps) / len(gaps))

    def quality(self, model: "ImageTextModel", pairs: "PairSet") -> float:
        """The retain metric in percent, with no row forgotten."""
        return self.measure(model, pairs, torch.zeros(len(pairs), dtype=torch.bool))[self.retain]


def task_of(pairs: "PairSet") -> Task:
    """By what a split is judged. A picture counts as one of several captions if most of the split's are."""
    if pairs.class_names:
        return ZERO_SHOT
    several = (pairs.text_ids != pairs.text_ids[:, :1]).any(dim=1)
    return RETRIEVAL if several.double().mean() >= 0.5 else MATCHING


def check_texts(model: "ImageTextModel", pairs: "PairSet") -> None:
    """Raise CliperaseError where a split has too few texts, or too much alike, for its task. No picture is encoded."""
    if pairs.class_names:
        check_prompts(model, [prompt_of(name, pairs.templates) for name in pairs.class_names])
    elif task_of(pairs) is MATCHING:
        same = number_texts(model, pairs.texts)[pairs.text_ids[:, 0]]
        commonest = int((same == same.mode().values).nonzero()[0])
        draw_rivals(same, commonest, WAYS - 1, seed=0)


def zero_shot_metrics(
    model: "ImageTextModel",
    pairs: "PairSet",
    forgotten: Tensor,
    watched: Mapping[str, Iterable[str]] | None = None,
) -> dict[str, float]:
    """Zero-shot accuracies over all classes, with `forgotten` (N,) bool the forget set.

    forget_cosine: mean cosine of the forgotten images to their own prompt. unrelated_cosine: mean cosine of
    the forgotten classes' prompts to the retain images, which should stay where it was. `watched` {name:
    class names} adds `<name>_accuracy`, the accuracy on images of these classes.
    """
    class_features = class_embeddings(model, pairs.class_names, pairs.templates)
    image_features = encode_images(model, pairs.images)

    def accuracy(rows: Tensor) -> float:
        return zero_shot_accuracy(image_features[rows], class_features, pairs.class_numbers[rows])

    metrics = {"retain_accuracy": accuracy(~forgotten)}
    if forgotten.any():  # held-out drawings do not exist for every concept
        own = class_features[pairs.class_numbers[forgotten]]
        prompts = class_features[pairs.class_numbers[forgotten].unique()]
        metrics |= {
            "forget_accuracy": accuracy(forgotten),
            "forget_cosine": (image_features[forgotten] * own).sum(dim=1).mean().item(),
            "unrelated_cosine": (image_features[~forgotten] @ prompts.T).mean().item(),
        }
    for name, classes in (watched or {}).items():
        numbers = torch.tensor([pairs.class_names.index(one) for one in classes])
        rows = torch.isin(pairs.class_numbers, numbers)
        if rows.any():
            metrics[f"{name}_accuracy"] = accuracy(rows)
    return metrics


def class_embeddings(model: "ImageTextModel", class_names: list[str], templates: Sequence[str]) -> Tensor:
    """(C, D), L2-normalised: of each class the mean of its prompts in all `templates` (Radford et al. 2021)."""
    prompts = [prompt_of(name, templates) for name in class_names]
    check_prompts(model, prompts)
    return encode_texts(model, prompts)


def prompt_of(name: str, templates: Sequence[str]) -> Text:
    """What a class is asked with."""
    prompts = tuple(template.format(name) for template in templates)
    return prompts if len(prompts) > 1 else prompts[0]


def check_prompts(model: "ImageTextModel", prompts: Sequence[Text]) -> None:
    """The model can tell the prompts apart, in each template."""
    for worded in zip(*map(wordings, prompts), strict=True):
        first = {}
        for prompt, number in zip(worded, number_texts(model, list(worded)).tolist(), strict=True):
            if number in first:
                raise CliperaseError(
                    f"the model reads {first[number]!r} and {prompt!r} as one text; merge the classes or rename one"
                )
            first[number] = prompt


def matching_metrics(model: "ImageTextModel", pairs: "PairSet", forgotten: Tensor) -> dict[str, float]:
    """Matching accuracy of forget and retain rows, 16-way and in the whole split, each direction and their mean."""
    image, text = encode_images(model, pairs.images), encode_texts(model, pairs.texts)
    ids = pairs.text_ids[:, 0]
    same = number_texts(model, pairs.texts)[ids]
    metrics = pair_cosines(image, text, pairs.text_ids, forgotten)
    for group, rows in groups(forgotten):
        for label, ways in ((str(WAYS), WAYS), ("all", None)):
            found = matching_accuracy(image, text[ids], same, rows, ways)
            metrics |= {f"{group}_{way}_accuracy@{label}": value for way, value in found.items()}
            metrics[f"{group}_matching_accuracy@{label}"] = sum(found.values()) / len(found)
    return metrics


def retrieval_metrics(model: "ImageTextModel", pairs: "PairSet", forgotten: Tensor) -> dict[str, float]:
    """R@1, 5 and 10 of forget and retain queries over the whole split, text to image and image to text."""
    image, text = encode_images(model, pairs.images), encode_texts(model, pairs.texts)
    first, picture = distinct_pictures(pairs)
    row, ids = own_captions(pairs.text_ids)
    owner, captions = picture[row], text[ids]
    metrics = pair_cosines(image, text, pairs.text_ids, forgotten)
    for group, rows in groups(forgotten):
        queries = torch.zeros(len(first), dtype=torch.bool).index_fill(0, picture[rows], True)
        found = retrieval_recall(image[first], captions, owner, queries)
        metrics |= {f"{group}_{name}": value for name, value in found.items()}
    return metrics


def distinct_pictures(pairs: "PairSet") -> tuple[Tensor, Tensor]:
    """(P,) the first row of each picture, (N,) the number of each row's picture: one may stand in several rows."""
    first = {}
    for row, row_hash in enumerate(pairs.row_hashes):
        first.setdefault(row_hash, row)
    number = {row_hash: i for i, row_hash in enumerate(first)}
    return torch.tensor(list(first.values())), torch.tensor([number[one] for one in pairs.row_hashes])


def own_captions(text_ids: Tensor) -> tuple[Tensor, Tensor]:
    """(M,) the rows and (M,) the numbers of their own captions, without the repetitions that fill up short rows.

    `text_ids` (N, K), see `data.pairs.number_texts`. A caption that a row was given twice is not filling; only where
    it is the first and the last does it look like one.
    """
    rows, most = text_ids.shape
    column, own = torch.arange(most), torch.full((rows, 1), most)
    for count in range(most - 1, 0, -1):
        own[(text_ids == text_ids[:, column % count]).all(dim=1)] = count
    row, column = (column < own).nonzero(as_tuple=True)
    return row, text_ids[row, column]


def groups(forgotten: Tensor) -> list[tuple[str, Tensor]]:
    """The forget and the retain rows, each where there are any."""
    return [(name, rows) for name, rows in (("forget", forgotten), ("retain", ~forgotten)) if rows.any()]


def pair_cosines(image: Tensor, text: Tensor, text_ids: Tensor, forgotten: Tensor) -> dict[str, float]:
    """Cosines as in `zero_shot_metrics`, over all captions of a row; none where nothing is forgotten."""
    if not forgotten.any():
        return {}
    row, ids = own_captions(text_ids[forgotten])
    own = text[ids]
    return {
        "forget_cosine": (image[forgotten][row] * own).sum(dim=1).mean().item(),
        "unrelated_cosine": (image[~forgotten].mean(dim=0) @ own.mean(dim=0)).item(),
    }


ZERO_SHOT = Task(zero_shot_metrics, "forget_accuracy", "retain_accuracy")
MATCHING = Task(matching_metrics, f"forget_matching_accuracy@{WAYS}", f"retain_matching_accuracy@{WAYS}")
RETRIEVAL = Task(retrieval_metrics, "forget_image_retrieval_r@10", "retain_image_retrieval_r@10")
