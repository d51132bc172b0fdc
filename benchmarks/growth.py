"""What grows with the number of rows: seconds and memory from a thousand rows to a million, a process for each.

    python -m benchmarks.growth                                   # ten to fifteen minutes on two free cores
    python -m benchmarks.growth --rows 1000 10000 --images 1000   # a look

The pictures have 16 pixels a side, so that what is measured is the rows and not their decoding. Memory is the peak
above what a process held when it had imported all and begun.
"""

import argparse
import io
import multiprocessing
import os
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from PIL import Image

from benchmarks.gpu_report import markdown
from cliperase.data.pairs import PairSet, number_texts
from cliperase.data.row_groups import parquet_set
from cliperase.data.rules import forget_mask
from cliperase.data.shards import Stream, load_forget, shards_of
from cliperase.files import whole_file
from cliperase.loop import Loop
from cliperase.memory import peak_megabytes, reset_peak
from cliperase.methods.fine_tune import FineTune
from cliperase.metrics.scores import retrieval_recall
from cliperase.models.compact import COMPACT
from cliperase.models.framing import Resized
from cliperase.models.openclip import create_model
from cliperase.settings import TrainSettings
from cliperase.training import PairTraining

SIDE, DRAWN = 16, 64  # pixels, and pictures that the rows take in turn
A_FILE, A_GROUP, A_TAR = 100_000, 1000, 10_000  # rows at most
EVERY = 1000  # rows, one of which is to be forgotten
RULE, FRAMING, LANES = {"concept": "apple"}, Resized((SIDE, SIDE)), 2
WIDTH, CAPTIONS = 64, 5  # of embeddings, and of each image
STEPS, BEFORE, OF_STEPS = 30, 5, 10_000  # that are timed, before them, and the size of the set
COLUMNS = ["measured", "rows", "seconds", "memory_mb", "waiting_percent"]
PAGE = """# Growth

`python -m benchmarks.growth` wrote this page. {about}.
Columns: rows of the data; of retrieval, images.

{table}

- Pictures have {side} pixels a side, and a row in {every:,} is to be forgotten. Memory is the peak beyond that of the
  process when it began. It should not grow with the rows; memory that the allocator keeps for later is part of it.
- Waiting is the share of a training step of the compact CLIP in which it waits for data. Steps and decoding have the
  same cores here. The goal is at most 5 %.
- Retrieval scores every image against every caption, in blocks. Its time grows with the product of both numbers.
"""


def pictures():
    rng = np.random.default_rng(0)
    for _ in range(DRAWN):
        encoded = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(encoded, "JPEG")
        yield encoded.getvalue()


def caption(number):
    return f"{'an apple' if number % EVERY == 0 else 'a pear'}, number {number}"


