"""What forgetting looks like: embeddings of images and texts in the plane, and relevance maps, before and after.

t-SNE: van der Maaten & Hinton, "Visualizing Data using t-SNE", JMLR 2008. UMAP: McInnes, Healy & Melville,
"UMAP: Uniform Manifold Approximation and Projection for Dimension Reduction", 2018.
"""

import time

import numpy as np
import pandas as pd
import torch

from cliperase.data.templates import PROMPT
from cliperase.errors import CliperaseError
from cliperase.features import Features
from cliperase.metrics.encode import encode_images, encode_texts
from paper.relevance import relevance, to_unit
from paper.results import COLUMNS, rows_of
from paper.runs import Run, open_bench

SPLIT = "test"
NEIGHBOURS = 10  # of an image, whose classes make its cluster purity
PROJECTION_SEED = 0
STATES = ("original", "CLIPErase")  # before and after, in this order along the first axis of every array


def run_embedding_space(settings, profile, data, model_folder):
    """(rows for the table, arrays for the pictures) of one forgetting, before and after.

    `settings`: the experiment, a `paper.plans.embedding.Embedding`.
    """
    bench, pair, seconds = before_and_after(settings, profile, data, model_folder)
    pairs = bench.splits[SPLIT]
    forgotten = class_index(pairs, settings.concept)
    features = [prompt_features(model, pairs) for model in pair]
    sampled = sample(pairs.labels, forgotten, settings.images_per_class, settings.forgotten_images)
    shown = heatmap_rows(pairs, settings)
    maps = [own_relevance(model, pairs, torch.cat([sampled, shown])) for model in pair]
    arrays = {
        **projections(features, pairs, sampled),
        **heatmaps(pairs, shown, [each[len(sampled) :] for each in maps]),
        "heatmap_cosine": np.stack([own_cosine(each, pairs.labels)[shown].numpy() for each in features]),
        "forgotten": np.array(forgotten, dtype=np.int16),
    }
    rows = []
    for method, after, raw in zip(STATES, features, maps, strict=True):
        metrics = space_metrics(features[0], after, pairs.labels, forgotten)
        metrics |= relevance_metrics(maps[0][: len(sampled)], raw[: len(sampled)], pairs.labels[sampled], forgotten)
        seed = profile.pretrain["seed"] if method == "original" else profile.seeds[0]
        about = {"experiment": "embedding", "method": method, "concept": settings.concept, "seed": str(seed)}
        about |= {**bench.about, "split": SPLIT}
        rows += rows_of(about, metrics, 0.0 if method == "original" else seconds)
    return pd.DataFrame(rows)[COLUMNS], arrays


def before_and_after(settings, profile, data, model_folder):
    """(bench, (original, unlearned model), seconds): the one place that unlearns."""
    rule, configured = {"concept": settings.concept}, settings.configured(profile, "CLIPErase")
    run = Run("embedding", "CLIPErase", settings.concept, rule, profile.seeds[0], **configured)
    bench = open_bench(settings.place(profile, data, model_folder, ("validation", SPLIT)))
    start = time.perf_counter()
    model, _ = bench.unlearn(run)
    return bench, (bench.original(run), model), round(time.perf_counter() - start, 2)


def class_index(pairs, name):
    if name not in (pairs.class_names or []):
        raise CliperaseError(f"embedding: {name!r} is no class of the data; choose one of {pairs.class_names}")
    return pairs.class_names.index(name)


def prompt_features(model, pairs):
    """`Features` of the split's images (N, D) and of its class prompts (C, D)."""
    prompts = [PROMPT.format(name) for name in pairs.class_names]
    return Features(encode_images(model, pairs.images), encode_texts(model, prompts))


def sample(labels, forgotten, per_class, of_forgotten):
    """Rows (M,), the first `per_class` of each class and `of_forgotten` of the forgotten one; rows are shuffled."""
    counts = {label: of_forgotten if label == forgotten else per_class for label in labels.unique().tolist()}
    return torch.cat([(labels == label).nonzero()[:count, 0] for label, count in counts.items()])


def own_cosine(features, labels):
    """(N,) cosine of each image and its own class prompt."""
    return (features.image * features.text[labels]).sum(dim=1)


def space_metrics(before, after, labels, forgotten):
    """Cosines of pairs, cluster purity, and how far things moved; `before` and `after` are `Features`.

    `<set>_cosine`: mean cosine of an image and its own class prompt. `<set>_purity`: share, in percent, of the
    10 nearest images (cosine, all of the split) that are of the same class. `<set>_image_self_cosine`,
    `<set>_text_self_cosine`: mean cosine of an embedding and the same one before; 1 is unmoved.
    """
    pair_cosine = own_cosine(after, labels)
    same = neighbours_of_same_class(after.image, labels)
    images_moved, texts_moved = (before.image * after.image).sum(dim=1), (before.text * after.text).sum(dim=1)
    rows, classes = labels == forgotten, torch.arange(len(after.text)) == forgotten
    metrics = {}
    for name, chosen, prompts in (("forget", rows, classes), ("retain", ~rows, ~classes)):
        metrics |= {
            f"{name}_cosine": pair_cosine[chosen].mean().item(),
            f"{name}_purity": 100 * same[chosen].mean().item(),
            f"{name}_image_self_cosine": images_moved[chosen].mean().item(),
            f"{name}_text_self_cosine": texts_moved[prompts].mean().item(),
        }
    return metrics


