"""The paper's published cells beside ours, and the rules that judge them."""

import math

import pandas as pd

from cliperase.settings import read_params
from paper.results import REFERENCES
from paper.statistics import change_from_original, paired_change, summarise
from paper.tables import experiment_rows, in_root

MATCH_POINTS = 2.0  # |ours - paper| up to which a cell counts as a match
MOVED_POINTS = 1.0  # change against the baseline from which a direction counts
LEAST_SHARE = 0.5  # of the paper's change, from which ours is the same direction
NOTHING_LEFT = 1.0  # percent: a match of two such numbers is weak, because most rows of most experiments reach it
UNAFFECTED_POINTS = 5.0  # change up to which other concepts count as unaffected
RIVALS = ("CLIPErase", "GradDiff")  # the rows whose order is compared where the paper gives nothing before unlearning
VERDICTS = (
    "match", "weak match", "same direction", "differs", "not distinguishable", "not known to us", "not run",
)  # fmt: skip
EXPECTED = {  # what a statement of the ledger says of its metric
    "falls sharply as the ratio grows": "falls",
    "forgetting gets worse as the ratio grows": "rises",  # accuracy on what should be forgotten
    "stays near the original": "stays",
    "others unaffected": "stays",
    "the fruit is forgotten": "falls",
    "the company is kept": "stays",
    "image and text points move apart": "falls",
    "other clusters stay": "stays",
}
OF_STATEMENT = {True: "same direction", False: "differs", None: "not distinguishable"}  # see `bears_out`


def all_cells():
    """Every published cell."""
    return read_params(in_root("figures/paper_reference.yaml"))["cells"]


def paper_cells(experiment):
    """The published cells of one experiment."""
    return [cell for cell in all_cells() if cell["experiment"] == experiment]


def paper_values(experiment):
    """{(method, metric): value} of one experiment, None where the paper prints a dash; statements are left out."""
    return {(cell["method"], cell["metric"]): cell["value"] for cell in paper_cells(experiment) if "value" in cell}


def few_rows(summary, experiment):
    """The rows for a small figure, in the order of `summary`: the references, those that the paper has in the
    experiment, and the one with the smallest average gap."""
    methods = summary[~summary.method.isin(REFERENCES)]
    named = {
        *REFERENCES,
        *(method for method, _ in paper_values(experiment)),
        methods.method[methods.average_gap.idxmin()],
    }
    return [method for method in summary.method if method in named]


def verdict(ours, paper, our_baseline, paper_baseline):
    """`match`, `weak match` (nothing is left in both), `same direction` (the change against the baseline has the sign
    of the paper's and at least half its size), `differs`, `not run`.

    Numbers that are close because one has risen and the other fallen are no match.
    """
    if ours is None or math.isnan(ours):
        return "not run"
    our_change, paper_change = ours - our_baseline, paper - paper_baseline
    moved = abs(our_change) > MOVED_POINTS and abs(paper_change) > MOVED_POINTS
    if abs(ours - paper) <= MATCH_POINTS and not (moved and our_change * paper_change < 0):
        return "weak match" if max(ours, paper) <= NOTHING_LEFT else "match"
    return "same direction" if moved and our_change / paper_change >= LEAST_SHARE else "differs"


def baselines(cell, cells, values):
    """Baseline for a cell's direction: (ours, the paper's), nan if there is none.

    The value before unlearning; where the paper does not give it, that of the other of RIVALS, so that the
    direction is the order of the two.
    """
    method, metric = cell["method"], cell["metric"]
    if "baseline" in cell:
        return values.get("original", math.nan), cell["baseline"]
    others = [
        other["value"]
        for other in cells
        if {method, other["method"]} == set(RIVALS) and other["metric"] == metric and other.get("value") is not None
    ]
    if not others:
        return math.nan, math.nan
    (rival,) = set(RIVALS) - {method}
    return values.get(rival, math.nan), others[0]


