"""The training loop. Everything that is trained goes through it: pretraining, unlearning, BLIP, captioner, generator.

It steps, evaluates, keeps the best weights, and writes checkpoints. What is trained it does not know: that is a
`Training`, which says how the gradients of a step come about.
"""

import sys
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim.lr_scheduler import ConstantLR, OneCycleLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from cliperase.checkpoints import load_checkpoint, save_checkpoint
from cliperase.errors import CliperaseError, reason_of
from cliperase.finite import check_finite
from cliperase.parallel import Placement, is_first, wait_for_all
from cliperase.settings import MAY_CHANGE


class Training(ABC):
    """A model and its gradients. A subclass defines `backward`; the other methods are optional."""

    def __init__(self, model, settings):
        self.model, self.settings, self.placement = model, settings, Placement()
        self.generator = torch.Generator().manual_seed(settings.seed)  # its state goes into checkpoints

    @abstractmethod
    def backward(self, step: int) -> dict[str, Tensor]:
        """The gradients of one step, into the model's parameters. Returns {loss term: detached scalar tensor}."""

    def after_step(self):  # noqa: B027 – most have nothing to do
        """Change the weights after the optimizer's step; nothing by default."""

    def identity(self):
        """{name: plain value} that must be equal in the killed and in the resumed run."""
        return self.settings.model_dump(exclude=MAY_CHANGE)

    def tell(self):
        """The place in a stream of rows, as plain values; None where rows are a function of the step."""
        return

    def seek(self, position):  # noqa: B027
        """Continue at a position that `tell` returned."""


@dataclass
class History:
    """`log`: one dict per evaluation: step, mean of each loss term since the last, `validation` metrics.
    `seconds`: training time without evaluation. `best_step`: the step whose weights were kept."""

    log: list
    seconds: float
    best_step: int

    @property
    def ran_out(self):
        """Whether the last weights were the best, so that more steps may have given better ones."""
        return len(self.log) > 1 and self.best_step == self.log[-1]["step"]

    @property
    def validation(self):
        """The metrics of the weights that were kept."""
        return next(entry["validation"] for entry in self.log if entry["step"] == self.best_step)


def run_loop(training, validate=None, checkpoint=None, progress=True, callback=None):
    """Train `training.model` in place by `training.settings`. Returns its `History`.

    `validate(model)` returns metrics with a `score`, higher is better: the best weights are kept, of equals the first.
    Without it the last weights are kept, or their moving average. `checkpoint`, a path, makes a killed run go on from
    its last evaluation to the same result. `progress`: a bar on a terminal, elsewhere a line for each evaluation.
    `callback(entry)` gets each entry of the log when it is made, in the first process only.
    """
    if validate and training.settings.averaging:
        raise CliperaseError(
            "averaging keeps the average of the last weights, and validation the best ones; set averaging to 0"
        )
    loop = Loop(training)
    if checkpoint:
        loop.restore(load_checkpoint(checkpoint, training.identity()))
    wait_for_all()  # no process writes a checkpoint before all have read theirs
    steps, begun, first = training.settings.steps, time.perf_counter(), loop.done
    shown = progress and is_first()
    bar = tqdm(range(first, steps), initial=first, total=steps, leave=False, disable=None if shown else True)
    for step in bar:
        loop.step(step)
        if loop.done % training.settings.evaluate_every and loop.done < steps:
            continue
        told = {name: f"{value:.3g}" for name, value in loop.evaluate(validate).items()}
        bar.set_postfix(told)
        if shown and bar.disable:
            left = (time.perf_counter() - begun) / (loop.done - first) * (steps - loop.done)
            said = ", ".join(f"{name} {value}" for name, value in told.items())
            print(f"step {loop.done} of {steps}, {left:.0f} s left: {said}", file=sys.stderr, flush=True)
        if callback and is_first():
            callback(loop.log[-1])
        state = loop.state() if checkpoint else None  # all processes ask a stream for its place together
        if checkpoint and is_first():
            save_checkpoint(checkpoint, state)
    return loop.finish()


