"""One schema for every data set, and a split of it in memory, a `PairSet`.

Schema (Hugging Face `datasets` features in parquet, files named `<split>-*.parquet`):
`image: Image`, `captions: List[str]`, `label: ClassLabel` (where there are classes), `source: str`.
"""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import datasets
import torch
from torch import Tensor

from cliperase.data.decoded import decoded_images
from cliperase.data.limits import BROKEN_PERCENT, leave_out, log
from cliperase.data.naming import LABELS, usual
from cliperase.data.pictures import UnreadablePicture, read_picture
from cliperase.data.tables import place_of, read_table
from cliperase.data.templates import USUAL, unusual
from cliperase.data.words import check_classes
from cliperase.errors import CliperaseError
from cliperase.files import hash_of, whole_file

if TYPE_CHECKING:
    from cliperase.data.brought import Brought
    from cliperase.models.framing import Framing

LOOKED_AT = 8  # rows that stand for all
NO_CAPTION = "it has no caption, or a blank one"
SHARD_NAME = "{split}-00000-of-00001.parquet"


def features_schema(class_names: list[str] | None = None) -> datasets.Features:
    """The columns of the schema; without `class_names` there is no label column."""
    columns: dict[str, Any] = {"image": datasets.Image(), "captions": datasets.List(datasets.Value("string"))}
    if class_names:
        columns["label"] = datasets.ClassLabel(names=class_names)
    return datasets.Features({**columns, "source": datasets.Value("string")})


def write_split(rows: datasets.Dataset, folder: Path, split: str) -> None:
    """Write rows of the schema as one parquet shard, whole or not at all."""
    with whole_file(folder / SHARD_NAME.format(split=split)) as path:
        rows.to_parquet(path)


@dataclass(frozen=True)
class PairSet:
    """Images with their captions, in memory.

    `images`: (N, 3, H, W) uint8. `texts`: the distinct captions. `text_ids`: (N, K) long, the K captions of
    each image as indices into `texts`. `labels`: (N,) long or None. `row_hashes`: N digests of the image
    files, which identify a row wherever it turns up. `sources`: N strings. `templates`: of classes.
    """

    images: torch.Tensor
    texts: list[str]
    text_ids: torch.Tensor
    labels: torch.Tensor | None
    class_names: list[str]
    row_hashes: list[str]
    sources: list[str]
    templates: tuple[str, ...] = USUAL

    def __len__(self) -> int:
        return len(self.images)

    @property
    def class_numbers(self) -> Tensor:
        """`labels` of data with classes."""
        if self.labels is None:
            raise CliperaseError("these rows have no labels; give data with classes")
        return self.labels

    def select(self, mask: Tensor) -> Self:
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

    def fingerprint(self) -> str:
        """Equal for equal pictures, captions, labels and templates, in equal order, whatever files they came from."""
        said = [self.row_hashes, self.texts, self.class_names, *unusual(self.templates)]
        digest = hashlib.sha256(repr(said).encode())
        for tensor in (self.images, self.text_ids, *([] if self.labels is None else [self.labels])):
            digest.update(tensor.contiguous().numpy())  # pyrefly: ignore[bad-argument-type] – a buffer from numpy on Python 3.12
        return digest.hexdigest()

    def texts_used(self, column: int | None = None) -> list[str]:
        """The distinct captions of all rows, or of one caption column, in the order of `texts`."""
        numbers = self.text_ids if column is None else self.text_ids[:, column]
        return [self.texts[i] for i in numbers.unique().tolist()]

    def with_classes(self, class_names: list[str]) -> Self:
        """The same rows, their labels numbers in `class_names`, which are the same classes in another order."""
        if self.labels is None or self.class_names == class_names:
            return self
        odd = sorted(set(self.class_names) ^ set(class_names))
        if odd:
            raise CliperaseError(
                f"class {odd[0]!r} is in one of two splits and not in the other; give all splits one list of classes"
            )
        numbers = torch.tensor([class_names.index(name) for name in self.class_names])
        return replace(self, labels=numbers[self.labels], class_names=class_names)

    def with_texts(self, texts: list[str], text_ids: Tensor) -> Self:
        """A set of M new rows with captions `text_ids` (M,) into `texts`. The caller must replace the images."""
        unknown = [""] * len(text_ids)
        return replace(self, texts=texts, text_ids=text_ids[:, None], labels=None, row_hashes=unknown, sources=unknown)


