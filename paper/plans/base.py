"""What every experiment is: settings from a profile, and a `run` that gives a table of results."""

from abc import ABC, abstractmethod
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from cliperase.data.pairs import load_pairs
from cliperase.errors import CliperaseError
from cliperase.settings import Settings
from paper.params import Row
from paper.results import REFERENCES
from paper.runs import Place, run_all


class Experiment(Settings, ABC):
    """One experiment. Its fields are those of its section in a profile, and `name`, the section's name."""

    name: str
    model_name: str = ""  # of its model in the table, where that is not the profile's
    part: str = "original"  # the folder of its model, where it stands beside others
    methods: dict[Row, dict] = Field(default={})  # row -> settings; `method` is the algorithm of another name
    unlearn: dict = Field(default={})  # settings of the loop that differ from the profile's
    tuned: str = ""  # the search whose choices its rows have; without one the settings stand in `methods`
    originals: list[int] = Field(default=[0], min_length=1)  # seeds of pretraining: so many models to start from
    repeats: list[int] = Field(default=[])  # seeds of unlearning; the profile's, where none is named
    pretrain: dict = Field(default={})  # settings of the training of its model, where it has one

    @abstractmethod
    def run(self, profile, data, model):
        """(results table, {name: array} for pictures). `model`: the model's folder, or one that holds it as `part`."""

    def place(self, profile, data, model, splits):
        """The `Place` of its runs."""
        about = (profile.profile, profile.provenance, self.model_name or profile.model)
        return Place(*about, str(data), str(self.model_in(model)), tuple(splits), profile.workers)

    def model_in(self, folder):
        """The folder of its model: `part` of `folder`, where there is one, or `folder` itself."""
        part = Path(folder) / self.part
        return part if part.is_dir() else folder

    def configured(self, profile, row, change=None, draw=None):
        """{method, settings} of a row: the profile's settings of the loop, then the experiment's, `draw`, the row's
        own, those that a search chose, and `change`."""
        if row in REFERENCES:
            return {"method": row}
        if row not in self.methods:
            known = ", ".join([*REFERENCES, *self.methods])
            raise CliperaseError(f"experiment {self.name!r} has no row {row!r}; it has {known}")
        chosen = self.chosen(profile, row) if self.tuned else {}
        settings = {**profile.unlearn, **self.unlearn, **(draw or {}), **self.methods[row], **chosen, **(change or {})}
        return {"method": settings.pop("method", row), "settings": settings}

    def chosen(self, profile, row):
        """What the search `tuned` chose for a row."""
        try:
            return profile.chosen[self.tuned][row]
        except KeyError:
            raise CliperaseError(
                f"no settings are chosen for row {row!r} in the search {self.tuned!r} of profile {profile.profile}; "
                "run `make tune`"
            ) from None

    def searched(self, concept, seed, class_names):
        """(forget rule, settings of the loop) of a concept that the search for its settings forgets."""
        return {"concept": concept}, {}

    def seeds(self, profile, row):
        """References are one model for each original; every other row is run with every seed."""
        return self.originals if row in REFERENCES else self.repeats or profile.seeds

    def original_of(self, seed):
        """The seed of the original that a run of this seed starts from."""
        return seed if seed in self.originals else self.originals[0]


class Planned(Experiment):
    """An experiment of independent runs. Each unlearns once and is measured on every split."""

    alone: ClassVar[bool] = False  # one run after the other, so that seconds and memory can be read
    splits: ClassVar[tuple[str, ...]] = ("validation", "test")
    rows: list[str] = Field(default=[])  # run these only; all, where none is named

    @abstractmethod
    def plan(self, profile, pairs):
        """The list of `Run`s. `pairs`: the validation split, for its class names."""

    def planned(self, profile, run, change=None, draw=None):
        """A `Run` whose `method` is a row still: with that row's algorithm and settings, as of `configured`, and with
        the original that its seed starts from."""
        configured = self.configured(profile, run.method, change, draw)
        return replace(run, original=self.original_of(run.seed), **configured)

    def run(self, profile, data, model):
        runs = only_rows(self.plan(profile, load_pairs(data, "validation")), self.rows)
        # only some data sets have the same things from another source
        splits = [split for split in self.splits if split != "heldout" or split in profile.splits_of(data)]
        return run_all(self.place(profile, data, model, splits), runs, self.alone), {}


def only_rows(runs, rows):
    """The runs of these rows; all, if none is named."""
    known = list(dict.fromkeys(run.row for run in runs))
    for row in rows:
        if row not in known:
            raise CliperaseError(f"row {row!r} is not in the experiment; choose one of {', '.join(known)}")
    return [run for run in runs if not rows or run.row in rows]
