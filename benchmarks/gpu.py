"""Measurements of the library's step on a GPU, one CSV a part; `gpu.sh` runs them all and `gpu_report.py` tabulates.

    python -m benchmarks.gpu steps --output steps.csv
    python -m benchmarks.gpu waits --output waits.csv

`steps`: seconds, ratios and peak memory for models, batches and settings of the loop. `waits`: what a step copies
between host and device, and where it waits for the device. Without a GPU both run too, and the second tells nothing.
"""

import argparse
import contextlib
import gc
import json
import statistics
import tempfile
import time
import traceback
import warnings
from pathlib import Path

import pandas as pd
import torch
from torch.profiler import ProfilerActivity, profile, record_function

from benchmarks.steps import bare_step, create_task, library_step, plain_step, seconds_per_step, take_turns

MODELS, BATCHES = ("compact", "ViT-B-32"), (16, 64, 256)  # a batch: of forget rows, and as many retain rows
SETTINGS = {
    "plain": {},
    "resident": {"resident": True},
    "autocast": {"autocast": True},
    "channels_last": {"channels_last": True},
    "compile": {"compile": True},
    "tf32": {"tf32": True},  # of torch, not of the loop
    "autocast, resident": {"autocast": True, "resident": True},
    "autocast, compile, resident": {"autocast": True, "compile": True, "resident": True},
}
UNUSED = {"ViT-B-32": ("channels_last",)}  # it has one convolution
COLUMNS = ["model", "batch", "setting", "quantity", "value", "unit"]
WARM_UP = 3  # steps, of which the first compiles what there is to compile
ROUND = 0.5  # seconds of bare steps in a round at most
CODE = "cliperase"  # folder whose lines are named as the origin of a wait


def measure_steps(model, batch, names, rounds, count):
    """Rows of one model and batch: every setting beside the bare step in the same precision, and the plain loop."""
    torch.compiler.reset()  # else the second batch size is compiled for all sizes
    task, steps, peaks = create_task(model, batch, batch), {}, {}
    for name in names:
        settings = SETTINGS[name]
        steps["bare", name], peaks["bare", name] = built(bare_step, task, **settings)
        steps["library", name], peaks["library", name] = built(library_step, task, **settings)
    steps["plain loop", "plain"], peaks["plain loop", "plain"] = built(plain_step, task)
    count = min(count, max(2, int(ROUND / seconds_per_step(steps["bare", names[0]], 2))))
    seconds, rows = take_turns(steps, rounds, count), []
    for kind, name in steps:
        ours = seconds[kind, name]
        rows += [(name, f"{kind} step", 1000 * statistics.median(ours), "ms")]
        if peaks[kind, name] is not None:
            rows += [(name, f"{kind} peak", peaks[kind, name], "MB")]
        if kind == "library":
            rows += [
                (name, "over bare", ratio(ours, seconds["bare", name]), "1"),
                (name, "plain loop over library", ratio(seconds["plain loop", "plain"], ours), "1"),
                (name, "speed-up over plain", ratio(seconds["library", names[0]], ours), "1"),
            ]
    return [dict(zip(COLUMNS, (model, batch, *row), strict=True)) for row in rows]


def ratio(one, other):
    """The median over rounds."""
    return statistics.median(a / b for a, b in zip(one, other, strict=True))


def built(make, task, tf32=False, **settings):
    """(step, its peak memory in MB on a GPU beyond what there was before, None on a CPU), warmed up."""
    gc.collect()
    on_gpu = torch.cuda.is_available()
    before = torch.cuda.memory_allocated() if on_gpu else 0
    step = make(task, **settings)
    step = in_tf32(step) if tf32 else step
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()  # of steps, not of what prepares them
    seconds_per_step(step, WARM_UP)
    return step, (torch.cuda.max_memory_allocated() - before) / 2**20 if on_gpu else None


def in_tf32(step):
    """The step with matrix products of float32 on tensor cores, 10 bits of the mantissa."""

    def rounded(number):
        torch.set_float32_matmul_precision("high")
        step(number)
        torch.set_float32_matmul_precision("highest")

    return rounded


