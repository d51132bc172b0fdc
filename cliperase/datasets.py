"""One schema for every data set, forget rules, manifests, and the samplers of the training loop.

Schema (Hugging Face `datasets` features in parquet, files named `<split>-*.parquet`):
`image: Image`, `captions: List[str]`, `label: ClassLabel` (where there are classes), `source: str`.
"""

import contextlib
import hashlib
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from cliperase.errors import CliperaseError, reason_of
from cliperase.files import whole_file

RULES = ("concept", "classes", "caption_pattern", "rows")
WORTH_A_FILE, TOO_LARGE = 3_000_000, 2_000_000_000  # bytes of a split's decoded pictures
SHARD_NAME = "{split}-00000-of-00001.parquet"


def features_schema(class_names=None):
    """The `datasets.Features` of the schema; without `class_names` there is no label column."""
    columns = {"image": datasets.Image(), "captions": datasets.List(datasets.Value("string"))}
    if class_names:
        columns["label"] = datasets.ClassLabel(names=class_names)
    return datasets.Features({**columns, "source": datasets.Value("string")})


def write_split(rows, folder, split):
    """Write a `datasets.Dataset` of the schema as one parquet shard, whole or not at all."""
    with whole_file(folder / SHARD_NAME.format(split=split)) as partial:
        rows.to_parquet(partial)


@dataclass(frozen=True)
class PairSet:
    """Images with their captions, in memory.

    `images`: (N, 3, H, W) uint8. `texts`: the distinct captions. `text_ids`: (N, K) long, the K captions of
    each image as indices into `texts`. `labels`: (N,) long or None. `row_hashes`: N digests of the image
    files, which identify a row wherever it turns up. `sources`: N strings.
    """

    images: torch.Tensor
    texts: list
    text_ids: torch.Tensor
    labels: torch.Tensor | None
    class_names: list
    row_hashes: list
    sources: list

    def __len__(self):
        return len(self.images)

    def select(self, mask):
        """The rows where `mask` (N,) bool is true."""
        index = torch.as_tensor(mask).nonzero()[:, 0]
        pick = index.tolist()
        return replace(
            self,
            images=self.images[index],
            text_ids=self.text_ids[index],
            labels=None if self.labels is None else self.labels[index],
            row_hashes=[self.row_hashes[i] for i in pick],
            sources=[self.sources[i] for i in pick],
        )

    def texts_used(self, column=0):
        """The distinct captions that stand in one caption column, sorted by first appearance in `texts`."""
        return [self.texts[i] for i in self.text_ids[:, column].unique().tolist()]

    def with_texts(self, texts, text_ids):
        """A set of other rows: `text_ids` (M,) into `texts`. Images are still this set's: replace them."""
        unknown = [""] * len(text_ids)
        return replace(self, texts=texts, text_ids=text_ids[:, None], labels=None, row_hashes=unknown, sources=unknown)


def read_table(source, split):
    """One split as a `datasets.Dataset` with the columns it has. `source` is a local folder or a hub name."""
    try:
        return datasets.load_dataset(
            str(source),
            data_files={split: f"**/{split}-*.parquet"},
            split=split,
            verification_mode="no_checks",
        )
    except Exception as error:  # datasets raises many kinds: missing, offline, truncated, not parquet
        reason = reason_of(error.__cause__ or error)
        raise CliperaseError(
            f"data {str(source)!r}, split {split!r} cannot be read ({reason}); "
            "name a folder or hub data set with whole <split>-*.parquet files"
        ) from None


def load_pairs(source, split):
    """One split as a `PairSet`. `source` is a local folder or a hub name; both hold the schema above."""
    table = read_table(source, split)
    missing = {"image", "captions"} - set(table.column_names)
    if missing:
        raise CliperaseError(
            f"data {str(source)!r} lacks the column {sorted(missing)[0]!r} (it has {table.column_names}); "
            "bring it into the schema of cliperase.datasets first"
        )
    try:
        return decode_pairs(check_columns(table, source))
    except (OSError, ValueError, Image.DecompressionBombError) as error:  # a picture that is none
        raise CliperaseError(f"data {str(source)!r}, split {split!r}: a row cannot be read ({error})") from None


