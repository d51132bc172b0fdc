"""What only a GPU can show: the results of the CPU, no wait within a step, memory that does not grow with the data."""

import copy
import json
from dataclasses import replace

import pytest
import torch

from benchmarks.gpu import counted, measure_steps, waits_told
from benchmarks.steps import create_task, library_step
from cliperase import api
from cliperase.loop import Loop
from cliperase.methods import METHODS, method_class
from cliperase.models import load_model
from cliperase.unlearning import Recipe, Run

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
LOOP = {"steps": 4, "learning_rate": 1e-4, "forget_batch": 4, "retain_batch": 8, "evaluate_every": 2}
TRAINED = [name for name in METHODS if method_class(name).takes_steps]
EDITS = [name for name in METHODS if not method_class(name).takes_steps]


def unlearned(model, training, device, method="CLIPErase", **options):
    """(weights on the CPU, history) after a short run on a device."""
    student = copy.deepcopy(model).to(device)
    settings = LOOP | options.pop("settings", {})
    forget = training.labels == 0
    recipe = Recipe.of(method, settings if method_class(method).takes_steps else {})
    sets = (training.select(forget), training.select(~forget), training, forget)
    history = Run(student, recipe, *sets, progress=False, **options).carry_out()
    return {name: value.cpu() for name, value in student.state_dict().items()}, history


def losses(history):
    """Every loss term of every evaluation, in order."""
    return [entry[name] for entry in history.log for name in entry if name not in ("step", "validation")]


def distance(one, other):
    """The largest difference of two models' weights."""
    return max((one[name].double() - other[name].double()).abs().max().item() for name in one)


def repeated(pairs, times):
    """A set with every row so many times."""
    lists = {name: getattr(pairs, name) * times for name in ("row_hashes", "sources")}
    tensors = {name: torch.cat([getattr(pairs, name)] * times) for name in ("images", "text_ids", "labels")}
    return replace(pairs, **lists, **tensors)


@on_gpu
@pytest.mark.parametrize(
    "settings", [{}, {"resident": True}, {"channels_last": True}, {"compile": True}, {"micro_batch": 3}]
)
def test_a_gpu_gives_the_losses_of_the_cpu(settings, base_model, training):
    runs = (unlearned(base_model, training, device, settings=settings)[1] for device in ("cpu", "cuda"))
    cpu, gpu = map(losses, runs)
    assert gpu == pytest.approx(cpu, abs=1e-3)


@on_gpu
def test_half_precision_is_near_and_leaves_weights_in_full(base_model, training):
    plain, _ = unlearned(base_model, training, "cuda")
    half, history = unlearned(base_model, training, "cuda", settings={"autocast": True})
    assert all(value.dtype == plain[name].dtype for name, value in half.items())
    assert 0 < distance(plain, half) < 1e-2
    assert all(torch.isfinite(torch.tensor(entry["FM"])) for entry in history.log)


@on_gpu
@pytest.mark.parametrize("method", TRAINED)
def test_every_method_steps_on_a_gpu_as_on_the_cpu(method, base_model, training):
    cpu, gpu = (losses(unlearned(base_model, training, device, method)[1]) for device in ("cpu", "cuda"))
    assert gpu == pytest.approx(cpu, abs=5e-3, rel=1e-2)


@on_gpu
@pytest.mark.parametrize("method", EDITS)
def test_every_edit_works_on_a_gpu(method, base_model, training):
    weights, _ = unlearned(base_model, training, "cuda", method)
    assert all(torch.isfinite(value).all() for value in weights.values() if value.is_floating_point())


@on_gpu
def test_a_seed_fixes_the_run_on_a_gpu(base_model, training):
    first, again = (losses(unlearned(base_model, training, "cuda")[1]) for _ in range(2))
    assert first == pytest.approx(again, abs=1e-4)  # sums of a GPU have no fixed order


