"""Profiles: the parameters of one reproduction, a YAML file in `profiles/`."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from cliperase.errors import CliperaseError
from cliperase.settings import Settings, checked, read_params, section
from paper.results import PROVENANCES

PROFILES = Path(__file__).parent / "profiles"
CHOSEN = PROFILES / "chosen"  # {search: {row: settings}} of each profile, written by `python -m paper.choices --adopt`


class Data(Settings):
    """The data sets of a profile, and what those that are drawn have in common."""

    sets: dict[str, dict]
    seed: int = 0
    templates: list[str] = Field(default=[])


def plain(name):
    """The same name, if it can be part of a file's name: rows, concepts and profiles become folders."""
    if not name or name.startswith(".") or any(sign in name for sign in "/\\\0"):
        raise ValueError(f"{name!r} becomes a part of file names; leave out slashes, and a dot at the beginning")
    return name


def plain_parts(name):
    """The same name of a row: it may have a variant behind a slash, as `CLIPErase/SALMU`."""
    return "/".join(plain(part) for part in name.split("/"))


Name = Annotated[str, AfterValidator(plain)]
Row = Annotated[str, AfterValidator(plain_parts)]


class Profile(Settings):
    """One reproduction: the same pipeline with other data, another model and other settings."""

    profile: Name
    provenance: Literal[PROVENANCES]
    model: str  # its name in the tables
    hub: dict[Name, str] = Field(default={})  # models that are fetched: name -> source
    data: Data
    pretrain: dict  # settings of the original's training; its seed is the seed of every reference
    concepts: list[Name] = Field(min_length=1)
    seeds: list[int] = Field(min_length=1)
    unlearn: dict  # settings of the loop, for every row
    methods: dict[Row, dict]  # rows of the main table
    experiments: dict[Name, dict]
    shards: dict[str, str] = Field(default={})
    search: dict = Field(default={})  # for settings, see `paper.search.Searches`
    power: dict = Field(default={})  # of the audit's power study, see `paper.power.Study`
    chosen: dict[str, dict[str, dict]] = Field(default={})  # search -> row -> settings; from a file of its own
    workers: int = Field(default=0, ge=0)  # processes of an experiment; 0: one for each core

    def section(self, path):
        """The mapping at `a.b.c`."""
        return section(self.model_dump(), path)

    def splits_of(self, data):
        """The names of the splits of the data set in the folder `data`."""
        settings = self.section(f"data.sets.{Path(data).name}")
        for name in ("per_class", "images"):
            if name in settings:
                return list(settings[name])
        raise CliperaseError(f"data set {Path(data).name!r} of the profile has no 'images'; name its splits")


def profile_path(name):
    """The file of a profile; `name` is one of `profiles/`, or the path of a YAML file."""
    if Path(name).suffix in (".yaml", ".yml"):
        return Path(name)
    known = sorted(path.stem for path in PROFILES.glob("*.yaml"))
    if name not in known:
        raise CliperaseError(f"profile {name!r} unknown; choose one of {', '.join(known)}, or the path of a YAML file")
    return PROFILES / f"{name}.yaml"


def read_profile(name):
    """The `Profile` of this name or path, checked, with the choices of its searches."""
    path = profile_path(name)
    chosen = CHOSEN / path.name
    found = {"chosen": read_params(chosen)} if chosen.is_file() and path.parent == PROFILES else {}
    return checked(Profile, read_params(path) | found, f"profile {name}")
