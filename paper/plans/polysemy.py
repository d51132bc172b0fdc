"""One sense of a word forgotten, the other watched; both ways round."""

from paper.plans.base import Planned, seeds_of
from paper.runs import Run


class Polysemy(Planned):
    senses: list[list[str]]  # pairs of classes that share a word

    def plan(self, profile, pairs):
        senses = [sense for one, other in self.senses for sense in ((one, other), (other, one))]
        return [
            Run(
                self.name, row, forgotten, {"concept": forgotten}, seed,
                watched={"kept_sense": [kept]}, **self.configured(profile, row),
            )
            for forgotten, kept in senses
            for row in ("original", *self.methods)
            for seed in seeds_of(profile, row)
        ]  # fmt: skip
