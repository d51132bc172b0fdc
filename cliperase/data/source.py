"""Where rows come from: a data set that memory holds, or shards that are streamed. Callers need not know which."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from cliperase.data.pairs import PairSet, load_pairs
from cliperase.data.rules import forget_mask
from cliperase.data.shards import Stream, is_sharded, load_forget, load_shards
from cliperase.errors import CliperaseError


@dataclass(frozen=True)
class TrainingData:
    """What a run trains on. `rows()` counts both sets for the report."""

    forget: PairSet
    retain: PairSet | Stream
    rows: Callable


def load_split(source, split, rule, image_size, broken_percent=100.0):
    """(`PairSet`, forget mask (N,) bool) of a split that is measured; of shards as many samples may be broken."""
    if is_sharded(source):
        if rule is None:
            raise CliperaseError(f"shards in {source} are measured by a rule; give --forget CONCEPT or --rule '{{…}}'")
        return load_shards(source, split, rule, image_size, broken_percent)
    pairs = load_pairs(source, split)
    return pairs, torch.zeros(len(pairs), dtype=torch.bool) if rule is None else forget_mask(pairs, rule)


def load_training(source, rule, image_size, settings):
    """The `TrainingData` of a run; `settings` are its `TrainSettings`."""
    if is_sharded(source):
        forget = load_forget(source, rule, image_size, settings.broken_percent)
        retain = Stream(
            source, rule, image_size, settings.retain_batch, settings.seed, settings.lanes, settings.broken_percent
        )
        return TrainingData(
            forget, retain, lambda: {"forget": len(forget), "retain": "streamed", "broken": retain.broken()}
        )
    pairs = load_pairs(source, "train")
    mask = forget_mask(pairs, rule)
    forget, retain = pairs.select(mask), pairs.select(~mask)
    return TrainingData(forget, retain, lambda: {"forget": len(forget), "retain": len(retain)})
