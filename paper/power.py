"""Measured power: which figures of the audit can tell a model that saw a concept from one that never did?

For each concept and seed there is a pair of models, the original and the one that was trained without the concept from
the same seed. One audit of a pair, the second in the place of the unlearned model, gives every figure of both; the
pairs of other seeds are its shadow models. Then for each figure: the area under the ROC curve, the threshold at 5 %
false alarms, the smallest effect beyond it, and what it costs. Beside them stand planted failures: originals that were
edited so that the concept seems gone and is not.
"""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from joblib import Parallel, delayed
from pydantic import Field

from cliperase.audit.auditing import carry_out, open_case, plan
from cliperase.audit.case import Subject
from cliperase.audit.intervals import area_of, mean_of
from cliperase.audit.verdict import FALSE_ALARMS, KNOWN, NO_VOTE, PUSHED, read_thresholds, silent, verdict_of, vote
from cliperase.errors import CliperaseError
from cliperase.models import load_model
from cliperase.models.base import pick_device
from cliperase.settings import Settings
from paper.planted import FAILURES
from paper.runs import of_seed

TAILS = (100 * FALSE_ALARMS, 100 - 100 * FALSE_ALARMS)  # percentiles of the models that never saw the concept
COLUMNS = ["probe", "measure", "unit", "known", "concept", "seed", "model", "value", "seconds"]
SAW, NEVER = "saw", "never"  # what a `model` of the table did; else the name of a planted failure


class Study(Settings):
    """A power study: its pairs of models, and how they are audited."""

    concepts: list[str] = Field(min_length=1)  # one with a namesake is of no use: the word stays known
    seeds: list[int] = Field(min_length=1)  # of pretraining
    probes: list[str] = Field(default=[])  # all, where none is named
    settings: dict = Field(default={})  # of the audit and its probes

    def pairs(self, folder):
        """(concept, seed, folder of the original, folder of the model without the concept) of every pair.

        `folder` is that of seed 0 (see `runs.of_seed`); it holds `original` and `retrain-<concept>`.
        """
        for seed in self.seeds:
            for concept in self.concepts:
                found = [of_seed(Path(folder), seed) / name for name in ("original", f"retrain-{concept}")]
                for path in found:
                    if not path.is_dir():
                        raise CliperaseError(f"model {path} is missing; pretrain it, or leave its concept or seed out")
                yield concept, seed, *found


def measure_power(study, data, models, output):
    """The table of all figures of all pairs, columns `COLUMNS`. Finished probes are kept in `output`, a folder.

    Pairs are independent and each uses one thread, so that a machine with more cores does several at once.
    """
    pairs = list(study.pairs(models))
    workers = 1 if torch.cuda.is_available() else min(len(pairs), os.cpu_count())
    found = Parallel(workers)(delayed(pair_lines)(study, data, output, pairs, *pair) for pair in pairs)
    return pd.DataFrame([line for lines in found for line in lines])[COLUMNS]


def pair_lines(study, data, output, pairs, concept, seed, original, retrained):
    """The lines of one pair of models, and where its original is the first, of the planted failures.

    The pairs of the same concept and other seeds are the shadow models.
    """
    torch.set_num_threads(1)
    audit, chosen = plan(study.probes, study.settings, seed)
    case = open_case([original, retrained], data, {"concept": concept}, "test", None, audit)
    others = [folders for one, other, *folders in pairs if one == concept and other != seed]
    saw, never = ([Subject(load_model(pair[i], pick_device()), "shadow") for pair in others] for i in (0, 1))
    case = replace(case, progress=False, saw=saw, never=never)
    about = {"concept": concept, "seed": seed}
    lines = lines_of(carry_out(case, chosen, output / f"{concept}-{seed}"), about, {SAW: "before", NEVER: "after"})
    for name, edit in FAILURES.items() if seed == study.seeds[0] else ():  # one original shows what is caught
        edited = load_model(original, pick_device())
        edit(edited, case)
        planted = replace(case, after=Subject(edited, name))
        found = carry_out(planted, chosen, output / f"{concept}-{seed}-{name}")
        lines += lines_of(found, about, {name: "after"})
    return lines


