"""Unseen (ours): the forgotten pairs are taught what the pairs that stay say of them.

A model that never saw a concept is not silent about its images and its name: it says what follows from everything
else. What that is, a ridge regression tells that is fitted on Dr alone, to the original's embeddings. Its features know
little of any concept: of images the map behind a part `depth` of the tower, pooled over a grid; of texts their tokens.
A token that only Df uses has no weight there, so "a photo of a dog" becomes "a photo of a", and a caption keeps its
other words. A name that nobody taught fits its own images no better than others: what of a text's target lies along the
difference of its images' mean and Dr's is taken out. An image's target lies `stretch` of the way beyond the regression,
because a student goes only a part of the way on images that it was not trained on. With e the original's embeddings, ê
the targets, f the student's:

L = image · ‖f(Df) - ê(Df)‖² + text · ‖f(Df) - ê(Df)‖² + retain · ‖f(Dr) - e(Dr)‖² + λ_RM · L_RM(Dr)

the first two in one tower each, the third in both; squared errors summed over dimensions, averaged over samples. With
`new_tokens` the tokens that only Df uses first lose what was learnt of them: their embeddings are drawn anew, as long
as those of other tokens, and a text that has one is taught what the original then says of it. The first terms reach
zero, so nothing is pushed further away than a model that never knew. It is distillation (Hinton et al. 2015) from a
teacher that never saw Df, and costs one regression instead of a training.

Settings: one setting is meant for every concept and every number of them, the default. Only the learning rate is
searched (paper/profiles). What else was tried, on concepts that are not reported, stands in `leads` there.

Known failure: the regression is as good as its features. What the map at `depth` does not show it cannot foresee, so a
target lies nearer to the mean of Dr than a retrained model's embedding does. A token that Df shares with Dr ("apple" in
"Apple logo") stays known, as it does in a retrained model.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeFloat, PositiveInt
from torch import Tensor

from cliperase.batch import Batch
from cliperase.data.pairs import PairSet
from cliperase.errors import CliperaseError
from cliperase.features import Features, LiveFeatures, Original
from cliperase.losses import squared_error
from cliperase.methods.base import LossMethod, retain_loss
from cliperase.models.base import ImageTextModel

if TYPE_CHECKING:
    from cliperase.data.shards import Stream


class Unseen(LossMethod):
    image: NonNegativeFloat = 1.0  # weight of the forgotten images' term
    text: NonNegativeFloat = 1.0
    retain: NonNegativeFloat = 3.0
    lambda_rm: NonNegativeFloat = 0.3
    depth: float = Field(default=0.75, gt=0, le=1)
    grid: PositiveInt = 2  # cells of the map on each side
    stretch: NonNegativeFloat = 0.5
    penalty: float = Field(default=0.01, gt=0)  # of the regression, on standardised features, for each row
    new_tokens: bool = False  # draw the embeddings of tokens anew that only Df uses
    rows: int = Field(default=8000, ge=2)  # of Dr that the regression sees, at most

    def start(self, model: ImageTextModel, forget: PairSet, retain: "PairSet | Stream") -> None:
        if not self.new_tokens:
            return
        if model.token_table is None:
            raise CliperaseError("unseen: this model shows no table of token embeddings; leave out new_tokens")
        known, wanted = (pairs.texts_used() for pairs in (in_memory(retain), forget))
        renew(model.token_table.weight, own_tokens(model, known, wanted))

    def targets(
        self, model: ImageTextModel, forget: PairSet, retain: "PairSet | Stream", original: Original
    ) -> Original:
        retain, before = in_memory(retain, original.retain), cast("Features", original.retain)
        drawn = spread(len(retain), self.rows)
        known, wanted = (self.image_features(model, pairs) for pairs in (retain.images[drawn], forget.images))
        image = regressed(known, before.image[drawn], wanted, self.penalty)
        image = F.normalize(image + self.stretch * (image - original.forget.image), dim=1)
        used, gone = retain.text_ids.unique(), forget.text_ids.unique()
        used = used[spread(len(used), self.rows)]
        known, wanted = tokens_of(model, [retain.texts[i] for i in used], forget.texts_used())
        text = original.forget.text.clone()
        foreseen = regressed(known, before.text[used], wanted, self.penalty)
        if self.new_tokens:
            foreseen = self.as_new(model, foreseen, forget, retain)
        own = mean_of_own(image, torch.searchsorted(gone, forget.text_ids), len(gone))
        text[gone] = indifferent(foreseen, own, before.image[drawn].mean(dim=0))
        return replace(original, forget=Features(image, text))

    @torch.no_grad()
    def as_new(self, model: ImageTextModel, foreseen: Tensor, forget: PairSet, retain: PairSet) -> Tensor:
        """The rows of `foreseen` (W, D), but for texts with a new token what `model` says of them by now."""
        texts = forget.texts_used()
        new = torch.isin(model.token_rows(texts), own_tokens(model, retain.texts_used(), texts)).any(dim=1)
        return torch.where(new[:, None], model.encode_text(texts).to(foreseen), foreseen)

    @torch.no_grad()
    def image_features(self, model: ImageTextModel, images: Tensor) -> Tensor:
        """(N, C · grid² · 2): the largest and the mean value of each cell."""
        found = []
        for part in images.split(256):
            cells = model.image_map(part, self.depth).float()
            pools = (pool(cells, self.grid).flatten(1) for pool in (F.adaptive_max_pool2d, F.adaptive_avg_pool2d))
            found.append(torch.cat(list(pools), dim=1).cpu())
        return torch.cat(found)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """`batch.original_forget` holds the targets."""
        gone, towards, r, before = batch.forget, batch.original_forget, batch.retain, batch.original_retain
        rm = retain_loss(batch)  # first: the order of the terms is that of the gradients' sums
        return {
            "image": self.image * squared_error(gone.image, towards.image),
            "text": self.text * squared_error(gone.text, towards.text),
            "retain": self.retain * (squared_error(r.image, before.image) + squared_error(r.text, before.text)),
            "RM": self.lambda_rm * rm,
        }


def spread(count: int, most: int) -> Tensor:
    """Row numbers: all, or `most` of them evenly."""
    return torch.linspace(0, count - 1, min(count, most)).long()


def in_memory(retain: "PairSet | Stream", known: object = None) -> PairSet:
    """`retain`, if it and the original's embeddings of it are no stream."""
    if not isinstance(retain, PairSet) or isinstance(known, LiveFeatures):
        raise CliperaseError(
            "unseen needs all retain rows in memory; give tables instead of shards, or choose another method"
        )
    return retain


