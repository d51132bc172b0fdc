"""The box that opens a notebook, the claims that it tests, and the findings that are withdrawn until they are rerun.

The `say_…` have one caller, the notebook `main_results`. There they would be forty lines of wording between its tables,
and half of them has to mind which methods a profile has.
"""

from typing import NamedTuple

from IPython.display import Markdown, display

from paper.results import REFERENCES
from paper.statistics import lead


class Withdrawn(NamedTuple):
    """A finding that must not be cited, and why."""

    finding: str
    because: str
    profiles: tuple[str, ...] = ("icons", "cifar")


WITHDRAWN = {  # by notebook; delete an entry when its experiment has been run again
    "ratios": [
        Withdrawn(
            "CLIPErase does not forget 3 to 30 % of the classes",
            "it ran with the mildest setting of one class, and every run kept its last checkpoint: the budget ran out",
            ("cifar",),
        ),
        Withdrawn(
            "SSD is the best row",
            "our importance leaves the forget set out of the data; the published one does not",
            ("cifar",),
        ),
        Withdrawn(
            "null space forgets nothing",
            "it removes one direction for all forgotten texts, where one direction for each text is meant",
            ("cifar",),
        ),
    ],
    "retrieval": [
        Withdrawn(
            "GA and fine-tune forget next to nothing on Flickr8k",
            "their settings were chosen by a score that a method which does nothing passes",
            ("cifar",),
        ),
        Withdrawn(
            "MultiDelete is the best row",
            "it ran in an earlier form of ours, which differs from the published code",
            ("cifar",),
        ),
    ],
    "paper_vs_ours": [
        Withdrawn(
            "the ledger's cells of ratios on photographs",
            "these findings are withdrawn, each with its reason",
            ("icons",),
        )
    ],
}


PAPERS = "the paper's"


def open_with(notebook, rows, paper, here, tested, unlike=None):
    """Display the box that opens a notebook.

    `rows`: what was measured; `paper`: what the paper claims; `here`: what we find, with numbers; `tested`: {claim:
    whether it holds}; `unlike`: {what differs from the paper beside these: whether it does}.
    """
    (profile,) = rows.profile.unique()
    withdrawn = [
        f"**Withdrawn until it is run again:** {each.finding}, because {each.because}."
        for each in WITHDRAWN.get(notebook, ())
        if profile in each.profiles
    ]
    said = verdict(tested, unlike or {})
    lines = [f"**The paper.** {paper}", f"**Here.** {here}", said, *withdrawn, measured_on(rows)]
    display(Markdown("\n>\n".join(f"> {line}" for line in lines)))


def verdict(tested, unlike):
    """Whether all, some or none of the claims hold, which do not, and what differs from the paper."""
    failed = [text for text, holds in tested.items() if not holds]
    differs = [text for text, true in unlike.items() if true]
    said = "does not hold" if len(failed) == len(tested) else "holds in part" if failed or differs else "holds"
    told = f"**Verdict: {said}.** All {len(tested)} claims tested below hold."
    if failed:
        told = f"**Verdict: {said}.** {len(failed)} of {len(tested)} claims fail{'s' if len(failed) == 1 else ''}: "
        told += "; ".join(failed) + "."
    return told + (f" Unlike in the paper, {' and '.join(differs)}." if differs else "")


def measured_on(rows):
    """Data, model, concepts, seeds and provenance of the numbers."""
    (provenance,) = rows.provenance.unique()
    runs = rows[~rows.method.isin(REFERENCES)]
    facts = {"data": rows.dataset, "model": rows.model, "concepts": rows.concept, "seeds": runs.seed}
    told = [f"{name} {', '.join(sorted(values.unique(), key=in_numbers))}" for name, values in facts.items()]
    return f"*Measured: {'; '.join(told)}; provenance {provenance}.*"


def in_numbers(name):
    """A key that sorts `3 % of classes` before `10 % of classes`."""
    return [int(part) if part.isdigit() else part for part in name.split()]


def claims(tested, papers=(), others="ours"):
    """Print whether claims `{text: bool}` hold, and whose they are: those in `papers` are the paper's, the others are
    `others`, "ours" or "sanity". nbval compares the lines, so a verdict that changes fails the check."""
    for text, holds in tested.items():
        print(f"{'holds' if holds else 'DOES NOT HOLD'} ({PAPERS if text in papers else others}): {text}")


def above(runs, theirs):
    """{claim: bool}, whether CLIPErase's average gap is the smaller one, and the interval says so.

    `runs`: `statistics.runs_of` rows `with_gap`.
    """
    mean, half, _ = gap_lead(runs, theirs)
    said = f"CLIPErase has a smaller average gap than {theirs}, and the interval lies below zero"
    return {said: bool(mean + half < 0)}


def gap_lead(runs, theirs):
    """`statistics.lead` of the average gaps."""
    return lead(*(runs.loc[method].average_gap for method in ("CLIPErase", theirs)))


def claim_above(runs, theirs, beyond=""):
    """Print the difference of the average gaps of each run, and the claim of `above`, which is the paper's; where it is
    about something `beyond` the paper, it names that and is ours."""
    mean, half, pairs = gap_lead(runs, theirs)
    print(f"average gap of each run, CLIPErase less {theirs}: {mean:+.2f} ± {half:.2f} points (paired, {pairs})")
    tested = {f"{beyond}: {text}" if beyond else text: holds for text, holds in above(runs, theirs).items()}
    claims(tested, papers=() if beyond else tested)


def say_target(forgotten, loss, methods):
    """Print in how many runs of each method both stay within a target of our own, and the worst of each.

    `forgotten`: forget accuracy in percent, `loss`: of retain accuracy in points, Series by method, concept and seed.
    """
    most_forget, most_loss = 1.0, 1.5
    print(f"A target of our own: every run recognises at most {most_forget:g} % of the forgotten images and", end=" ")
    print(f"loses at most {most_loss:g} points.")
    for name in methods:
        met = (forgotten[name] <= most_forget) & (loss[name] <= most_loss)
        most = f"worst {forgotten[name].max():.2f} % and {loss[name].max():.2f} points"
        print(f"{name}: {met.sum()} of {len(met)} runs meet it; {most}")


def say_rise(retained, rise, methods):
    """Print the paper's `rise` of retention, in points, and the change from the original by each method that was run.

    `retained`: mean retain accuracy in percent, by method.
    """
    told = [f"{retained[name] - retained['original']:+.2f} under {name}" for name in methods if name in retained]
    print(f"Retention changes by {rise:+.2f} points in the paper, here by {' and '.join(told)}.")


def say_unseen(forgotten):
    """Print what the retrained models recognise of each concept, if there are any. `forgotten`: as of `say_target`."""
    if "retrain" in forgotten.index.unique("method"):
        told = forgotten["retrain"].groupby("concept").mean().map("{:.1f} %".format)
        print(
            "The retrained reference recognises of images it never saw:", ", ".join(map(" ".join, told.items())) + "."
        )


def say_cosines(mean, methods):
    """Print how near the forgotten prompt is to its own and to other images, of the `methods` that were run.

    `mean`: a summary, by method.
    """
    for metric, images in {"forget_cosine": "its own", "unrelated_cosine": "unrelated"}.items():
        told = ", ".join(f"{mean[metric][name]:+.2f} under {name}" for name in methods if name in mean.index)
        print(f"Cosine of the forgotten prompt to {images} images: {told}.")
