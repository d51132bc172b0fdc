"""Each row once, with the machine to itself: seconds and peak memory, and what it costs until the concept is gone.

A goal is an accuracy on the forgotten validation images: that of the model that was retrained without the concept, and
one percent. It is reached where no more of them are recognised and the other images lose at most `MOST_LOST` points: a
step at a high rate may break the whole model for a while, and that is no forgetting. A second run of the same steps
looks at both on its way, and says at which step it reaches a goal.
The costs are those of preparation and of so many steps, without evaluations; of a row without steps, those of its edit
with the validation that it searches on. The original's embeddings are there before, for every row. Infinity: never.
FLOPs are those that torch counts, of matrix products, convolutions and attention; what scikit-learn does is not.
"""

import copy
import math
import time
from dataclasses import dataclass, replace
from typing import ClassVar

from pydantic import Field
from torch.utils.flop_counter import FlopCounterMode

from cliperase.data.rules import forget_mask
from cliperase.features import Original
from cliperase.loop import History
from cliperase.methods import method_class
from cliperase.metrics.tasks import task_of
from cliperase.models import load_model
from cliperase.models.base import pick_device
from cliperase.unlearning import Recipe
from cliperase.unlearning import Run as Unlearning
from paper.plans.base import Planned
from paper.runs import Bench, Place, Run

ONE_PERCENT = 1.0  # of the forgotten images
UNITS = {"step": "steps", "seconds": "s", "gflops": "GFLOP"}
MOST_LOST = 2.0  # points of retain accuracy, of the original's
EVERY = 5  # of the other validation images one in so many is looked at on the way
COUNTED = ("steps", "epochs", "evaluations", "evaluate_every")


class Efficiency(Planned):
    alone: ClassVar[bool] = True
    splits: ClassVar[tuple[str, ...]] = ("validation",)  # what the rows are worth, `main` says
    concept: str
    evaluations: int = Field(default=60, ge=1)  # on the way
    retrained: bool = False  # whether beside the original stands a model that was retrained without the concept

    def plan(self, profile, pairs):
        seed, rule = profile.seeds[0], {"concept": self.concept}
        runs = [Run(self.name, row, self.concept, rule, seed, row) for row in self.methods]
        return [self.planned(profile, run) for run in runs]

    def place(self, profile, data, model, splits):
        common = vars(super().place(profile, data, model, splits))
        return CostPlace(**common, evaluations=self.evaluations, retrained=self.retrained)


@dataclass(frozen=True)
class CostPlace(Place):
    """A place where runs are measured by what they cost. The fields are those of `Efficiency`."""

    entry: ClassVar[str] = "paper/plans/efficiency.py"
    evaluations: int = 60
    retrained: bool = False

    def bench(self):
        return CostBench.load(self)

    def identity(self):
        return [*super().identity(), self.evaluations, self.retrained]


@dataclass
class CostBench(Bench):
    """A bench that measures costs, of data with classes, after a run, so that they are no part of its seconds."""

    history: History | None = None  # of the run

    def rows(self, run):
        rows = super().rows(run)
        return rows + [
            rows[0] | {"metric": name, "value": value, "unit": UNITS[name.split("_")[0]]}
            for name, value in self.costs(run).items()
        ]

    def made(self, run):
        model, self.history, seconds = super().made(run)
        return model, self.history, seconds

    def costs(self, run):
        """{metric: value}: step, seconds and GFLOP until each goal."""
        trained = method_class(run.method).takes_steps
        log, before, once, each = self.of_steps(run) if trained else self.of_edit(run)
        found = {}
        for goal, most in self.goals(run).items():
            step = next((entry["step"] for entry in log if reached(entry["validation"], most, before)), None)
            spent = until(step, once, each)
            found |= {f"{name}_to_{goal}": value for name, value in zip(UNITS, spent, strict=True)}
        return found

    def goals(self, run):
        """{goal: percent of the forgotten validation images that may still be recognised}."""
        goals = {"one_percent": ONE_PERCENT}
        if self.place.retrained:
            reference = replace(run, method="retrain")
            model = load_model(self.place.model_of(reference), pick_device())
            goals["retrained"] = self.measure(model, "validation", reference)["forget_accuracy"]
        return goals

    def of_steps(self, run):
        """(log on the way, the original's metrics on what is looked at, (seconds, GFLOP) before the first step,
        (seconds, GFLOP) of a step)."""
        steps, rows = self.history.log[-1]["step"], self.splits["validation"]
        looked_at = forget_mask(rows, run.rule)
        looked_at[(~looked_at).nonzero()[::EVERY, 0]] = True
        looked_at = rows.select(looked_at)
        log = self.again(run, looked_at, steps=steps, evaluations=self.place.evaluations).carry_out().log
        first, start = self.again(run, steps=1), time.perf_counter()
        trained = first.carry_out().seconds
        before = time.perf_counter() - start - trained
        one, two = (gflops(self.again(run, steps=number).carry_out) for number in (1, 2))
        original = self.before(run, looked_at, forget_mask(looked_at, run.rule))
        return log, original, (before, 2 * one - two), (self.history.seconds / steps, two - one)

    def of_edit(self, run):
        """The same of an edit: all of it comes before the first step."""
        rows = self.splits["validation"]
        unlearning = self.again(run, rows)
        whole = gflops(unlearning.carry_out)
        last = gflops(lambda: task_of(rows).measure(unlearning.model, rows, unlearning.forgotten))
        original = self.before(run, rows, unlearning.forgotten)
        return self.history.log, original, (self.history.seconds, whole - last), (0.0, 0.0)

    def again(self, run, validation=None, **counted):
        """The run once more, yet to be carried out, with steps and evaluations as `counted`, on other validation rows
        or on none."""
        training = self.splits["train"]
        settings = {name: value for name, value in run.settings.items() if name not in COUNTED}
        recipe, model = Recipe.of(run.method, settings | counted, run.seed), copy.deepcopy(self.original(run))
        features, mask = self.features(run, recipe.training.autocast), forget_mask(training, run.rule)
        original = Original(features.select(mask), features.select(~mask), model.logit_scale.item())
        forgotten = None if validation is None else forget_mask(validation, run.rule)
        before = None if validation is None else self.before(run, validation, forgotten)
        return Unlearning(
            model, recipe, training.select(mask), training.select(~mask), validation, forgotten, original, before,
            progress=False,
        )  # fmt: skip


def reached(metrics, most, before):
    """Whether at most `most` percent of the forget set are recognised, and the rest as `before` but for `MOST_LOST`."""
    return metrics["remaining"] <= most and metrics["retain_accuracy"] >= before["retain_accuracy"] - MOST_LOST


def until(step, once, each):
    """[step, seconds, GFLOP] until a step, which is None where a goal is never reached."""
    if step is None:
        return [math.inf] * len(UNITS)
    return [step, *(before + step * more for before, more in zip(once, each, strict=True))]


def gflops(work):
    """10⁹ floating-point operations of a function without arguments."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops() / 1e9
