"""The tidy results table, one row per number, and its summaries."""

from pathlib import Path

import numpy as np
import pandas as pd

from cliperase.errors import CliperaseError
from cliperase.files import whole_file
from cliperase.memory import peak_megabytes

COLUMNS = [
    "profile", "experiment", "dataset", "model", "method", "concept", "seed", "split", "metric", "value", "unit",
    "provenance", "seconds", "peak_mb",
]  # fmt: skip
KEY = ["profile", "experiment", "dataset", "model", "method", "concept", "seed", "split", "metric"]
PERCENT = ("accuracy", "r", "rate", "score", "parameters", "budget", "purity", "relevance")
UNITS = {
    **dict.fromkeys(PERCENT, "%"),
    "cosine": "1",
    "step": "steps",
    "images": "images",
}  # by the last word of a metric's name
REFERENCES = ("original", "retrain")  # rows that are models of their own, not made by unlearning
STAND_IN = "stand-in"  # of a rehearsal: models with random weights, made-up data
PROVENANCES = ("icons", "real-data", "paper-data", STAND_IN)
REHEARSAL = "rehearsal"  # the folder that a rehearsal stands in; elsewhere its numbers are not read


def rows_of(about, metrics, seconds=0.0, units=None):
    """Tidy rows for one run's `metrics` {name: value}. `about` holds the other columns but the last two.

    `units`: {name: unit}; by default the names say them, see `unit_of`.
    """
    peak = peak_megabytes()
    units = units or {name: unit_of(name) for name in metrics}
    return [
        {**about, "metric": name, "value": value, "unit": units[name], "seconds": seconds, "peak_mb": peak}
        for name, value in metrics.items()
    ]


def unit_of(metric):
    """By the last word of its name: `forget_matching_accuracy@16` is an accuracy, `…_r@10` a recall."""
    return UNITS[metric.split("@")[0].rsplit("_", 1)[-1]]


def write_table(table, path):
    """Write a CSV whole or not at all, with enough digits to read back what was measured."""
    with whole_file(path) as partial:
        table.to_csv(partial, index=False, float_format="%.6g", lineterminator="\n")


def write_arrays(arrays, path):
    """Write an npz whole or not at all; the same arrays give the same bytes (numpy dates members 1980)."""
    with whole_file(path) as partial, open(partial, "wb") as file:
        np.savez_compressed(file, **dict(sorted(arrays.items())))


def read_results(path):
    """The results table, checked: columns, known provenance, and one value per key."""
    try:
        table = pd.read_csv(path, dtype={"concept": str, "seed": str}, keep_default_na=False)
    except (OSError, ValueError) as error:  # absent, empty, or no table
        raise CliperaseError(f"results {path} cannot be read ({error}); run `dvc repro`") from None
    return check_results(table, path)


def check_results(table, path):
    """The same table, if it is one of results; `path` says in an error where it is.

    Numbers of a rehearsal stand in no table with others, and in no folder but its own.
    """
    if list(table.columns) != COLUMNS:
        raise CliperaseError(f"results {path} has columns {list(table.columns)}; expected {COLUMNS}")
    unknown = set(table.provenance) - set(PROVENANCES)
    if unknown:
        raise CliperaseError(f"results {path}: provenance {sorted(unknown)[0]!r}; one of {PROVENANCES}")
    if STAND_IN in set(table.provenance):
        if set(table.provenance) != {STAND_IN}:
            raise CliperaseError(f"results {path} mix a rehearsal's numbers with others; delete the table")
        if REHEARSAL not in Path(path).absolute().parts:
            raise CliperaseError(
                f"results {path} are a rehearsal's, of models with random weights; delete them: they belong into its "
                f"own folder, {REHEARSAL!r}"
            )
    double = table[table.duplicated(KEY)]
    if len(double):
        raise CliperaseError(f"results {path}: two values for {dict(double.iloc[0][KEY])}; collect each part once")
    return table


def collect(folder, names, output):
    """Join the part tables `<name>.csv` of `folder` into one, sorted by key. A missing or unknown part is an error."""
    found = {part.stem for part in Path(folder).glob("*.csv")}
    missing, foreign = set(names) - found, found - set(names)
    if missing:
        raise CliperaseError(f"part table {Path(folder) / min(missing)}.csv is missing; run `dvc repro`")
    if foreign:
        raise CliperaseError(f"part table {Path(folder) / min(foreign)}.csv is of no experiment here; delete it")
    tables = [read_results(Path(folder) / f"{name}.csv") for name in names]
    table = pd.concat(tables, ignore_index=True).sort_values(KEY, kind="stable")
    check_results(table, output)
    write_table(table[COLUMNS], output)


def mean_interval(values):
    """(mean, half-width of the 95 % t-interval) of independent runs; half-width nan for one."""
    values = np.asarray(values, dtype=float)
    if len(values) < 2:
        return float(values.mean()), float("nan")
    from scipy.stats import t  # only reports need scipy

    half = t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean()), float(half)