def own_tokens(model: ImageTextModel, known: list[str], wanted: list[str]) -> Tensor:
    """The numbers of the tokens that a `wanted` text has and no `known` one."""
    used, found = (model.token_rows(texts).unique() for texts in (known, wanted))
    return found[~torch.isin(found, used)]


@torch.no_grad()
def renew(table: Tensor, rows: Tensor) -> None:
    """Draw these rows of a `table` (V, D) of embeddings anew: a direction by chance, the length that most rows have."""
    drawn = torch.randn(len(rows), table.shape[1], generator=torch.Generator().manual_seed(0))
    table[rows.to(table.device)] = (F.normalize(drawn, dim=1) * table.norm(dim=1).median().cpu()).to(table)


def tokens_of(model: ImageTextModel, known: list[str], wanted: list[str]) -> list[Tensor]:
    """(K, V) and (W, V) float: which tokens each text has, of those that the `known` texts use."""
    rows = [model.token_rows(texts) for texts in (known, wanted)]
    vocabulary = rows[0].unique()
    found = []
    for tokens in rows:
        place = torch.searchsorted(vocabulary, tokens).clamp(max=len(vocabulary) - 1)
        present = (vocabulary[place] == tokens).float()
        found.append(torch.zeros(len(tokens), len(vocabulary)).scatter_reduce(1, place, present, "amax"))
    return found


def mean_of_own(images: Tensor, texts: Tensor, count: int) -> Tensor:
    """(W, D): the mean of the `images` (N, D) that each of `count` texts belongs to; `texts`: (N, K) their numbers."""
    numbers = texts.flatten()
    sums = images.new_zeros(count, images.shape[1]).index_add(
        0, numbers, images.repeat_interleave(texts.shape[1], dim=0)
    )
    return sums / torch.bincount(numbers, minlength=count)[:, None]


def indifferent(texts: Tensor, own: Tensor, others: Tensor) -> Tensor:
    """`texts` (W, D), normalised, that are as near to the mean `own` (W, D) of their images as to `others` (D,)."""
    apart = own - others
    along = (texts * apart).sum(dim=1, keepdim=True) / apart.square().sum(dim=1, keepdim=True).clamp(min=1e-12)
    return F.normalize(texts - along * apart, dim=1)


def regressed(known: Tensor, embeddings: Tensor, wanted: Tensor, penalty: float) -> Tensor:
    """What ridge regression from `known` (K, V) to `embeddings` (K, D) says of `wanted` (W, V): (W, D), unit."""
    from sklearn.linear_model import Ridge
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(known)
    fitted = Ridge(alpha=penalty * len(known), solver="cholesky").fit(scaler.transform(known), embeddings.cpu())
    return F.normalize(torch.from_numpy(fitted.predict(scaler.transform(wanted))).to(embeddings), dim=1)