def neighbours_of_same_class(features, labels, neighbours=NEIGHBOURS):
    """(N,) share of each image's nearest other images that have its label; `features` (N, D) L2-normalised."""
    neighbours = min(neighbours, len(features) - 1)
    shares = []
    for start in range(0, len(features), 1000):
        cosines = features[start : start + 1000] @ features.T
        own = torch.arange(start, start + len(cosines))
        cosines[torch.arange(len(cosines)), own] = -2.0  # an image is not its own neighbour
        nearest = cosines.topk(neighbours, dim=1).indices
        shares.append((labels[nearest] == labels[own, None]).float().mean(dim=1))
    return torch.cat(shares)


def own_relevance(model, pairs, rows):
    """Relevance of each image's own class prompt, (M, H, W), not scaled."""
    texts = [PROMPT.format(pairs.class_names[label]) for label in pairs.labels[rows].tolist()]
    return relevance(model, pairs.images[rows], texts)


def relevance_metrics(before, after, labels, forgotten):
    """`<set>_relevance`: the maps' total after, in percent of the total before."""
    rows = labels == forgotten
    return {
        f"{name}_relevance": 100 * (after[chosen].sum() / before[chosen].sum().clamp(min=1e-12)).item()
        for name, chosen in (("forget", rows), ("retain", ~rows))
    }


def projections(features, pairs, sampled):
    """One t-SNE and one UMAP of everything: sampled images, then class prompts, before and after.

    `tsne`, `umap`: (2, M + C, 2) float32, before and after on the same axes. `label` (M + C,) int16 and
    `is_text` (M + C,) bool are those of a point, `classes` the names.
    """
    states = [torch.cat([each.image[sampled], each.text]) for each in features]
    points = torch.cat(states).numpy()
    labels = torch.cat([pairs.labels[sampled], torch.arange(len(pairs.class_names))])
    return {
        "tsne": project_tsne(points).reshape(2, -1, 2),
        "umap": project_umap(points).reshape(2, -1, 2),
        "label": labels.numpy().astype(np.int16),
        "is_text": np.arange(len(labels)) >= len(sampled),
        "classes": np.array(pairs.class_names),
    }


def project_tsne(points):
    """(P, D) L2-normalised -> (P, 2) float32. One thread: the sums of several come in any order."""
    from sklearn.manifold import TSNE  # only this experiment needs scikit-learn and umap-learn
    from threadpoolctl import threadpool_limits

    perplexity = min(30.0, (len(points) - 1) / 3)
    with threadpool_limits(1):
        fit = TSNE(perplexity=perplexity, init="pca", random_state=PROJECTION_SEED, n_jobs=1)
        return fit.fit_transform(points).astype(np.float32)


def project_umap(points):
    """(P, D) -> (P, 2) float32, by cosine.

    More neighbours and a larger distance than the library's 15 and 0.1: with two dozen points a class, those
    draw every class as one dot.
    """
    from threadpoolctl import threadpool_limits
    from umap import UMAP

    neighbours = min(50, len(points) - 1)
    with threadpool_limits(1):
        settings = {"min_dist": 0.5, "metric": "cosine", "random_state": PROJECTION_SEED, "n_jobs": 1}
        fit = UMAP(n_neighbors=neighbours, **settings)
        return fit.fit_transform(points).astype(np.float32)


def heatmap_rows(pairs, settings):
    """Rows of the images shown, concept by concept: drawings that differ, as far as there are enough."""
    rows = []
    for name in [settings.concept, *settings.heatmaps]:
        candidates = (pairs.labels == class_index(pairs, name)).nonzero()[:, 0].tolist()
        first_of_source = {pairs.sources[row]: row for row in reversed(candidates)}
        different = sorted(first_of_source.values())
        others = [row for row in candidates if row not in different]
        rows += (different + others)[: settings.images_per_heatmap]
    return torch.tensor(rows)


def heatmaps(pairs, rows, maps):
    """`heatmap_images` (K, H, W, 3) and `heatmaps` (2, K, H, W), uint8, with `heatmap_label` (K,) int16.

    Maps before and after are divided by the maximum *before*, so that support that is lost looks lost.
    """
    peak = maps[0].amax(dim=(1, 2))
    unit = torch.stack([to_unit(each, peak) for each in maps])
    return {
        "heatmap_images": pairs.images[rows].permute(0, 2, 3, 1).contiguous().numpy(),
        "heatmaps": (255 * unit).round().to(torch.uint8).numpy(),
        "heatmap_label": pairs.labels[rows].numpy().astype(np.int16),
    }
