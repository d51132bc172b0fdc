"""Data in other layouts than the schema, found by looking at them: a `Brought`, which is read like parquet files.

A folder may hold pictures (`folders`), parquet files under other names, or what `save_to_disk` of `datasets` wrote. A
file may be a table of pictures. In Python, data may be a data set of torch or of `datasets`, or any iterable of rows.
"""

from collections.abc import Mapping
from pathlib import Path

import datasets

from cliperase.data import annotations, folders, listings
from cliperase.data.columns import as_schema, picture_column, unified
from cliperase.data.held_out import hash_of_row, held_out
from cliperase.data.in_python import listed
from cliperase.data.naming import IN_MEMORY, PICTURES, is_read, usual
from cliperase.data.pairs import file_of
from cliperase.data.tables import check_numbers, files_of, is_typed, plain, read_files, splits_of
from cliperase.errors import CliperaseError, reason_of

SAVED = ("dataset_dict.json",), ("state.json", "dataset_info.json")  # what `save_to_disk` writes
PLACE = "place of the row"  # a column for messages
SPLIT = "split"  # a column that may say which rows are for what
BLOCK = 500  # pictures in an array, which takes 2 GB at most


class Brought:
    """Rows in memory, their pictures as bytes or as paths of files.

    `name`: what messages call them. `tables`: {split: `datasets.Dataset` of the schema, with `PLACE`}.
    """

    def __init__(self, name, tables):
        self.name, self.tables = name, tables

    def __str__(self):
        return self.name

    def splits(self):
        """The names of the splits; one for validation is held out where there is none."""
        return sorted({*self.tables, *(["validation"] if "train" in self.tables else [])})

    def read(self, split):
        """One split as a `datasets.Dataset`."""
        if split not in self.splits():
            raise CliperaseError(
                f"data {self.name!r} has no split {split!r}; it has {' and '.join(self.splits())}; choose one of "
                "these or add the split"
            )
        if "validation" not in self.tables and split in ("train", "validation"):
            self.tables["train"], self.tables["validation"] = hold_out(self.tables["train"], self.name)
        return self.tables[split]

    def place(self, split, row):
        """Where a row stands, for a message."""
        return f"data {self.name!r}, split {split!r}, {self.tables[split][PLACE][row]}"


def bring(data):
    """The `Brought` of a folder, a file, or of objects in Python; CliperaseError where it holds no rows that can be
    read."""
    if not isinstance(data, str | Path):
        return Brought(IN_MEMORY, unified(read_rows(data, IN_MEMORY), IN_MEMORY))
    path = Path(data).absolute()
    tables = read_folder(path, str(data)) if path.is_dir() else read_file(path, str(data))
    return Brought(str(data), unified(tables, str(data)))


def read_file(path, name):
    """{split: table} of one file."""
    suffix = path.suffix.lower()
    if suffix in listings.TABLES or listings.is_kaggles(path):
        return {split: from_files(rows, name) for split, rows in listings.read_table_file(path).items()}
    if suffix == ".json":
        return {split: from_files(rows, name) for split, rows in annotations.read_annotation_file(path).items()}
    if suffix == ".parquet":
        return by_split({folders.split_named(path.stem) or "train": read_parquet([path], name)}, name)
    known = ", ".join((*listings.TABLES, ".json", ".parquet"))
    raise CliperaseError(f"data {name!r} is a file of no known kind; name a folder, or a file of {known}")


def read_folder(folder, name):
    """{split: table} of a folder, by what is in it."""
    if is_saved(folder):
        return read_saved(folder, name)
    files, inner = folders.below(folder)
    parquet = parquet_in(folder, files, name)
    if parquet:
        return by_split({split: read_parquet(paths, name) for split, paths in parquet.items()}, name)
    pictures, tables = folders.of_kind(files, folders.PICTURES), listings.tables_in(folder, files)
    if not pictures and not tables:
        seen = ", ".join(file.as_posix() for file in files[:3]) or "nothing"
        raise CliperaseError(f"data {name!r} holds no pictures, tables, parquet files or shards; it holds {seen}")
    captions = [] if tables else annotations.of_captions(files)
    if captions:
        found = annotations.read_annotations(folder, captions, pictures)
        objects = annotations.named_as(annotations.OBJECTS, files)
        folders.pass_over(folder, "names of objects, because captions are read", objects)
    elif tables:
        found = listings.read_tables(folder, tables, pictures)
    else:
        annotations.check_objects(name, files)
        found = folders.read_pictures(folder, files, inner)
    return {split: from_files(rows, name) for split, rows in found.items()}


