"""Measured power: which figures of the audit can tell a model that saw a concept from one that never did?

For each concept and seed there is a pair of models, the original and the one that was trained without the concept from
the same seed. One audit of a pair, the second in the place of the unlearned model, gives every figure of both. Then for
each figure: the area under the ROC curve, the threshold at 5 % false alarms, the smallest effect beyond it, and what it
costs. Beside them stand planted failures: originals that were edited so that the concept seems gone and is not.
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
from cliperase.errors import CliperaseError
from cliperase.models import load_model
from cliperase.models.base import pick_device
from cliperase.settings import Settings
from paper.planted import FAILURES
from paper.runs import of_seed

FALSE_ALARMS = 5  # percent of the models that never saw the concept
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
    found = Parallel(workers)(delayed(pair_lines)(study, data, output, *pair) for pair in pairs)
    return pd.DataFrame([line for lines in found for line in lines])[COLUMNS]


def pair_lines(study, data, output, concept, seed, original, retrained):
    """The lines of one pair of models, and where its original is the first, of the planted failures."""
    torch.set_num_threads(1)
    audit, chosen = plan(study.probes, study.settings, seed)
    case = open_case([original, retrained], data, {"concept": concept}, "test", None, audit, pick_device())
    case = replace(case, progress=False)
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
    same on the side away from knowing. `finds`: percent of the models that saw it beyond the threshold. `least effect`:
    from the middle of the models that never saw it to the threshold, in the figure's unit.
    """
    lines = []
    for (probe, measure), rows in table.groupby(["probe", "measure"], sort=False):
        above = rows.known.iloc[0] == "above"
        saw, never = (rows[rows.model == name] for name in (SAW, NEVER))
        areas = np.array([area(saw[saw.concept == one].value, never[never.concept == one].value, above)
                          for one in sorted(never.concept.unique())])  # fmt: skip
        ends = np.percentile(never.value, [FALSE_ALARMS, 100 - FALSE_ALARMS]).tolist()
        far_end, threshold = ends if above else reversed(ends)
        line = {"probe": probe, "measure": measure, "unit": rows.unit.iloc[0], "known": rows.known.iloc[0]}
        found = mean_of(areas)
        line |= {"auc": found.value, "auc low": found.low, "auc high": found.high}
        line |= {"threshold": threshold, "far_end": far_end}
        line |= {"finds, %": 100 * beyond(saw.value, threshold, above).mean()}
        line |= {"least effect": abs(threshold - float(never.value.median())), "seconds": rows.seconds.mean()}
        for name in FAILURES:
            planted = rows[rows.model == name].value
            line[name] = 100 * beyond(planted, threshold, above).mean() if len(planted) else np.nan
        lines.append(line)
    return pd.DataFrame(lines)


def area(saw, never, above=True):
    """How often a model that saw the concept lies on the knowing side of one that did not, in 0…1; a tie is ½."""
    return area_of(*((saw, never) if above else (never, saw))).value


def beyond(values, threshold, above):
    return values > threshold if above else values < threshold


def thresholds(found, source):
    """{"probe.measure": {threshold, far_end, auc, source}} as the audit takes them. `found`: a table of `powers`."""
    return {
        f"{line.probe}.{line.measure}": {
            "threshold": line.threshold, "far_end": line.far_end, "auc": line.auc, "source": source
        }
        for line in found.itertuples()
    }  # fmt: skip