def load_pairs(
    source: "str | Path | Brought",
    split: str,
    broken_percent: float = BROKEN_PERCENT,
    framing: "Framing | None" = None,
) -> PairSet:
    """One split as a `PairSet`. `source` is a local folder or a hub name, of the schema above, or a `brought.Brought`.

    `broken_percent` of the rows may be unreadable; they are left out. `framing`: that of a model (`models.framing`),
    which brings pictures of several sizes to one; without it these are an error.
    """
    table = read_table(source, split)
    missing = {"image", "captions"} - set(table.column_names)
    if missing:
        raise CliperaseError(
            f"data {str(source)!r} lacks the column {sorted(missing)[0]!r} (it has {table.column_names}); "
            "bring it into the schema of cliperase.data.pairs first"
        )
    check_columns(table, source, split)
    place, by_path = partial(place_of, source, split), not isinstance(source, str | Path)
    return decode_pairs(table, broken_percent, place, framing, by_path)


def check_columns(table: datasets.Dataset, source: "str | Path | Brought", split: str) -> None:
    """Columns of the right kind, at least one row, every label that of a class; else what to mend."""
    said, captions = f"data {str(source)!r}", table.features["captions"]
    if not isinstance(captions, datasets.List) or captions.feature.dtype != "string":
        raise CliperaseError(f"{said}: captions are {captions}, not lists of strings; write [caption] for a single one")
    if not isinstance(table.features["image"], datasets.Image):
        raise CliperaseError(f"{said}: image is {table.features['image']}, not an Image; cast it")
    if "label" in table.column_names:
        check_labels(table, source, split)
    elif unread := usual(table.column_names, LABELS):
        log.warning("%s: the column %r is not read; let a ClassLabel 'label' hold the classes", said, unread[0])
    if not len(table):
        raise CliperaseError(f"{said}: the split {split!r} holds no row; add some")


def check_labels(table: datasets.Dataset, source: "str | Path | Brought", split: str) -> None:
    """Every row has the number of a class."""
    feature = table.features["label"]
    if not isinstance(feature, datasets.ClassLabel):
        raise CliperaseError(f"data {str(source)!r}: label is {feature}, not a ClassLabel with names; cast it")
    check_classes(feature.names, f"data {str(source)!r}")
    for row, label in enumerate(table["label"][:]):
        if label is None:
            raise CliperaseError(f"{place_of(source, split, row)} has no label; leave it out")
        if not 0 <= label < len(feature.names):  # -1 is how `datasets` marks a row without a class
            count = len(feature.names)
            raise CliperaseError(
                f"{place_of(source, split, row)} has the label {label}, and the {count} classes are 0 to {count - 1}; "
                "correct it or leave the row out"
            )
    tell_prompts(table["captions"][:LOOKED_AT], [feature.names[label] for label in table["label"][:LOOKED_AT]], source)


def tell_prompts(captions: list[list[str]], names: list[str], source: "str | Path | Brought") -> None:
    """Say so if no first caption of a few rows names the class of its row, as the prompts do that evaluation asks."""
    rows = [(own[0] or "", name) for own, name in zip(captions, names, strict=True) if own]
    if rows and not any(name.lower() in caption.lower() for caption, name in rows):
        said = (str(source), *rows[0])
        log.warning("data %r: the caption %r does not name its class, %r; put 'a photo of a …' before it", *said)


