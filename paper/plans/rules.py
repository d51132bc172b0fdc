"""Data or a model of another kind, with forget rules and settings of their own."""

from paper.plans.base import Planned, seeds_of
from paper.runs import Run


class Rules(Planned):
    rules: dict[str, dict]  # name of what is forgotten -> forget rule

    def plan(self, profile, pairs):
        return [
            Run(self.name, row, concept, rule, seed, **self.configured(profile, row))
            for concept, rule in self.rules.items()
            for row in ("original", *self.methods)
            for seed in seeds_of(profile, row)
        ]
