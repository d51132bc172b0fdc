"""The benchmark: a method from a file, models from a folder, and the leaderboard that is made of their entries."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from test_audits import rows_of_figures, study_of

from cliperase.errors import CliperaseError
from cliperase.files import hash_of
from cliperase.methods import METHODS
from paper.audits import GOALS
from paper.benchmark import check_name, enter, leaderboard, register, write_entry
from paper.params import read_profile
from paper.results import COLUMNS

METHOD = '''"""Nothing but retention."""

from cliperase.losses import retention
from cliperase.methods.base import LossMethod


class Mine(LossMethod):
    def loss(self, batch):
        r = batch.retain
        return {"RM": retention(r.image, r.text, batch.logit_scale, r.text_ids)}
'''
STEPS = {"learning_rate": 1e-3, "epochs": 0.5, "evaluations": 1, "forget_batch": 4, "retain_batch": 8}


@pytest.fixture
def profile():
    """The pictograms' profile with a concept of the tests' data and few probes."""
    found = read_profile("icons")
    audit = {**found.experiments["audit"], "concepts": ["leaf"], "probes": ["reference-gap"], "settings": {}}
    return found.model_copy(update={"experiments": {**found.experiments, "audit": audit}, "workers": 1, "seeds": [0]})


@pytest.fixture
def models(base_model, tmp_path):
    base_model.save(tmp_path / "models" / "original")
    return tmp_path / "models"


@pytest.fixture(autouse=True)
def forgotten_names():
    """Entries are forgotten after the test."""
    before = dict(METHODS)
    yield
    METHODS.clear()
    METHODS.update(before)


@pytest.fixture
def data(data_folder, tmp_path):
    """The data under the name that the profile knows."""
    return shutil.copytree(data_folder, tmp_path / "icons")


def test_a_method_from_a_file_is_entered(profile, data, models, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(METHOD)
    rows, header = enter(profile, "mine", data, models, file=file, settings=STEPS, small=True)
    assert set(rows.method) == {"mine"}
    assert "reference-gap.forget_accuracy" in set(rows.metric)
    assert header["method"]["file"] == "mine.py"
    assert header["small"]
    study = study_of(tmp_path, OF_GOALS, (-1, 20))
    said = write_entry(tmp_path / "entry", rows, header, study)
    written = json.loads((tmp_path / "entry" / "entry.json").read_text())
    assert written == header | {"rows": hash_of(tmp_path / "entry" / "rows.csv")}
    assert pd.read_csv(tmp_path / "entry" / "verdicts.csv").verdict.tolist() == said.verdict.tolist()
    assert len(said) == 1


def test_models_that_other_code_unlearned_are_entered(profile, data, models, tmp_path):
    shutil.copytree(models / "original", tmp_path / "theirs" / "leaf-0")
    rows, header = enter(profile, "theirs", data, models, folder=tmp_path / "theirs")
    assert set(rows.method) == {"theirs"}
    assert list(header["models"]) == ["leaf-0"]


def test_what_cannot_be_entered_is_said(profile, data, models, tmp_path):
    with pytest.raises(CliperaseError, match="give one of --method and --unlearned"):
        enter(profile, "mine", data, models)
    with pytest.raises(CliperaseError, match="leaf-0 is missing; put one there"):
        enter(profile, "theirs", data, models, folder=tmp_path / "nowhere")
    for name in ("GA", "retrain", "", "a|b", "a/../b", "x" * 41):
        with pytest.raises(CliperaseError, match="name "):
            check_name(name)
    file = tmp_path / "none.py"
    for text, said in (
        ("x = 1", "defines 0 methods"),
        ("raise OSError(1)", "cannot be run"),
        ("import", "cannot be run"),
    ):
        file.write_text(text)
        with pytest.raises(CliperaseError, match=said):
            register("mine", file)
    with pytest.raises(CliperaseError, match="is no Python file"):
        register("mine", data)


OF_GOALS = dict.fromkeys(GOALS, (1.0, 30.0, 0.0, (1, 1), (90, 90)))


def entry_of(folder, name, small, figures):
    rows = rows_of_figures(**{name: figures}).assign(
        profile="icons", experiment="audit", dataset="icons", model="compact", split="test", unit="%",
        provenance="icons", seconds=3.0, peak_mb=1.0,
    )  # fmt: skip
    header = {"name": name, "small": small, **({} if name == "theirs" else {"method": {"file": f"{name}.py"}})}
    write_entry(folder / name, rows[COLUMNS], header, study_of(folder.parent, OF_GOALS, (-1, 20)))
    return rows[COLUMNS]


def test_the_leaderboard_is_made_of_entries(tmp_path):
    low, high = dict.fromkeys(GOALS, (0.0, 1.0, 2.0)), dict.fromkeys(GOALS, (60.0, 70.0, 80.0))
    own = [
        entry_of(tmp_path / "own", name, True, high if name == "original" else low) for name in ("original", "retrain")
    ]
    pd.concat(own).to_csv(tmp_path / "results.csv", index=False)
    entry_of(tmp_path / "entries", "mine", False, low)
    entry_of(tmp_path / "entries", "theirs", False, low)
    entry_of(tmp_path / "entries", "tried", True, low)
    study = study_of(tmp_path, OF_GOALS, (-1, 20))
    board = leaderboard(tmp_path / "results.csv", study, tmp_path / "entries").set_index("method")
    assert list(board.index) == ["original", "retrain", "mine", "theirs"]  # a small entry is not listed
    assert board["no trace"].tolist() == [0, 100, 100, 100]
    assert board["not gone"].tolist() == [100, 0, 0, 0]
    assert np.isnan(board.loc["theirs", "seconds"])
    assert board.loc["mine", "from"] == '{"file": "mine.py"}'
    assert board.loc["mine", "seconds"] == 3


def test_an_entry_that_was_edited_or_is_not_whole_is_refused(tmp_path):
    low = dict.fromkeys(GOALS, (0.0, 1.0, 2.0))
    own = [entry_of(tmp_path / "own", name, True, low) for name in ("original", "retrain")]
    pd.concat(own).to_csv(tmp_path / "results.csv", index=False)
    entry_of(tmp_path / "entries", "mine", False, low)
    study, path = study_of(tmp_path, OF_GOALS, (-1, 20)), tmp_path / "entries" / "mine" / "rows.csv"
    sound = path.read_text()
    path.write_text(sound.replace("icons,audit", "icons,edited", 1))
    with pytest.raises(CliperaseError, match=r"rows.csv is not the one that was measured; enter 'mine' again"):
        leaderboard(tmp_path / "results.csv", study, tmp_path / "entries")
    path.write_text(sound)
    own = pd.read_csv(tmp_path / "results.csv")
    pd.concat([own, own.assign(seed=1)]).to_csv(tmp_path / "results.csv", index=False)
    with pytest.raises(CliperaseError, match=r"has 1 runs of mine, and the leaderboard lists 2 of mine"):
        leaderboard(tmp_path / "results.csv", study, tmp_path / "entries")
