"""What is in a tar file of samples, as webdataset and img2dataset write it, and whether it is whole."""

import re
import tarfile

from cliperase.errors import CliperaseError

PICTURES, CAPTION = ("jpg", "jpeg", "png", "webp"), "txt"  # suffixes of the files of a sample
END = 1024  # empty bytes
MOST_BYTES = 2**28  # of a file in a shard; a tar of two kilobytes can claim to hold a file of forty gigabytes
ABOUT_THE_SHARD = r"__[^/]*__($|/)"  # names that webdataset reserves for its own notes


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
    """(key, suffix) of a file in a shard."""
    key, _, suffix = name.rpartition(".")
    return key, suffix.lower()


def is_sample(member):
    """Whether a file belongs to a sample: hidden ones, and those that say something of the shard, do not."""
    base = member.name.rsplit("/", 1)[-1]
    return member.isfile() and "." in base[1:] and base[0] != "." and not re.match(ABOUT_THE_SHARD, member.name)


def is_complete(sample):
    return CAPTION in sample and any(suffix in sample for suffix in PICTURES)


def check_order(shard):
    """The files of each sample follow one another; where they do not, a reader would find halves of samples only."""
    seen, last = set(), None
    with tarfile.open(shard, "r:") as tar:
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
    with tarfile.open(shard, "r:") as tar:
        for member in tar:
            tar.members = []  # else it keeps all of them
            if member.size > MOST_BYTES:
                raise tarfile.ReadError(f"{member.name} has {member.size} bytes, more than {MOST_BYTES}")
            if is_sample(member):
                yield member.name, tar.extractfile(member).read()
        tar.fileobj.seek(tar.offset)
        while rest := tar.fileobj.read(2**20):
            if any(rest):
                raise tarfile.ReadError(f"it is damaged at byte {tar.offset}")


def check_end(shard):
    """Refuse a shard that does not end in two empty blocks: it is cut off, or compressed.

    tarfile does not notice a file that was cut between two members.
    """
    with open(shard, "rb") as file:
        file.seek(max(0, shard.stat().st_size - END))
        if file.read() != bytes(END):
            raise tarfile.ReadError("it is cut off, or compressed")


def unreadable(shard, reason):
    return CliperaseError(f"shard {shard} cannot be read to its end ({reason}); fetch it again or take it away")
