"""Checkpoints of a run in one safetensors file: model, optimizer, best weights, random state, log."""

import json
import warnings
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from cliperase.errors import CliperaseError
from cliperase.files import whole_file


def save_checkpoint(path, loop, log, best, step, seconds):
    """Write everything a killed run needs to go on, whole or not at all."""
    tensors = {f"model.{name}": value for name, value in loop.model.state_dict().items()}
    for index, state in loop.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items()}
    if best:
        tensors |= {f"best.{name}": value for name, value in best[2].items()}
    tensors["random.loop"] = loop.generator.get_state()
    about = {
        "settings": loop.settings,
        "log": log,
        "best": best[:2] if best else None,
        "step": step,
        "seconds": seconds,
        "position": loop.position,
    }
    copies = {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}
    with whole_file(path) as partial:
        save_file(copies, partial, metadata={"about": json.dumps(about)})


def load_checkpoint(path, loop):
    """Put `loop` back where the checkpoint left it. Returns (log, best, next step, seconds), None without one."""
    if not Path(path).is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads(file.metadata()["about"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 – not a mapping
    except Exception as error:
        raise CliperaseError(f"checkpoint {path} cannot be read ({error}); delete it to start anew") from None
    wanted = json.loads(json.dumps(loop.settings))
    different = [key for key in wanted if about["settings"].get(key) != wanted[key]]
    shapes = {name: value.shape for name, value in loop.model.state_dict().items()}
    weights = {name[6:]: value for name, value in tensors.items() if name.startswith("model.")}
    if different or shapes != {name: value.shape for name, value in weights.items()}:
        what = f"{different[0]} was {about['settings'].get(different[0])!r}" if different else "another model"
        raise CliperaseError(f"checkpoint {path} is of another run ({what}); delete it to start anew")
    loop.model.load_state_dict(weights)
    restore_optimizer(loop, tensors, about["step"])
    loop.generator.set_state(tensors["random.loop"])
    loop.position = about.get("position")
    best = about["best"]
    if best:
        best = (*best, {name[5:]: value for name, value in tensors.items() if name.startswith("best.")})
    return about["log"], best, about["step"], about["seconds"]


def restore_optimizer(loop, tensors, step):
    state, parameters = {}, [p for group in loop.optimizer.param_groups for p in group["params"]]
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".")
            parameter = parameters[int(index)]
            if value.shape == parameter.shape:  # moments lie in memory as their weights do
                value = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
            state.setdefault(int(index), {})[key] = value
    # the scheduler is a function of the step: replay it, then put the moments in
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")  # those steps have been taken
        for _ in range(step):
            loop.scheduler.step()
    groups = loop.optimizer.state_dict()["param_groups"]
    loop.optimizer.load_state_dict({"state": state, "param_groups": groups})


def remove_checkpoint(path):
    """Forget a finished run's checkpoint."""
    Path(path).unlink(missing_ok=True)