def check_columns(table, source):
    """Columns of the right kind, at least one row, at least one caption a row, no gaps; else what to mend."""
    said, captions = f"data {str(source)!r}", table.features["captions"]
    if not isinstance(captions, datasets.List) or captions.feature.dtype != "string":
        raise CliperaseError(f"{said}: captions are {captions}, not lists of strings; write [caption] for a single one")
    if not isinstance(table.features["image"], datasets.Image):
        raise CliperaseError(f"{said}: image is {table.features['image']}, not an Image; cast it")
    if "label" in table.column_names and not isinstance(table.features["label"], datasets.ClassLabel):
        raise CliperaseError(f"{said}: label is {table.features['label']}, not a ClassLabel with names; cast it")
    if not len(table):
        raise CliperaseError(f"{said}: the split holds no row")
    for name in ("image", "label", "source"):
        column = table.data.column(name) if name in table.column_names else None
        if column is not None and column.null_count:
            raise CliperaseError(f"{said}: row {column.is_null().to_pylist().index(True)} has no {name}; leave it out")
    labels = table["label"][:] if "label" in table.column_names else []
    if min(labels, default=0) < 0:  # how `datasets` marks a row without a class
        raise CliperaseError(f"{said}: row {labels.index(min(labels))} has no class but {min(labels)}; leave it out")
    captions = table.select_columns("captions").with_format("arrow")[:]["captions"].to_pylist()
    empty = next((i for i, row in enumerate(captions) if not row or None in row), None)
    if empty is not None:
        raise CliperaseError(f"{said}: row {empty} has no caption; leave it out or write one")
    return table


def decode_pairs(table):
    """A `datasets.Dataset` of the schema -> `PairSet`."""
    columns = table.with_format("arrow")[:]  # whole columns: row by row, `datasets` takes longer than the decoding
    encoded = [row["bytes"] for row in columns["image"].to_pylist()]
    if None in encoded:
        raise ValueError(f"row {encoded.index(None)} holds the path of a picture, not the picture; embed the files")
    row_hashes = [hashlib.sha256(one).hexdigest()[:12] for one in encoded]
    captions = columns["captions"].to_pylist()
    most = max(len(row) for row in captions)
    texts = sorted({text for row in captions for text in row})
    number = {text: i for i, text in enumerate(texts)}
    # rows with fewer captions repeat theirs, so that the table is rectangular
    text_ids = [[number[row[k % len(row)]] for k in range(most)] for row in captions]
    has_labels = "label" in table.column_names
    return PairSet(
        images=kept_images(encoded, row_hashes),
        texts=texts,
        text_ids=torch.tensor(text_ids),
        labels=torch.tensor(columns["label"].to_pylist()) if has_labels else None,
        class_names=table.features["label"].names if has_labels else [],
        row_hashes=row_hashes,
        sources=columns["source"].to_pylist() if "source" in table.column_names else [""] * len(table),
    )


def kept_images(encoded, row_hashes):
    """`decode_images`, kept beside what `datasets` keeps: every stage and every worker reads the same pictures."""
    name = hashlib.sha256("".join(row_hashes).encode()).hexdigest()[:24]
    path = Path(datasets.config.HF_DATASETS_CACHE) / "cliperase-images" / f"{name}.safetensors"
    with contextlib.suppress(OSError, SafetensorError):  # not there, or not whole
        return load_file(path)["images"]
    images = decode_images(encoded)
    if WORTH_A_FILE <= images.numel() <= TOO_LARGE:
        with contextlib.suppress(CliperaseError), whole_file(path) as partial:  # a cache that cannot be written
            save_file({"images": images}, partial)
    return images


def decode_images(encoded):
    """Pictures as files of one size -> (N, 3, H, W) uint8."""
    decoded = [np.asarray(Image.open(io.BytesIO(one)).convert("RGB")) for one in encoded]
    sizes = {array.shape[:2] for array in decoded}
    if len(sizes) > 1:
        raise CliperaseError(f"images of {len(sizes)} sizes, such as {min(sizes)} and {max(sizes)}; make them one size")
    return torch.from_numpy(np.stack(decoded)).permute(0, 3, 1, 2).contiguous()


