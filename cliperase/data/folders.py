"""Pictures that lie as files in a folder: beside texts of the same name, or in folders of classes; and what readers of
tables and JSON share.

Each reader gives {split: rows}, the rows as `Listed`. Nothing is decoded and nothing is written.
"""

import os
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath

from cliperase.data.columns import is_unicode
from cliperase.data.limits import log
from cliperase.errors import CliperaseError, reason_of

PICTURES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".avif", ".bmp", ".gif", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".jp2", ".tga"),
)
TEXTS = (".txt", ".caption")
OF_SYSTEMS = ("thumbs.db", "desktop.ini", "__macosx")  # what Windows and macOS leave in folders
SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}  # names of splits, as `datasets` reads them from files and folders


@dataclass
class Listed:
    """Rows of pictures: the path of each one's file, the cells of each column, and where the row stands."""

    files: list = field(default_factory=list)
    columns: dict = field(default_factory=dict)
    places: list = field(default_factory=list)

    def add(self, file, cells, place):
        """A row; `cells`: {column: value}, the same columns in every row."""
        self.files.append(file)
        self.places.append(place)
        for name, value in cells.items():
            self.columns.setdefault(name, []).append(value)


def split_named(name):
    """The split that a name means, or None."""
    return SPLITS.get(str(name).strip().lower())


def below(folder):
    """(the files below a folder, its folders), sorted paths relative to it, without hidden ones; links are followed."""

    def stop(error):
        raise CliperaseError(f"{error.filename} cannot be read ({error.strerror}); mend its rights") from None

    files, folders, seen = [], [], {}
    for root, inner, names in os.walk(folder, onerror=stop, followlinks=True):
        there = Path(root).relative_to(folder)
        first = seen.setdefault(os.path.realpath(root), there)
        if first != there:
            raise CliperaseError(f"{folder}: {there} and {first} are one folder by a link; take the link out")
        inner[:] = sorted(name for name in inner if not is_hidden(name))
        folders += [there / name for name in inner]
        files += [there / name for name in names if not is_hidden(name)]
    for path in (*files, *folders):
        if not is_unicode(str(path)):
            raise CliperaseError(f"data {str(folder)!r}: the name {os.fsencode(path)!r} is not UTF-8; rename it")
    return sorted(files), sorted(folders)


def is_hidden(name):
    return name.startswith(".") or name.lower() in OF_SYSTEMS


def of_kind(files, suffixes):
    return [file for file in files if file.suffix.lower() in suffixes]


def read_pictures(folder, files, folders):
    """{split: `Listed`} of pictures beside texts of the same name, or in folders of classes."""
    pictures = of_kind(files, PICTURES)
    split_of = split_by_folder(folder, pictures)
    texts = {file.with_suffix(""): file for file in of_kind(files, TEXTS)}
    own = {texts.get(file.with_suffix("")) for file in pictures} - {None}
    rows = {}
    for file in pictures:
        split, inner = split_of[file]
        if own:
            cells = {"caption": lines_of(folder, texts.get(file.with_suffix("")))}
        else:
            cells = {"label": class_of(folder, file, inner)}
        rows.setdefault(split, Listed()).add(folder / file, cells, file.as_posix())
    read, within = {*pictures, *own}, {parent for file in pictures for parent in file.parents}
    pass_over(folder, "no pictures and no texts of one", [one for one in files if one not in read])
    pass_over(folder, "folders without pictures", [one for one in folders if one not in within])
    return rows


def pass_over(folder, what, paths):
    """Say which paths of a folder are not read, and why."""
    if paths:
        said = (str(folder), paths[0].as_posix(), f" and {len(paths) - 1} more" * (len(paths) > 1), what)
        log.warning("data %r: %s%s passed over: %s", *said)


