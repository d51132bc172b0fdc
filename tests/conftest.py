"""A data set and a model small enough for tests: four classes, told apart by colour."""

import copy
import io
import json
import os
import re
import tarfile
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from datasets import Dataset
from hypothesis import settings
from messages import Recorder
from PIL import Image

from cliperase.data.pairs import features_schema, load_pairs, write_split
from cliperase.loop import Loop
from cliperase.models.compact import COMPACT
from cliperase.models.framing import Resized
from cliperase.models.openclip import create_model
from paper.small_blip import pretrain_blip

SOAK = int(os.environ.get("CLIPERASE_SOAK", 1))  # `make soak` sets it: so many times the cases, kills and steps
settings.register_profile("untimed", deadline=None)  # a busy machine is no failure
settings.load_profile("untimed")


def cases(count, **more):
    """A property is tried on so many cases, or in `make soak` on more."""
    return settings(max_examples=count * SOAK, **more)


CLASSES = {"apple": (220, 40, 40), "lemon": (230, 220, 60), "leaf": (40, 160, 60), "plum": (110, 40, 140)}
TINY_BLIP = {
    "vision_config": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
                      "image_size": 32, "patch_size": 8, "initializer_range": 0.02, "convolutional": True},
    "text_config": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
                    "max_position_embeddings": 35},
    "image_text_hidden_size": 32,
}  # fmt: skip
TINY_TRAINING = {"steps": 4, "batch": 8, "evaluate_every": 2, "learning_rate": 1e-3}
TINY_VIT = {
    "model_cfg": {
        "embed_dim": 32,
        "vision_cfg": {"layers": 2, "width": 64, "patch_size": 8, "image_size": 32},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
    },
    "preprocess_cfg": {"size": 32, "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]},
}
PROFILE = {
    "profile": "test", "provenance": "icons", "model": "compact",
    "data": {"sets": {"colours": {"per_class": {"train": 8, "validation": 4, "test": 4, "heldout": 2}}}},
    "pretrain": {"steps": 2, "learning_rate": 1e-3, "retain_batch": 8, "seed": 0},
    "concepts": ["apple"], "seeds": [0],
    "unlearn": {"steps": 2, "forget_batch": 4, "retain_batch": 8, "evaluate_every": 1},
    "methods": {"CLIPErase": {"learning_rate": 1e-3}},
    "experiments": {},
}  # fmt: skip
THREADS = min(2, torch.get_num_threads())
ROWS = {"train": 8, "validation": 4, "test": 4, "heldout": 2}


def pytest_report_header():
    return "GPU: " + (torch.cuda.get_device_name() if torch.cuda.is_available() else "none; tests of one are skipped")


def pytest_configure(config):
    if os.environ.get("RECORD_ERRORS"):
        config.pluginmanager.register(Recorder())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    """A record of the run, for `robustness.py`, has how much was tried: the examples of a property, and `SOAK`."""
    report = yield
    if report.when == "call":
        examples = re.findall(r"(\d+) passing", getattr(item, "hypothesis_statistics", ""))
        report.user_properties += [("soak", SOAK), *([("tries", sum(map(int, examples)))] if examples else [])]
    return report


def pytest_collection_modifyitems(items):
    """The longest first: where tests run at once, nobody waits for it at the end."""
    items.sort(key=lambda item: item.path.name != "test_pipeline.py")


@contextmanager
def killed_at(step):
    """A loop in here dies when it comes to `step`."""
    whole = Loop.step

    def die(self, number):
        if number == step:
            raise KeyboardInterrupt
        return whole(self, number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loop, "step", die)
        with pytest.raises(KeyboardInterrupt):
            yield


def without(value, *keys):
    """Plain values without these keys, at any depth."""
    if isinstance(value, dict):
        return {key: without(one, *keys) for key, one in value.items() if key not in keys}
    return [without(one, *keys) for one in value] if isinstance(value, list) else value


def write_profile(folder, **changes):
    """The path of a small profile, some of its sections replaced."""
    path = folder / "profile.yaml"
    path.write_text(yaml.safe_dump(PROFILE | changes))
    return path


def make_split(split, per_class=None, seed=0):
    rng = np.random.default_rng([seed, list(ROWS).index(split)])
    rows = []
    for label, (name, colour) in enumerate(CLASSES.items()):
        for _ in range(per_class or ROWS[split]):
            noise = rng.normal(0, 20, (32, 32, 3))
            image = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
            captions = [f"a photo of a {name}", f"a drawing of a {name}"]
            rows.append({"image": image, "captions": captions, "label": label, "source": f"colour:{name}"})
    return Dataset.from_list(rows, features=features_schema(list(CLASSES)))


def picture(colour, number):
    noise = np.random.default_rng(number).normal(0, 20, (40, 48, 3))
    encoded = io.BytesIO()
    Image.fromarray(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)).save(encoded, "PNG")
    return encoded.getvalue()