def is_saved(folder):
    return any(all((folder / file).is_file() for file in files) for files in SAVED)


def parquet_in(folder, files, name):
    """{split: paths} of the parquet files in a folder; {} where there are none. `files`: all that is `below` it.

    A file beside a folder of its name, which img2dataset writes, is about the pictures in that folder.
    """
    parents = {file.parent for file in files}
    parquet = [file for file in folders.of_kind(files, (".parquet",)) if file.with_suffix("") not in parents]
    others = folders.of_kind(files, listings.TABLES) or folders.of_kind(files, folders.PICTURES)
    if parquet and others:
        raise CliperaseError(
            f"data {name!r} holds {parquet[0].as_posix()} and {others[0].as_posix()}; name the file or folder of one"
        )
    return parquet_splits(folder, parquet) if parquet else {}


def read_parquet(paths, name):
    """The table of one split."""
    try:
        return typed(read_files(paths), name)
    except CliperaseError:
        raise
    except Exception as error:  # pyarrow raises many kinds
        raise CliperaseError(
            f"data {name!r}: {paths[0].name} cannot be read ({reason_of(error)}); fetch it again"
        ) from None


def parquet_splits(folder, files):
    """{split: paths}: the files are named by splits and in one folder, or in folders that are named by splits, or one
    file is all there is. `files`: paths relative to the folder."""
    tops = {file.parent for file in files}
    by_folder = {top: folders.split_named(top.name) for top in tops}
    if all(by_folder.values()) and len({top.parent for top in tops}) == 1 and len(set(by_folder.values())) == len(tops):
        return {by_folder[top]: numbered(folder, [one for one in files if one.parent == top]) for top in tops}
    names = {name: folders.split_named(name) or name for name in splits_of(folder)}
    if len(tops) == 1 and len(set(names.values())) == len(names) and any(map(folders.split_named, names)):
        return {split: files_of(folder, name) for name, split in names.items()}
    if len(files) == 1:
        return {"train": [folder / files[0]]}
    if len(tops) > 1:
        files_of(folder, "train")  # says what is wrong with them
    known = ", ".join(file.as_posix() for file in files[:3])
    raise CliperaseError(
        f"data {str(folder)!r}: {known} are not named by one split each; name them train-…, validation-…, test-…"
    )


def numbered(folder, files):
    """The paths of a split's files in a folder of its own; several are `0000.parquet` and so on, as the hub writes."""
    if len(files) > 1 and [file.stem for file in files] != [f"{i:04d}" for i in range(len(files))]:
        check_numbers(folder, files[0].parent.name, files)
    return [folder / file for file in files]


def read_saved(folder, name):
    """{split: table} of a `Dataset` or `DatasetDict` that was saved to disk."""
    try:
        saved = datasets.load_from_disk(str(folder))
    except Exception as error:  # datasets raises many kinds
        raise CliperaseError(f"data {name!r} cannot be read ({reason_of(error)}); save it to disk again") from None
    return read_rows(saved, name)


def read_rows(data, name):
    """{split: table} of rows, or of a mapping of them by splits."""
    if isinstance(data, Mapping):
        return read_mapping(data, name)
    return by_split(read_mapping({"train": data}, name), name)


def read_mapping(data, name):
    tables, keys = {}, [str(key) for key in data]
    if usual(keys, PICTURES):
        raise CliperaseError(f"data {name!r} are columns, {', '.join(keys)}; give rows, or a DataFrame of pandas")
    for key, rows in data.items():
        split = folders.split_named(key) or str(key)
        if split in tables:
            raise CliperaseError(f"data {name!r}: the split {key!r} is {split}, which is there already; keep one")
        tables[split] = typed(rows, name) if isinstance(rows, datasets.Dataset) else from_python(rows, name)
    return tables


