"""What is in a tar file of samples, as webdataset and img2dataset write it, and whether it is whole."""

import gzip
import json
import re
import tarfile
from contextlib import suppress
from functools import cache
from itertools import takewhile
from pathlib import Path

from braceexpand import braceexpand

from cliperase.data import folders
from cliperase.data.naming import CAPTIONS as COLUMNS
from cliperase.data.naming import usual
from cliperase.data.templates import PROMPT
from cliperase.errors import CliperaseError

SHARDS, ZIPPED = (".tar", ".tar.gz", ".tgz"), (".gz", ".tgz")  # names of tar files
PICTURES = tuple(suffix[1:] for suffix in folders.PICTURES)  # suffixes of a sample's files
CAPTIONS = ("txt", "caption", "json", "cls")
END = 1024  # empty bytes
MOST_BYTES = 2**28  # of a file in a shard; a tar of two kilobytes can claim to hold a file of forty gigabytes
BRACES = r"\{[^{}]*(,|\.\.)[^{}]*\}"
ABOUT_THE_SHARD = r"__[^/]*__($|/)"  # names that webdataset reserves for its own notes


def shards_in(source):
    """The tar files below a folder, or that a pattern with braces names, sorted paths."""
    if not is_pattern(source):
        found = Path(source).rglob("*")
        return sorted(one for one in found if one.name.lower().endswith(SHARDS) and one.name[0] != ".")
    named = sorted({Path(one) for one in braceexpand(str(source))})
    absent = [one for one in named if not one.is_file()]
    if absent:
        raise CliperaseError(
            f"{len(absent)} of the {len(named)} shards of {str(source)!r} are not there, the first is {absent[0]}; "
            "correct the braces"
        )
    return named


def is_pattern(source):
    """Whether a source is shards as webdataset writes them, `train/{00000..00012}.tar`, and no file of that name."""
    return bool(re.search(BRACES, str(source))) and str(source).lower().endswith(SHARDS) and not Path(source).exists()


def above(source):
    """The folder of all shards of a source."""
    parts = Path(source).parts
    return Path(*takewhile(lambda part: "{" not in part, parts)) if is_pattern(source) else source


def samples_of(shards):
    """The samples of shards, in order: each a dict of bytes by suffix, with `__key__` and `__url__`."""
    for shard in shards:
        try:
            check_end(shard)
            looked = False
            for sample in grouped(members_of(shard), shard):
                if not looked and not is_complete(sample):
                    check_order(shard)
                    looked = True
                yield sample
        except (OSError, tarfile.TarError, EOFError, ValueError) as error:
            reason = next((one for one in error.args if isinstance(one, str)), type(error).__name__)
            raise unreadable(shard, reason.split(" @ ")[0]) from None


def grouped(members, shard):
    """The files of one key that follow one another, as a sample. The key is the name up to its last full stop: names
    such as `photo.0001.jpg` are common, and webdataset, which takes the first one, makes one sample of them all."""
    sample = {}
    for name, data in members:
        key, suffix = split_name(name)
        if sample and sample["__key__"] != key:
            yield sample
            sample = {}
        if suffix in sample:
            raise ValueError(f"it holds {name} twice")
        sample |= {"__key__": key, "__url__": str(shard), suffix: data}
    if sample:
        yield sample


def split_name(name):
    """(key, suffix) of a file in a shard. webdataset calls a picture `.input.jpg` where there are several."""
    key, _, suffix = name.rpartition(".")
    return key.removesuffix(".input"), suffix.lower()


def is_sample(member):
    """Whether a file belongs to a sample: hidden ones, and those that say something of the shard, do not."""
    base = member.name.rsplit("/", 1)[-1]
    return member.isfile() and "." in base[1:] and base[0] != "." and not re.match(ABOUT_THE_SHARD, member.name)


def is_complete(sample):
    return all(any(suffix in sample for suffix in wanted) for wanted in (CAPTIONS, PICTURES))


