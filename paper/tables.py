"""Results in, tables out: what notebooks read, show and publish. Relative paths are those of the repository."""

import math
import os
from pathlib import Path

import pandas as pd
from IPython.display import Markdown, display

from paper.params import read_profile
from paper.results import REFERENCES, read_results
from paper.statistics import bounds, compare, wilson

WHOLE_BUDGET = 100  # percent
COMPARE = "CLIPERASE_COMPARE"  # set by `make test`: notebooks that are checked must not change what they are to match


def find_root():
    """The repository's folder, from wherever a notebook runs."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "dvc.yaml").is_file():
            return folder
    raise FileNotFoundError(f"no dvc.yaml in {here} or above; open the notebook inside the repository")


def in_root(path):
    """The path in the repository, whatever the working folder."""
    return Path(path) if Path(path).is_absolute() else find_root() / path


def settings_of(experiment, profile="icons"):
    """The section of an experiment in a profile."""
    return read_profile(profile).experiments[experiment]


def experiment_rows(results, experiment, split="test"):
    """Rows of one experiment on one split."""
    return rows_in(read_results(in_root(results)), experiment, split)


def rows_in(table, experiment, split):
    """The same of a table that was read."""
    return table[(table.experiment == experiment) & (table.split == split)]


def renamed_rows(results, experiment, names):
    """Test rows of the metrics `names` {metric: new name} only."""
    rows = experiment_rows(results, experiment)
    rows = rows[rows.metric.isin(list(names))]
    return rows.assign(metric=rows.metric.map(names))


def with_intervals(summary, percent, cosines=(), by=("method",), worst=False):
    """The summary as strings `mean (low to high)` to read: one decimal for percent, two for cosines.

    `worst`: after each percent its worst run, as `worst forget` of `forget_accuracy`.
    """
    table = summary[[*by, "runs"]].copy()
    for metric in (*percent, *cosines):
        digits = 1 if metric in percent else 2
        numbers = summary[bounds(metric)].itertuples(index=False)
        table[metric] = [between(*three, digits=digits) for three in numbers]
        if worst and metric in percent:
            table[f"worst {metric.split('_')[0]}"] = summary[f"{metric} worst"].map("{:.1f}".format)
    return table


def intervals_by_concept(summary, metrics, order, columns):
    """A line for each accuracy of `metrics` and each method, `mean (low to high)` in percent for each concept.

    `summary`: of `summarise_each`, indexed by method and concept. `columns`: {concept: name of its column}.
    """
    lines = []
    for metric in metrics:
        for method in order:
            numbers = summary.loc[method].loc[list(columns), bounds(metric)].itertuples(index=False)
            cells = [between(*three, digits=1) for three in numbers]
            line = {"method": method, "accuracy, %": metric.removesuffix("_accuracy")}
            lines.append(line | dict(zip(columns.values(), cells, strict=True)))
    return pd.DataFrame(lines)


def between(mean, low, high, digits):
    """`mean (low to high)`; where there is no interval the mean alone, of a metric that was not measured a dash."""
    if math.isnan(mean):
        return "–"
    return f"{mean:.{digits}f}" + ("" if math.isnan(low) else f" ({low:.{digits}f} to {high:.{digits}f})")


def spread(mean, half, digits):
    """`mean ± half-width` of a difference; a single run shows no interval, a metric that was not measured a dash."""
    if math.isnan(mean):
        return "–"
    return f"{mean:.{digits}f}" + ("" if math.isnan(half) else f" ± {half:.{digits}f}")


def with_wilson(rate, count):
    """`rate (low to high)`, one decimal; see `wilson`."""
    low, high = wilson(rate, count)
    return f"{rate:.1f} ({low:.1f} to {high:.1f})"


def extent(values):
    """`mean (lowest to highest run)` with one decimal and the unit percent."""
    return f"{values.mean():.1f} % ({values.min():.1f} to {values.max():.1f} by run)"


def with_ranges(summary, rows, directions, columns):
    """A line per method and direction, each number `mean (lowest to highest run)` with one decimal.

    For two or three units, where a t-interval says little: with two it has one degree of freedom and spans the
    scale. `directions`: {part of a metric's name: text}; `columns`: {column: metric with {} for the direction}.
    """
    extent = rows.groupby(["method", "metric"]).value.agg(["min", "max"])
    lines = []
    for record in summary.to_dict("records"):
        for direction, text in directions.items():
            line = {"method": record["method"], "direction": text, "runs": record["runs"]}
            for column, template in columns.items():
                metric = template.format(direction)
                low, high = extent.loc[record["method"], metric]
                line[column] = f"{record[metric]:.1f} ({low:.1f} to {high:.1f})"
            lines.append(line)
    return pd.DataFrame(lines)


def publish_ranges(results, experiment, summary, directions, columns, folder):
    """Publish `with_ranges` of an experiment, with the runs whose budget ran out, and the summary without its
    intervals: concepts are too few for one. Returns the readable table."""
    table = read_results(in_root(results))
    rows, validation = (rows_in(table, experiment, split) for split in ("test", "validation"))
    (provenance,) = rows.provenance.unique()
    budget = out_of_budget(validation)
    table = with_ranges(summary, rows, directions, columns).join(budget, on="method").fillna({budget.name: "–"})
    table = table.assign(provenance=provenance)
    numbers = summary.drop(columns=[column for column in summary if column.endswith((" low", " high"))])
    publish_table(table, experiment, folder, numbers=numbers.assign(provenance=provenance))
    return table


def per_concept(rows, order, metrics):
    """Mean over seeds of each concept, one decimal: columns `<name>, <concept>` for `metrics` {metric: name}."""
    table = pd.DataFrame({"method": order})
    for metric, name in metrics.items():
        wide = rows[rows.metric == metric].pivot_table(index="method", columns="concept", values="value")
        for concept in wide:
            table[f"{name}, {concept}"] = [f"{value:.1f}" for value in wide[concept].reindex(order)]
    return table


def mark_best(table, summary, column):
    """Bold the lowest `column` of all rows but the references."""
    row = summary[~summary.method.isin(REFERENCES)][column].idxmin()
    table.loc[row, column] = f"**{table.loc[row, column]}**"
    return table


def costs(results, order):
    """Seconds and peak memory of one run alone, where they were measured, the share of weights that changed, and how
    many runs kept their last checkpoint: their budget ran out."""
    table = read_results(in_root(results))
    alone, validation = (rows_in(table, experiment, "validation") for experiment in ("efficiency", "main"))
    alone = alone.drop_duplicates("method").set_index("method")
    changed = validation[validation.metric == "changed_parameters"].groupby("method").value.mean()
    columns = [changed.rename("changed parameters, %"), out_of_budget(validation)]
    table = pd.concat([alone[["seconds", "peak_mb"]], *columns], axis="columns")
    table = table.loc[[method for method in order if method in table.index]].rename_axis("method")
    if table["budget ran out"].isna().all():
        return table.drop(columns="budget ran out")
    return table.fillna({"budget ran out": "–"})


def compared(rows, order, cost, ours="CLIPErase"):
    """`statistics.compare` of the average gaps of `ours` and of all rows but the references.

    `cost`: the table of `costs`; how often a row ran out of its budget stands beside its difference.
    """
    others = [name for name in order if name not in (*REFERENCES, ours)]
    table = compare(rows, ours, "average_gap", others)
    if "budget ran out" in cost:
        table["budget ran out"] = table.against.map(cost["budget ran out"])
    return table.assign(**{"p (Holm)": table["p (Holm)"].map("{:.3g}".format)})


def out_of_budget(validation):
    """Of each row that takes steps, in how many runs the last checkpoint was the best: text, by `method`. Empty where
    the runs are older than this question."""
    used = validation[validation.metric == "used_budget"].groupby("method").value
    ran_out = used.agg(lambda runs: f"{(runs >= WHOLE_BUDGET).sum()} of {len(runs)}").astype(object)
    return ran_out.rename("budget ran out")


def show(table):
    """Display a table as Markdown, the same text on every run, so that nbval can compare it."""
    display(Markdown(markdown(table)))


def markdown(table):
    """A Markdown table: floats with two decimals, gaps as a dash, text as it stands (tabulate would reparse it)."""
    text = table.copy()
    for column in text.select_dtypes("float"):
        text[column] = ["–" if math.isnan(value) else f"{value:.2f}" for value in text[column]]
    right = ["right" if table[column].dtype.kind in "fi" else "left" for column in table]
    return text.to_markdown(index=False, disable_numparse=True, colalign=right)


def publish_table(table, name, folder, numbers=None):
    """Write `<folder>/<name>.md`, to be read, and `.csv`: the table's `numbers`, where it shows them as text.

    Where `COMPARE` is set nothing is written, and what is there must be the same.
    """
    numbers = table if numbers is None else numbers
    texts = {"md": markdown(table) + "\n", "csv": numbers.to_csv(index=False, float_format="%.6g", lineterminator="\n")}
    for kind, text in texts.items():
        path = in_root(folder) / f"{name}.{kind}"
        if not os.environ.get(COMPARE):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        elif not path.is_file() or path.read_text() != text:
            raise AssertionError(f"{path} is not what this notebook publishes; run `dvc repro`")