def by_split(tables, name):
    """The same {split: table}; where all rows are for training, a column of the names of splits divides them."""
    if set(tables) != {"train"} or not (columns := usual(tables["train"].column_names, [SPLIT])):
        return tables
    table = tables["train"]
    values = table[columns[0]][:]
    splits = [folders.split_named(value) for value in values]
    if not any(splits):
        return tables
    if None in splits:
        row = splits.index(None)
        raise CliperaseError(
            f"data {name!r}, {table[PLACE][row]}: its split is {values[row]!r}, none of train, validation and test; "
            "correct it"
        )
    rows = {split: [row for row, one in enumerate(splits) if one == split] for split in dict.fromkeys(splits)}
    return {split: table.select(numbers) for split, numbers in rows.items()}


def typed(table, name):
    """A `datasets.Dataset` of any columns -> the schema, its pictures found by kind and by name."""
    said = f"data {name!r}"
    table = plain(datasets.Dataset(table.with_format("arrow")[:], info=datasets.DatasetInfo(features=table.features)))
    places = [f"row {row}" for row in range(len(table))]
    if is_typed(table.features):
        return table.add_column(PLACE, places)
    column = image_column(table.features, said)
    pictures = table.select_columns([column]).cast_column(column, datasets.Image())
    pictures = pictures if column == "image" else pictures.rename_column(column, "image")
    others = others_than(column, table.features)
    arrow = table.with_format("arrow")[:]
    columns = {one: arrow[one].to_pylist() if is_read(one) or usual([one], [SPLIT]) else None for one in others}
    class_names = {
        one: table.features[one].names for one in others if isinstance(table.features[one], datasets.ClassLabel)
    }
    return noted(as_schema(pictures, columns, class_names, places, said), columns, places)


def noted(table, columns, places):
    """The table of the schema with what is known of its rows beside: where each stands, and the names of splits."""
    table = table.add_column(PLACE, places)
    for one in usual(columns, [SPLIT]):
        table = table.add_column(SPLIT, [str(value) for value in columns[one]])
    return table


def image_column(kinds, said):
    """The column of pictures among columns of these `datasets.Features`."""
    images = [name for name, kind in kinds.items() if isinstance(kind, datasets.Image)]
    column = next(iter(usual(images, PICTURES)), images[0] if len(images) == 1 else None)
    column = column or picture_column(list(kinds), said)
    kind = kinds[column]
    if not isinstance(kind, datasets.Image) and getattr(kind, "dtype", None) not in ("binary", "large_binary"):
        raise CliperaseError(f"{said}: {column!r} is {kind}, not an Image; cast it, or name files in a CSV")
    return column


def others_than(column, kinds):
    """The columns that are neither that of pictures nor pictures themselves."""
    return [name for name, kind in kinds.items() if name != column and not isinstance(kind, datasets.Image)]


def from_files(rows, name):
    """The table of rows that folders list."""
    pictures = [None if file is None else {"bytes": None, "path": str(file)} for file in rows.files]
    return from_columns(pictures, rows.columns, rows.places, f"data {name!r}")


def from_python(rows, name):
    """The table of rows in Python."""
    return from_columns(*listed(rows, name), f"data {name!r}")


def from_columns(pictures, columns, places, said):
    kind, starts = datasets.Features({"image": datasets.Image()}), range(0, len(pictures), BLOCK)
    parts = [datasets.Dataset.from_dict({"image": pictures[i : i + BLOCK]}, features=kind) for i in starts]
    return noted(as_schema(datasets.concatenate_datasets(parts), columns, {}, places, said), columns, places)


def hold_out(table, name):
    """(training, validation), by `held_out`. All rows of a picture stay on one side."""
    columns = table.with_format("arrow")[:]
    pictures, captions = columns["image"].to_pylist(), columns["captions"].to_pylist()
    hashes = [hash_of_row(file_of(picture, by_path=True), own) for picture, own in zip(pictures, captions, strict=True)]
    if not any(hashes):  # who decodes the rows says what each of them lacks
        return table, table
    drawn = held_out(hashes, table["label"][:] if "label" in table.column_names else None, name)
    rows = {side: [row for row, one in enumerate(hashes) if (one in drawn) == side] for side in (False, True)}
    return table.select(rows[False]), table.select(rows[True])
