"""Peak memory and rows per second of one epoch over a folder of shards: it should not grow with their number.

    python benchmarks/stream_memory.py <folder of tar files> --size 224 --lanes 2

`--copies 10` measures the same shards again, each ten times in the folder (as links), in a process of its own.
"""

import argparse
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path

from cliperase.data.shards import Stream
from cliperase.models.framing import Resized
from cliperase.settings import TrainSettings

NOTHING = {"caption_pattern": r"\bno caption says this\b"}


def one_epoch(folder, size, lanes):
    """(rows, seconds, peak MB) of reading until every lane is in its second epoch."""
    stream, rows, start = (
        Stream(folder, NOTHING, Resized((size, size)), TrainSettings(retain_batch=8 * lanes, lanes=lanes)),
        0,
        time.perf_counter(),
    )
    while min(epoch for epoch, *_ in stream.tell()) < 1:
        rows += len(stream.rows(0, 0, None)[1])
    return rows, time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10  # of Linux


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--lanes", type=int, default=2)
    parser.add_argument("--copies", type=int, default=10)
    arguments = parser.parse_args()
    shards = sorted(arguments.folder.glob("*.tar"))
    with (
        tempfile.TemporaryDirectory() as links,
        multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool,
    ):
        for copy in range(arguments.copies):
            for shard in shards:
                (Path(links) / f"{copy:03d}-{shard.name}").symlink_to(shard.resolve())
        for folder in (arguments.folder, Path(links)):
            count = len(list(folder.glob("*.tar")))
            rows, seconds, peak = pool.apply(one_epoch, (folder, arguments.size, arguments.lanes))
            print(f"{count} shards: {rows} rows, {rows / seconds:.0f} a second, peak {peak:.0f} MB", flush=True)


if __name__ == "__main__":
    main()