def split_by_folder(folder, pictures):
    """{picture: (its split, its path below that)}: all are in folders that are named as splits, or none is."""
    named = [split_named(file.parts[0]) if len(file.parts) > 1 else None for file in pictures]
    if not any(named):
        return {file: ("train", file) for file in pictures}
    if None in named:
        inside = pictures[[bool(one) for one in named].index(True)].parts[0]
        raise CliperaseError(
            f"data {str(folder)!r}: {pictures[named.index(None)].as_posix()} is not in a folder of a split and "
            f"{inside}/ is one; put all pictures in train/, validation/ and test/, or rename {inside}/"
        )
    names = {file.parts[0] for file in pictures}
    twice = [split for split, count in Counter(map(split_named, names)).items() if count > 1]
    if twice:
        both = " and ".join(sorted(name for name in names if split_named(name) == twice[0]))
        raise CliperaseError(f"data {str(folder)!r}: {both} are one split, {twice[0]}; keep one of them")
    return {file: (split, file.relative_to(file.parts[0])) for file, split in zip(pictures, named, strict=True)}


def class_of(folder, file, inner):
    """The class of a picture: the name of its folder, which lies directly in the data set or in its split."""
    if len(inner.parts) == 2:
        return inner.parts[0]
    if len(inner.parts) == 1:
        raise CliperaseError(
            f"data {str(folder)!r}: {file.as_posix()} has neither a caption nor a class; put it in a folder with the "
            f"name of its class, or write a {file.stem}.txt beside it"
        )
    raise CliperaseError(
        f"data {str(folder)!r}: {file.as_posix()} lies {len(inner.parts) - 1} folders deep; classes are one folder "
        "deep, so name the folder that holds the classes, or move the pictures up"
    )


def lines_of(folder, text):
    """The captions in a text file, one a line; none where there is no file, or where it is not UTF-8."""
    if text is None:
        return []
    try:
        return [line for line in (folder / text).read_text("utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        log.warning("data %r: %s cannot be read (%s)", str(folder), text.as_posix(), reason_of(error))
        return []


def named_alike(pictures):
    """{name of a file: the pictures of that name}."""
    found = defaultdict(list)
    for picture in pictures:
        found[picture.name].append(picture)
    return found


def the_one(by_name, wanted, said):
    """The picture that is meant by the path `wanted`: the one of that name, or whose path ends so. A missing one stays,
    and is counted as broken."""
    there = [one for one in by_name[wanted.name] if one.parts[-len(wanted.parts) :] == wanted.parts]
    if len(there) > 1:
        both = f"{there[0].as_posix()} and of {there[1].as_posix()}"
        raise CliperaseError(f"{said}: {wanted.as_posix()!r} is the name of {both}; name the folder of one")
    return there[0] if there else wanted


def joined(folder, files, read):
    """{split: `Listed`} of several files, each of splits of its own. `read`: {split: `Listed`} of each file."""
    found = {}
    for rows_of in read:
        for split, rows in rows_of.items():
            if found.setdefault(split, rows) is not rows:
                both = " and ".join(file.as_posix() for file in files[:2])
                raise CliperaseError(
                    f"data {str(folder)!r}: several files, {both}, have rows of the split {split!r}; name one of them"
                )
    return found


def local_file(folder, cell, place):
    """The absolute path of the picture that a cell names; None where it is blank."""
    if not isinstance(cell, str | None):
        raise CliperaseError(f"{place}: the picture is {cell!r}; give the path of its file")
    if not cell or not cell.strip():
        return None
    if "\0" in cell or not is_unicode(cell):
        raise CliperaseError(f"{place}: {cell!r} is no path; correct it")
    if "://" in cell:
        raise CliperaseError(f"{place}: {cell!r} is an address and nothing is downloaded; fetch the pictures first")
    path = folder / cell.strip()
    if "\\" in cell and not path.exists():  # written on Windows
        path = folder / PureWindowsPath(cell.strip()).as_posix()
    return Path(os.path.abspath(path))


def text_of(path):
    try:
        return path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise CliperaseError(
            f"data {str(path)!r} cannot be read ({reason_of(error)}); write it anew in UTF-8"
        ) from None
