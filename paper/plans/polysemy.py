"""One sense of a word forgotten, the other watched; both ways round."""

from paper.plans.base import Planned
from paper.runs import Run


class Polysemy(Planned):
    senses: list[list[str]]  # pairs of classes that share a word

    def plan(self, profile, pairs):
        senses = [sense for one, other in self.senses for sense in ((one, other), (other, one))]
        return [
            self.planned(profile, Run(self.name, row, forgotten, rule, seed, row, watched={"kept_sense": [kept]}))
            for forgotten, kept in senses
            for rule in [{"concept": forgotten}]
            for row in ("original", *self.methods)
            for seed in self.seeds(profile, row)
        ]
