"""Parquet files that do not fit into memory: their row groups are read like shards, one after the other.

Of all rows, only the numbers of their classes are held, and hashes while a validation split is drawn.
"""

from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cliperase.cache import MOST
from cliperase.data import folders
from cliperase.data.brought import image_column, is_saved, others_than, parquet_in
from cliperase.data.columns import captions_of, readable, unified
from cliperase.data.held_out import hash_of_row, held_out
from cliperase.data.naming import LABELS, usual
from cliperase.data.pairs import check_columns, file_of
from cliperase.data.pictures import UnreadablePicture, read_picture
from cliperase.data.tables import is_schema, is_typed, plain, plain_kind, read_files
from cliperase.errors import CliperaseError, reason_of

BATCH = 64  # rows that are read at once
BUFFER = 2**20  # bytes of a column that are read at once; without it pyarrow reads all of a row group
LOOKED_AT = 8  # pictures whose sizes stand for all


def parquet_set(source):
    """The `ParquetSet` of a folder of parquet files, or of one. None where `source` is anything else, or damaged: who
    reads it into memory says so."""
    try:
        path, parts = Path(source).absolute(), {}
        if path.is_file() and path.suffix.lower() == ".parquet":
            parts = {folders.split_named(path.stem) or "train": [path]}
        elif path.is_dir() and any(path.rglob("*.parquet")) and not is_saved(path):
            parts = parquet_in(path, folders.below(path)[0], str(source))
        return ParquetSet(source, parts) if parts else None
    except Exception:  # pyarrow raises many kinds
        return None


@dataclass(frozen=True)
class RowGroup:
    """A row group of a file of `rows`, as a shard. `first`, `start`: its first row in the file and in the split.

    `drawn`: hashes of the pictures that are held out for validation, where any are. `validates`: these rows alone are
    read, or else the others alone.
    """

    rows: "ParquetSet"
    split: str
    path: Path
    number: int
    first: int
    start: int
    drawn: frozenset = frozenset()
    validates: bool = False

    @property
    def name(self):
        return f"{self.path.name}, row group {self.number}"

    def __str__(self):
        return f"{self.path}, row group {self.number}"

    @property
    def size(self):
        """Its bytes, unpacked."""
        return self.rows.metadata[self.path].row_group(self.number).total_byte_size

    def samples(self):
        """Its rows, as `tars.samples_of` gives samples, with `__captions__`, a list, and `__label__`, a number or
        None."""
        for sample in self.rows.read(self):
            if not self.drawn or (hash_of(sample) in self.drawn) == self.validates:
                yield sample


def hash_of(sample):
    return hash_of_row(sample["jpg"], sample["__captions__"])


