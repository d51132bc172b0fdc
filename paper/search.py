"""The search for settings: the candidates of every row, on validation images of concepts that are not reported."""

from pathlib import Path

from pydantic import Field

from cliperase.errors import CliperaseError
from cliperase.settings import Settings, checked, read_params
from paper.experiments import experiment_of
from paper.params import PROFILES
from paper.runs import Run, run_all

SEARCHES = PROFILES / "search"


class Search(Settings):
    """The candidates of some experiments' rows."""

    experiments: list[str]
    concepts: list[str] = Field(min_length=1)  # none of the reported ones
    seed: int
    standard_error: float = Field(ge=0)  # of a candidate's score, see `paper.choices`
    candidates: dict[str, list[dict]]  # row -> settings that are tried


def searches_of(profile):
    """{file name: `Search`} of a profile, by its name."""
    return {path.stem: checked_search(path) for path in sorted(SEARCHES.glob(f"{profile}-*.yaml"))}


def checked_search(path):
    return checked(Search, read_params(path), f"search {Path(path).name}")


def read_search(profile, experiment, path=None):
    """The search for an experiment of a profile: of the file at `path`, or the one in `SEARCHES` that names it."""
    found = [checked_search(path)] if path else list(searches_of(profile).values())
    for search in found:
        if experiment in search.experiments:
            return search
    raise CliperaseError(
        f"no search of profile {profile!r} is for the experiment {experiment!r}; name it in one of {SEARCHES.name}/"
    )


def run_search(profile, search, experiment, data, model):
    """Every candidate of every row on the search concepts: a results table of validation metrics.

    Test images are not loaded. A candidate is named `<row> <number>`; its settings stand in the search.
    """
    for concept in search.concepts:
        if concept in profile.concepts:
            raise CliperaseError(f"search concept {concept!r} is among the reported ones; choose another")
    name, runs = "tuning" if experiment == "main" else f"tuning {experiment}", []
    for row, candidates in sorted(search.candidates.items()):
        for number, candidate in enumerate(candidates):
            tried = experiment_of(profile, experiment, methods={row: candidate})
            for concept in search.concepts:
                about = (name, f"{row} {number}", concept, {"concept": concept}, search.seed)
                runs.append(Run(*about, **tried.configured(profile, row)))
    place = tried.model_copy(update={"model_name": ""}).place(profile, data, model, ["validation"])
    return run_all(place, runs)
