"""Several classes forgotten together, drawn anew by each seed; smaller draws are part of the larger."""

import numpy as np

from cliperase.errors import CliperaseError
from paper.plans.base import Planned
from paper.runs import Run


class Ratios(Planned):
    draws: list[dict]  # `percent` of the classes, and settings of the loop, such as a forget batch that grows with it
    set_aside: list[str]  # classes that are in no draw: the search for settings draws from them

    def plan(self, profile, pairs):
        drawn = [name for name in pairs.class_names if name not in self.set_aside]
        return [
            self.planned(profile, Run(self.name, row, concept, rule, seed, row), draw=loop)
            for seed in profile.seeds
            for concept, (rule, loop) in self.drawn(drawn, seed, len(pairs.class_names)).items()
            for row in ("original", *self.methods)
        ]

    def drawn(self, names, seed, total):
        """{concept: (forget rule, settings of the loop)} for each draw from `names`, in percent of `total` classes."""
        order, found = np.random.default_rng([seed, len(names)]).permutation(names).tolist(), {}
        for draw in self.draws:
            percent, loop = draw["percent"], {key: draw[key] for key in draw if key != "percent"}
            count = max(1, round(percent / 100 * total))
            if count > len(names):
                raise CliperaseError(f"{percent} % of {total} classes are {count}; there are {len(names)} to draw from")
            found[f"{percent} % of classes"] = {"classes": sorted(order[:count])}, loop
        return found

    def searched(self, concept, seed, class_names):
        found = self.drawn(self.set_aside, seed, len(class_names))
        if concept not in found:
            raise CliperaseError(f"the search forgets {concept!r}, which is no draw; draws are {', '.join(found)}")
        return found[concept]
