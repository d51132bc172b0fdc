"""What a source of pairs is: parquet files of the schema, in a folder or on the hub, a folder of shards, or data in any
other layout that `brought` reads; and whether parquet files fit into memory, or are streamed as shards are.

Only this module asks. What it gives has the same form for all.
"""

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeGuard

import torch
from torch import Tensor

from cliperase.data.limits import BROKEN_PERCENT, log
from cliperase.data.naming import IN_MEMORY
from cliperase.data.pairs import PairSet, hashes_of, load_pairs
from cliperase.data.prompts import asked_with
from cliperase.data.rules import Rule, forget_mask, near_misses, of_no_row
from cliperase.data.tables import is_schema, read_table, splits_of
from cliperase.data.templates import USUAL
from cliperase.errors import CliperaseError
from cliperase.memory import total_bytes

if TYPE_CHECKING:
    from cliperase.data.brought import Brought
    from cliperase.data.row_groups import ParquetSet
    from cliperase.data.shards import Stream
    from cliperase.models.framing import Framing
    from cliperase.settings import TrainSettings

MOST_MEMORY = 1 / 3  # of all there is, for the files and pictures of a split: a run holds most of them twice
Data = str | Path | Iterable[Any] | torch.utils.data.Dataset[Any]  # docs/data.md has the layouts


@dataclass(frozen=True)
class TrainingRows:
    """The rows that a run learns from: `forget`, held in memory, and `retain`, held in memory or streamed.

    `pairs` and `mask` (N,) bool: all rows, and which of them are to be forgotten; None where they are streamed.
    """

    forget: PairSet
    retain: "PairSet | Stream"
    pairs: PairSet | None = None
    mask: torch.Tensor | None = None

    @classmethod
    def of(cls, pairs: PairSet, mask: Tensor) -> Self:
        """Those of a set in memory."""
        return cls(pairs.select(mask), pairs.select(~mask), pairs, mask)

    @property
    def streamed(self) -> bool:
        return self.pairs is None

    @property
    def rows(self) -> dict[str, int | str]:
        """The number of rows of each kind, for the report. All processes must call it together."""
        if not isinstance(self.retain, PairSet):
            return {"forget": len(self.forget), "retain": "streamed", "broken": self.retain.broken()}
        return {"forget": len(self.forget), "retain": len(self.retain)}


def load_split(
    source: Data,
    split: str,
    rule: Mapping[str, Any] | None,
    framing: "Framing | None",
    broken_percent: float = BROKEN_PERCENT,
    templates: tuple[str, ...] = USUAL,
) -> tuple[PairSet, Tensor]:
    """The N pairs, and (N,) bool: the rows that `rule` forgets, of a split that is measured.

    `rule`: None forgets nothing; shards need one, because they are held in memory by what it matches, as do parquet
    files that do not fit into memory. `framing`: that of a model (`models.framing`), which brings the pictures of
    shards, and those of several sizes, to one size. `broken_percent` of the rows may be unreadable. `templates`: what
    classes are asked with.
    """
    opened = open_source(source, templates, split=split, framing=framing)
    return opened.load_split(split, rule, framing, broken_percent)


def load_run(
    source: Data,
    rule: Mapping[str, Any],
    framing: "Framing",
    settings: "TrainSettings",
    templates: tuple[str, ...] = USUAL,
) -> tuple[PairSet, Tensor, TrainingRows]:
    """The V validation pairs, (V,) bool: their forget rows, and the training rows of a source, which is opened once."""
    opened = open_source(source, templates=templates, split="train", framing=framing, stream=settings.stream)
    validation = opened.load_split("validation", rule, framing, settings.broken_percent)
    return *validation, opened.load_training(rule, framing, settings, None)


def load_training(
    source: Data,
    rule: Mapping[str, Any],
    framing: "Framing",
    settings: "TrainSettings",
    most_forget: int | None = None,
) -> TrainingRows:
    """The training rows under `rule`. Of what is streamed at most `most_forget` rows are held, by
    default `shards.MOST_FORGET`."""
    opened = open_source(source, split="train", framing=framing, stream=settings.stream)
    return opened.load_training(rule, framing, settings, most_forget)


def is_sharded(source: object) -> TypeGuard[str | Path]:
    """Whether `source` is a folder of shards."""
    from cliperase.data.tars import is_pattern, shards_in

    if not isinstance(source, str | Path):
        return False
    return is_pattern(source) or (Path(source).is_dir() and bool(shards_in(source)))


def name_of(source: Data) -> str:
    """What a report calls the data: their path, or their name on the hub; rows in Python have none."""
    return str(source) if isinstance(source, str | Path) else IN_MEMORY


def measured_split(source: Data) -> str:
    """The split that a result is measured on: `test`, or `validation` where there is no other."""
    return "test" if "test" in open_source(source).splits() else "validation"