def lines_of(results, about, models):
    """One line for each figure that may vote, of each of the `models` {name in the table: field of a measure}."""
    return [
        {**about, "probe": result["probe"], "measure": measure["name"], "unit": measure["unit"],
         "known": measure["known"], "model": name, "value": measure[place]["value"], "seconds": result["seconds"]}
        for result in results
        for measure in result["measures"]
        if measure["known"] is not None
        for name, place in models.items()
    ]  # fmt: skip


def powers(table):
    """One line for each figure: its power, and which planted failures it catches.

    `auc`: mean over concepts of the area under the ROC curve of its seeds, with a bootstrap interval over concepts.
    `threshold`: beyond it lie 5 % of the models that never saw their concept, all concepts together; `far_end`: the
    same on the side away from knowing. `spread low`, `spread high`: how far such a model lies from the middle of the
    others of its concept, with 5 % beyond each end. Where there is a reference, the limits lie so far from it.
    """
    lines = []
    for (probe, measure), rows in table.groupby(["probe", "measure"], sort=False):
        above = rows.known.iloc[0] == "above"
        saw, never = (rows[rows.model == name] for name in (SAW, NEVER))
        areas = np.array([area(saw[saw.concept == one].value, never[never.concept == one].value, above)
                          for one in sorted(never.concept.unique())])  # fmt: skip
        found, ends = mean_of(areas), np.percentile(never.value, TAILS).tolist()
        (far_end, threshold), (low, high) = ends if above else reversed(ends), spread_of(never)
        line = {"probe": probe, "measure": measure, "unit": rows.unit.iloc[0], "known": rows.known.iloc[0]}
        line |= {"auc": found.value, "auc low": found.low, "auc high": found.high, "threshold": threshold}
        line |= {"far_end": far_end, "spread low": low, "spread high": high}
        lines.append(line | caught(rows, threshold, high if above else low) | {"seconds": rows.seconds.mean()})
    return pd.DataFrame(lines)


def caught(rows, threshold, reach):
    """What a figure finds, of its `rows`: `finds`, percent of the models that saw the concept beyond the `threshold`;
    `finds beside references`, beyond the limit that lies `reach` from the middle of the models that never saw the same
    concept; the same of each planted failure. `least effect`: that reach, in the figure's unit."""
    above, saw = rows.known.iloc[0] == "above", rows[rows.model == SAW]
    limits = rows[rows.model == NEVER].groupby("concept").value.median() + reach

    def share(models, beside=True):
        """nan of no models."""
        limit = models.concept.map(limits) if beside and len(models) else threshold
        return 100 * beyond(models.value, limit, above).mean()

    found = {"finds, %": share(saw, beside=False), "finds beside references, %": share(saw)}
    found |= {name: share(rows[rows.model == name]) for name in FAILURES}
    return {**found, "least effect": abs(reach)}


def spread_of(never):
    """(low, high) ends of how far each model lies from the median of the others of its concept; nan without others."""
    apart = []
    for _, models in never.groupby("concept"):
        values = models.value.to_numpy()
        apart += [value - np.median(np.delete(values, i)) for i, value in enumerate(values) if len(values) > 1]
    ends = np.percentile(apart, TAILS) if apart else (np.nan, np.nan)
    return float(ends[0]), float(ends[1])


def area(saw, never, above=True):
    """How often a model that saw the concept lies on the knowing side of one that did not, in 0…1; a tie is ½."""
    return area_of(*((saw, never) if above else (never, saw))).value


def beyond(values, threshold, above):
    return values > threshold if above else values < threshold


def thresholds(found, source, probes):
    """{"probe.measure": {threshold, far_end, spread, auc, source, settings}} as the audit takes them.

    `found`: of `powers`. `probes`: {name: `Probe`} that measured it. A setting that is a list is left out: it says
    which figures there are.
    """
    kept = {}
    for line in found.to_dict("records"):
        spread, settings = [line["spread low"], line["spread high"]], probes[line["probe"]].model_dump()
        kept[f"{line['probe']}.{line['measure']}"] = {
            **{name: line[name] for name in ("threshold", "far_end", "auc")},
            "spread": None if np.isnan(spread).any() else spread, "source": source,
            "settings": {name: value for name, value in settings.items() if not isinstance(value, list | dict)},
        }  # fmt: skip
    return kept