def forget_mask(pairs, rule, required=True):
    """(N,) bool, true where `rule` says forget. A rule is a mapping with one key:

    `concept`: a class name, or where there are no classes a word of any caption; `classes`: class names;
    `caption_pattern`: a regular expression searched in all captions (an image is forgotten if any
    matches); `rows`: row hashes. The rule must leave some rows, and if `required` match some.
    """
    if not isinstance(rule, Mapping) or len(rule) != 1 or next(iter(rule)) not in RULES:
        raise CliperaseError(f"forget rule {rule!r}: give one of {', '.join(RULES)} with its value")
    ((kind, value),) = rule.items()
    expected = list if kind in ("rows", "classes") else str
    if not isinstance(value, expected) or (expected is list and not all(isinstance(one, str) for one in value)):
        wanted = "a list of strings, in quotes where they are digits" if expected is list else "text"
        raise CliperaseError(f"forget rule {kind}: {value!r}; give {wanted}")
    if kind == "rows":
        wanted = set(value)
        mask = torch.tensor([row in wanted for row in pairs.row_hashes])
    elif kind == "classes" or (kind == "concept" and pairs.class_names):
        mask = class_mask(pairs, [value] if kind == "concept" else value)
    else:
        mask = match_captions(pairs, rule)
    if required and not mask.any():
        raise CliperaseError(f"forget rule {kind}: {value!r} matches no row of {len(pairs)}; nothing to forget")
    if mask.all():
        raise CliperaseError(f"forget rule {kind}: {value!r} matches all {len(pairs)} rows; nothing to retain")
    return mask


def class_mask(pairs, names):
    """(N,) bool, true for rows of the named classes."""
    unknown = [name for name in names if name not in pairs.class_names]
    if unknown:
        known = ", ".join(pairs.class_names[:6])
        raise CliperaseError(f"concept {unknown[0]!r} matches no row; classes are {known}, … by exact name")
    wanted = torch.tensor([pairs.class_names.index(name) for name in names])
    return torch.isin(pairs.labels, wanted)


def caption_pattern(rule):
    """The regular expression of a rule on captions: `caption_pattern`, or `concept`, a word."""
    kind, pattern = next(iter(rule.items())) if isinstance(rule, Mapping) and len(rule) == 1 else (None, None)
    if kind not in ("concept", "caption_pattern") or not isinstance(pattern, str):
        raise CliperaseError(f"forget rule {rule!r}: captions alone take concept, a word, or caption_pattern")
    try:
        return re.compile(rf"\b{re.escape(pattern)}\b" if kind == "concept" else pattern, re.IGNORECASE)
    except re.error as error:
        raise CliperaseError(f"caption_pattern {pattern!r} is no regular expression ({error})") from None


def match_captions(pairs, rule):
    compiled = caption_pattern(rule)
    hits = torch.tensor([bool(compiled.search(text)) for text in pairs.texts])
    return hits[pairs.text_ids].any(dim=1)


def split_pairs(pairs, rule):
    """(forget set, retain set) of one split."""
    mask = forget_mask(pairs, rule)
    return pairs.select(mask), pairs.select(~mask)


def manifest(splits, rules):
    """One row per image: `split, row_hash, forgotten_by`, the names of the rules that forget it, joined by |.

    `splits`: {split: PairSet}; `rules`: {name: rule}. A rule that matches nothing in the held-out split is
    no error there: not every concept has a drawing from another source. An image may stand twice in the test split,
    as in CIFAR-100, if the same rules forget both.
    """
    tables = []
    for split, pairs in splits.items():
        masks = {name: forget_mask(pairs, rule, split != "heldout").tolist() for name, rule in rules.items()}
        by = ["|".join(n for n in rules if masks[n][i]) for i in range(len(pairs))]
        tables.append(pd.DataFrame({"split": split, "row_hash": pairs.row_hashes, "forgotten_by": by}))
    table = pd.concat(tables, ignore_index=True)
    once = table[(table.split != "test") | ~table.duplicated()]
    leaks = once[once.row_hash.duplicated(keep=False)]
    if len(leaks):
        raise CliperaseError(
            f"{leaks.row_hash.nunique()} images occur more than once, the first is {leaks.row_hash.iloc[0]}; "
            "remove duplicates before splitting"
        )
    return table


class EpochSampler:
    """Batches of row numbers, every row once per epoch, in an order fixed by the seed.

    The batch of a step is a function of the step alone, so a resumed run needs no sampler state.
    """

    def __init__(self, rows, batch_size, seed):
        self.rows, self.batch_size, self.seed = rows, batch_size, seed
        self.orders = {}

    def order(self, epoch):
        if epoch not in self.orders:
            generator = torch.Generator().manual_seed(self.seed * 100_003 + epoch)
            self.orders = {e: o for e, o in self.orders.items() if e == epoch - 1}  # keep only the last epoch
            self.orders[epoch] = torch.randperm(self.rows, generator=generator)
        return self.orders[epoch]

    def batch(self, step):
        """(batch_size,) row numbers; an epoch's end is filled up from the next epoch."""
        first = step * self.batch_size
        positions = torch.arange(first, first + self.batch_size)
        return torch.stack([self.order(int(p // self.rows))[p % self.rows] for p in positions])
