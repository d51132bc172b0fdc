"""Drawings that pretraining has not seen; some classes take no part in unlearning, neither to forget nor to keep.

How much `trained` classes gain over `bystander` classes is fine-tuning, not retention.
"""

import numpy as np

from paper.plans.base import Planned
from paper.runs import Run


class Retention(Planned):
    concepts: list[str]
    bystanders: float  # share of the classes that take no part
    variants: dict[str, dict]  # row -> what it changes in the settings of CLIPErase

    def plan(self, profile, pairs):
        drawn = [pairs.class_names[label] for label in pairs.labels.unique().tolist()]
        runs = []
        for concept in self.concepts:
            others = [name for name in drawn if name != concept]
            for seed in profile.seeds:
                order = np.random.default_rng([seed, len(others)]).permutation(others).tolist()
                absent = sorted(order[: round(self.bystanders * len(order))])
                watched = {"bystander": absent, "trained": sorted(set(others) - set(absent))}
                about, seen = (concept, {"concept": concept}, seed), {"absent": absent, "watched": watched}
                for row in ("original", *self.methods):
                    runs.append(self.planned(profile, Run(self.name, row, *about, row, **seen)))
                for row, change in self.variants.items():
                    runs.append(self.planned(profile, Run(self.name, row, *about, "CLIPErase", **seen), change))
        return runs
