"""Write README.md and docs/results.md: their templates, with what was measured in the place of each `{{mark}}`.

    python -m paper.readme

Every number comes from `metrics/<profile>/results.csv` or from an executed notebook; none is typed.
"""

import re
from functools import cache, partial
from pathlib import Path

import nbformat
import pandas as pd

from cliperase.errors import CliperaseError, end_in_one_line
from paper.benchmark import KINDS, leaderboard
from paper.power import PowerStudy
from paper.statistics import in_order, lead, runs_of, same_of, summarise, with_gap
from paper.tables import experiment_rows, markdown, spread
from paper.verdicts import PAPERS, WITHDRAWN

ROOT = Path(__file__).resolve().parent.parent
TEMPLATES = {"README.md": "paper/readme_template.md", "docs/results.md": "paper/results_template.md",
             "docs/leaderboard.md": "paper/leaderboard_template.md"}  # fmt: skip
DATA = {"icons": "pictograms (`icons`)", "cifar": "photographs (CIFAR-100)"}
SIDES = ["forget_accuracy", "retain_accuracy"]
OURS = "CLIPErase"
NO_NUMBER = "–"


def main():
    for page, text in pages().items():
        (ROOT / page).write_text(text, encoding="utf-8")


def pages():
    """{path: text} of the generated pages."""
    return {page: filled((ROOT / template).read_text(encoding="utf-8")) for page, template in TEMPLATES.items()}


def filled(template):
    """`template` with the text that `MARKS` makes in the place of each `{{mark}}`."""

    def text_of(mark):
        if mark[1] not in MARKS:
            raise CliperaseError(f"no text is made for the mark {mark[0]}; choose one of {', '.join(MARKS)}")
        return MARKS[mark[1]]()

    return re.sub(r"\{\{(.*?)\}\}", text_of, template)


def rows_of(profile, experiment, split="test"):
    return experiment_rows(ROOT / "metrics" / profile / "results.csv", experiment, split)


def runs(profile, experiment, split="test"):
    return runs_of(rows_of(profile, experiment, split))


def provenance(profile):
    (name,) = rows_of(profile, "main").provenance.unique()
    return name


def summary():
    """One line per profile: the accuracies before and after CLIPErase, and who does as well and keeps more."""
    lines = []
    for profile, data in DATA.items():
        table = runs(profile, "main")
        ours, means = table.loc[OURS], table.groupby("method").mean()
        better = means[(means.forget_accuracy <= 1) & (means.retain_accuracy > means.retain_accuracy[OURS])]
        before, after = means.loc["original"], means.loc[OURS]
        lines.append(
            {
                "data": data,
                "forgotten: before": f"{before.forget_accuracy:.1f}",
                "forgotten: after (worst run)": f"{after.forget_accuracy:.1f} ({ours.forget_accuracy.max():.1f})",
                "others: before": f"{before.retain_accuracy:.1f}",
                "others: after (worst run)": f"{after.retain_accuracy:.1f} ({ours.retain_accuracy.min():.1f})",
                "methods that forget and keep more": ", ".join(better.index.drop(["original", "retrain"], "ignore")),
                "provenance": provenance(profile),
            }
        )
    return markdown(pd.DataFrame(lines))


def main_table(profile):
    """The main table, as the executed notebook shows it."""
    folder = ROOT / "notebooks" / ("" if profile == "icons" else profile)
    shown = (output.get("data", {}).get("text/markdown", "") for output in outputs(folder / "main_results.ipynb"))
    table = next((text for text in shown if "worst retain" in text), None)
    if table is None:
        raise CliperaseError(f"{folder.name}/main_results.ipynb shows no table with `worst retain`; run `dvc repro`")
    return table.strip()


