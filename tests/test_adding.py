"""Adding is one file and one line: each test here writes the file, adds the line and runs what it added."""

import pytest

from cliperase.api import unlearn
from cliperase.errors import CliperaseError
from cliperase.methods import METHODS

METHOD = '''"""Hinge (ours): L = mean max(0, cos - margin) on Df + InfoNCE(Dr). Forgetting stops at the margin."""

from pydantic import Field

from cliperase.losses import retention
from cliperase.methods.base import LossMethod


class Hinge(LossMethod):
    margin: float = Field(default=0.1, ge=-1, le=1)  # cosine from which a pair counts as forgotten

    def loss(self, batch):
        f, r = batch.forget, batch.retain
        return {
            "hinge": ((f.image * f.text).sum(dim=1) - self.margin).relu().mean(),
            "RM": retention(r.image, r.text, batch.logit_scale, r.text_ids),
        }
'''


def test_a_method(model_folder, data_folder, tmp_path, monkeypatch):
    """With its own settings, errors, loss terms in the log, and the loop's settings beside them."""
    (tmp_path / "hinge.py").write_text(METHOD)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(METHODS, "hinge", "hinge:Hinge")

    settings = {"steps": 20, "learning_rate": 1e-3, "forget_batch": 4, "retain_batch": 8, "margin": -0.2}
    report = unlearn(model_folder, data_folder, {"concept": "apple"}, "hinge", settings)
    assert report["settings"]["margin"] == -0.2
    (entry,) = report["log"]
    assert set(entry) == {"step", "hinge", "RM", "validation"}
    assert entry["hinge"] > 0
    assert report["validation_before"]["forget_cosine"] - entry["validation"]["forget_cosine"] > 0.1
    with pytest.raises(CliperaseError, match="hinge: margin is 2; give at most 1"):
        unlearn(model_folder, data_folder, {"concept": "apple"}, "hinge", {**settings, "margin": 2})