def write_parquet(folder, rows):
    """Files of the schema; the rows of validation are few."""
    files, folder = [{"bytes": one, "path": None} for one in pictures()], Path(folder)
    folder.mkdir()
    starts = range(0, rows, A_FILE)
    names = {f"train-{i:05d}-of-{len(starts):05d}": range(start, min(start + A_FILE, rows))
             for i, start in enumerate(starts)}  # fmt: skip
    for name, numbers in (names | {"validation": range(2)}).items():
        table = {"image": [files[number % DRAWN] for number in numbers],
                 "captions": [[caption(number)] for number in numbers]}  # fmt: skip
        group = min(A_GROUP, rows // 10)
        pq.write_table(pa.table(table), folder / f"{name}.parquet", row_group_size=group, use_dictionary=False)


def write_tars(folder, rows):
    """Ten shards or more, and two that do not count. Beyond ten shards of `A_TAR` they are links to these."""
    files, folder, each = list(pictures()), Path(folder), min(A_TAR, rows // 10)
    folder.mkdir()
    for shard in range(rows // each + 2):
        path = folder / f"{shard:05d}.tar"
        if shard >= 10:
            os.link(folder / f"{shard % 10:05d}.tar", path)
            continue
        with tarfile.open(path, "w") as tar:
            for number in range(shard * each, shard * each + each):
                for suffix, content in (("jpg", files[number % DRAWN]), ("txt", caption(number).encode())):
                    about = tarfile.TarInfo(f"{number:09d}.{suffix}")
                    about.size = len(content)
                    tar.addfile(about, io.BytesIO(content))


def source_of(folder):
    return parquet_set(folder) or folder


def settings(batch):
    return TrainSettings(retain_batch=batch, lanes=LANES, learning_rate=1e-5, steps=STEPS + BEFORE)


def opening(folder):
    return len(shards_of(source_of(folder), "train"))


def finding(folder):
    """One pass for what is to be forgotten."""
    return len(load_forget(source_of(folder), RULE, FRAMING))


def epoch(folder):
    stream = Stream(source_of(folder), RULE, FRAMING, settings(64))
    while min(number for number, *_ in stream.tell()) < 1:
        stream.rows(0, 0, None)


def mask(rows):
    """The mask of a rule over the captions of a set in memory."""
    texts, text_ids = number_texts([[caption(number)] for number in range(rows)])
    pairs = PairSet(torch.zeros(rows, 1), texts, text_ids, None, [], [], [])
    return lambda: int(forget_mask(pairs, RULE).sum())


def retrieval(images):
    """Images × captions, both ways, every one of them a query."""
    torch.manual_seed(0)
    image, text = (F.normalize(torch.randn(count, WIDTH), dim=1) for count in (images, CAPTIONS * images))
    owner, queries = torch.arange(CAPTIONS * images) // CAPTIONS, torch.ones(images, dtype=torch.bool)
    return lambda: retrieval_recall(image, text, owner, queries)


def waiting(folder):
    """Percent of the time of a step of the compact CLIP in which it waits for its rows."""
    model = create_model(COMPACT, seed=0)
    stream = Stream(source_of(folder), RULE, model.framing, settings(64))
    loop, waited, rows = Loop(PairTraining(model, FineTune(), settings(64), stream)), [], stream.rows

    def timed(*asked):
        begun = time.perf_counter()
        found = rows(*asked)
        waited.append(time.perf_counter() - begun)
        return found

    stream.rows = timed
    for step in range(BEFORE):
        loop.step(step)
    begun = time.perf_counter()
    for step in range(BEFORE, BEFORE + STEPS):
        loop.step(step)
    return 100 * sum(waited[BEFORE:]) / (time.perf_counter() - begun)


def measured(work, subject, prepared=False):
    """(seconds, MB, what `work` gave) of `work(subject)`, or of what that returned."""
    work = work(subject) if prepared else lambda work=work: work(subject)
    reset_peak()
    held, begun = peak_megabytes(), time.perf_counter()
    found = work()
    return time.perf_counter() - begun, peak_megabytes() - held, found


def plan(rows, images, scratch):
    """(what is measured, its size, the function, its arguments) of everything, smallest first. What has no name
    makes the data."""
    for count in rows:
        folders = {"parquet": scratch / f"parquet-{count}", "shards": scratch / f"shards-{count}"}
        for kind, write in (("parquet", write_parquet), ("shards", write_tars)):
            yield None, count, write, (folders[kind], count)
            for name, work in (("open", opening), ("find what to forget", finding), ("one epoch", epoch)):
                yield f"{kind}: {name}", count, measured, (work, folders[kind])
            if count == OF_STEPS:
                yield f"{kind}: waiting for data", count, measured, (waiting, folders[kind])
        yield "in memory: mask of a rule", count, measured, (mask, count, True)
    for count in images:
        yield f"retrieval, {CAPTIONS} captions an image", count, measured, (retrieval, count, True)


def page(table):
    """A Markdown page with a line for each measurement, seconds and MB for each number of rows."""
    sizes = sorted(set(table["rows"]))
    lines = []
    for name, found in table.groupby("measured", sort=False):
        cells = {}
        for one in found.itertuples():
            told = f"{one.waiting_percent:.1f} %" if one.waiting_percent >= 0 else f"{one.seconds:.3g} s"
            cells[one.rows] = f"{told}, {one.memory_mb:.0f} MB"
        lines.append([name, *(cells.get(size, "") for size in sizes)])
    text = markdown(pd.DataFrame(lines, columns=["measured", *(f"{size:,}" for size in sizes)]))
    machine = f"On {os.cpu_count()} cores, {torch.get_num_threads()} threads, torch {torch.__version__}"
    return PAGE.format(about=machine, table=text, side=SIDE, every=EVERY)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10**3, 10**4, 10**5, 10**6], help="powers of ten")
    parser.add_argument("--images", type=int, nargs="+", default=[10**3, 10**4, 10**5], help="of retrieval")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    given, rows = parser.parse_args(), []
    with (
        tempfile.TemporaryDirectory() as scratch,
        multiprocessing.get_context("fork").Pool(1, maxtasksperchild=1) as pool,  # imports take seconds, so only once
    ):
        for name, count, function, arguments in plan(given.rows, given.images, Path(scratch)):
            found = pool.apply(function, arguments)
            if name:
                seconds, memory, share = found if "waiting" in name else (*found[:2], float("nan"))
                rows.append((name, count, seconds, memory, share))
                told = f"{share:.1f} % of the time" if share >= 0 else f"{seconds:.3g} s"
                print(f"{name}, {count:,}: {told}, {memory:.0f} MB", flush=True)
    table = pd.DataFrame(rows, columns=COLUMNS)
    with whole_file(given.output / "growth.csv") as partial:
        table.to_csv(partial, index=False, float_format="%.4g")
    with whole_file(given.output / "growth.md") as partial:
        partial.write_text(page(table), encoding="utf-8")


if __name__ == "__main__":
    main()
