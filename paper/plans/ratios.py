"""Several classes forgotten together, drawn anew by each seed; smaller draws are part of the larger."""

import numpy as np

from paper.plans.base import Planned


class Ratios(Planned):
    draws: list[dict]  # `percent` of the classes, and settings of the loop, because more classes need more steps
    never: list[str]  # classes that are in no draw

    def plan(self, profile, pairs):
        runs = []
        for seed in profile.seeds:
            names = [name for name in pairs.class_names if name not in self.never]
            order = np.random.default_rng([seed, len(names)]).permutation(names).tolist()
            for draw in self.draws:
                percent, loop = draw["percent"], {key: draw[key] for key in draw if key != "percent"}
                rule = {"classes": sorted(order[: max(1, round(percent / 100 * len(pairs.class_names)))])}
                for row in ("original", *self.methods):
                    runs.append(self.planned(profile, row, f"{percent} % of classes", rule, seed, draw=loop))
        return runs