@on_gpu
def test_a_run_killed_on_a_gpu_goes_on_to_the_same_result(base_model, training, tmp_path, monkeypatch):
    _, whole = unlearned(base_model, training, "cuda")
    step = Loop.step

    def die(self, number):
        if number == 3:
            raise KeyboardInterrupt
        step(self, number)

    checkpoint = tmp_path / "checkpoint.pt"
    with monkeypatch.context() as patch:
        patch.setattr(Loop, "step", die)
        with pytest.raises(KeyboardInterrupt):
            unlearned(base_model, training, "cuda", checkpoint=checkpoint)
    _, resumed = unlearned(base_model, training, "cuda", checkpoint=checkpoint)
    assert [entry["step"] for entry in resumed.log] == [2, 4]
    assert losses(resumed) == pytest.approx(losses(whole), abs=1e-4)


@on_gpu
@pytest.mark.parametrize("settings", [{}, {"resident": True}, {"autocast": True}])
def test_a_step_waits_for_nothing(settings):
    step = library_step(create_task("compact", 16, 16), **settings)
    for number in range(3):
        step(number)
    with waits_told():
        torch.cuda.set_sync_debug_mode("error")
        for number in range(3, 6):
            step(number)


@on_gpu
def test_memory_does_not_grow_with_the_data(base_model, training):
    peaks = []
    for copies in (10, 100):  # both more than one batch of the encoding
        many = repeated(training, copies)
        torch.cuda.reset_peak_memory_stats()
        unlearned(base_model, many, "cuda")
        peaks.append(torch.cuda.max_memory_allocated())
    assert peaks[1] <= 1.05 * peaks[0]


@on_gpu
def test_unlearning_on_a_gpu_writes_a_model_for_any_device(model_folder, data_folder, tmp_path):
    report = api.unlearn(str(model_folder), str(data_folder), {"concept": "apple"}, settings=LOOP, output=tmp_path)
    assert report["log"] == json.loads((tmp_path / "report.json").read_text())["log"]
    assert load_model(tmp_path).device.type == "cpu"
    assert set(api.evaluate(str(tmp_path), str(data_folder), {"concept": "apple"})) >= {"forget_accuracy"}


@on_gpu
def test_blip_unlearns_on_a_gpu(blip_folder, data_folder):
    report = api.unlearn(str(blip_folder / "matching"), str(data_folder), {"concept": "apple"}, settings=LOOP)
    assert report["log"][-1]["step"] == LOOP["steps"]


def test_steps_are_compared_setting_by_setting():
    rows = measure_steps("compact", 2, ["plain", "resident"], rounds=1, count=1)
    named = {(row["setting"], row["quantity"]): row["value"] for row in rows}
    assert named["plain", "speed-up over plain"] == 1
    assert named["resident", "over bare"] > 0
    assert named["plain", "plain loop over library"] > 0


def test_copies_and_waits_are_counted_within_steps_only():
    step = {"ph": "X", "cat": "user_annotation", "name": "one step", "ts": 10.0, "dur": 10.0}
    events = [step, {"ph": "i", "name": "a mark"}]
    for number, (time, call) in enumerate(
        [(11.0, "cudaMemcpyAsync"), (12.0, "cudaStreamSynchronize"), (30.0, "cudaMemcpyAsync")]
    ):
        about = {"correlation": number}
        events.append({"ph": "X", "cat": "cuda_runtime", "name": call, "ts": time, "dur": 1.0, "args": about})
        if "Memcpy" in call:
            copied = {"name": "Memcpy HtoD (Pageable -> Device)", "args": {**about, "bytes": 64}}
            events.append({"ph": "X", "cat": "gpu_memcpy", "ts": time + 5, "dur": 1.0, **copied})
    assert sorted(counted(events)) == [
        ("Memcpy HtoD (Pageable -> Device)", 1, "calls"),
        ("Memcpy HtoD (Pageable -> Device)", 64, "bytes"),
        ("calls of cudaStreamSynchronize", 1, "calls"),
    ]
