"""When one does not know exactly what to forget: from a sentence, or a few example pictures, to a proposed forget set.

Every training row gets a score, the sum of up to three cosines: of its image to the sentence, of its nearest caption
to the sentence, of its image to the examples. Each is taken in units of its own spread over all rows, so that none
decides by its scale. The cut-off is stated: a mixture of normal distributions is fitted to the scores, and rows are
proposed where the topmost one is the most probable. notebooks/forget_set.py says how that rule came about.

What it finds is what the model takes for the concept. Somebody has to look: rows on both sides of the cut-off are
shown.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.mixture import GaussianMixture

from cliperase import pages
from cliperase.data.folders import PICTURES, is_hidden, of_kind
from cliperase.data.limits import BROKEN_PERCENT
from cliperase.data.pairs import PairSet
from cliperase.data.pictures import UnreadablePicture, pixels_of, read_picture
from cliperase.data.source import Shards, name_of, open_source
from cliperase.data.templates import PROMPT
from cliperase.errors import CliperaseError
from cliperase.features import Features
from cliperase.files import whole_file
from cliperase.metrics.encode import encode_images, encode_texts

SHOWN = {"proposed": 500, "near": 60}  # rows on each side of the cut-off
SAME = 1e-9  # spread of scores that are all alike
MOST_PARTS = 5  # normal distributions of a mixture
FEWEST = 20  # rows for which a mixture can be fitted


@dataclass(frozen=True)
class Proposal:
    """The `scores` (N,) of all rows of `pairs`, and the `cut`: rows above it are proposed."""

    pairs: PairSet
    scores: np.ndarray
    cut: float

    @property
    def proposed(self):
        """Numbers of the proposed rows, the highest score first."""
        return [row for row in self.order if self.scores[row] > self.cut]

    @property
    def near(self):
        """Numbers of the rows just below the cut-off, the highest score first."""
        return [row for row in self.order if self.scores[row] <= self.cut][: SHOWN["near"]]

    @cached_property
    def order(self):
        return np.argsort(-self.scores, kind="stable").tolist()


def propose(model, data, query=None, examples=(), broken_percent=BROKEN_PERCENT):
    """The `Proposal` for the training rows of `data`. `model`: an `ImageTextModel`.

    `query`: a word or a sentence; `examples`: picture files, see `pictures_of`. One of them must be given.
    """
    if not query and not examples:
        raise CliperaseError("nothing to look for: give a sentence, or example pictures")
    source = open_source(data, split="train", framing=model.framing)
    if isinstance(source, Shards):
        raise CliperaseError(f"data {str(data)!r} are streamed, and a proposal looks at all rows in memory; give fewer")
    shown = [model.framing(example(path)) for path in examples]
    pairs, _ = source.load_split("train", None, model.framing, broken_percent)
    if len(pairs) < FEWEST:
        raise CliperaseError(
            f"data {name_of(data)!r} has {len(pairs)} training rows; a cut-off needs {FEWEST}. Name the rows yourself"
        )
    return proposal_of(model, pairs, Features.of(model, pairs), query, torch.stack(shown) if shown else None)


def proposal_of(model, pairs, features, query=None, examples=None):
    """The `Proposal` for the rows of `pairs`, whose `Features` are known.

    `query`: a text; `examples`: (E, 3, H, W) uint8. One of them must be given.
    """
    scores = sum(map(standardised, cosines(model, pairs, features, query, examples)))
    # pyrefly: ignore[bad-argument-type] – a sum of arrays, because something is asked for
    return Proposal(pairs, scores, cut_of(scores))


def cosines(model, pairs, features, query, examples):
    """Yield (N,) cosines of the rows: images and captions to the query, images to the examples."""
    if query:
        asked = F.normalize(encode_texts(model, [query, PROMPT.format(query)]).mean(dim=0), dim=0)
        yield features.image @ asked
        yield (features.text @ asked)[pairs.text_ids].amax(dim=1)
    if examples is not None:
        yield features.image @ F.normalize(encode_images(model, examples).mean(dim=0), dim=0)


def example(path):
    """(3, H, W) uint8 of a picture file."""
    try:
        return pixels_of(read_picture(path))
    except UnreadablePicture as error:
        raise CliperaseError(f"example {path} cannot be read ({error}); name another") from None


def pictures_of(examples):
    """The picture files among `examples`, files and folders."""
    found = []
    for path in examples:
        if not path.is_dir():
            found.append(path)
            continue
        inside = [one for one in of_kind(sorted(path.iterdir()), PICTURES) if not is_hidden(one.name)]
        if not inside:
            raise CliperaseError(f"examples {path}: no picture in this folder; name another")
        found += inside
    return found


def standardised(values):
    """(N,) in units of their spread; constant values say nothing and are 0."""
    values = values.double().numpy()
    spread = values.std()
    return (values - values.mean()) / spread if spread > SAME else np.zeros(len(values))


def cut_of(scores):
    """Above it, the topmost of some normal distributions fitted to the scores is more probable than all others.

    Two to `MOST_PARTS` of them, as many as the Bayesian information criterion likes best: what does not belong is
    seldom one heap.
    """
    if scores.std() < SAME:
        raise CliperaseError("all rows have the same score; give another sentence, or other examples")
    column = scores[:, None]
    fitted = [mixture_of(column, parts) for parts in range(2, MOST_PARTS + 1)]
    best = min(fitted, key=lambda mixture: mixture.bic(column))
    top = best.means_[:, 0].argmax()
    grid = np.linspace(np.median(scores), best.means_[top, 0], 2000)
    belongs = best.predict_proba(grid[:, None])[:, top] >= 0.5
    return float(grid[belongs.argmax()] if belongs.any() else grid[-1])


def mixture_of(column, parts):
    """`parts` normal distributions fitted to (N, 1) scores; the last one starts at the highest score."""
    start = np.quantile(column, [*np.linspace(0.2, 0.95, parts - 1), 1.0])[:, None]
    return GaussianMixture(parts, means_init=start, random_state=0, reg_covar=1e-3 * column.var()).fit(column)


def write_proposal(folder, found, asked):
    """Write `rule.yaml`, which `--rule` takes, and `proposal.html` to look at. `asked`: what was looked for.

    Another `rule.yaml` that is there stays, because somebody may have struck rows in it.
    """
    path, rule = folder / "rule.yaml", ("\n".join(rule_lines(found, asked)) + "\n").encode()
    if path.exists() and path.read_bytes() != rule:
        raise CliperaseError(f"{path} was edited, or is of another proposal; name another folder, or delete it")
    with whole_file(path) as partial:
        partial.write_bytes(rule)
    sides = {"proposed": found.proposed, "near": found.near}
    rows = {
        name: [
            pages.row_of(found.pairs, row) | {"score": found.scores[row]} for row in pages.evenly(numbers, SHOWN[name])
        ]
        for name, numbers in sides.items()
    }
    counts = {name: len(numbers) for name, numbers in sides.items()}
    about = {"asked": asked, "rows": rows, "counts": counts, "cut": found.cut, "total": len(found.pairs)}
    pages.write_page(folder / "proposal.html", "proposal.html", **about)


def rule_lines(found, asked):
    """The rule as YAML, a row a line, with score and caption for who strikes lines."""
    yield f"# Proposed for {one_line(asked)}. Delete a line to keep its row."
    yield "rows:"
    first = {}  # a picture may stand in several rows: to keep them, one line is to be deleted
    for row in found.proposed:
        first.setdefault(found.pairs.row_hashes[row], row)
    for row_hash, row in first.items():
        caption = one_line(found.pairs.texts[found.pairs.text_ids[row, 0]])
        yield f'  - "{row_hash}"  # {found.scores[row]:.2f} {caption}'


def one_line(text):
    return " ".join(text.split())
