"""The search for settings: the candidates of every row, on validation images of concepts that are not reported.

Two rounds, as in successive halving (Jamieson and Talwalkar 2016): all candidates of a row forget the first concepts,
and the best of them the further ones, too. Every row has the same number of candidates. They are drawn within the row's
ranges by a Halton sequence, evenly on a logarithmic scale, so that nobody picks them.
"""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from pydantic import Field
from scipy.stats.qmc import Halton

from cliperase.data.pairs import load_pairs
from cliperase.errors import CliperaseError
from cliperase.settings import Settings, checked, read_params
from paper.experiments import experiment_of
from paper.params import PROFILES
from paper.runs import Run, run_all

RANGES = PROFILES / "search" / "ranges.yaml"
RATES = ("learning_rate", "fine_tune_rate")
CONTROL = "fine-tune retention"
EDGE = 0.1  # share of a range, on its logarithmic scale, that counts as its edge


class Forgotten(Settings):
    """What the search for an experiment forgets. Its rows are those of the experiment."""

    concepts: list[str] = Field(min_length=1)  # none of the reported ones
    further: list[str] = Field(default=[])  # concepts of the second round
    rates: float = Field(default=1.0, gt=0)  # factor on the ranges of `RATES`, for a model of another size
    ranges: dict[str, dict] = Field(default={})  # row -> settings whose range is another here


class Searches(Settings):
    """The section `search` of a profile: what its searches have in common, and what each one forgets."""

    seed: int
    drawn: int = Field(ge=1)  # candidates of a row
    kept: int = Field(default=3, ge=1)  # candidates of a row that are in the second round
    experiments: dict[str, Forgotten]


@dataclass(frozen=True)
class Search:
    """The search for the settings of one experiment's rows. `ranges`: row -> setting -> its ends, or one value."""

    concepts: list[str]
    ranges: dict[str, dict]
    seed: int
    drawn: int
    further: list[str] = field(default_factory=list)
    kept: int = 3

    def __post_init__(self):
        for row, ranges in self.ranges.items():
            for name, ends in varied(ranges).items():
                if len(ends) != 2 or not 0 < ends[0] < ends[1]:
                    raise CliperaseError(f"range of {name} for {row!r} is {ends}; give two rising numbers above zero")

    def listed(self):
        """{row: its candidates}."""
        return {row: drawn_from(ranges, self.drawn) for row, ranges in self.ranges.items()}

    def at_edge(self, row, settings):
        """The names of the settings that lie at an edge of their range."""
        found = []
        for name, (low, high) in varied(self.ranges[row]).items():
            place = np.log(settings[name] / low) / np.log(high / low)
            found += [name] if not EDGE <= place <= 1 - EDGE else []
        return found


def varied(settings):
    """Those of a row's settings that have a range."""
    return {name: value for name, value in settings.items() if isinstance(value, list)}


def drawn_from(settings, count):
    """`count` mappings {setting: value}, evenly in the logarithms of the ranges; one, where there is no range."""
    ranges = varied(settings)
    if not ranges:
        return [settings]
    points = Halton(len(ranges), scramble=False).random(count + 1)[1:]  # the first is the corner of all lowest values
    return [
        settings | {name: between(*ends, share=at) for (name, ends), at in zip(ranges.items(), point, strict=True)}
        for point in points
    ]


def between(low, high, share):
    """The number at `share` of the way from `low` to `high` in logarithms: whole if both are, else of three digits."""
    value = low * (high / low) ** float(share)
    return round(value) if isinstance(low, int) and isinstance(high, int) else float(f"{value:.3g}")


def read_search(profile, experiment, path=RANGES):
    """The search for an experiment of a profile, in the ranges of the file at `path`."""
    if experiment not in profile.search.get("experiments", {}):
        known = ", ".join(profile.search.get("experiments", {})) or "none"
        raise CliperaseError(
            f"no search of profile {profile.profile!r} is for the experiment {experiment!r}; it has {known}"
        )
    searches = checked(Searches, profile.search, f"search of profile {profile.profile}")
    forgotten, ranges = searches.experiments[experiment], read_params(path)
    rows = searched_rows(profile.experiments[experiment]["methods"])
    for asked, known, remedy in (
        (rows, ranges, f"has no range; add one to {path}"),
        (forgotten.ranges, rows, "has ranges of its own and is not searched; take them out"),
    ):
        for row in asked:
            if row not in known:
                raise CliperaseError(f"row {row!r} of experiment {experiment!r} {remedy}")
    ranges = {row: at_rates(one, forgotten.rates) | forgotten.ranges.get(row, {}) for row, one in ranges.items()}
    return Search(
        forgotten.concepts,
        {row: one for row, one in ranges.items() if row in rows},
        searches.seed,
        searches.drawn,
        forgotten.further,
        searches.kept,
    )


def searched_rows(methods):
    """The rows of an experiment that have candidates of their own; the control is chosen among those of fine-tune."""
    return list(dict.fromkeys("fine-tune" if row == CONTROL else row for row in methods))


def at_rates(ranges, factor):
    """The `ranges` of a row, those of its learning rates times `factor`."""
    return {
        name: [factor * end for end in value] if name in RATES and isinstance(value, list) else value
        for name, value in ranges.items()
    }


def run_search(profile, search, experiment, data, model):
    """Every candidate of every row on the search concepts: a results table of validation metrics.

    Test images are not loaded. A candidate is named `<row> <number>`; its settings stand in the search.
    """
    for concept in (*search.concepts, *search.further):
        if concept in profile.concepts:
            raise CliperaseError(f"search concept {concept!r} is among the reported ones; choose another")
    tried = Candidates(profile, search, experiment, load_pairs(data, "validation").class_names)
    place = tried.experiment.place(profile, data, model, ["validation"])
    first = run_all(place, tried.runs(search.concepts))
    if not search.further:
        return first
    scores = first[first.metric == "selection_score"].groupby("method").value.mean()
    best = [name for names in tried.names().values() for name in scores[names].nlargest(search.kept).index]
    return pd.concat([first, run_all(place, tried.runs(search.further, best))], ignore_index=True)


class Candidates:
    """The candidates of an experiment's rows as runs."""

    def __init__(self, profile, search, experiment, class_names):
        self.profile, self.search, self.class_names = profile, search, class_names
        self.title = "tuning" if experiment == "main" else f"tuning {experiment}"
        rows = {row: {} for row in search.listed()}  # a candidate has all settings of its row
        own = {"methods": rows, "tuned": "", "originals": [0], "model_name": ""}  # all start from the one that is given
        self.experiment = experiment_of(profile, experiment).model_copy(update=own)

    def names(self):
        """{row: the names of its candidates}."""
        return {row: [f"{row} {i}" for i in range(len(listed))] for row, listed in self.search.listed().items()}

    def runs(self, concepts, names=None):
        """The runs of these candidates, or of all."""
        runs = []
        for row, candidates in sorted(self.search.listed().items()):
            for number, candidate in enumerate(candidates):
                name = f"{row} {number}"
                if names is None or name in names:
                    runs += [self.run(name, row, candidate, concept) for concept in concepts]
        return runs

    def run(self, name, row, candidate, concept):
        rule, draw = self.experiment.searched(concept, self.search.seed, self.class_names)
        run = Run(self.title, name, concept, rule, self.search.seed, row)
        return self.experiment.planned(self.profile, run, candidate, draw)
