"""Which parquet files a split consists of, and their rows as one `datasets.Dataset`.

Files in a folder are read as they are: no copy in the cache of `datasets`, which knows a file by its time stamp only
and gives the old rows of one that was replaced. A name on the hub goes through `datasets`.
"""

import errno
import re
from pathlib import Path
from typing import TypeGuard

import datasets
import pyarrow.parquet as pq
from datasets.table import table_cast

from cliperase.data.naming import LABELS, usual
from cliperase.errors import CliperaseError, reason_of

NUMBERED = r"-(\d+)-of-(\d+)(-[0-9a-f]{16})?"  # how `datasets` and the hub number the files of a split


def read_table(source, split):
    """One split as a `datasets.Dataset` with the columns it has.

    `source`: a folder; a name on the hub, with the folder of the data set behind it where there are several; or a
    `brought.Brought`.
    """
    if not isinstance(source, str | Path):
        return source.read(split)
    try:
        if Path(source).is_dir():
            return read_files(files_of(source, split))
        from cliperase.data.hub import read_hub

        return plain(read_hub(str(source), split))
    except CliperaseError:
        raise
    except Exception as error:  # datasets raises many kinds: missing, offline, truncated, not parquet
        if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EROFS, errno.ENOSPC):
            cache = datasets.config.HF_DATASETS_CACHE
            reason = f"{reason_of(error)}; if {cache} cannot be written, set HF_HOME to another folder"
        else:
            reason = reason_of(error.__cause__ or error)
        raise unreadable(source, split, reason) from None


def unreadable(source, split, reason):
    return CliperaseError(
        f"data {str(source)!r}, split {split!r} cannot be read ({reason}); "
        "name a folder or hub data set with whole <split>-*.parquet files"
    )


def files_of(folder, split):
    """The paths of a split's files, in order. Files of another data set among them or below are an error."""
    there = sorted(Path(folder).rglob("*.parquet"))
    first = {path.parent: path for path in reversed(there)}
    if len(first) > 1:
        several = " and ".join(str(path.relative_to(folder)) for path in sorted(first.values())[:2])
        raise CliperaseError(f"data {str(folder)!r} holds several data sets: {several}; name the folder of one")
    found = [path for path in there if re.fullmatch(rf"{re.escape(split)}(-.*)?\.parquet", path.name)]
    if not found:
        names = ", ".join(path.name for path in there[:4]) or "no parquet file"
        raise unreadable(folder, split, f"it holds {names}")
    if len(found) > 1:
        check_numbers(folder, split, found)
    return found


def splits_of(source):
    """The splits that there are files of; of a data set on the hub the usual ones, whether it has them or not."""
    if not isinstance(source, str | Path):
        return source.splits()
    if not Path(source).is_dir():
        return ["train", "validation", "test"]
    return sorted({re.sub(rf"({NUMBERED})?\.parquet", "", path.name) for path in Path(source).rglob("*.parquet")})


def is_schema(source: object) -> TypeGuard[str | Path]:
    """Whether a source is a name on the hub, or a folder of the schema with a validation split. A damaged one is: who
    reads it says so."""
    if not isinstance(source, str | Path) or not Path(source).is_dir():
        return isinstance(source, str | Path) and not Path(source).exists()
    if "validation" not in splits_of(source):
        return False
    try:
        return is_typed(datasets.Features.from_arrow_schema(pq.read_schema(files_of(source, "validation")[0])))
    except Exception:  # as in `read_table`
        return True


def is_typed(kinds):
    """Whether columns of these `datasets.Features` are those of the schema, by name and by kind, and no column of
    classes has another name."""
    kinds = {name: plain_kind(kind) for name, kind in kinds.items()}
    schema = {"image": datasets.Image, "captions": datasets.List, "label": datasets.ClassLabel}
    there = all(isinstance(kinds[name], kind) for name, kind in schema.items() if name in kinds)
    return there and {"image", "captions"} <= set(kinds) and ("label" in kinds or not usual(kinds, LABELS))


