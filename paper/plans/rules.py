"""Data or a model of another kind, with forget rules and settings of their own."""

from pydantic import Field

from paper.plans.base import Planned
from paper.runs import Run


class Rules(Planned):
    rules: dict[str, dict]  # name of what is forgotten -> forget rule
    references: list[str] = Field(default=["original"])  # rows that are not made by unlearning

    def plan(self, profile, pairs):
        return [
            self.planned(profile, Run(self.name, row, concept, rule, seed, row))
            for concept, rule in self.rules.items()
            for row in (*self.references, *self.methods)
            for seed in self.seeds(profile, row)
        ]
