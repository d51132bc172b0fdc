"""Several processes: shares and gathering by hand, and the same model as a single process makes."""

import copy
import json
import os
import subprocess
import sys

import pytest
import torch
from conftest import TINY_VIT

from cliperase import parallel
from cliperase.errors import CliperaseError
from cliperase.methods.fine_tune import FineTune
from cliperase.models import load_model
from cliperase.models.openclip import create_model
from cliperase.settings import TrainSettings
from cliperase.training import PairTraining
from cliperase.unlearning import Recipe, divided


def test_one_process_has_everything():
    features = torch.rand(5, 2)
    assert parallel.share(5) == slice(0, 5)
    assert parallel.gather(features, 5) is features
    assert parallel.is_first()


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("count", [1, 2, 5, 16])
def test_shares_are_every_row_once(size, count, monkeypatch):
    monkeypatch.setattr(parallel.dist, "is_initialized", lambda: True)
    monkeypatch.setattr(parallel.dist, "get_world_size", lambda: size)
    rows = []
    for rank in range(size):
        monkeypatch.setattr(parallel.dist, "get_rank", lambda rank=rank: rank)
        rows += list(range(count))[parallel.share(count)]
    assert rows == list(range(count))


def test_a_process_without_a_gpu_is_told(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for name, value in {"WORLD_SIZE": "2", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(CliperaseError, match="process 2 of torchrun has no GPU; give --nproc-per-node=1"):
        parallel.join_processes()


def run(processes, *call):
    """A call of Python in one process, or in several of torchrun, without a GPU; what the first prints."""
    together = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [sys.executable, *(together if processes > 1 else []), *map(str, call)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def unlearn(processes, model_folder, data_folder, output, *settings, method="CLIPErase"):
    """What the command prints, and the model it writes."""
    call = ["-m", "cliperase.cli", "unlearn", "--no-audit", "--model", model_folder, "--data", data_folder]
    call += ["--forget", "apple", "--method", method, "--output", output, "--set", "steps=3", "learning_rate=1.0e-3"]
    call += ["forget_batch=4", "retain_batch=9", "evaluate_every=1", *settings]
    return json.loads(run(processes, *call)), load_model(output).state_dict()


@pytest.mark.parametrize(
    ("method", "settings"),
    [("CLIPErase", ()), ("CLIPErase", ("micro_batch=3",)), ("SalUn", ()), ("GA", ("towers=text",))],
    ids=["whole", "in pieces", "with a mask", "text alone"],
)
def test_two_processes_make_the_model_of_one(method, settings, model_folder, data_folder, tmp_path):
    alone, one = unlearn(1, model_folder, data_folder, tmp_path / "one", *settings, method=method)
    report, two = unlearn(2, model_folder, data_folder, tmp_path / "two", *settings, method=method)
    for entry, other in zip(alone["log"], report["log"], strict=True):
        terms = {name: value for name, value in entry.items() if name not in ("step", "validation")}
        assert terms
        assert terms == pytest.approx({name: other[name] for name in terms}, abs=1e-5)
    before = load_model(model_folder).state_dict()
    assert any(not torch.equal(value, before[name]) for name, value in one.items())
    for name, value in one.items():
        assert torch.allclose(value, two[name], atol=1e-5), name
    assert not (tmp_path / "two" / "checkpoint.pt").exists()


AUDITED = """
import sys
from cliperase.audit import PROBES
from cliperase.cli import main

for name in {*PROBES} - {"relearning"}:
    del PROBES[name]
sys.exit(main())
"""


def test_the_first_of_two_processes_audits_alone(model_folder, data_folder, tmp_path):
    """By a probe that trains, after the other process has ended."""
    (tmp_path / "script.py").write_text(AUDITED)
    call = [tmp_path / "script.py", "unlearn", "--model", model_folder, "--data", data_folder, "--forget", "apple"]
    settings = ["--set", "steps=1", "learning_rate=1.0e-3", "forget_batch=4", "retain_batch=8"]
    printed = run(2, *call, "--output", tmp_path / "out", *settings)
    assert json.loads(printed) == json.loads((tmp_path / "out" / "report.json").read_text())
    (probe,) = json.loads((tmp_path / "out" / "audit" / "audit.json").read_text())["probes"]
    assert probe["measures"]


@pytest.fixture(scope="module")
def transformer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("transformer")
    deep = copy.deepcopy(TINY_VIT)
    deep["model_cfg"]["text_cfg"]["layers"] = 2
    create_model(deep, seed=0).save(folder)
    return folder


@pytest.mark.parametrize(
    "settings", [("clip_norm=0.1",), ("micro_batch=3", "weight_decay=0.1")], ids=["whole", "in pieces"]
)
def test_two_processes_with_weights_in_parts_make_the_model_of_one(settings, transformer, data_folder, tmp_path):
    alone, one = unlearn(1, transformer, data_folder, tmp_path / "one", *settings)
    report, two = unlearn(2, transformer, data_folder, tmp_path / "two", "shard=true", *settings)
    for entry, other in zip(alone["log"], report["log"], strict=True):
        assert entry["validation"] == pytest.approx(other["validation"], abs=1e-4)
        assert [entry[name] for name in ("RM", "FM", "CM")] == pytest.approx(
            [other[name] for name in ("RM", "FM", "CM")], abs=1e-5
        )
    before = load_model(transformer).state_dict()
    assert one.keys() == two.keys() == before.keys()
    assert sum(not torch.equal(value, before[name]) for name, value in one.items()) > len(one) / 2
    for name, value in one.items():
        if not name.endswith("in_proj_bias"):  # the gradient by a key's bias is 0 but for rounding, which Adam enlarges
            assert torch.allclose(value, two[name], atol=1e-5), name


PARTS = """
import json, sys, torch
from cliperase.data.source import load_training
from cliperase.loop import Loop, run_loop
from cliperase.models import load_model
from cliperase.models.openclip import create_model
from cliperase.parallel import is_first, join_processes
from cliperase.sharding import in_parts
from cliperase.training import PairTraining
from cliperase.unlearning import Recipe, embed

join_processes()
data, checkpoint, output = sys.argv[2:]
settings = {"learning_rate": 1e-3, "forget_batch": 4, "retain_batch": 8, "evaluate_every": 2, "shard": True}

def training_of(steps):
    model, recipe = load_model(sys.argv[1]), Recipe.of("CLIPErase", settings | {"steps": steps})
    rows = load_training(data, {"concept": "apple"}, model.framing, recipe.training)
    original = embed(model, rows.forget, rows.retain)
    return PairTraining(model, recipe.method, recipe.training, rows.retain, rows.forget, original)

def better_and_better(start=0):
    scores = iter(range(start, 100))
    return lambda model: {"score": float(next(scores))}

whole, killed, again = training_of(6), training_of(6), training_of(6)
with in_parts(whole):
    blocks = [p for block in whole.placement.blocks for p in block.parameters()]
    held = sum(p.to_local().numel() for p in blocks) / sum(p.numel() for p in blocks)
    run_loop(whole, better_and_better(), progress=False)
with in_parts(killed):
    loop = Loop(killed)
    loop.restore(None)
    for step in range(4):
        loop.step(step)
    loop.evaluate(better_and_better())
    state = loop.state()
    if is_first():
        torch.save(state, checkpoint)
torch.distributed.barrier()
with in_parts(again):
    run_loop(again, better_and_better(1), checkpoint, progress=False)
one, other = (training.model.state_dict() for training in (whole, again))
if is_first():
    kinds = {type(p).__name__ for p in again.model.parameters()}
    apart = max((one[name] - other[name]).abs().max().item() for name in one)
    json.dump({"held": held, "apart": apart, "kinds": sorted(kinds)}, open(output, "w"))
"""


def test_weights_in_parts_are_a_half_each_and_go_on_from_a_checkpoint(transformer, data_folder, tmp_path):
    script, found = tmp_path / "script.py", tmp_path / "found.json"
    script.write_text(PARTS)
    run(2, script, transformer, data_folder, tmp_path / "checkpoint.pt", found)
    found = json.loads(found.read_text())
    assert found["held"] == pytest.approx(0.5, abs=0.02)
    assert found["apart"] == 0
    assert found["kinds"] == ["Parameter"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"compile": True}, "shard does not go with compile"),
        ({"method": "SalUn"}, "shard does not go with SalUn in these settings"),
        ({"layers": 1}, "this model has none; leave it out"),
    ],
)
def test_what_cannot_be_in_parts_is_said(settings, message, training):
    settings, config = dict(settings), copy.deepcopy(TINY_VIT)
    config["model_cfg"]["vision_cfg"]["layers"] = settings.pop("layers", 2)
    recipe = Recipe.of(settings.pop("method", "fine-tune"), SHARDED | settings)
    rows = [training.select(training.labels != 0), training.select(training.labels == 0)]
    found = PairTraining(create_model(config, seed=0), recipe.method, recipe.training, *rows)
    with pytest.raises(CliperaseError, match=message), divided(found):
        pass


