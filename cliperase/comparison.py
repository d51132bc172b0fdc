"""Two models side by side: what each finds for the same queries, which classes lost most, and a map of their images."""

import numpy as np
import torch
import torch.nn.functional as F

from cliperase import pages
from cliperase.audit.case import Split, Subject, found_by
from cliperase.audit.intervals import share_of
from cliperase.data.limits import BROKEN_PERCENT
from cliperase.data.source import name_of, open_source
from cliperase.metrics.tasks import task_of

FOUND = 8  # pictures for a query
ASKED = 3  # queries of each kind: of what is forgotten, and of what lost most
DOTS = 600  # on a map
SIZE, MARGIN = 320, 12  # of a map, in the units of its drawing


def compare(before, after, data, rule=None, split="test", queries=(), broken_percent=BROKEN_PERCENT):
    """What two models make of one split, as plain values. `before`, `after`: `ImageTextModel`s.

    `rule`: what is to be forgotten; None marks nothing. `queries`: texts to ask beside those that are chosen: texts of
    the forgotten, and the classes that lost most. Returns (values, the split as a `PairSet`). The values are the
    `metrics` of both, `harm` (classes with accuracies in percent, most harmed first), `queries` with the `FOUND`
    nearest images of each model, and `maps`.
    """
    source = open_source(data)
    sides = [
        Side.of(model, name, source, split, rule, broken_percent)
        for model, name in ((before, "before"), (after, "after"))
    ]
    harm = harmed(*sides) if sides[0].split.has_classes else []
    asked = list(dict.fromkeys([*queries, *chosen(sides[0].split, harm)]))
    return {
        "data": {"source": name_of(data), "split": split, "rows": len(sides[0].split.pairs),
                 "forgotten": int(sides[0].split.forgotten.sum())},
        "metrics": {side.name: side.metrics() for side in sides},
        "harm": harm,
        "queries": [{"text": text, **{side.name: side.nearest(text) for side in sides}} for text in asked],
        "maps": {side.name: side.map() for side in sides},
    }, sides[0].split.pairs  # fmt: skip


class Side(Subject):
    """One of the two models, and the split as it sees it."""

    def __init__(self, model, name, split):
        super().__init__(model, name)
        self.split = split

    @classmethod
    def of(cls, model, name, source, split, rule, broken_percent=BROKEN_PERCENT):
        """`source`: opened by `open_source`. Each model has pictures of its own size."""
        return cls(model, name, Split.of(*source.load_split(split, rule, model.framing, broken_percent)))

    def metrics(self):
        return task_of(self.split.pairs).measure(self.model, self.split.pairs, self.split.forgotten)

    def hits(self):
        """(N,) bool: an own text is nearer than every other; a tie is a miss."""
        return found_by(self, self.split, torch.ones(len(self.split.pairs), dtype=torch.bool))

    def nearest(self, text):
        """The numbers and cosines of the images that are nearest to a text."""
        scores = self.images(self.split) @ self.texts([text])[0]
        best = scores.topk(min(FOUND, len(scores)))
        return [
            {"row": row, "cosine": value, "forgotten": bool(self.split.forgotten[row])}
            for value, row in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]

    def map(self):
        """{"row", "x", "y", "forgotten"} of up to `DOTS` images on their first two principal components."""
        rng, count = np.random.default_rng(0), len(self.split.pairs)
        rows = torch.from_numpy(np.sort(rng.permutation(count)[:DOTS]))
        features = self.images(self.split)[rows]
        centred = features - features.mean(dim=0)
        _, _, axes = torch.linalg.svd(centred, full_matrices=False)
        places = F.pad(centred @ axes[:2].T, (0, max(0, 2 - len(axes))))
        low, high = places.amin(dim=0), places.amax(dim=0)
        scaled = MARGIN + (SIZE - 2 * MARGIN) * (places - low) / (high - low).clamp(min=1e-12)
        marked = self.split.forgotten[rows].tolist()
        return [
            {"row": row, "x": round(x, 1), "y": round(SIZE - y, 1), "forgotten": mark}
            for row, (x, y), mark in zip(rows.tolist(), scaled.tolist(), marked, strict=True)
        ]


def harmed(before, after):
    """The classes by what they lost: {"class", "images", "before", "after", "change", "forgotten"}, in percent."""
    pairs, found = before.split.pairs, []
    hits = [side.hits() for side in (before, after)]
    for number, name in enumerate(pairs.class_names):
        rows = pairs.labels == number
        if rows.any():
            known = [share_of(one[rows].numpy()) for one in hits]
            found.append({
                "class": name, "images": int(rows.sum()), "before": vars(known[0]), "after": vars(known[1]),
                "change": known[1].value - known[0].value, "forgotten": bool(before.split.forgotten[rows].all()),
            })  # fmt: skip
    return sorted(found, key=lambda one: (one["change"], one["class"]))


def chosen(split, harm):
    """Texts worth asking: some of the forgotten, and of the classes that lost most; of captions some that are kept."""
    forget = [split.texts[i] for i in split.forget_texts.tolist()] if split.forgotten.any() else []
    if harm:
        prompt = dict(zip(split.pairs.class_names, split.texts, strict=True))
        rest = [prompt[one["class"]] for one in harm if not one["forgotten"]]
    else:
        rest = [split.texts[i] for i in split.retain_texts.tolist()]
    return forget[:ASKED] + rest[:ASKED]


def write_comparison(path, found, pairs, names):
    """The comparison `found` as a page. `pairs`: its split, for the pictures; `names`: {"before", "after"}: sources."""
    shown = {one["row"] for query in found["queries"] for side in names for one in query[side]}
    pictures = {row: pages.picture(pairs.images[row]) for row in sorted(shown)}
    captions = {row: pairs.texts[pairs.text_ids[row, 0]] for row in pictures}
    pages.write_page(
        path, "comparison.html", found=found, names=names, pictures=pictures, captions=captions, size=SIZE, dots=DOTS
    )
