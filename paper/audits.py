"""Every row audited: which probes say that a model still knows what it forgot?

Each run is unlearned as in the other experiments, then the audit's probes look at the test images. A row of the table
is a figure of the unlearned model, `<probe>.<figure>`, and its interval, `… low` and `… high`; those of the original
and of the retrained models are rows of their own. Whether a figure votes, and how, the thresholds of the power study
say when the table is read.
"""

import json
import re
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ClassVar

import numpy as np
import pandas as pd

from cliperase.audit.auditing import carry_out, plan
from cliperase.audit.case import Case, Split, Subject
from cliperase.audit.verdict import KNOWN, LESS, MORE, NEVER_KNOWN, NO_VOTE, PUSHED, UNDECIDED, verdict_of
from cliperase.data.rules import Rule, forget_mask
from paper.results import REFERENCES, rows_of
from paper.runs import Bench, Place

COSTS = (  # no vote, but the price
    "reference-gap.retain_accuracy", "reference-gap.unrelated_cosine", "neighbours.neighbour_accuracy",
    "neighbours.stranger_accuracy", "other-sources.heldout_retain_accuracy",
)  # fmt: skip
CURVE = "relearning.recognised_"  # its points have no vote either: they are drawn
GOALS = {  # what a method is held to: figure -> (goal, where it is held to, how far it may be off)
    "reference-gap.forget_accuracy": ("forget accuracy within 1 point of the retrained", "retrain", 1.0),
    "reference-gap.forget_cosine": ("cosine to its own images within 0.05 of the retrained", "retrain", 0.05),
    "reference-gap.unrelated_cosine": ("cosine to other images within 0.05 of the retrained", "retrain", 0.05),
    "reference-gap.retain_accuracy": ("retain accuracy at most 0.5 points below the original", "original", 0.5),
    "neighbours.stranger_accuracy": ("strangers' accuracy at most 0.5 points below the original", "original", 0.5),
    "other-sources.heldout_retain_accuracy": ("accuracy on held-out drawings likewise", "original", 0.5),
    "linear-probe.image_recall_1_shots": ("few-shot probe, 1 shot, within the retrained models' spread", "spread", 0.0),
    "linear-probe.image_recall_8_shots": ("few-shot probe, 8 shots, within the spread", "spread", 0.0),
    "relearning.area_8_pairs": ("relearning from 8 pairs within the spread", "spread", 0.0),
    "membership.area_loss": ("membership by loss within the spread", "spread", 0.0),
    "quantisation.forget_accuracy_8_bits": ("forget accuracy at 8 bits within the spread", "spread", 0.0),
    "quantisation.forget_accuracy_4_bits": ("forget accuracy at 4 bits within the spread", "spread", 0.0),
}
ENDS = ("low", "high")
ALIKE = "not told apart from the reference"
VERDICTS = ("No trace", "Not gone", "Pushed away", "Undecided")  # how a verdict begins, before its colon


@dataclass(frozen=True)
class AuditPlace(Place):
    """A place where runs are audited. `asked`: what `auditing.plan` takes, as JSON, because a place is hashed."""

    entry: ClassVar[str] = "paper/audits.py"
    asked: str = "[[], {}, 0]"

    def bench(self):
        return AuditBench.load(self)

    def identity(self):
        return [*super().identity(), self.asked]


@dataclass
class AuditBench(Bench):
    """A bench that audits. The original's figures are measured once for each concept."""

    cases: dict[tuple, Case] = field(default_factory=dict)  # by concept and folder of the original

    @cached_property
    def plan(self):
        """(`AuditSettings`, {name: `Probe`})."""
        return plan(*json.loads(self.place.asked))

    def rows(self, run):
        model, _, seconds = self.made(run)
        case = replace(self.case(run), after=Subject(model, "unlearned"))
        figures, units = {}, {}
        for result in carry_out(case, self.plan[1]):
            for measure in result["measures"]:
                name = f"{result['probe']}.{measure['name']}"
                if measure["known"] is None and name not in COSTS and not name.startswith(CURVE):
                    continue
                found = {"": measure["after"]["value"], **{f" {end}": measure["after"][end] for end in ENDS}}
                figures |= {f"{name}{end}": value for end, value in found.items() if value is not None}
                units |= {f"{name}{end}": measure["unit"] for end in found}
        return rows_of({**self.about_run(run), "split": self.place.splits[0]}, figures, seconds, units)

    def case(self, run):
        """The `Case` of a run's concept and original, with no unlearned model yet."""
        key = (run.concept, self.place.original_of(run))
        if key not in self.cases:
            before, splits = Subject(self.original(run), "original"), self.looked_at(run)
            looked_at, training = (splits.pop(name) for name in (self.place.splits[0], "train"))
            self.cases[key] = Case(
                before, before, [], Rule.of(run.rule), looked_at, training, splits,
                self.plan[0].seed, progress=False,
            )  # fmt: skip
        return self.cases[key]

    def looked_at(self, run):
        """{name: `Split`}: the split that is audited, the training rows, the other sources."""
        settings, (first, *others), found = self.plan[0], self.place.splits, {}
        for name in (first, "train", *others):
            mask = forget_mask(self.splits[name], run.rule, required=name not in others)
            most = settings.training_images if name == "train" else settings.images
            found[name] = Split.of(self.splits[name], mask).sampled(most, settings.seed)
        return found


