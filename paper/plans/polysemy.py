"""One sense of a word forgotten, the other watched; both ways round."""

from paper.plans.base import Planned


class Polysemy(Planned):
    senses: list[list[str]]  # pairs of classes that share a word

    def plan(self, profile, pairs):
        senses = [sense for one, other in self.senses for sense in ((one, other), (other, one))]
        return [
            self.planned(profile, row, forgotten, {"concept": forgotten}, seed, watched={"kept_sense": [kept]})
            for forgotten, kept in senses
            for row in ("original", *self.methods)
            for seed in self.seeds(profile, row)
        ]
