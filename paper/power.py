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
from cliperase.audit.verdict import FALSE_ALARMS, LEAST_AUC, read_thresholds
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
    case = open_case([original, retrained], data, {"concept": concept}, "test", None, audit, pick_device())
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


def thresholds(found, source):
    """{"probe.measure": {threshold, far_end, spread, auc, source}} as the audit takes them. `found`: of `powers`."""
    kept = {}
    for line in found.to_dict("records"):
        spread = [line["spread low"], line["spread high"]]
        kept[f"{line['probe']}.{line['measure']}"] = {
            **{name: line[name] for name in ("threshold", "far_end", "auc")},
            "spread": None if np.isnan(spread).any() else spread, "source": source,
        }  # fmt: skip
    return kept


class PowerStudy:
    """A power study as it was published: `power.csv` and `figures.csv` of a folder.

    `voting`: {figure: `Threshold`} of those that have a vote.
    """

    def __init__(self, folder):
        self.power, self.figures = (pd.read_csv(Path(folder) / f"{name}.csv") for name in ("power", "figures"))
        (self.provenance,) = self.power.provenance.unique()
        every = read_thresholds(thresholds(self.power, "the power study"))
        self.voting = {name: one for name, one in every.items() if one.auc >= LEAST_AUC}
        names = self.power.probe + "." + self.power.measure
        self.known = dict(zip(names, self.power.known, strict=True))
        never = self.figures[self.figures.model == NEVER]
        self.middles = never.groupby([never.probe + "." + never.measure, "concept"]).value.median()

    def measure(self, figure, concept, after):
        """A figure of one model as `verdict.vote` takes it. `after`: its value and the ends of its interval."""
        known_concept = (figure, concept) in self.middles.index
        reference = {"value": self.middles[figure, concept]} if known_concept else None
        return {"known": self.known[figure], "after": after, "reference": reference}

    def ends(self, figure, concepts):
        """(low, high) limits of the mean over some concepts of the study."""
        limits = [self.voting[figure].limits(self.measure(figure, concept, {})) for concept in concepts]
        return sorted(np.mean(limits, axis=0).tolist())

    def known_votes(self):
        """How many figures say of each model of the study that it knows the concept: model, concept, seed, known.

        By values, without intervals. A model that never saw the concept is held against the others that did not.
        """
        models = self.figures.assign(figure=self.figures.probe + "." + self.figures.measure)
        models = models[models.figure.isin(self.voting)].assign(known=False)
        for (figure, _), rows in models.groupby(["figure", "concept"]):
            never = rows[rows.model == NEVER]
            for row in rows.itertuples():
                middle = never.value.drop(row.Index, errors="ignore").median()
                measure = {"known": self.known[figure], "reference": {"value": middle}}
                limit, _ = self.voting[figure].limits(measure)
                models.loc[row.Index, "known"] = bool(beyond(row.value, limit, measure["known"] == "above"))
        return models.groupby(["model", "concept", "seed"], sort=False).known.sum().reset_index()