def targets(profile):
    """How many runs of each row meet the two targets, what they lose, and how the forgotten prompt moved."""
    table, rows = runs(profile, "main"), rows_of(profile, "main")
    cosines = table.unrelated_cosine.groupby("method").mean()
    lines = []
    ordered = in_order(summarise(with_gap(rows), ["method"], [*SIDES, "average_gap"]))
    for name in ordered.method.drop(0):  # the first is the original
        row, lost = table.loc[name], points_lost(table, name)
        forgot = row.forget_accuracy <= 1
        lines.append(
            {
                "method": name,
                "at most 1.5 points lost": f"{(forgot & (lost <= 1.5)).sum()} of {len(row)}",
                "at most 1 point lost": f"{(forgot & (lost <= 1)).sum()} of {len(row)}",
                "points lost, mean (worst)": f"{lost.mean():.2f} ({lost.max():.2f})",
                "CLIPErase minus this row (retain accuracy)": kept_more(table, name),
                "unrelated_cosine moved by": f"{cosines[name] - cosines['original']:+.2f}",
                "provenance": provenance(profile),
            }
        )
    return markdown(pd.DataFrame(lines))


def points_lost(table, name):
    """Points of retain accuracy that each run has less than the original of its concept."""
    return (same_of(table, "original").retain_accuracy - table.retain_accuracy).loc[name]


def kept_more(table, name):
    """Retain accuracy of CLIPErase less that of a row, paired by concept: mean ± 95 % interval."""
    if name in (OURS, "retrain"):
        return NO_NUMBER
    mean, half, _ = lead(table.loc[OURS].retain_accuracy, table.loc[name].retain_accuracy)
    return spread(mean, half, 2)


def ratios():
    """Several classes forgotten at once: forget / retain accuracy of the original, CLIPErase and the best other row."""
    lines = []
    for profile, data in DATA.items():
        table = runs(profile, "ratios").groupby(["method", "concept"]).mean()
        concepts = sorted(table.index.unique("concept"), key=lambda concept: int(concept.split()[0]))
        gaps = runs_of(with_gap(rows_of(profile, "ratios"))).average_gap
        best = gaps.groupby("method").mean().drop(["original", OURS]).idxmin()
        for name in ("original", OURS, best):
            cells = {concept: "{:.1f} / {:.1f}".format(*table.loc[(name, concept), SIDES]) for concept in concepts}
            lines.append({"data": data, "method": name, **cells, "provenance": provenance(profile)})
    return markdown(pd.DataFrame(lines))


def flickr():
    """Image retrieval on Flickr8k, R@10 of the forgotten and of the other captions, mean and worst run."""
    forget, retain = (f"{side}_image_retrieval_r@10" for side in ("forget", "retain"))
    table = runs("cifar", "retrieval")
    means = table.groupby("method").mean()
    gaps = runs_of(with_gap(rows_of("cifar", "retrieval"), forget, retain)).average_gap
    best = gaps.groupby("method").mean().drop(["original", OURS]).idxmin()
    lines = [
        {
            "method": name,
            "forgotten (worst run)": f"{means.loc[name, forget]:.1f} ({table.loc[name, forget].max():.1f})",
            "others (worst run)": f"{means.loc[name, retain]:.1f} ({table.loc[name, retain].min():.1f})",
            "provenance": provenance("cifar"),
        }
        for name in ("original", OURS, best)
    ]
    return markdown(pd.DataFrame(lines))


def pictures():
    """How often a detector finds in a generated picture the concept that the prompt names."""
    means = runs("icons", "diffusion", "generated").groupby("method").mean()
    lines = [
        {
            "text encoder of": name,
            "forgotten concept": f"{means.detection_rate[name]:.1f}",
            "other concepts": f"{means.other_detection_rate[name]:.1f}",
            "provenance": provenance("icons"),
        }
        for name in ("original", OURS, "GA text")
    ]
    return markdown(pd.DataFrame(lines))


def matching_head(column):
    """One number of BLIP's matching head: its `ways`, or the percent of forgotten images that a row still matches."""
    table = runs("icons", "blip").filter(like="forget_itm").groupby("method").mean()
    (metric,) = table.columns
    return metric.split("@")[1] if column == "ways" else f"{table.loc[column, metric]:.1f}"


