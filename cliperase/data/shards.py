"""Data sets too large for memory: shards of image-text pairs, streamed and never unpacked.

Such a data set is a folder of tar files as img2dataset writes them for webdataset: `00000.tar` and so on, in each a
picture (`jpg`, `png`, `webp`) and a caption (`txt`, `caption`, `json`, or the name of a class in `cls`) under one key,
next to each other. Names of files or folders may say the splits. Else the last shard by name is the test split, the one
before it validation, and training reads all others. The row groups of parquet files are shards, too.
"""

import random
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from webdataset.filters import shuffle

from cliperase.data import tars
from cliperase.data.folders import split_named
from cliperase.data.limits import BROKEN_PERCENT, log
from cliperase.data.pairs import PairSet, is_captioned, number_texts, one_row_a_picture, row_hash
from cliperase.data.pictures import PLAIN, UnreadablePicture, pixels_of, read_picture
from cliperase.data.prompts import reworded
from cliperase.data.row_groups import ParquetSet, RowGroup
from cliperase.data.rules import Wanted, told
from cliperase.data.templates import USUAL, unusual
from cliperase.errors import CliperaseError
from cliperase.parallel import gather_objects, processes, share

WAITING = 500  # samples of a lane, still encoded, that the next one is drawn from
MOST_FORGET, MOST_RETAIN = 5000, 2000  # rows that are held in memory, for training to forget and to validate
FEWEST = 1000  # samples; below that number the allowed count of broken ones stays the same


def shards_of(source, split):
    """The shards of one split of a folder, paths, or of a `ParquetSet`, `RowGroup`s."""
    of_rows = isinstance(source, ParquetSet)
    parts = source.splits() if of_rows else parts_of(source, split)
    if split not in parts:
        raise CliperaseError(f"split {split!r} of the shards in {source} unknown; choose one of {', '.join(parts)}")
    return source.shards(split) if of_rows else parts[split]


def samples_of(shards):
    """The samples of shards, in order, see `tars.samples_of` and `RowGroup.samples`."""
    for shard in shards:
        yield from shard.samples() if isinstance(shard, RowGroup) else tars.samples_of([shard])


def parts_of(source, split=None):
    """{split: its shards, paths}. `split`: the one that is asked for, about which more is said."""
    names, folder = tars.shards_in(source), tars.above(source)
    named = [split_of(path.relative_to(folder)) for path in names]
    if any(named):
        return parts_by_name(folder, names, named, split)
    if len(names) < 3:
        raise CliperaseError(
            f"{folder} holds {len(names)} shards; give three at least: the last is for test, the one before to validate"
        )
    return {"train": names[:-2], "validation": names[-2:-1], "test": names[-1:]}


def split_of(path):
    """The split that a shard's name, or else that of its folder, has as a word, or None."""
    for part in reversed(path.parts):
        words = {split_named(word) for word in re.split(r"[\W\d_]+", part)} - {None}
        if len(words) == 1:
            return words.pop()
    return None


def parts_by_name(folder, names, named, split):
    """{split: shards} by their names; without one for validation, the last one for training is that."""
    if None in named:
        raise CliperaseError(
            f"{folder}: the name of shard {names[named.index(None)].relative_to(folder)} says no split, and those of "
            "others do; rename it, or take it away"
        )
    parts = {}
    for path, name in zip(names, named, strict=True):
        parts.setdefault(name, []).append(path)
    if "validation" not in parts and len(parts.get("train", ())) > 1:
        parts["validation"] = [parts["train"].pop()]
        if split == "validation":
            log.warning("%s has no validation split: %s is held out for it", folder, parts["validation"][0].name)
    return parts