def measure_waits(model, batch, name, count):
    """Rows of what `count` steps copy and wait for, by step."""
    step, _ = built(library_step, create_task(model, batch, batch), **SETTINGS[name])
    origins = origins_of_waits(step, WARM_UP)
    seen = pd.DataFrame(counted(trace(step, count)), columns=["quantity", "value", "unit"])
    found = seen.groupby(["quantity", "unit"], as_index=False).value.sum()
    found["value"] /= count
    found = pd.concat([found, pd.DataFrame(origins, columns=["quantity", "value", "unit"])])
    return found.assign(model=model, batch=batch, setting=name)[COLUMNS].to_dict("records")


def trace(step, count):
    """The events of `count` steps as the profiler writes them: a list of dicts in Chrome's trace format."""
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
    with profile(activities=kinds) as profiler:
        for number in range(count):
            with record_function("one step"):
                step(WARM_UP + number)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        return json.loads(path.read_text())["traceEvents"]


def counted(events):
    """[(what, number or bytes, unit)] of the copies, waits and kernels that were asked for inside steps."""
    events = [event for event in events if event.get("ph") == "X"]
    steps = [(e["ts"], e["ts"] + e["dur"]) for e in events if e["name"] == "one step" and e["cat"] == "user_annotation"]
    asked = {}  # correlation -> name of the call, for what happened inside a step, whichever thread asked for it
    for event in events:
        if event["cat"] in ("cuda_runtime", "cuda_driver") and any(a <= event["ts"] < b for a, b in steps):
            asked[event["args"]["correlation"]] = event["name"]
    found = [(f"calls of {name}", 1, "calls") for name in asked.values() if "Synchronize" in name]
    for event in events:
        if event["cat"] not in ("gpu_memcpy", "kernel") or event["args"].get("correlation") not in asked:
            continue
        if event["cat"] == "kernel":
            found.append(("kernels", 1, "calls"))
        elif "DtoD" not in event["name"]:
            found += [(event["name"], 1, "calls"), (event["name"], event["args"]["bytes"], "bytes")]
    return found


def origins_of_waits(step, count):
    """[(line of the library or benchmark where a step waits for the device, waits a step, unit)]."""
    if not torch.cuda.is_available():
        return []
    where = []

    def remember(message, *_, **__):
        frames = [f for f in traceback.extract_stack() if f"/{CODE}/" in f.filename]
        if "synchronizing" in str(message) and frames:
            last = frames[-1]
            where.append(f"wait at {CODE}/{last.filename.rpartition(f'/{CODE}/')[2]}:{last.lineno} {last.line}")

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = remember
        with waits_told():
            for number in range(count):
                step(WARM_UP + number)
    return [(line, where.count(line) / count, "calls") for line in dict.fromkeys(where)]


@contextlib.contextmanager
def waits_told():
    """In here torch warns of every call that makes the host wait for the device."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["steps", "waits"])
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--batches", nargs="+", type=int, default=list(BATCHES))
    parser.add_argument("--settings", nargs="+", choices=list(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=10, help="steps in a round at most")
    parser.add_argument("--seconds", type=float, default=1e9, help="begin nothing new after so many")
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    begin, rows = time.monotonic(), []
    for batch in given.batches:
        for model in given.models:
            for names in groups(given.part, model, given.settings):
                if time.monotonic() - begin > given.seconds:
                    print(f"{model}, batch {batch}, {', '.join(names)}: no time was left", flush=True)
                    continue
                start = time.monotonic()
                if given.part == "steps":
                    rows += measure_steps(model, batch, names, given.rounds, given.count)
                else:
                    rows += measure_waits(model, batch, *names, given.count)
                print(f"{model}, batch {batch}, {', '.join(names)}: {time.monotonic() - start:.0f} s", flush=True)
                pd.DataFrame(rows, columns=COLUMNS).to_csv(given.output, index=False, float_format="%.5g")


def groups(part, model, names):
    """Settings that are measured together: steps take turns, waits are looked at one setting after the other."""
    names = [name for name in names if name not in UNUSED.get(model, ())]
    return [names] if part == "steps" else [[name] for name in names]


if __name__ == "__main__":
    main()
