"""Adding a method, a data set, a model family, a probe, an experiment: one file and one line each."""

import importlib
import itertools
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from conftest import CLASSES, write_profile
from PIL import Image

from cliperase import models
from cliperase.api import AuditOptions, audit, evaluate, unlearn
from cliperase.audit import PROBES
from cliperase.errors import CliperaseError
from cliperase.methods import METHODS
from paper.__main__ import main as paper_main
from paper.experiments import EXPERIMENTS
from paper.results import read_results

FAMILY = '''
    """A family in one file: the mean colours of an image's tiles, and bags of words."""

    import zlib
    from pathlib import Path

    import torch
    import torch.nn.functional as F
    from safetensors.torch import load_file, save_file
    from torch import nn

    from cliperase.models.base import ImageTextModel
    from cliperase.models.framing import Resized

    WEIGHTS = "colours.safetensors"


    class Colours(ImageTextModel):
        sources = (f"a folder with {WEIGHTS}",)
        framing = Resized((4, 4), "squash")

        def __init__(self):
            super().__init__()
            self.set_colours(mean=[0.5, 0.5, 0.5], std=[0.25, 0.25, 0.25])
            self.image_head = nn.Linear(3 * 4 * 4, 16)
            self.words = nn.EmbeddingBag(1000, 16)

        @classmethod
        def recognises(cls, source):
            return (Path(source) / WEIGHTS).is_file()

        @classmethod
        def load(cls, source, device="cpu"):
            model = cls()
            model.load_state_dict(load_file(Path(source) / WEIGHTS))
            return model.to(device).eval()

        def save(self, folder):
            Path(folder).mkdir(parents=True, exist_ok=True)
            save_file(self.state_dict(), Path(folder) / WEIGHTS)

        @property
        def logit_scale(self):
            return torch.tensor(14.0, device=self.device)

        def encode_image(self, images):
            return F.normalize(self.image_head(self.pixels(images).flatten(1)), dim=1)

        def encode_text(self, texts):
            numbers = [[zlib.crc32(word.encode()) % 1000 for word in text.split()] for text in texts]
            bags = [self.words(torch.tensor([row], device=self.device)) for row in numbers]
            return F.normalize(torch.cat(bags), dim=1)

        @torch.no_grad()
        def multiply_text_head(self, matrix):
            self.words.weight.copy_(self.words.weight @ matrix)
'''
FAMILY_LINE = ("colours", "my_family:Colours")


def test_a_model_family(tmp_path, data_folder, monkeypatch):
    (tmp_path / "my_family.py").write_text(textwrap.dedent(FAMILY))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(models, "FAMILIES", dict(models.FAMILIES))
    models.register(*FAMILY_LINE)
    torch.manual_seed(0)
    importlib.import_module("my_family").Colours().save(tmp_path / "original")

    before = evaluate(tmp_path / "original", data_folder, {"concept": "apple"})
    settings = {"steps": 20, "learning_rate": 0.02, "forget_batch": 4, "retain_batch": 8, "evaluate_every": 10}
    for method, wanted in (("CLIPErase", settings), ("SSD", {"importance_of": "retain"}), ("null space", {})):
        unlearn(tmp_path / "original", data_folder, {"concept": "apple"}, method, wanted, output=tmp_path / method)
        after = evaluate(tmp_path / method, data_folder, {"concept": "apple"})
        assert after.keys() == before.keys()
        assert after["forget_cosine"] < before["forget_cosine"], method


METHOD = '''"""Hinge (ours): L = mean max(0, cos - margin) on Df + L_RM(Dr). Forgetting stops at the margin."""

from pydantic import Field

from cliperase.methods.base import LossMethod, retain_loss


class Hinge(LossMethod):
    margin: float = Field(default=0.1, ge=-1, le=1)  # cosine from which a pair counts as forgotten

    def loss(self, batch):
        similarity = (batch.forget.image * batch.forget.text).sum(dim=1)
        return {"hinge": (similarity - self.margin).relu().mean(), "RM": retain_loss(batch)}
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


DATA_SET = '''
"""Pictures in folders, <split>/<class>/…, become the schema: python folders.py SOURCE OUTPUT"""
import sys
from pathlib import Path
from datasets import Dataset
from cliperase.data.pairs import features_schema, write_split
from cliperase.data.pictures import as_png, read_picture

source, output = map(Path, sys.argv[1:])
names = sorted(folder.name for folder in (source / "train").iterdir())

def row(path):
    picture, name = as_png(read_picture(path, 32)), path.parent.name
    return {"image": picture, "captions": [f"a photo of a {name}"], "label": names.index(name), "source": "folders"}

for split in ("train", "validation", "test"):
    rows = [row(path) for path in sorted((source / split).glob("*/*"))]
    write_split(Dataset.from_list(rows, features=features_schema(names)), output, split)
