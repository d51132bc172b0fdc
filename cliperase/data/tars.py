"""What is in a tar file of samples, as webdataset and img2dataset write it, and whether it is whole."""

import re
import tarfile

from webdataset.tariterators import group_by_keys

from cliperase.errors import CliperaseError

END = 1024  # empty bytes
ABOUT_THE_SHARD = r"__[^/]*__($|/)"  # names that webdataset keeps for what is no sample


def samples_of(shards):
    """The samples of shards, in order: each a dict of bytes by suffix, with `__key__` and `__url__`."""
    for shard in shards:
        try:
            check_end(shard)
            yield from group_by_keys(members_of(shard))
        except (OSError, tarfile.TarError, EOFError, ValueError) as error:
            reason = next((one for one in error.args if isinstance(one, str)), type(error).__name__)
            raise unreadable(shard, reason.split(" @ ")[0]) from None


def members_of(shard):
    """The files of a shard, in order, as webdataset groups them to samples.

    tarfile takes a damaged header for the end, without a word; behind the true end there is nothing but empty blocks.
    """
    with tarfile.open(shard, "r:") as tar:
        for member in tar:
            tar.members = []  # else it keeps all of them
            if member.isfile() and not re.match(ABOUT_THE_SHARD, member.name):
                yield {"fname": member.name, "data": tar.extractfile(member).read(), "__url__": str(shard)}
        tar.fileobj.seek(tar.offset)
        while rest := tar.fileobj.read(2**20):
            if any(rest):
                raise tarfile.ReadError(f"it is damaged at byte {tar.offset}")


def check_end(shard):
    """tarfile takes a file that is cut between two members for a whole one; a whole one ends in two empty blocks.

    They also tell a plain tar from a compressed one, which is not read.
    """
    with open(shard, "rb") as file:
        file.seek(max(0, shard.stat().st_size - END))
        if file.read() != bytes(END):
            raise tarfile.ReadError("it is cut off, or compressed")


def unreadable(shard, reason):
    return CliperaseError(f"shard {shard} cannot be read to its end ({reason}); fetch it again or take it away")