class Loop:
    """A training under way: its optimizer, schedule, moving average, log, and the best weights so far."""

    def __init__(self, training):
        self.training, settings = training, training.settings
        self.optimizer = torch.optim.AdamW(
            training.placement.parameter_groups(training.model.parameters()),
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            fused=True,
        )
        self.scheduler = create_schedule(self.optimizer, settings)
        self.averaged = None
        if settings.averaging:
            self.averaged = AveragedModel(training.model, multi_avg_fn=get_ema_multi_avg_fn(settings.averaging))
        self.log, self.best, self.done, self.seconds = [], None, 0, 0.0
        self.terms, self.clock = {}, time.perf_counter()

    def step(self, step):
        """One step of the optimizer."""
        training = self.training
        self.optimizer.zero_grad()
        for name, value in training.backward(step).items():
            self.terms.setdefault(name, []).append(value)
        if training.settings.clip_norm:
            training.placement.clip(training.model.parameters(), training.settings.clip_norm)
        self.optimizer.step()
        self.scheduler.step()
        training.after_step()
        if self.averaged:
            self.averaged.update_parameters(training.model)
        self.done = step + 1

    def evaluate(self, validate):
        """Log the terms since the last evaluation, and the metrics; keep the weights if they are the best."""
        means = {name: torch.stack(values).mean().item() for name, values in self.terms.items()}
        check_losses(means, self.done)
        self.seconds += time.perf_counter() - self.clock
        model = self.training.model
        check_finite(
            self.training.placement.local(model.state_dict()), f"weights at step {self.done}", "lower the learning rate"
        )
        model.eval()
        metrics = validate(model) if validate else {}
        self.log.append({"step": self.done, **means, "validation": metrics})
        if validate and (self.best is None or metrics["score"] > self.best["score"]):
            weights = {name: value.detach().clone() for name, value in model.state_dict().items()}
            # pyrefly: ignore[bad-assignment] – None up to here
            self.best = {"step": self.done, "score": metrics["score"], "weights": weights}
        self.terms, self.clock = {}, time.perf_counter()
        return means | metrics

    def state(self):
        """Everything that a killed run needs to go on, as tensors and plain values. All processes ask together."""
        state = {
            "identity": self.training.identity(),
            "model": self.training.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "averaged": self.averaged.state_dict() if self.averaged else None,
            "random": self.training.generator.get_state(),
            "position": self.training.tell(),
            "best": self.best,
            "log": self.log,
            "step": self.done,
            "seconds": self.seconds,
        }
        return self.training.placement.to_checkpoint(state)

    def restore(self, state):
        """Go on from a `state`, or from the beginning if it is None."""
        self.training.seek(state["position"] if state else None)
        if state is None:
            return
        try:
            self.training.model.load_state_dict(self.own(state["model"]))
        except RuntimeError as error:
            raise CliperaseError(
                f"the checkpoint is of another model ({reason_of(error)}); delete it to start anew"
            ) from None
        self.optimizer.load_state_dict(state["optimizer"])
        for parameter, kept in self.optimizer.state.items():
            kept |= {name: self.training.placement.from_checkpoint(value, parameter) for name, value in kept.items()}
        self.scheduler.load_state_dict(state["scheduler"])
        if self.averaged:
            self.averaged.load_state_dict(state["averaged"])
        self.training.generator.set_state(state["random"])
        self.best, self.log, self.done, self.seconds = (state[name] for name in ("best", "log", "step", "seconds"))
        if self.best:
            self.best["weights"] = self.own(self.best["weights"])

    def own(self, weights):
        """What this process has of the model's `weights`."""
        mine = self.training.model.state_dict()
        return {name: self.training.placement.from_checkpoint(value, mine.get(name)) for name, value in weights.items()}

    def finish(self):
        """Leave the model at the weights that are kept."""
        model = self.training.model
        if self.best:
            model.load_state_dict(self.best["weights"])
        elif self.averaged:
            model.load_state_dict(self.averaged.module.state_dict())
        model.eval()
        return History(self.log, self.seconds, self.best["step"] if self.best else self.training.settings.steps)


def create_schedule(optimizer, settings):
    """The learning rate over the steps: constant, or rising for a share of them, then falling to nothing."""
    if settings.schedule == "constant" or settings.steps == 1:  # a cycle of one step is its end, and learns nothing
        return ConstantLR(optimizer, factor=1.0)
    rising = settings.rising
    rising = rising if rising * settings.steps != 1 else 1.01 * rising  # torch divides by the rising steps less one
    return OneCycleLR(optimizer, settings.learning_rate, total_steps=settings.steps, pct_start=rising)


def check_losses(terms, step):
    broken = [name for name, value in terms.items() if value != value or abs(value) == float("inf")]
    if broken:
        raise CliperaseError(f"loss {broken[0]} is {terms[broken[0]]} at step {step}; lower the learning rate")