def beside_paper(summary, experiment, provenance, concept=None):
    """Every published cell of the experiment with ours: difference, provenance of ours, verdict.

    `concept`: the cells of this one, for an experiment whose cells name theirs.
    """
    values = summary.set_index("method")
    cells = [cell for cell in paper_cells(experiment) if cell.get("concept") == concept]
    lines = []
    for cell in cells:
        if cell.get("value") is None:
            continue
        method, metric = cell["method"], cell["metric"]
        measured = values[metric] if metric in values else pd.Series(dtype=float)
        ours = measured.get(method)
        said = verdict(ours, cell["value"], *baselines(cell, cells, measured))
        line = {"method": method, "metric": metric, "paper": cell["value"], "ours": None, "difference": None}
        line |= {"provenance of ours": "–", "verdict": said}
        if said != "not run":
            line |= {"ours": ours, "difference": ours - cell["value"], "provenance of ours": provenance}
        lines.append(line)
    return pd.DataFrame(lines)


def bears_out(mean, half, expected, margin=MATCH_POINTS):
    """Does a change with its interval bear out that a metric `falls`, `rises` or `stays`? True, False or None.

    A direction: the whole interval lies on its side of zero, or on the other. `stays`: the whole interval lies
    within ± `margin` points, or wholly outside. None: the interval allows both, or there is a single run.
    """
    low, high = mean - half, mean + half
    if expected == "falls":
        low, high = -high, -low
    yes, no = (low > 0, high < 0)
    if expected == "stays":
        yes, no = (-margin <= low and high <= margin, low > margin or high < -margin)
    return True if yes else False if no else None


def outcome(mean, half, margin=MATCH_POINTS, words=("holds", "falls", "rises")):
    """What a change from the original with its interval says: one of `words`, or that it cannot be told."""
    stays, falls, rises = words
    return {True: stays, False: falls if mean < 0 else rises, None: "cannot be told"}[
        bears_out(mean, half, "stays", margin)
    ]


def ratio_of(concept):
    """Percent of `"10 % of classes"`."""
    return int(concept.split()[0])


def judge_ratios(rows):
    """The ledger's statements on ratios beside ours, each judged by `bears_out`.

    *Falls* and *rises*: the change from the smallest to the largest ratio, paired by seed. *Stays*: the
    difference from the original on the same classes at the largest ratio.
    """
    first, last = (pick(rows.concept.unique(), key=ratio_of) for pick in (min, max))
    lines = []
    for cell in (cell for cell in paper_cells("ratios") if "statement" in cell):
        method, metric, expected = cell["method"], cell["metric"], EXPECTED[cell["statement"]]
        start = ("original", last) if expected == "stays" else (method, first)
        chosen = [dict(zip(("method", "concept"), pair, strict=True)) for pair in (start, (method, last))]
        mean, half = paired_change(rows, metric, *chosen)
        against = "the original" if expected == "stays" else f"{ratio_of(first)} %"
        ours = f"{ratio_of(last)} % less {against}: {mean:+.1f} ± {half:.1f} points"
        judged = {"ours": ours, "change": "–", "verdict": OF_STATEMENT[bears_out(mean, half, expected)]}
        lines.append({"method": method, "metric": metric, "paper": cell["statement"], **judged})
    return pd.DataFrame(lines)


def retention_by_concept(rows, methods, columns):
    """A line for each method: its retention less the original's for each concept, and the `outcome` at the last.

    `columns`: {concept: name of its column}.
    """
    lines = []
    for method in methods:
        changes = [change_from_original(rows, "retain_accuracy", method, concept) for concept in columns]
        cells = [f"{mean:+.1f} ± {half:.1f}" for mean, half in changes]
        line = {"method": method, **dict(zip(columns.values(), cells, strict=True))}
        lines.append(line | {"retention": outcome(*changes[-1])})
    return pd.DataFrame(lines)