def claims():
    """[(notebook, verdict, whose, claim)], as the executed notebooks print them."""
    folder, tested = ROOT / "notebooks", []
    for path in sorted([*folder.glob("*.ipynb"), *folder.glob("cifar/*.ipynb")]):
        printed = "".join(output.get("text", "") for output in outputs(path))
        name = path.relative_to(folder).with_suffix("").as_posix()
        tested += [
            (name, *said) for said in re.findall(r"^(holds|DOES NOT HOLD) \((.*?)\): (.*)$", printed, re.MULTILINE)
        ]
    return tested


def outputs(notebook):
    return [out for cell in nbformat.read(notebook, as_version=4).cells for out in cell.get("outputs", [])]


def failed_claims():
    return [(name, whose, claim) for name, verdict, whose, claim in claims() if verdict != "holds"]


def failed_claims_table():
    """The paper's claims first, then ours, then those about our instruments."""
    lines = [
        {"whose": whose, "notebook": f"[{name}](../notebooks/{name}.ipynb)", "claim that does not hold": claim}
        for name, whose, claim in failed_claims()
    ]
    order = {PAPERS: 0, "ours": 1, "sanity": 2}
    return markdown(pd.DataFrame(sorted(lines, key=lambda line: order[line["whose"]])))


def whose_claims():
    """How many claims of each kind were tested, and how many of them hold."""
    found = pd.DataFrame(claims(), columns=["notebook", "verdict", "whose", "claim"])
    counts = found.groupby("whose", sort=False).verdict.agg(tested="size", holds=lambda said: (said == "holds").sum())
    return markdown(counts.reset_index())


def withdrawn():
    """The findings that must not be cited, each with its reason."""
    lines = [
        {"notebook": notebook, "profile": ", ".join(each.profiles), "finding": each.finding, "because": each.because}
        for notebook, listed in WITHDRAWN.items()
        for each in listed
    ]
    return markdown(pd.DataFrame(lines))


def board(methods=None, columns=None):
    """The leaderboard of the benchmark, or a part of it."""
    folder = ROOT / "metrics" / "icons"
    table = leaderboard(folder / "results.csv", study(), folder / "benchmark")
    if methods:
        table = table.set_index("method").loc[methods, columns].reset_index()
    numbers = table.select_dtypes("float").columns
    shown = {name: table[name].map("{:.1f}".format).where(table[name].notna(), "–") for name in numbers}
    return markdown(table.assign(**shown))


def audited():
    """What the audit says of the best rows of the main table, and of our own method."""
    ours = ["unseen", "unseen, twice the steps", "unseen, new tokens"]
    return board(
        ["original", "retrain", "CLIPErase", "MultiDelete", "SSD", *ours], [*KINDS, "few-shot probe", "retain accuracy"]
    )


@cache
def study():
    return PowerStudy.read(ROOT / "metrics" / "icons" / "power")


@cache
def verdicts_on_never():
    """The verdicts on the power study's models that never knew, by the models of other seeds."""
    return study().judged().query("model == 'never'").verdict


def judged(verdict):
    """Percent of them with a verdict."""
    return f"{100 * verdicts_on_never().str.startswith(verdict).mean():.0f} %"


MARKS = {
    "leaderboard": board,
    "judged_known": partial(judged, "Not gone"),
    "judged_pushed": partial(judged, "Pushed away"),
    "audited": audited,
    "withdrawn": withdrawn,
    "summary": summary,
    "ratios": ratios,
    "flickr": flickr,
    "pictures": pictures,
    "blip_ways": partial(matching_head, "ways"),
    "blip_before": partial(matching_head, "original"),
    "blip_after": partial(matching_head, OURS),
    "claims_tested": lambda: str(len(claims())),
    "claims_failed": lambda: str(len(failed_claims())),
    "failed_claims": failed_claims_table,
    "whose_claims": whose_claims,
    **{f"{profile}_main_table": partial(main_table, profile) for profile in DATA},
    **{f"{profile}_targets": partial(targets, profile) for profile in DATA},
}


if __name__ == "__main__":
    end_in_one_line(main)
