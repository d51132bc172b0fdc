"""Damaged files: a loader reads one, or says in one line what is wrong. `make soak` tries many more of them."""

import json
import tempfile
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from conftest import CLASSES, PROFILE, cases, make_split, picture, square, write_shard
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from test_brought import NAMES, shade, write

from cliperase.audit.verdict import read_thresholds
from cliperase.checkpoints import load_checkpoint, save_checkpoint
from cliperase.cli import override
from cliperase.data.pairs import load_pairs, write_split
from cliperase.data.rules import Rule
from cliperase.data.shards import Decoder
from cliperase.data.source import load_split
from cliperase.data.tars import samples_of
from cliperase.data.templates import read_templates
from cliperase.errors import CliperaseError
from cliperase.files import hash_of
from cliperase.manifest import check_result
from cliperase.models import load_model
from cliperase.models.packing import pack, unpack
from cliperase.settings import parse_yaml, read_params
from cliperase.unlearning import Recipe
from paper.params import read_profile

PAIRS = [(f"{name}{n}.png", f"a {name}, {n}") for name in NAMES for n in range(4)]


def write_pictures(folder):
    for number, (file, _) in enumerate(PAIRS):
        if not (folder / file).exists():
            write(folder / file, shade(NAMES[0], number))


def all_rows(path):
    for split in ("train", "validation"):
        load_split(path, split, None, square(8), broken_percent=100.0)


def samples(path):
    decoder = Decoder(square(8), 100.0)
    for sample in samples_of([path]):
        if decoder.captions(sample) is not None:
            decoder.picture(sample)


def model_of(path):
    return load_model(path.parent)


def rows_of_schema(path):
    load_pairs(path.parent, "train", broken_percent=100.0)


def result_of(path):
    check_result(path.parent)


def unpacked(path):
    with tempfile.TemporaryDirectory() as folder:
        unpack(path, Path(folder) / "model")


def recipe(path):
    Recipe.of("CLIPErase", override({}, path.read_text(errors="replace").splitlines()))


def rule(path):
    Rule.of(parse_yaml(path.read_text(errors="replace"), "a rule"))


def thresholds(path):
    read_thresholds(read_params(path))


COCO = {
    "images": [{"id": number, "file_name": name} for number, (name, _) in enumerate(PAIRS)],
    "annotations": [{"image_id": number, "caption": text} for number, (_, text) in enumerate(PAIRS)],
}
KARPATHY = {
    "images": [{"filename": name, "split": "train", "sentences": [{"raw": text}]} for name, text in PAIRS],
}
TEXTS = {  # loader -> (file, its text, what reads it)
    "CSV": ("a.csv", "image,caption\n" + "".join(f'{name},"{text}"\n' for name, text in PAIRS), all_rows),
    "JSON lines": ("a.jsonl", "".join(json.dumps({"image": a, "text": b}) + "\n" for a, b in PAIRS), all_rows),
    "COCO": ("captions_train.json", json.dumps(COCO), all_rows),
    "Karpathy": ("dataset_coco.json", json.dumps(KARPATHY), all_rows),
    "profile": ("profile.yaml", yaml.safe_dump(PROFILE), read_profile),
    "rule": ("rule.txt", "{concepts: [apple, lemon], plural: true, case: false}", rule),
    "settings": ("settings.txt", "steps=7\nlearning_rate=1e-5\nlambda_fm=2\nautocast=true", recipe),
    "templates": ("templates.txt", "a photo of a {}\n{c}, a drawing\n", read_templates),
    "thresholds": ("limits.yaml", "linear-probe.image_1: {threshold: 3.0, auc: 0.9, source: study}", thresholds),
}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory, model_folder, data_folder):
    """{loader: (path of a sound binary file, what reads it)}."""
    folder = tmp_path_factory.mktemp("sound")
    write_shard(folder / "0.tar", range(4))
    write_split(make_split("validation", 2), folder / "schema", "train")
    (folder / "1.png").write_bytes(picture(CLASSES["apple"], 1))
    save_checkpoint(folder / "checkpoint.pt", {"identity": {"seed": 1}, "weights": {"a": torch.ones(3)}})
    pack(model_folder, ["apple"], folder / "packed.safetensors")
    load_model(model_folder).save(folder / "model")
    (weights,) = (folder / "model").glob("*.safetensors")
    (folder / "manifest.json").write_text(json.dumps({"cliperase": "1", "files": {"1.png": hash_of(folder / "1.png")}}))
    return {
        "shard": (folder / "0.tar", samples),
        "parquet": (next((folder / "schema").iterdir()), rows_of_schema),
        "checkpoint": (folder / "checkpoint.pt", partial(load_checkpoint, identity={"seed": 1})),
        "packed model": (folder / "packed.safetensors", unpacked),
        "configuration": (folder / "model" / "open_clip_config.json", model_of),
        "weights": (weights, model_of),
        "manifest": (folder / "manifest.json", result_of),
    }


PLACES = st.floats(0, 1, exclude_max=True)
PIECES = st.sampled_from(
    [b"", b"\0", b"\xff\xfe", b"{", b"]", b'"', b"'", b"\n", b",", b": ", b"-1", b"1e999", b"NaN", b"null", b"[]",
     b"../../x", b"\xed\xa0\x80", "🍎".encode(), b"&a *a", b"!!python/object:os.system", b"0" * 400, b"[" * 300]
)  # fmt: skip
DAMAGES = st.lists(
    st.one_of(
        st.tuples(st.just("flip"), PLACES, st.integers(0, 7)),
        st.tuples(st.just("cut"), PLACES, PLACES),
        st.tuples(st.just("repeat"), PLACES, PLACES),
        st.tuples(st.just("put"), PLACES, PIECES),
    ),
    min_size=1,
    max_size=4,
)


def damaged(content, damages):
    content = bytearray(content)
    for kind, place, how in damages:
        at = int(place * len(content))
        if kind == "flip" and content:
            content[at] ^= 1 << how
        elif kind == "cut":
            del content[at : at + max(1, int(how * 64))]
        elif kind == "repeat":
            content[at:at] = content[at : at + int(how * 64)]
        elif kind == "put":
            content[at:at] = how
    return bytes(content)


def reads_or_says(load, path):
    """No other exception than the one whose message is for the user, and that in one line."""
    try:
        load(path)
    except CliperaseError as error:
        lines = str(error).splitlines()
    else:
        lines = ["read"]
    assert len(lines) == 1


@pytest.mark.parametrize("loader", TEXTS)
@cases(40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(damages=DAMAGES)
def test_a_damaged_text_is_read_or_refused(loader, damages, tmp_path):
    name, text, load = TEXTS[loader]
    if load is all_rows:
        write_pictures(tmp_path)
    (tmp_path / name).write_bytes(damaged(text.encode(), damages))
    reads_or_says(load, tmp_path / name)


@pytest.mark.parametrize(
    "loader", ["shard", "parquet", "checkpoint", "packed model", "configuration", "weights", "manifest"]
)
@cases(12, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(damages=DAMAGES)
def test_a_damaged_file_is_read_or_refused(loader, damages, bundle):
    path, load = bundle[loader]
    sound = path.read_bytes()
    try:
        path.write_bytes(damaged(sound, damages))
        reads_or_says(load, path)
    finally:
        path.write_bytes(sound)


def test_what_is_sound_is_read(bundle, tmp_path):
    """Else the tests above would hold whatever the loaders do."""
    for path, load in bundle.values():
        load(path)
    write_pictures(tmp_path)
    for name, text, load in TEXTS.values():
        (tmp_path / name).write_text(text)
        load(tmp_path / name)