def judge_statements(experiment, rows):
    """The ledger's statements on one concept beside ours, judged by `bears_out`.

    The change of the metric from the original to the row, paired by seed.
    """
    lines = []
    for cell in (cell for cell in paper_cells(experiment) if "statement" in cell):
        method, concept, metric = cell["method"], cell["concept"], cell["metric"]
        mean, half = change_from_original(rows, metric, method, concept)
        lines.append(
            {
                "method": method,
                "concept": concept,
                "metric": metric,
                "paper": cell["statement"],
                "ours": change_text(mean, half, metric),
                "change": "–",
                "verdict": OF_STATEMENT[bears_out(mean, half, EXPECTED[cell["statement"]], UNAFFECTED_POINTS)],
            }
        )
    return pd.DataFrame(lines)


def change_text(mean, half, metric):
    digits, unit = (2, "") if metric.endswith("cosine") else (1, " points")
    return f"{mean:+.{digits}f}" + ("" if math.isnan(half) else f" ± {half:.{digits}f}") + unit


def ledger(results):
    """Every published cell with ours, as text. What was not run has no number, dashes of the paper stay dashes.

    `results`: {name: path of a results table}. Each has three columns: the value, the change from its original, and the
    verdict.
    """
    columns = {name: judged_experiments(path) for name, path in results.items()}
    lines = []
    for cell in all_cells():
        key, value = (cell["method"], cell["metric"], cell.get("concept", "–")), cell.get("value")
        line = {"experiment": cell["experiment"], "method": key[0], "concept": key[2], "metric": key[1]}
        line |= {"paper": cell.get("statement", text_of(value)), "paper, change": change_of(cell)}
        for name, judged in columns.items():
            found = judged.get(cell["experiment"], {}).get(key, {"ours": "–", "change": "–", "verdict": "not run"})
            if "value" in cell and value is None and found["ours"] != "–":
                found = {**found, "verdict": "not known to us"}
            line |= {name: found["ours"], f"{name}, change": found["change"], f"{name}: verdict": found["verdict"]}
        lines.append(line)
    return pd.DataFrame(lines)


def change_of(cell):
    """What the paper's value is above its value before unlearning, where it gives both."""
    known = cell.get("value") is not None and "baseline" in cell
    return f"{cell['value'] - cell['baseline']:+.2f}" if known else "–"


def judged_experiments(path):
    """{experiment: see `judged_cells`} of a results table."""
    found = {}
    for experiment in dict.fromkeys(cell["experiment"] for cell in all_cells()):
        rows = experiment_rows(path, experiment, split="generated" if experiment == "diffusion" else "test")
        if len(rows):
            found[experiment] = judged_cells(experiment, rows)
    return found


def judged_cells(experiment, rows):
    """{(method, metric, concept or –): {ours, change, verdict}} of an experiment that was run."""
    parts = [judge_values(experiment, rows)]
    if experiment == "ratios":
        parts.append(judge_ratios(rows).assign(concept="–"))
    elif any("statement" in cell for cell in paper_cells(experiment)):
        parts.append(judge_statements(experiment, rows))
    parts += [judge_values(experiment, group, concept) for concept, group in rows.groupby("concept")]
    lines = pd.concat(parts)
    return {(line["method"], line["metric"], line["concept"]): line for line in lines.to_dict("records")}


def judge_values(experiment, rows, concept=None):
    """The cells with a number, or a dash in the place of one: `ours` as text, change, verdict, concept."""
    cells = [cell for cell in paper_cells(experiment) if cell.get("concept") == concept and "statement" not in cell]
    summary = summarise(rows, ["method"], sorted({cell["metric"] for cell in cells})).set_index("method")
    judged = beside_paper(summary.reset_index(), experiment, "", concept)
    verdicts = {(line.method, line.metric): line.verdict for line in judged.itertuples()}
    lines = []
    for cell in cells:
        method, metric = cell["method"], cell["metric"]
        ours = summary[metric].get(method, math.nan)
        moved = ours - summary[metric].get("original", math.nan)
        lines.append(
            {
                "method": method,
                "metric": metric,
                "concept": concept or "–",
                "ours": text_of(ours),
                "change": "–" if math.isnan(moved) or method == "original" else f"{moved:+.2f}",
                "verdict": verdicts.get((method, metric), "not run"),
            }
        )
    return pd.DataFrame(lines)


def text_of(value):
    return "–" if value is None or math.isnan(value) else f"{value:.2f}"