class Decoder:
    """Decode samples to pictures of one size and count the unreadable ones. Too many of them are an error.

    `framing`: brings a picture to that size, as a model's `framing` does. `read`, `broken`: start values of the counts.
    """

    def __init__(self, framing, broken_percent, decoding=PLAIN, read=0, broken=0):
        self.framing, self.broken_percent, self.decoding = framing, broken_percent, decoding
        self.read, self.broken, self.first = read, broken, ""

    def captions(self, sample):
        """The captions of a sample; None, counted as broken, if there is none. Call it before `picture`."""
        self.read += 1
        try:
            captions = sample["__captions__"] if "__captions__" in sample else [tars.caption_in(sample)]
        except KeyError:
            return self.give_up(sample, "no caption")
        except UnicodeDecodeError:
            return self.give_up(sample, "a caption that is not UTF-8")
        except ValueError:
            return self.give_up(sample, "a .json that is none, or that has no single caption")
        return captions if is_captioned(captions) else self.give_up(sample, "a blank caption, or none")

    def picture(self, sample):
        """(3, *framing.size) uint8, or None, counted as broken."""
        try:
            return self.framing(pixels_of(read_picture(encoded_picture(sample), decoding=self.decoding)))
        except UnreadablePicture as error:
            return self.give_up(sample, f"no picture that can be decoded ({error})")

    def give_up(self, sample, has):
        self.broken += 1
        where = f"{Path(sample['__url__']).name}, key {sample['__key__']}: it has {has}"
        self.first = self.first or where
        if self.broken > self.broken_percent / 100 * max(self.read, FEWEST):
            raise CliperaseError(
                f"{self.broken} of {self.read} samples are broken, the last is {where}; mend them, or allow more than "
                f"broken_percent={self.broken_percent:g}"
            )

    def tell(self):
        """Say what was left out."""
        if self.broken:
            log.warning("%d of %d samples are left out as broken, the first is %s", self.broken, self.read, self.first)


def encoded_picture(sample):
    """The file of a sample's picture, bytes or a path."""
    for suffix in tars.PICTURES:
        if suffix in sample:
            return sample[suffix]
    raise UnreadablePicture("no picture")


def collect(shards, wanted, decoder, most_matching, most_others):
    """(`PairSet`, (N,) bool): the first samples that are `Wanted`, and the first that are not."""
    left, rows, near = {True: most_matching, False: most_others}, [], Counter()
    for sample in samples_of(shards):
        if not any(left.values()):
            break
        captions = decoder.captions(sample)
        if captions is None:
            continue
        matches = wanted.search(captions, sample.get("__label__"))
        if not matches:
            near.update(wanted.near(captions))
        if not left[matches]:
            continue
        picture = decoder.picture(sample)
        if picture is not None:
            left[matches] -= 1
            rows.append((picture, captions, matches, sample))
    decoder.tell()
    notes = wanted.near_classes() + ([told(near, decoder.read)] if near else [])
    if len({matches for _, _, matches, _ in rows}) < bool(most_matching) + bool(most_others):
        raise CliperaseError(
            f"{wanted} matches none or all of the rows in {shards[0]} to {shards[-1].name}; choose another rule or "
            f"give more data{''.join(f'; {note}' for note in notes)}"
        )
    if not most_others:
        notes += wanted.in_none([text for _, captions, _, _ in rows for text in captions]) if left[True] else []
        for note in notes:
            log.warning("%s: %s", wanted, note)
    return pair_set(rows, wanted.class_names)


def pair_set(rows, class_names):
    """(`PairSet`, (N,) bool: which rows match) of samples as rows (picture, captions, whether it matches, sample).

    Where there are no classes, samples of one picture and one caption each become one row with all their captions,
    which matches if one of them does.
    """
    images, captions, matches, samples = (list(column) for column in zip(*rows, strict=True))
    hashes = [row_hash(encoded_picture(sample)) for sample in samples]
    matching = {one for one, match in zip(hashes, matches, strict=True) if match}
    first = range(len(rows)) if class_names else one_row_a_picture(range(len(rows)), hashes, captions)
    texts, text_ids = number_texts([captions[row] for row in first])
    pairs = PairSet(
        images=torch.stack([images[row] for row in first]),
        texts=texts,
        text_ids=text_ids,
        labels=torch.tensor([samples[row]["__label__"] for row in first]) if class_names else None,
        class_names=class_names,
        row_hashes=[hashes[row] for row in first],
        sources=[f"{Path(samples[row]['__url__']).name}/{samples[row]['__key__']}" for row in first],
    )
    return pairs, torch.tensor([hashes[row] in matching for row in first])


def wanted_in(source, rule):
    """The rows of a folder of shards, or of a `ParquetSet`, that a rule forgets."""
    return Wanted(rule, source.class_names if isinstance(source, ParquetSet) else [])


def load_shards(source, split, rule, framing, broken_percent=BROKEN_PERCENT):
    """(`PairSet`, forget mask) of a measured split: at most `MOST_FORGET` and `MOST_RETAIN` rows."""
    decoder, wanted = Decoder(framing, broken_percent), wanted_in(source, rule)
    return collect(shards_of(source, split), wanted, decoder, MOST_FORGET, MOST_RETAIN)


def load_forget(source, rule, framing, broken_percent=BROKEN_PERCENT, most=MOST_FORGET):
    """The `PairSet` to forget: the first `most` matches in the training shards, read until there are so many."""
    decoder, wanted = Decoder(framing, broken_percent), wanted_in(source, rule)
    return collect(shards_of(source, "train"), wanted, decoder, most, 0)[0]