def caption_in(sample):
    """The caption of a sample: KeyError where there is none, ValueError where its `.json` is none or has several.

    A `.json` without a caption says other things, as beside the classes of timm's ImageNet.
    """
    suffix = next((one for one in CAPTIONS if one in sample), None)
    text = sample[suffix].decode("utf-8-sig")
    if suffix == "cls":
        name = class_named(text.strip(), Path(sample["__url__"]).parent)
        return PROMPT.format(name.replace("_", " ")) if name else name
    if suffix != "json":
        return text
    told = json.loads(text)
    told = told[usual(told, COLUMNS)[0]] if isinstance(told, dict) and usual(told, COLUMNS) else None
    if told is None:
        return caption_in({name: file for name, file in sample.items() if name != suffix})
    if isinstance(told, list) and len(told) == 1:
        told = told[0]
    if not isinstance(told, str):
        raise ValueError(suffix)
    return told


def class_named(text, folder):
    """The name of a class in `.cls`; of a number the name that stands in `classnames.txt`, KeyError without one."""
    if not text.isdecimal():
        return text
    try:
        return class_names(folder)[int(text)]
    except IndexError:
        raise KeyError("cls") from None  # a class of which nobody knows the name


@cache
def class_names(folder):
    """The lines of `classnames.txt` in a folder of shards, or in the one above, as CLIP_benchmark's data sets have it;
    none where there is no such file."""
    for place in (folder, folder.parent):
        with suppress(FileNotFoundError):
            return [line.strip() for line in (place / "classnames.txt").read_text("utf-8-sig").splitlines()]
    return []


def check_order(shard):
    """The files of each sample follow one another; where they do not, a reader would find halves of samples only."""
    seen, last = set(), None
    with opened(shard) as file, tarfile.open(fileobj=file, mode="r:") as tar:
        for member in filter(is_sample, tar):
            key = split_name(member.name)[0]
            if key != last and key in seen:
                raise CliperaseError(
                    f"shard {shard}: the files of sample {key!r} do not follow one another; write the shard anew, its "
                    "files sorted by name"
                )
            seen.add(key)
            last = key


def members_of(shard):
    """(name, bytes) of the files of a shard, in order.

    tarfile silently takes a damaged header for the end. So check the rest: a sound file has only empty blocks there.
    """
    with opened(shard) as file, tarfile.open(fileobj=file, mode="r:") as tar:
        for member in tar:
            tar.members = []  # else it keeps all of them  # pyrefly: ignore[missing-attribute] – Python's hints lack it
            if member.size > MOST_BYTES:
                raise tarfile.ReadError(f"{member.name} has {member.size} bytes, more than {MOST_BYTES}")
            if is_sample(member):
                # pyrefly: ignore[missing-attribute] – no sample is a folder, which alone gives None
                yield member.name, tar.extractfile(member).read()
        file.seek(tar.offset)
        count = 0
        while rest := file.read(2**20):
            count += len(rest)
            if any(rest):
                raise tarfile.ReadError(f"it is damaged at byte {tar.offset}")
        if count < END:
            raise tarfile.ReadError("it is cut off")


def opened(shard):
    """The tar file of a shard, which may be compressed as its name says."""
    return gzip.open(shard) if shard.suffix.lower() in ZIPPED else open(shard, "rb")


def check_end(shard):
    """Refuse a shard that does not end in two empty blocks: it is cut off, or compressed though its name says no.

    tarfile does not notice a file that was cut between two members. A compressed one shows its end when it is read.
    """
    if shard.suffix.lower() in ZIPPED:
        return
    with open(shard, "rb") as file:
        file.seek(max(0, shard.stat().st_size - END))
        if file.read() != bytes(END):
            raise tarfile.ReadError("it is cut off, or compressed")


def unreadable(shard, reason):
    return CliperaseError(f"shard {shard} cannot be read to its end ({reason}); fetch it again or take it away")
