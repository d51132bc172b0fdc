"""Tables that name the files of pictures: CSV, TSV, JSONL, and Kaggle's `captions.txt`."""

import csv
import io
import json
import os
from pathlib import Path

from cliperase.data.columns import picture_column
from cliperase.data.folders import (
    Listed,
    joined,
    local_file,
    named_alike,
    of_kind,
    pass_over,
    split_named,
    text_of,
    the_one,
)
from cliperase.data.naming import usual
from cliperase.errors import CliperaseError, reason_of

TABLES = (".csv", ".tsv", ".jsonl", ".ndjson")


def tables_in(folder, files):
    """The tables among the `files` of a folder; without one, a `captions.txt` that is one, as Kaggle's Flickr8k has."""
    return of_kind(files, TABLES) or [file for file in files if is_kaggles(folder / file)]


def is_kaggles(path):
    if path.name.lower() != "captions.txt":
        return False
    header = text_of(path).split("\n", 1)[0].split(",")
    return bool(usual(header, ["image"]) and usual(header, ["caption"]))


def read_tables(folder, tables, pictures):
    """{split: `Listed`} of the `tables` in a folder; `tables` and `pictures` are paths relative to it.

    A picture that is not where its table says is the one of that name below the folder; where the tables have several
    of that name, the one in a folder that is named alike.
    """
    read = [read_table_file(folder / table, split_named(table.parent.name)) for table in tables]
    found, by_name = joined(folder, tables, read), named_alike(pictures)
    listed = named_alike({file for rows in found.values() for file in rows.files if file})
    for rows in found.values():
        lost = ((row, file) for row, file in enumerate(rows.files) if file and not file.exists())
        for row, file in lost:
            said = f"data {str(folder)!r}, {rows.places[row]}"
            own = Path(*file.parts[-2:]) if len(listed[file.name]) > 1 else Path(file.name)
            wanted = file.relative_to(folder) if file.is_relative_to(folder) else own
            rows.files[row] = folder / the_one(by_name, wanted, said)
    named = {file for rows in found.values() for file in rows.files}
    pass_over(folder, "pictures that no table names", [file for file in pictures if folder / file not in named])
    return found


def read_table_file(path, split=None):
    """{split: `Listed`} of one CSV, TSV or JSONL file. Paths in it are relative to its folder.

    The split of a row stands in a column `split`; else the file's name says it, or `split`, or the folders of the
    pictures; else all rows are for training.
    """
    said = f"data {str(path)!r}"
    names, lines = (read_json_lines if path.suffix.lower() in (".jsonl", ".ndjson") else read_csv)(path)
    column, split_column = picture_column(names, said), (usual(names, ["split"]) or [None])[0]
    if not lines:
        raise CliperaseError(f"{said} holds no row")
    rows = [
        (local_file(path.parent, cells.pop(column), f"{said}, line {number}"), cells, f"{path.name}, line {number}")
        for number, cells in lines
    ]
    if split_column:
        splits = [split_named(cells.pop(split_column)) for _, cells, _ in rows]
        if None in splits:
            wrong = lines[splits.index(None)][0]
            raise CliperaseError(f"{said}, line {wrong}: its split is none of train, validation and test; correct it")
    else:
        splits = [split_named(path.stem) or split] * len(rows)
        if not splits[0]:
            splits = splits_by_path(path, [file for file, _, _ in rows], lines)
    found = {}
    for split, row in zip(splits, rows, strict=True):
        found.setdefault(split, Listed()).add(*row)
    return found


def splits_by_path(table, files, lines):
    """The split of each row of a table, by the first folder of its picture, if that is named as one; else train."""
    tops = [split_named(Path(os.path.relpath(file or table, table.parent)).parts[0]) for file in files]
    if not any(tops):
        return ["train"] * len(files)
    if None in tops:
        inside, outside = (lines[i][0] for i in (next(i for i, one in enumerate(tops) if one), tops.index(None)))
        raise CliperaseError(
            f"data {str(table)!r}: the picture of line {inside} is in a folder of a split and that of line {outside} "
            "in none; add a column split"
        )
    return tops


def read_json_lines(path):
    """(names of the columns, [(line number, {name: value})]), an object a line."""
    rows = []
    for number, line in enumerate(text_of(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            cells = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise CliperaseError(
                f"data {str(path)!r}, line {number} is not JSON ({reason_of(error)}); mend it"
            ) from None
        if not isinstance(cells, dict):
            raise CliperaseError(f"data {str(path)!r}, line {number} is not an object {{…}}; write one a line")
        rows.append((number, cells))
    names = list(dict.fromkeys(name for _, cells in rows for name in cells))
    return names, [(number, {name: cells.get(name) for name in names}) for number, cells in rows]


def read_csv(path):
    """The same of a CSV: a header, and fields that are separated by commas, semicolons, tabs or bars."""
    text = text_of(path)
    first = text.split("\n", 1)[0]
    mark = max(",;\t|", key=lambda one: len(next(csv.reader([first], delimiter=one), [])))
    reader, rows = csv.reader(io.StringIO(text, newline=""), delimiter=mark, strict=True), []
    try:
        names = [name.strip() for name in next(reader, [])]
        for fields in filter(None, reader):
            if len(fields) != len(names):
                raise csv.Error(f"{len(fields)} fields, and the header has {len(names)}")
            rows.append((reader.line_num, dict(zip(names, fields, strict=True))))
    except csv.Error as error:
        raise CliperaseError(
            f"data {str(path)!r}, line {reader.line_num}: {reason_of(error)}; put a field with {mark!r} or quotes in "
            'quotes, and write quotes in it twice, ""'
        ) from None
    if len(set(names)) < len(names):
        raise CliperaseError(f"data {str(path)!r} has two columns of one name in {', '.join(names)}; rename one")
    return names, rows