class Stream:
    """The rows to retain, a source of the training loop: every training sample that `rule` does not match.

    `lanes` readers share the shards: lane i reads every `lanes`-th of them from the i-th, in an order drawn anew each
    epoch, and gives an equal part of each batch. Processes share the lanes, so that a batch does not depend on how
    many processes there are. While a step is computed, threads decode the next one's pictures.
    """

    def __init__(self, source, rule, framing, settings, templates=USUAL):
        """`source`: a folder of shards, or a `ParquetSet`. `framing`: as in `Decoder`. `settings`: `TrainSettings`, of
        which batch, seed, lanes and limit are used. `templates`: of its classes."""
        self.shards, self.wanted, self.seed = shards_of(source, "train"), wanted_in(source, rule), settings.seed
        self.framing, self.broken_percent = framing, settings.broken_percent
        self.templates, batch_size, lanes = templates, settings.retain_batch, settings.lanes
        for held, what in ((len(self.shards) >= lanes, f"{len(self.shards)} training shards, one for each at least"),
                           (batch_size % lanes == 0, f"a retain_batch of {batch_size}, which they must divide"),
                           (lanes % processes() == 0, f"{processes()} processes, which must divide them")):  # fmt: skip
            if not held:
                raise CliperaseError(f"lanes is {lanes} with {what}; set lanes=… to another number")
        self.lanes = lanes
        self.numbers = range(lanes)[share(lanes)]  # of the lanes that this process reads
        self.each = batch_size // lanes
        self.pool, self.asked = ThreadPoolExecutor(len(self.numbers)), []
        self.seek(None)

    def fingerprint(self):
        """Equal for shards of equal names and sizes, and rows that are chosen and cut in the same way."""
        shards = [(one.name, one.size if isinstance(one, RowGroup) else one.stat().st_size) for one in self.shards]
        return repr([shards, self.wanted.rule, self.framing, PLAIN, *unusual(self.templates)])

    def seek(self, position):
        """Continue at a position that `tell` returned; None is the beginning."""
        for future in self.asked:
            future.exception()  # wait until no thread is reading
        self.position = [tuple(position[i]) if position else (0, 0, 0, 0) for i in self.numbers]
        self.readers = [self.read(number, *one) for number, one in zip(self.numbers, self.position, strict=True)]
        self.asked = []

    def tell(self):
        """Where each lane is: (epoch, samples read of it, samples read in all, broken ones of those).

        All processes ask together."""
        return [one for part in gather_objects(self.position) for one in part]

    def broken(self):
        """Samples left out so far, in all processes together."""
        return sum(broken for _, _, _, broken in self.tell())

    def read(self, number, epoch, skip, read, broken):
        """(picture, captions, position behind it) of one lane, without end."""
        decoder = Decoder(self.framing, self.broken_percent, read=read, broken=broken)
        while True:
            order = np.random.default_rng([self.seed, epoch]).permutation(len(self.shards))[number :: self.lanes]
            draws = random.Random(f"{self.seed} {epoch} {number}")
            samples = shuffle(WAITING, rng=draws)(samples_of([self.shards[i] for i in order]))
            found = False
            for count, sample in enumerate(islice(samples, skip, None), skip + 1):
                captions = decoder.captions(sample)
                if captions is None or self.wanted.search(captions, sample.get("__label__")):
                    continue
                picture = decoder.picture(sample)
                if picture is not None:
                    found = True
                    if self.templates != USUAL:
                        captions = reworded(captions, self.wanted.class_names[sample["__label__"]], self.templates)
                    yield picture, captions, (epoch, count, decoder.read, decoder.broken)
            if not found and not skip:
                raise CliperaseError(
                    f"lane {number} found no pair to retain in its {len(order)} of {len(self.shards)} shards; "
                    "choose another rule or give other shards"
                )
            epoch, skip = epoch + 1, 0

    def rows(self, step, column, transform):
        """(images of this process's share, all captions) of the next step; of several captions that of the `column`."""
        parts = [future.result() for future in self.asked or self.ask()]
        self.position = [part[-1][2] for part in parts]
        self.asked = self.ask()
        images = torch.stack([picture for part in parts for picture, _, _ in part])
        captions = gather_objects([own[column % len(own)] for part in parts for _, own, _ in part])
        return images, [caption for part in captions for caption in part]

    def ask(self):
        return [self.pool.submit(lambda reader: list(islice(reader, self.each)), reader) for reader in self.readers]