def decode_pairs(
    table: datasets.Dataset,
    broken_percent: float = BROKEN_PERCENT,
    place: Callable[[int], str] = "row {}".format,
    framing: "Framing | None" = None,
    by_path: bool = False,
) -> PairSet:
    """Those rows of a table of the schema that can be read.

    `place`: see `leave_out`; `framing`: see `load_pairs`; `by_path`: a row may name the file of its picture.
    """
    columns = table.with_format("arrow")[:]  # whole columns: row by row, `datasets` takes longer than the decoding
    pictures, captions = columns["image"].to_pylist(), columns["captions"].to_pylist()
    encoded = [file_of(picture, by_path) for picture in pictures]
    row_hashes = [row_hash(one) for one in encoded]
    images, readable = decoded_images(encoded, row_hashes, framing)
    problems = map(problem_of, pictures, captions, readable.tolist(), encoded, repeat(by_path))
    reasons = {row: problem for row, problem in enumerate(problems) if problem}
    leave_out(reasons, len(table), broken_percent, place)
    has_labels, sources = "label" in table.column_names, sources_of(table)
    rows = [row for row in range(len(table)) if row not in reasons]
    if not has_labels:
        rows = one_row_a_picture(rows, row_hashes, captions)
    if len(rows) < len(images):
        images = images[readable.cumsum(0)[rows] - 1]
    texts, text_ids = number_texts([captions[row] for row in rows])
    return PairSet(
        images=images,
        texts=texts,
        text_ids=text_ids,
        labels=torch.tensor(table["label"][:])[rows] if has_labels else None,
        class_names=table.features["label"].names if has_labels else [],
        row_hashes=[row_hashes[row] for row in rows],
        sources=[sources[row] for row in rows],
    )


def row_hash(encoded: bytes | Path | None) -> str:
    """What a row is known by: a digest of its picture file, bytes or a path."""
    return (hash_of(encoded) if isinstance(encoded, Path) else hashlib.sha256(encoded or b"").hexdigest())[:12]


def file_of(picture: Mapping[str, Any] | None, by_path: bool) -> bytes | Path:
    """A row's picture file, bytes or, where it is there `by_path`, its path; b"" where there is none."""
    path = by_path and picture and picture["bytes"] is None and picture["path"]
    if path and os.path.isabs(path) and os.path.isfile(path) and os.access(path, os.R_OK):
        return Path(path)
    return (picture or {}).get("bytes") or b""


def hashes_of(table: datasets.Dataset, by_path: bool = False) -> set[str]:
    """The row hashes of a table of the schema; nothing is decoded."""
    pictures = table.with_format("arrow")[:]["image"].to_pylist()
    return {row_hash(file_of(picture, by_path)) for picture in pictures if picture}


def problem_of(
    picture: Mapping[str, Any] | None,
    captions: list[str] | None,
    readable: bool,
    encoded: bytes | Path,
    by_path: bool,
) -> str | None:
    """Why a row cannot be used, or None."""
    if not is_captioned(captions):
        return NO_CAPTION
    if readable:
        return None
    if picture is None:
        return "it has no image"
    if by_path and encoded == b"" and picture["path"]:
        return f"{picture['path']} is not there, or must not be read"
    if picture["bytes"] is None and not by_path:
        return "it holds the path of a picture, not the picture; embed the files"
    try:
        read_picture(encoded)
    except UnreadablePicture as error:
        return f"its picture cannot be decoded ({error})"
    return None


def one_row_a_picture(rows: Sequence[int], row_hashes: Sequence[str], captions: list[list[str]]) -> Sequence[int]:
    """The first of the `rows` that show each picture; it gets the captions of the others, in place.

    A caption a row, the picture repeated, is a common layout. Rows that have several captions stay as they are.
    """
    first = {}
    if any(len(captions[row]) > 1 for row in rows):
        return rows
    for row in rows:
        start = first.setdefault(row_hashes[row], row)
        captions[start] = list(dict.fromkeys(captions[start] + captions[row]))
    return list(first.values())


def is_captioned(captions: Sequence[str | None] | None) -> bool:
    """Whether a row has captions, and none of them is missing or blank: every model takes blanks for one text."""
    return bool(captions) and all(caption and caption.strip() for caption in captions)


def number_texts(captions: Sequence[Sequence[str]]) -> tuple[list[str], Tensor]:
    """The captions of N rows -> the distinct ones, sorted, and (N, K) long, the captions of each row as numbers."""
    texts = sorted({text for row in captions for text in row})
    number, most = {text: i for i, text in enumerate(texts)}, max(map(len, captions))
    # rows with fewer captions repeat theirs, so that the table is rectangular
    return texts, torch.tensor([[number[row[k % len(row)]] for k in range(most)] for row in captions])


def sources_of(table: datasets.Dataset) -> list[str]:
    """The column `source`, which a row may leave empty: nothing but tables and messages reads it."""
    column = table["source"][:] if "source" in table.column_names else [None] * len(table)
    return ["" if source is None else str(source) for source in column]