def figures_of(rows):
    """One line for each run and each figure: method, concept, seed, figure, value, low, high.

    `rows`: of an experiment that audits.
    """
    parts = rows.metric.str.extract(r"^(?P<figure>.*?)(?: (?P<end>low|high))?$").fillna("value")
    wide = rows.assign(**parts).pivot(index=["method", "concept", "seed", "figure"], columns="end", values="value")
    return wide.reset_index()


def beside(rows, reference="retrain"):
    """The lines of `figures_of` with a column `vote`, of figures that are higher where a model knows: whether the
    interval lies above (`MORE`) or below (`LESS`) that of the same concept's `reference`, or meets it (`ALIKE`).

    That is no vote by a threshold: the intervals tell of images, not of the luck of a training.
    """
    lines = figures_of(rows)
    held_to = lines[lines.method == reference].set_index(["concept", "figure"])[["low", "high"]]
    both = lines.join(held_to, on=["concept", "figure"], rsuffix=" reference")
    above, below = both.low > both["high reference"], both.high < both["low reference"]
    return lines.assign(vote=np.select([above, below], [MORE, LESS], ALIKE))


def curves(rows, pairs):
    """Steps of relearning from so many `pairs` × methods: percent of the forgotten test images that are recognised,
    means over runs."""
    steps = rows.metric.str.extract(rf"^{re.escape(CURVE)}{pairs}_pairs_(\d+)_steps$", expand=False).dropna()
    points = rows.loc[steps.index].assign(step=steps.astype(int))
    return points.pivot_table(index="step", columns="method", values="value")


def votes(rows, study):
    """The lines of `figures_of` for the figures that may vote, with a column `vote`.

    `study`: the `PowerStudy`. The original and the reference of a concept are the study's models that saw it and that
    never did; a concept that is not in the study has none.
    """
    wide = figures_of(rows)
    wide = wide[wide.figure.isin(study.voting)].reset_index(drop=True)
    said = [study.vote(one["figure"], one["concept"], one) for one in wide.replace({np.nan: None}).to_dict("records")]
    return wide.assign(vote=said)


def tally(voted):
    """One line for each method: how many of its votes say what, in percent, `KNOWN` first. The references come first,
    then the best method. A figure that abstains does not count."""
    voted = voted[~voted.vote.str.startswith(NO_VOTE)]
    counted = pd.crosstab(voted.method, voted.vote, normalize="index") * 100
    kinds = [kind for kind in (KNOWN, UNDECIDED, PUSHED, NEVER_KNOWN) if kind in counted]
    counted = counted[kinds].sort_values(NEVER_KNOWN, ascending=False, kind="stable")
    first = [name for name in REFERENCES if name in counted.index]
    return counted.loc[[*first, *counted.index.drop(first)]]


def verdicts(voted):
    """One line for each run: method, concept, seed, and the `verdict` of its votes."""
    runs = voted.groupby(["method", "concept", "seed"], sort=False)
    said = runs.apply(lambda votes: verdict_of(votes.set_index("figure").to_dict("index"), False)["verdict"])
    return said.rename("verdict").reset_index()


def shares(said):
    """Methods × `VERDICTS`: percent of a method's runs with each, of the table that `verdicts` gives."""
    kinds = said.verdict.str.partition(":")[0]
    return (pd.crosstab(said.method, kinds, normalize="index") * 100).reindex(columns=VERDICTS, fill_value=0.0)


def goal_means(rows):
    """Figures of `GOALS` × methods: the mean of each method's runs. `rows`: as of `votes`."""
    means = rows[rows.metric.isin(list(GOALS))].pivot_table(index="metric", columns="method", values="value")
    return means.loc[list(GOALS)]


def goals(rows, study):
    """Goals × methods, bool: which of `GOALS` the mean of a method's runs reaches.

    `rows`, `study`: as of `votes`. Every method has the same concepts and seeds, those of the retrained models.
    """
    means, reached = goal_means(rows), {}
    for figure, (goal, held_to, off) in GOALS.items():
        if held_to == "spread":
            low, high = study.ends(figure, rows.concept.unique())
            reached[goal] = means.loc[figure].between(low, high)
        else:
            short = means.loc[figure, held_to] - means.loc[figure]
            reached[goal] = (short if held_to == "original" else short.abs()) <= off
    return pd.DataFrame(reached).T