class ParquetSet:
    """A data set of parquet files in any layout that `brought` takes. `parts`: {split: paths}."""

    def __init__(self, source, parts):
        self.source, self.parts, self.said = source, parts, f"data {str(source)!r}"
        self.metadata = {path: pq.read_metadata(path) for paths in parts.values() for path in paths}
        self.kinds = {split: kinds_of(self.metadata[paths[0]]) for split, paths in parts.items()}
        self.typed = all(map(is_typed, self.kinds.values()))
        self.pictures = {split: image_column(kinds, self.said) for split, kinds in self.kinds.items()}

    def __str__(self):
        return str(self.source)

    def splits(self):
        """The names of the splits; one for validation is held out where there is none."""
        return sorted({*self.parts, *(["validation"] if "train" in self.parts else [])})

    def check_splits(self):
        """Raise CliperaseError where a column of the names of splits divides what is one file or folder of them."""
        for column in usual(self.kinds["train"], ["split"]) if set(self.parts) == {"train"} else ():
            named = set(map(folders.split_named, read_files(self.parts["train"], [column])[column][:]))
            if named - {"train", None}:
                raise CliperaseError(
                    f"{self.said} are streamed, where the column {column!r} divides no rows; write files for each split"
                )

    def shards(self, split):
        """The row groups of one of the `splits`."""
        if self.typed:
            check_columns(self.first_rows(split), self.source, split)
        if split in ("train", "validation") and "validation" not in self.parts:
            return self.groups("train", drawn=self.held_out, validates=split == "validation")
        return self.groups(split)

    def groups(self, split, **held):
        found, start = [], 0
        for path in self.parts[split]:
            metadata, first = self.metadata[path], start
            for number in range(metadata.num_row_groups):
                found.append(RowGroup(self, split, path, number, start - first, start, **held))
                start += metadata.row_group(number).num_rows
        return found

    @cached_property
    def held_out(self):
        """The hashes of the training pictures that validate, the same ones as in memory. It reads all rows once."""
        samples = (sample for group in self.groups("train") for sample in group.samples())
        hashes, labels = zip(*((hash_of(sample), sample["__label__"]) for sample in samples), strict=True)
        return frozenset(held_out(hashes, labels if self.class_names else None, str(self.source)))

    @property
    def class_names(self):
        return self.classes[1]

    @cached_property
    def classes(self):
        """({split: the columns of captions}, the names of the classes, {split: (N,) their numbers, -1 for none})."""
        asked, tables = {}, {}
        for split, paths in self.parts.items():
            columns = [one for one in usual(self.kinds[split], LABELS) if one == "label" or not self.typed]
            table = read_files(paths, columns) if columns else None
            asked[split], table = (["captions"], table) if self.typed else self.readable(split, table)
            if table is not None:
                tables[split] = table
        tables = unified(tables, str(self.source))
        names = next((table.features["label"].names for table in tables.values()), [])
        return asked, names, {split: numbers_in(table, len(names)) for split, table in tables.items()}

    def readable(self, split, table):
        """(the columns of captions, a table of the column `label` or None). `table`: of the split's columns of classes
        alone; None where there is none."""
        columns, kinds = dict.fromkeys(others_than(self.pictures[split], self.kinds[split])), {}
        if table is not None:
            columns, kinds = columns | table[:], table.features
        names = {one: kind.names for one, kind in kinds.items() if isinstance(kind, datasets.ClassLabel)}
        asked, names, numbers = readable(columns, names, self.said)
        if not names:
            return asked, None
        kinds = datasets.Features({"label": datasets.ClassLabel(names=names)})
        return asked, datasets.Dataset.from_dict({"label": numbers}, features=kinds)

    def read(self, group):
        """The samples of a `RowGroup`."""
        asked, names, _ = self.classes
        asked, column = asked[group.split], self.pictures[group.split]
        for first, batch in self.batches(group, [column, *asked]):
            rows = range(group.first + first, group.first + first + len(batch))
            labels = self.labels_of(group, first, len(rows))
            cells = zip(*(batch.column(name).to_pylist() for name in asked), strict=True) if asked else [()] * len(rows)
            if self.typed:
                captions = [own for (own,) in cells]
            else:
                places = [f"{self.said}, {group.path.name}, row {row}" for row in rows]
                captions = captions_of(cells, names, labels, places)
            pictures = batch.column(column).to_pylist()
            for row, picture, own, label in zip(rows, pictures, captions, labels, strict=True):
                own = None if names and label is None else own  # so that a row without a class is broken
                about = {"__url__": str(group.path), "__key__": str(row), "__captions__": own, "__label__": label}
                yield {**about, "jpg": self.file(picture)}

    def labels_of(self, group, first, count):
        """The numbers of the classes of `count` rows of a row group, from its row `first`; None for none."""
        _, names, numbers = self.classes
        if not names:
            return [None] * count
        return [one if one >= 0 else None for one in numbers[group.split][group.start + first :][:count].tolist()]

    def batches(self, group, columns):
        """(the number of its first row, a batch of rows) of a `RowGroup`."""
        first = 0
        try:
            file = pq.ParquetFile(group.path, metadata=self.metadata[group.path], buffer_size=BUFFER)
            for batch in file.iter_batches(BATCH, [group.number], columns, use_threads=False):
                yield first, batch
                first += len(batch)
        except Exception as error:  # pyarrow raises many kinds
            reason = reason_of(error)
            raise CliperaseError(f"{self.said}: {group.name} cannot be read ({reason}); fetch it again") from None

    def file(self, picture):
        """The file of a cell of the column of pictures, bytes or a path; b"" where there is none."""
        return file_of({"bytes": picture, "path": None} if isinstance(picture, bytes) else picture, not self.typed)

    def first_rows(self, split):
        """A few rows of a split, as a `datasets.Dataset`."""
        file = pq.ParquetFile(self.parts[split if split in self.parts else "train"][0], buffer_size=BUFFER)
        batch = next(file.iter_batches(LOOKED_AT, use_threads=False), None)
        table = file.schema_arrow.empty_table() if batch is None else pa.Table.from_batches([batch])
        return plain(datasets.Dataset(table))

    def bytes_in_memory(self, split=None, framing=None):
        """About how many bytes a split, or the largest, takes: its files, and its pictures as `decoded_images` has
        them. What is not of the schema is read with all its splits."""
        if split is None:
            return max(self.bytes_in_memory(one, framing) for one in self.parts)
        split = split if split in self.parts else "train"
        read = {split: self.parts[split]} if is_schema(self.source) else self.parts
        rows = sum(self.metadata[path].num_rows for path in self.parts[split])
        files = sum(path.stat().st_size for paths in read.values() for path in paths)
        return files + rows * self.bytes_of_picture(split, rows, framing)

    def bytes_of_picture(self, split, rows, framing):
        """Of pixels, of the largest of a few; where they are brought to one size, of that."""
        sizes = set()
        for picture in self.first_rows(split).with_format("arrow")[:][self.pictures[split]].to_pylist():
            with suppress(UnreadablePicture):
                width, height = read_picture(self.file(picture)).size
                sizes.add(3 * width * height)
        most = max(sizes, default=0)
        return 3 * prod(framing.size) if framing and (len(sizes) > 1 or rows * most > MOST) else most


def kinds_of(metadata):
    """{column: its kind} of a file, as the schema spells kinds."""
    kinds = datasets.Features.from_arrow_schema(metadata.schema.to_arrow_schema())
    return {name: plain_kind(kind) for name, kind in kinds.items()}


def numbers_in(table, count):
    """(N,) the numbers of the classes in the column `label`, -1 where it holds none of the `count` there are."""
    return np.array([label if label in range(count) else -1 for label in table["label"][:]], dtype=np.int64)