class PowerStudy:
    """A power study: `power`, the table of `powers`, and `figures`, that of all its models.

    `thresholds`: {figure: `Threshold`}; `voting`: those of figures that may vote.
    """

    def __init__(self, power, figures):
        self.power, self.figures = power, figures.assign(figure=figures.probe + "." + figures.measure)
        probes = plan(power.probe.unique(), {}, 0)[1]
        self.thresholds = read_thresholds(thresholds(power, "the power study", probes))
        self.known = dict(zip(self.thresholds, power.known, strict=True))
        self.voting = {name: one for name, one in self.thresholds.items() if not silent(name, self.known[name], one)}
        saw, never = (
            self.figures[self.figures.model == model].groupby(["figure", "concept"]) for model in (SAW, NEVER)
        )
        self.middles, self.saw = never.value.median(), saw.value.agg(value="median", low="min", high="max")

    @classmethod
    def read(cls, folder):
        """As it was published: `power.csv` and `figures.csv` of a folder."""
        return cls(*(pd.read_csv(Path(folder) / f"{name}.csv") for name in ("power", "figures")))

    @property
    def provenance(self):
        (provenance,) = self.power.provenance.unique()
        return provenance

    def measure(self, figure, concept, after, reference=None):
        """A figure of one model as `verdict.vote` takes it. `after`: its value and the ends of its interval.

        The original and the reference are the study's models of this concept, the latter their middle, unless the value
        of a `reference` is given.
        """
        key = (figure, concept)
        if reference is None and key in self.middles.index:
            reference = self.middles[key]
        return {
            "known": self.known[figure],
            "after": after,
            "before": self.saw.loc[key].to_dict() if key in self.saw.index else None,
            "reference": None if reference is None else {"value": reference},
        }

    def vote(self, figure, concept, after, reference=None):
        """What a figure says of a model, as of `measure`."""
        return vote(figure, self.measure(figure, concept, after, reference), self.voting[figure])

    def ends(self, figure, concepts):
        """(low, high) limits of the mean over some concepts of the study."""
        limits = [self.thresholds[figure].limits(self.measure(figure, concept, {})) for concept in concepts]
        return sorted(np.mean(limits, axis=0).tolist())

    def judged(self, references=None):
        """The verdict on each model of the study by the models of the other seeds: model, concept, seed, verdict, and
        how many of its figures say `known` and `pushed`, of how many `votes`.

        By values, because the study keeps no intervals. The reference is the middle of the other seeds' models that
        never saw the concept, or with `references=1` each of them in turn, so that there are as many lines of a model.
        """
        lines = []
        for seed in self.figures.seed.unique():
            rest = self.figures[self.figures.seed != seed]
            others = PowerStudy(powers(rest), rest)
            never = rest[rest.model == NEVER].set_index(["figure", "concept", "seed"]).value
            for (model, concept), rows in self.figures[self.figures.seed == seed].groupby(
                ["model", "concept"], sort=False
            ):
                for one in rest.seed.unique() if references == 1 else [None]:
                    said = {
                        row.figure: others.vote(
                            row.figure, concept, exact(row.value),
                            None if one is None else never[row.figure, concept, one],
                        )
                        for row in rows.itertuples()
                        if row.figure in others.voting
                    }  # fmt: skip
                    lines.append({"model": model, "concept": concept, "seed": seed, **counted(said)})
        return pd.DataFrame(lines)


def exact(value):
    return {"value": value, "low": value, "high": value}


def counted(votes):
    """The verdict of {figure: vote}, and how many of them there are, say `known`, and say `pushed`."""
    verdict = verdict_of({name: {"vote": said} for name, said in votes.items()}, False)["verdict"]
    given = [said for said in votes.values() if not said.startswith(NO_VOTE)]
    return {"verdict": verdict, "votes": len(given), "known": given.count(KNOWN), "pushed": given.count(PUSHED)}
