"""Evaluation: zero-shot accuracy, matching and retrieval. `tasks.py` says which is used when."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from cliperase.errors import CliperaseError
from cliperase.metrics.encode import finite_rows

CHUNK = 500  # queries scored at once against the whole pool,
MOST_SCORES = 2**25  # fewer where the pool is so large that there would be more scores than this: 134 MB


def zero_shot_accuracy(image_features: Tensor, class_features: Tensor, labels: Tensor) -> float:
    """Percent of images that are nearer to their own class prompt than to any other; a tie is a miss.

    `image_features` (N, D), `class_features` (C, D), both L2-normalised; `labels` (N,) in 0…C-1.
    """
    finite_rows(image_features, "image"), finite_rows(class_features, "class prompt")
    if not len(labels):
        raise CliperaseError("zero-shot accuracy of no images; give a split that holds some")
    scores, own = image_features @ class_features.T, labels[:, None]
    others = scores.scatter(1, own, -torch.inf).amax(dim=1)
    return percent(scores.gather(1, own)[:, 0] > others)


def matching_accuracy(
    image_features: Tensor,
    text_features: Tensor,
    text_ids: Tensor,
    queries: Tensor,
    k: int | None = None,
    seed: int = 0,
) -> dict[str, float]:
    """Percent of queries whose partner wins: `{"image_to_text": %, "text_to_image": %}`.

    `image_features`, `text_features` (N, D), L2-normalised, row i of one the partner of row i of the other;
    `text_ids` (N,), equal where the texts are; `queries` (N,) bool, the rows that are scored. With `k` the
    partner stands against k - 1 rows drawn from the whole pool among those of another text; without, against
    all rows, and any row of the query's own text is a hit. A tie is a miss.
    """
    finite_rows(image_features, "image"), finite_rows(text_features, "text")
    rows = query_rows(queries)
    if k is None:
        if (text_ids == text_ids[0]).all():
            raise CliperaseError(f"matching: all {len(text_ids)} rows have one text; give a pool with different texts")

        def hits(query_features: Tensor, features: Tensor) -> Tensor:
            return best_ranks(query_features[rows], text_ids[rows], features, text_ids) == 0
    else:
        rivals = torch.stack([draw_rivals(text_ids, row, k - 1, seed) for row in rows.tolist()])

        def hits(query_features: Tensor, features: Tensor) -> Tensor:
            return beats_rivals(query_features, features, rows, rivals)

    return {
        "image_to_text": percent(hits(image_features, text_features)),
        "text_to_image": percent(hits(text_features, image_features)),
    }


def query_rows(queries: Tensor) -> Tensor:
    """(N,) bool -> (Q,) row numbers, at least one."""
    if not queries.any():
        raise CliperaseError(f"none of {len(queries)} rows is a query; mark at least one to score")
    return queries.nonzero()[:, 0]


def percent(hits: Tensor) -> float:
    return 100 * hits.double().mean().item()


def draw_rivals(text_ids: Tensor, row: int, count: int, seed: int) -> Tensor:
    """(count,) rows whose text is not that of `row`. They depend on the row and the seed, not on which rows are
    scored beside it, so that two models or two subsets are measured against the same."""
    others = (text_ids != text_ids[row]).nonzero()[:, 0]
    if not 1 <= count <= len(others):
        raise CliperaseError(
            f"matching among k={count + 1} texts needs k - 1 rows, at least one, of another text than row {row}'s, and "
            f"of the {len(text_ids)} rows of the split {len(others)} have one; give more texts, or classes"
        )
    return others[np.random.default_rng([seed, row]).choice(len(others), count, replace=False)]


def beats_rivals(query_features: Tensor, features: Tensor, rows: Tensor, rivals: Tensor) -> Tensor:
    """(Q,) bool: whether the partner of each of `rows` (Q,) scores above all its `rivals` (Q, k - 1)."""
    candidates = torch.cat([rows[:, None], rivals], dim=1)
    hits = []
    for some, among in zip(rows.split(CHUNK), candidates.split(CHUNK), strict=True):
        scores = torch.einsum("qd,qkd->qk", query_features[some], features[among])
        hits.append(scores[:, 0] > scores[:, 1:].amax(dim=1))
    return torch.cat(hits)


def retrieval_recall(
    image_features: Tensor, text_features: Tensor, owner: Tensor, queries: Tensor, ks: Sequence[int] = (1, 5, 10)
) -> dict[str, float]:
    """Recall at each k, in percent: `{"image_retrieval_r@1": …, "text_retrieval_r@1": …, …}`.

    `image_features` (N, D) and `text_features` (M, D), L2-normalised; `owner` (M,) the image row of each
    caption; `queries` (N,) bool. Image retrieval: every caption of a query image looks for its image. Text
    retrieval: every query image looks for its captions, and one of them among the first k is a hit (Flickr30K
    has several per image; this is not the share of them that is found). Candidates are always all images and
    all captions. Ties count against the query.
    """
    finite_rows(image_features, "image"), finite_rows(text_features, "text")
    rows = query_rows(queries)
    without = ~torch.isin(rows, owner)
    if without.any():
        raise CliperaseError(f"retrieval: image row {rows[without][0]} has no caption; leave it out of the queries")
    captions = queries[owner].nonzero()[:, 0]
    everything = torch.arange(len(queries))
    image_ranks = best_ranks(text_features[captions], owner[captions], image_features, everything)
    text_ranks = best_ranks(image_features[rows], rows, text_features, owner)
    recalls = {f"image_retrieval_r@{k}": percent(image_ranks < k) for k in ks}
    return recalls | {f"text_retrieval_r@{k}": percent(text_ranks < k) for k in ks}


def best_ranks(query_features: Tensor, query_owners: Tensor, features: Tensor, owners: Tensor) -> Tensor:
    """(Q,) how many candidates of other owners score at least as high as the best of the query's own.

    `query_features` (Q, D), `query_owners` (Q,), `features` (C, D), `owners` (C,). Memory grows with C, not with Q · C.
    """
    ranks, by_owner, size = [], owners.argsort(stable=True), max(1, min(CHUNK, MOST_SCORES // len(features)))
    in_order = owners[by_owner]
    for some, own in zip(query_features.split(size), query_owners.split(size), strict=True):
        first, end = (torch.searchsorted(in_order, own, right=right)[:, None] for right in (False, True))
        places = first + torch.arange(int((end - first).max()))  # of the own candidates, filled up to the most of them
        others, mine = places >= end, by_owner[places.clamp(max=len(owners) - 1)]
        scores = some @ features.T
        own_scores = scores.gather(1, mine).masked_fill(others, -torch.inf)
        best = own_scores.amax(dim=1, keepdim=True)
        lower = (scores < best).sum(dim=1, dtype=torch.int32)
        own_lower = ((own_scores < best) & ~others).sum(dim=1, dtype=torch.int32)
        ranks.append(len(features) - lower - ((end - first)[:, 0] - own_lower))
    return torch.cat(ranks)
