"""The profile `paper` with stand-ins: what it runs, it runs; and no number of a rehearsal can become a result.

The small rehearsal has one row for each experiment. `make rehearsal` has all of them, and the notebooks.
"""

import os

import nbformat
import pandas as pd
import pytest

from cliperase.errors import CliperaseError
from cliperase.models import load_model
from paper import readme
from paper.ledger import ledger
from paper.params import PROFILES, read_profile
from paper.rehearsal import ROOT, SHRUNK, prepare, rehearse
from paper.results import COLUMNS, REHEARSAL, STAND_IN, collect, read_results, write_table
from paper.tables import experiment_rows

WHOLE = bool(os.environ.get("CLIPERASE_REHEARSAL"))  # set by `make rehearsal`
PAPER = read_profile("paper")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("paper") / REHEARSAL
    rehearse(found, small=not WHOLE)
    return found


@pytest.fixture(scope="module")
def table(folder):
    return read_results(folder / "metrics" / "paper" / "results.csv")


def test_every_experiment_runs_and_says_that_it_was_a_rehearsal(table):
    missing = set(PAPER.experiments) - set(table.experiment)
    assert missing == (set() if WHOLE else {"efficiency", "embedding"})
    assert set(table.provenance) == {STAND_IN}
    assert table.value.notna().all()


def test_the_rows_are_those_of_the_profile(table):
    rows = set(table[table.experiment == "main"].method)
    assert rows == {"original", *(PAPER.methods if WHOLE else ["CLIPErase"])}
    retrieval = set(table[table.experiment == "retrieval"].metric)
    assert {"forget_text_retrieval_r@10", "forget_image_retrieval_r@10"} <= retrieval
    assert "kept_sense_accuracy" in set(table[table.experiment == "polysemy"].metric)
    assert table[table.experiment == "audit"].metric.str.startswith("linear-probe").any()


def test_the_shards_leave_a_whole_model(folder):
    assert load_model(folder / "artifacts" / "paper" / "cc12m").framing.size == (224, 224)


def test_the_ledger_judges_what_was_run(folder):
    cells = ledger({STAND_IN: folder / "metrics" / "paper" / "results.csv"})
    verdicts = set(cells[f"{STAND_IN}: verdict"])
    assert verdicts - {"not run"}
    assert ("not run" in verdicts) != WHOLE


@pytest.mark.skipif(not WHOLE, reason="make rehearsal executes them")
def test_the_notebooks_show_the_stand_ins(folder):
    stages = (ROOT / "paper" / "stages.yaml").read_text()
    executed = sorted((folder / "notebooks" / "paper").glob("*.ipynb"))
    assert [path.stem for path in executed] == sorted(
        name for name in (path.stem for path in (ROOT / "notebooks").glob("*.py")) if f"output: paper/{name}" in stages
    )
    for path in executed:
        assert STAND_IN in str(nbformat.read(path, as_version=4).cells)


def numbers(provenance, experiment="main"):
    """A table of one number."""
    about = dict.fromkeys(COLUMNS, "") | {"experiment": experiment, "metric": "retain_accuracy", "split": "test"}
    return pd.DataFrame([about | {"value": 1.0, "seconds": 0.0, "peak_mb": 1.0, "provenance": provenance}])


@pytest.fixture
def stray(tmp_path):
    """A rehearsal's table where results stand."""
    path = tmp_path / "metrics" / "icons" / "results.csv"
    write_table(numbers(STAND_IN), path)
    return path


@pytest.mark.parametrize("read", [read_results, lambda path: experiment_rows(path, "main"),
                                  lambda path: ledger({"icons": path})])  # fmt: skip
def test_a_rehearsal_is_read_in_its_own_folder_only(read, stray, tmp_path):
    with pytest.raises(CliperaseError, match="are a rehearsal's, of models with random weights"):
        read(stray)
    own = tmp_path / REHEARSAL / "results.csv"
    write_table(numbers(STAND_IN), own)
    assert len(read_results(own)) == 1


def test_the_readme_takes_no_stand_in(stray, tmp_path, monkeypatch):
    monkeypatch.setattr(readme, "ROOT", tmp_path)
    with pytest.raises(CliperaseError, match="are a rehearsal's"):
        readme.provenance("icons")


def test_nothing_collects_a_stand_in_into_results_or_beside_them(tmp_path):
    parts = tmp_path / REHEARSAL / "parts"
    write_table(numbers(STAND_IN), parts / "main.csv")
    with pytest.raises(CliperaseError, match="are a rehearsal's"):
        collect(parts, ["main"], tmp_path / "results.csv")
    assert not (tmp_path / "results.csv").exists()
    write_table(numbers("paper-data", "ablation"), parts / "ablation.csv")
    with pytest.raises(CliperaseError, match="mix a rehearsal's numbers with others"):
        collect(parts, ["main", "ablation"], tmp_path / REHEARSAL / "results.csv")


def test_no_profile_is_a_rehearsal_and_a_rehearsal_has_its_own_folder(tmp_path):
    assert STAND_IN not in {read_profile(path.stem).provenance for path in PROFILES.glob("*.yaml")}
    with pytest.raises(CliperaseError, match="name one below 'rehearsal'"):
        prepare(tmp_path)


def test_only_a_rehearsal_is_removed_by_the_next(tmp_path):
    folder = tmp_path / REHEARSAL / "thesis"
    folder.mkdir(parents=True)
    (folder / "thesis.tex").write_text("three years")
    with pytest.raises(CliperaseError, match="thesis holds files that are no rehearsal's; name a new one"):
        prepare(folder)
    assert (folder / "thesis.tex").read_text() == "three years"
    (folder / "thesis.tex").unlink()
    for _ in range(2):
        prepare(folder, small=True)
        assert not (folder / "left").exists()
        (folder / "left").touch()


def test_a_rehearsal_changes_sizes_and_no_row_of_the_main_table(tmp_path):
    prepare(tmp_path / REHEARSAL)
    path = tmp_path / REHEARSAL / "paper" / "profiles" / "paper.yaml"
    small = read_profile(str(path))
    assert small.provenance == STAND_IN
    assert small.methods == PAPER.methods
    assert small.hub == PAPER.hub
    assert set(small.experiments) == set(PAPER.experiments)
    assert (path.parents[1] / "stages.yaml").read_text() != (ROOT / "paper" / "stages.yaml").read_text()
    rows = {name: set(settings.get("methods", ())) for name, settings in PAPER.experiments.items()}
    assert {name for name in rows if rows[name] != set(small.experiments[name].get("methods", ()))} == set(SHRUNK)