def check_numbers(folder, split, paths):
    """Several files are one split if they are numbered, each number once and none missing."""
    numbers = [re.fullmatch(rf"{re.escape(split)}{NUMBERED}\.parquet", path.name) for path in paths]
    said = f"data {str(folder)!r}, split {split!r}"
    if strange := [path.name for path, number in zip(paths, numbers, strict=True) if not number]:
        others = ", ".join(path.name for path in paths if path.name != strange[0])
        raise CliperaseError(f"{said}: {strange[0]} stands beside {others}; take away what is not of this data set")
    counted = [(int(number[1]), int(number[2])) for number in numbers if number]
    order, most = [one for one, _ in counted], max(of for _, of in counted)
    if order != list(range(most)):
        names = ", ".join(path.name for path in paths[:4])
        raise CliperaseError(f"{said}: {len(paths)} files are to be number 0 to {most - 1}: {names}; mend the folder")


def read_files(paths, columns=None):
    """The rows of several files, with these `columns` or all; their classes, which may be numbered in different orders,
    as in the first."""
    parts = [read_file(path, columns) for path in paths]
    first = parts[0].features
    return datasets.concatenate_datasets(
        [renumbered(part, first, path) for part, path in zip(parts, paths, strict=True)]
    )


def read_file(path, columns=None):
    table = pq.ParquetFile(path).read(columns)  # `pq.read_table` would take columns from folder names such as `seed=1`
    return plain(datasets.Dataset(table))


def plain(table):
    """The same rows, in the kinds of the schema where a column comes as another spelling of it, as polars writes."""
    kinds = datasets.Features({name: plain_kind(kind) for name, kind in table.features.items()})
    if kinds == table.features:
        return table
    return datasets.Dataset(table_cast(table.with_format("arrow")[:], kinds.arrow_schema))


def plain_kind(kind):
    """large strings and lists -> strings and lists; a picture's bytes and path -> `Image`."""
    if isinstance(kind, datasets.Value) and kind.dtype in ("large_string", "string_view"):
        return datasets.Value("string")
    if isinstance(kind, datasets.LargeList | datasets.List):
        return datasets.List(plain_kind(kind.feature))
    if isinstance(kind, dict) and set(kind) == {"bytes", "path"}:
        return datasets.Image()
    return kind


def renumbered(part, features, path):
    """`part` with the class numbers of `features`, by the names of the classes."""
    for name, feature in features.items():
        mine = part.features.get(name)
        if not isinstance(feature, datasets.ClassLabel) or not isinstance(mine, datasets.ClassLabel) or mine == feature:
            continue
        if sorted(mine.names) != sorted(feature.names):
            odd = sorted(set(mine.names) ^ set(feature.names))[0]
            raise CliperaseError(
                f"{path} has other classes in {name!r} than the files before it, such as {odd!r}; write them anew"
            )
        number = {i: feature.str2int(one) for i, one in enumerate(mine.names)}
        labels = [number.get(label, label) for label in part[name][:]]  # what is no class is found later
        part = replaced(part, name, labels, feature)
    return part.select_columns([name for name in features if name in part.column_names])


def replaced(table, name, values, feature):
    """A table with other values in a column, which goes last; it may be the only one."""
    new = f"new {name}"
    return table.add_column(new, values, feature=feature).remove_columns(name).rename_column(new, name)


def place_of(source, split, row):
    """Where a row stands, for a message: its split, its number, its file."""
    if not isinstance(source, str | Path):
        return source.place(split, row)
    said, start = f"data {str(source)!r}, split {split!r}, row {row}", 0
    for path in files_of(source, split) if Path(source).is_dir() else ():
        count = pq.read_metadata(path).num_rows
        if row < start + count:
            # pyrefly: ignore[redundant-condition] – the loop adds to `start`
            return f"{said} ({path.name}{f', its row {row - start}' if start else ''})"
        start += count
    return said