def open_source(
    source: Data,
    templates: tuple[str, ...] = USUAL,
    *,
    split: str | None = None,
    framing: "Framing | None" = None,
    stream: bool | None = None,
) -> "Shards | Tables":
    """What can be read of a `source`; of a generator once only. `templates`: what its classes are asked with.

    `stream`: whether parquet files are read as shards; None: where they are `too_large`, which `split` and `framing`
    help to tell.
    """
    if isinstance(source, str) and not source.strip():  # as a path it would be the working folder
        raise CliperaseError("data has no name; give a folder, a file or a name on the hub")
    if is_sharded(source):
        return Shards(source, templates)
    if stream is not False and isinstance(source, str | Path):
        from cliperase.data.row_groups import parquet_set

        rows = parquet_set(source)
        if rows and (stream or too_large(rows, split, framing)):
            rows.check_splits()
            return Shards(rows, templates)
    if is_schema(source):
        opened = Tables(source, templates)
    else:
        from cliperase.data.brought import bring

        opened = Tables(bring(source), templates)
    if stream:
        raise CliperaseError(
            f"stream is true, and data {str(opened.source)!r} are neither shards nor whole parquet files; take it out"
        )
    return opened


def too_large(rows: "ParquetSet", split: str | None, framing: "Framing | None") -> bool:
    """Whether a split, or the largest, takes more than `MOST_MEMORY`; it is said."""
    try:
        needed, total = rows.bytes_in_memory(split, framing), total_bytes()
    except Exception:  # damaged in one of pyarrow's many ways: who reads it into memory says so
        return False
    if needed <= MOST_MEMORY * total:
        return False
    sizes = (needed / 2**30, total / 2**30)
    log.warning(
        "data %r would take %.1f GB, more than a third of the memory of %.1f GB, and are streamed", str(rows), *sizes
    )
    return True


@dataclass(frozen=True)
class Tables:
    """Rows in memory. `source`: a folder of parquet files of the schema, a name on the hub, or a `brought.Brought`."""

    source: "str | Path | Brought"
    templates: tuple[str, ...] = USUAL

    def splits(self) -> list[str]:
        return splits_of(self.source)

    def load_split(
        self,
        split: str,
        rule: Mapping[str, Any] | None,
        framing: "Framing | None",
        broken_percent: float,
        required: bool = True,
    ) -> tuple[PairSet, Tensor]:
        """As of `load_split`; where no row is `required`, the rule may match none."""
        pairs = load_pairs(self.source, split, broken_percent, framing)
        asked = asked_with(pairs, self.templates, f"data {str(self.source)!r}")
        if rule is None:
            return asked, torch.zeros(len(pairs), dtype=torch.bool)
        known = self.known(rule) if required else Rule.of(rule)
        try:  # the rows of a list may all be training rows; then what is measured here is retention
            mask = forget_mask(pairs, known, required=required and known.kind != "rows")
        except CliperaseError as error:
            raise CliperaseError(f"split {split!r}: {error}") from None
        if required and len(known.values) > 1 and (lost := of_no_row(pairs, known)):  # of one, the mask has rows
            log.warning("split %r: no row is of %s, so that nothing there tells whether it is forgotten", split, lost)
        return asked, mask

    def load_training(
        self, rule: Mapping[str, Any], framing: "Framing", settings: "TrainSettings", most_forget: int | None
    ) -> TrainingRows:
        known = self.known(rule)
        pairs = load_pairs(self.source, "train", settings.broken_percent, framing)
        mask = forget_mask(pairs, known)
        for note in near_misses(pairs, known):
            log.warning("%s: %s", known, note)
        return TrainingRows.of(asked_with(pairs, self.templates, f"data {str(self.source)!r}"), mask)

    def known(self, rule: Mapping[str, Any]) -> Rule:
        """The rule; rows that it lists stand in some split."""
        known = Rule.of(rule)
        unknown = set(known.values) if known.kind == "rows" else set()
        for split in splits_of(self.source) if unknown else ():
            with contextlib.suppress(CliperaseError):  # a split that the hub has not
                unknown -= hashes_of(read_table(self.source, split), not isinstance(self.source, str | Path))
        if unknown:
            first = next(one for one in known.values if one in unknown)
            raise CliperaseError(
                f"{len(unknown)} of the {len(set(known.values))} row hashes of the forget rule are of no row in "
                f"{self.source}, the first is {first!r}; correct them or take them out"
            )
        return known


@dataclass(frozen=True)
class Shards:
    """What is streamed: tar files of samples in the folder `source`, or the row groups of parquet files."""

    source: "str | Path | ParquetSet"
    templates: tuple[str, ...] = USUAL

    def splits(self) -> list[str]:
        from cliperase.data.shards import parts_of

        return list(parts_of(self.source)) if isinstance(self.source, str | Path) else self.source.splits()

    def load_split(
        self, split: str, rule: Mapping[str, Any] | None, framing: "Framing | None", broken_percent: float
    ) -> tuple[PairSet, Tensor]:
        if rule is None:
            raise CliperaseError(
                f"data {str(self.source)!r} are streamed, and so measured by a rule; give --forget CONCEPT or --rule "
                "'{…}'"
            )
        from cliperase.data.shards import load_shards  # webdataset is imported where there are shards only

        pairs, forgotten = load_shards(self.source, split, rule, framing, broken_percent)
        return asked_with(pairs, self.templates, f"data {str(self.source)!r}"), forgotten

    def load_training(
        self, rule: Mapping[str, Any], framing: "Framing", settings: "TrainSettings", most_forget: int | None
    ) -> TrainingRows:
        from cliperase.data.shards import MOST_FORGET, Stream, load_forget

        broken = settings.broken_percent
        forget = load_forget(self.source, rule, framing, broken, most_forget or MOST_FORGET)
        asked = asked_with(forget, self.templates, f"data {str(self.source)!r}")
        return TrainingRows(asked, Stream(self.source, rule, framing, settings, self.templates))