def square(side):
    """Pictures are cut to the middle square of `side` pixels."""
    return Resized((side, side))


def write_shard(path, numbers, broken=(), silent=()):
    """One sample a number, of the classes in turn; `broken` ones hold no picture, `silent` ones no caption."""
    names = list(CLASSES)
    with tarfile.open(path, "w") as shard:
        for number in numbers:
            name = names[number % len(names)]
            files = {"png": picture(CLASSES[name], number), "txt": f"a {name}, number {number}".encode()}
            files["json"] = json.dumps({"key": number}).encode()
            if number in broken:
                files["png"] = b"no picture"
            if number in silent:
                del files["txt"]
            for suffix, content in files.items():
                about = tarfile.TarInfo(f"{number:09d}.{suffix}")
                about.size = len(content)
                shard.addfile(about, io.BytesIO(content))


@pytest.fixture(scope="session")
def shards(tmp_path_factory):
    """Eight training shards of 16 samples, one to validate and one to test, of 40."""
    folder = tmp_path_factory.mktemp("shards")
    for shard in range(8):
        write_shard(folder / f"{shard:05d}.tar", range(16 * shard, 16 * shard + 16))
    write_shard(folder / "00008.tar", range(200, 240))
    write_shard(folder / "00009.tar", range(300, 340))
    return folder


def write_parquet(path, columns, rows_a_group=16, **options):
    """One file of columns {name: values}; pictures are bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, row_group_size=rows_a_group, **options)


@pytest.fixture(scope="session")
def row_groups(tmp_path_factory):
    """The samples of `shards` in parquet files of the schema, 16 to a row group, each with a second caption."""
    folder = tmp_path_factory.mktemp("row_groups")
    splits = {"train-00000-of-00002": range(80), "train-00001-of-00002": range(80, 128),
              "validation": range(200, 240), "test": range(300, 340)}  # fmt: skip
    for name, numbers in splits.items():
        classes = [list(CLASSES)[number % 4] for number in numbers]
        files = [{"bytes": picture(CLASSES[one], number), "path": None}
                 for one, number in zip(classes, numbers, strict=True)]  # fmt: skip
        captions = [[f"a {one}, number {number}", f"again number {number}"]
                    for one, number in zip(classes, numbers, strict=True)]  # fmt: skip
        write_parquet(folder / f"{name}.parquet", {"image": files, "captions": captions})
    return folder


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "colours"
    for split in ROWS:
        write_split(make_split(split), folder, split)
    return folder


@pytest.fixture(scope="session")
def training(data_folder):
    return load_pairs(data_folder, "train")


@pytest.fixture(scope="session")
def base_model():
    return create_model(COMPACT, seed=0).eval()


@pytest.fixture
def model(base_model):
    """A fresh copy: tests may train it."""
    return copy.deepcopy(base_model)


@pytest.fixture(scope="session")
def model_folder(base_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "original"
    base_model.save(folder)
    return folder


@pytest.fixture(scope="session")
def blip_folder(data_folder, model_folder, tmp_path_factory):
    """A matching model and a captioner."""
    output = tmp_path_factory.mktemp("blip") / "small"
    pretrain_blip(data_folder, model_folder, output, TINY_TRAINING, TINY_BLIP)
    return output


@pytest.fixture(autouse=True)
def own_caches(tmp_path_factory, monkeypatch):
    monkeypatch.setattr("paper.runs.FEATURES", tmp_path_factory.getbasetemp() / "features")
    monkeypatch.setattr("paper.store.RUNS", tmp_path_factory.mktemp("runs"))


@pytest.fixture(autouse=True)
def few_threads():
    """What is tested may ask for more, and leaves it so."""
    torch.set_num_threads(THREADS)


def changed_config(**changes):
    config = copy.deepcopy(COMPACT)
    config["model_cfg"] |= {key: value for key, value in changes.items() if key != "width"}
    config["model_cfg"]["text_cfg"]["width"] = changes.get("width", 128)
    return config