'''


def test_a_data_set(model_folder, tmp_path):
    """Pictures of another size and format, by split and class; a script of a few lines; the call that measures."""
    for split in ("train", "validation", "test"):
        for name, colour in CLASSES.items():
            (tmp_path / "pictures" / split / name).mkdir(parents=True)
            for number in range(2):
                pixels = np.full((40, 48, 3), colour, np.uint8) + np.uint8(number)
                Image.fromarray(pixels).save(tmp_path / "pictures" / split / name / f"{number}.jpg")
    script, output = tmp_path / "folders.py", tmp_path / "data"
    script.write_text(DATA_SET)
    subprocess.run([sys.executable, script, tmp_path / "pictures", output], check=True)
    assert set(evaluate(model_folder, output, {"concept": "apple"})) >= {"forget_accuracy", "retain_accuracy"}


PROBE = '''"""Articles (ours): is an image nearer to "a photo of a <class>" than to the same behind another article?"""

from cliperase.audit.base import NotApplicable, Probe, compared
from cliperase.audit.intervals import mean_of


class Articles(Probe):
    asked = "Does the article before the concept change how near its images are?"
    figures = "difference: mean cosine to the usual prompt less that to the other one."
    means = "A large difference: the model knows a sentence rather than a concept."
    limits = "It is an example."
    source = "docs/adding.md"

    article: str = "an"

    def run(self, case):
        split, rows = case.test, case.test.forgotten
        if not split.has_classes:
            raise NotApplicable("captions have articles of their own")

        def difference(subject):
            images = subject.images(split)[rows]
            texts = [f"a photo of {self.article} {split.pairs.class_names[n]}" for n in split.own[rows, 0].tolist()]
            usual = subject.texts(split.texts)[split.own[rows, 0]]
            return mean_of((images * (usual - subject.texts(texts))).sum(dim=1))

        return [compared(case, "difference", "cosine", difference, known=None)]
'''


def test_a_probe(model_folder, data_folder, tmp_path, monkeypatch):
    """A file, its line: the audit asks it."""
    (tmp_path / "my_probe.py").write_text(PROBE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(PROBES, "articles", "my_probe:Articles")
    where = (model_folder, model_folder, data_folder, {"concept": "apple"})
    asked = AuditOptions(probes=["articles"], settings={"articles.article": "the"})
    result = audit(*where, options=asked, output=tmp_path / "out")
    (probe,) = result["probes"]
    assert probe["settings"] == {"article": "the"}
    assert probe["measures"][0]["before"]["value"] == probe["measures"][0]["after"]["value"] != 0
    assert "Does the article before the concept" in (tmp_path / "out" / "page.html").read_text()


EXPERIMENT = '''"""How many steps are enough? CLIPErase with more and more of them."""

from paper.plans.base import Planned
from paper.runs import Run


class Steps(Planned):
    concept: str
    steps: list[int]

    def plan(self, profile, pairs):
        rule, rows = {"concept": self.concept}, {f"{steps} steps": {"steps": steps} for steps in self.steps}
        return [
            self.planned(profile, Run(self.name, row, self.concept, rule, seed, "CLIPErase"), change)
            for row, change in rows.items()
            for seed in profile.seeds
        ]
'''


def test_an_experiment(model_folder, data_folder, tmp_path, monkeypatch, capsys):
    """A file, its line, its section in a profile: a results table by the command that its stage runs."""
    (tmp_path / "my_experiment.py").write_text(EXPERIMENT)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(EXPERIMENTS, "steps", "my_experiment:Steps")

    section = {"concept": "apple", "steps": [1, 2], "methods": {"CLIPErase": {"learning_rate": 1e-3}}}
    path = write_profile(tmp_path, seeds=[0, 1], experiments={"steps": section})
    where = ["--profile", str(path), "--data", str(data_folder), "--model", str(model_folder)]
    assert paper_main(["experiment", "steps", *where, "--output", str(tmp_path / "parts" / "steps.csv")]) == 0
    assert paper_main(["collect", str(tmp_path / "parts"), *where[:2], "--output", str(tmp_path / "results.csv")]) == 0
    table = read_results(tmp_path / "results.csv")
    assert set(zip(table.method, table.seed, strict=True)) == set(itertools.product(("1 steps", "2 steps"), "01"))
    assert set(table.split) == {"validation", "test"}
    chosen = table[table.metric == "selected_step"]
    assert (chosen.value <= chosen.method.str[0].astype(int)).all()

    write_profile(tmp_path, experiments={"steps": section | {"steps": "many"}})
    assert paper_main(["experiment", "steps", *where, "--output", str(tmp_path / "none.csv")]) == 2
    assert "experiments.steps of profile test: steps is 'many'; give a list" in capsys.readouterr().err