SHARDED = {"shard": True, "steps": 1, "learning_rate": 1e-3, "forget_batch": 4, "retain_batch": 4}


GRADIENTS = """
import sys, torch
from cliperase.data.source import load_training
from cliperase.models import load_model
from cliperase.models.openclip import create_model
from cliperase.parallel import is_first, join_processes
from cliperase.training import PairTraining
from cliperase.unlearning import Recipe, embed

join_processes()
model, (data, output, micro_batch) = load_model(sys.argv[1]), sys.argv[2:]
settings = {"steps": 1, "learning_rate": 1e-3, "forget_batch": 5, "retain_batch": 8, "lanes": 4}
recipe = Recipe.of("CLIPErase", settings | {"micro_batch": int(micro_batch)})
rows = load_training(data, {"concept": "apple"}, model.framing, recipe.training)
original = embed(model, rows.forget, rows.retain)
training = PairTraining(model, recipe.method, recipe.training, rows.retain, rows.forget, original)
training.seek(None)
terms = training.backward(0)
if is_first():
    torch.save((terms, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}), output)
"""


@pytest.mark.parametrize(("source", "micro_batch"), [("data_folder", 3), ("shards", 0)])
def test_two_processes_have_the_gradients_of_one(source, micro_batch, model_folder, tmp_path, request):
    """Of a set in memory and of a stream, for every weight, up to rounding."""
    script, data = tmp_path / "gradients.py", request.getfixturevalue(source)
    script.write_text(GRADIENTS)
    for count in (1, 2):
        run(count, script, model_folder, data, tmp_path / f"{count}.pt", micro_batch)
    found = [torch.load(tmp_path / f"{count}.pt", weights_only=True) for count in (1, 2)]
    (terms, one), (others, two) = found
    assert {name: value.item() for name, value in terms.items()} == pytest.approx(
        {name: value.item() for name, value in others.items()}, abs=1e-5
    )
    assert one.keys() == two.keys()
    for name, gradient in one.items():
        assert (gradient - two[name]).abs().max() <= 1e-5 * gradient.abs().max() + 1e-9, name


def test_norm_statistics_need_the_whole_batch(monkeypatch, model, training):
    monkeypatch.setattr("cliperase.training.processes", lambda: 2)
    with pytest.raises(CliperaseError, match="leave out torchrun"):
        PairTraining(model, FineTune(), TrainSettings(retain_batch=8, update_norm_statistics=True), training)
