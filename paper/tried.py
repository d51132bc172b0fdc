"""Leads from the literature, tried on top of `unseen` (ours): `leads` in paper/profiles has them as rows.

They change how a step is taken, not where it leads. L_f are the two terms of `unseen` that forget, L_r the two that
retain, g_f and g_r their gradients by all weights. `weights` says how both are added:

fixed      L_f + L_r, as `unseen` does.
bargained  α_f · L_f + α_r · L_r with α_i = √((1 - cos φ) / (sin² φ + ξ)) / ‖g_i‖, φ the angle between the gradients
           (MUNBa, Wu & Harandi 2025, its closed form). The step goes as far along one gradient as along the other.
projected  Where g_f · g_r < 0, g_f loses its part along g_r (PCGrad, Yu et al. 2020, of the forgetting side only).
dual       L_f + λ · L_r; after each step λ ← max(0, λ + rate · (L_r - ε)), from λ = 1 (PDU, Entesari et al. 2025). ε is
           L_r of the original on the same rows, and `slack`.

`radius` ρ > 0: L_f and its gradient are those at θ + ρ · g_f / ‖g_f‖ (SAM, Foret et al. 2021; Fan et al. 2025 for
unlearning). `invariance` λ > 0: + λ ‖∇_w ℓ(w ∘ θ; D)‖² at w = 1 (ILU, Wang et al. 2025). As in IRM (Arjovsky et al.
2019) w is one number that multiplies the logits; ℓ is the retention loss, and D are the retain rows of the step.

Settings: rate, slack, radius and the λ of ILU were looked at on dog alone (paper/profiles).

Known failure: a killed run cannot be resumed, because λ is in no checkpoint. SAM encodes the retain rows of a step
twice, because a method sees no images; its cost is more than the idea needs.
"""

from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

import torch
from pydantic import Field, NonNegativeFloat

from cliperase.losses import retention
from cliperase.methods import METHODS
from cliperase.methods.base import Batches
from cliperase.methods.unseen import Unseen
from paper.audits import AuditPlace
from paper.code import Code
from paper.runs import Run

NAME = "unseen, tried"  # of the method; the library does not know it
XI = 1e-8  # ξ: between opposite gradients sin² φ is 0


class Tried(Unseen):
    weights: Literal["fixed", "bargained", "projected", "dual"] = "fixed"
    rate: float = Field(default=1.0, gt=0)
    slack: NonNegativeFloat = 0.0
    radius: NonNegativeFloat = 0.0
    invariance: NonNegativeFloat = 0.0
    _parameters: tuple = ()
    _batch: Batches  # of a step's number, encoded by the weights as they are then
    _dual: float = 1.0  # λ

    def restrict(self, model, batch):
        """Nothing is restricted; the method is shown the model here."""
        self._parameters, self._batch, self._dual = tuple(p for p in model.parameters() if p.requires_grad), batch, 1.0
        return {}

    def loss(self, batch):
        forget, retain = self.parts(batch)
        if self.radius:
            forget = self.worst(forget, batch.step)
        forget, retain = self.weighed(batch, forget, retain)
        terms = {"forget": forget, "retain": retain}
        return terms | ({"invariance": self.invariance * slope(batch).square()} if self.invariance else {})

    def weighed(self, batch, forget, retain):
        """L_f and L_r, each times its weight."""
        if self.weights == "fixed":
            return forget, retain
        if self.weights == "dual":
            before = replace(batch, retain=batch.original_retain, logit_scale=batch.original_logit_scale)
            over, weight = retain.item() - self.parts(before)[1].item() - self.slack, self._dual
            self._dual = max(0.0, weight + self.rate * over)
            return forget, weight * retain
        parts, gradients = (forget, retain), (self.gradient(forget), self.gradient(retain))
        shares = {"bargained": bargained, "projected": projected}[self.weights](*gradients)
        return [share * self.scalar(part, g) for share, part, g in zip(shares, parts, gradients, strict=True)]

    def parts(self, batch):
        """(L_f, L_r)."""
        terms = super().loss(batch)
        return terms["image"] + terms["text"], terms["retain"] + terms["RM"]

    def gradient(self, part):
        """By each parameter; zeros where the part does not depend on it."""
        return torch.autograd.grad(part, self._parameters, retain_graph=True, materialize_grads=True)

    def scalar(self, value, gradient):
        """A scalar of this value that has this gradient."""
        along = ((p - p.detach()).mul(g).sum() for p, g in zip(self._parameters, gradient, strict=True))
        return value.detach() + sum(along)

    def worst(self, forget, step):
        """L_f, and its gradient, `radius` up the slope of L_f from where the weights are."""
        uphill, here = self.gradient(forget), [p.detach().clone() for p in self._parameters]
        share = self.radius / inner(uphill, uphill).sqrt()
        for p, g in zip(self._parameters, uphill, strict=True):
            p.data.add_(share * g)  # `data`, because the graph of L_r holds these weights, and they will be the same
        there = self.parts(self._batch(step))[0]
        gradient = self.gradient(there)
        for p, value in zip(self._parameters, here, strict=True):
            p.data.copy_(value)
        return self.scalar(there, gradient)


def inner(a, b):
    """The inner product of two gradients, scalar."""
    return torch.stack([(x * y).sum() for x, y in zip(a, b, strict=True)]).sum()


def bargained(forget, retain):
    """(α_f, α_r) of two gradients."""
    norms = inner(forget, forget).sqrt(), inner(retain, retain).sqrt()
    cos = inner(forget, retain) / (norms[0] * norms[1])
    common = ((1 - cos) / (1 - cos.square() + XI)).sqrt()
    return common / norms[0], common / norms[1]


def projected(forget, retain):
    """(1, weight of L_r) of two gradients: as much more of g_r as g_f has against it, which takes that part out."""
    return 1.0, 1.0 - (inner(forget, retain) / inner(retain, retain)).clamp(max=0.0)


def slope(batch):
    """∇_w at w = 1 of the retention loss of the retain rows, whose logits w multiplies; scalar, with gradient."""
    r, w = batch.retain, torch.ones_like(batch.logit_scale, requires_grad=True)
    loss = retention(r.image, r.text, w * batch.logit_scale, r.text_ids, logit_bias=batch.logit_bias)
    return torch.autograd.grad(loss, w, create_graph=True)[0]


@dataclass(frozen=True)
class TriedRun(Run):
    """A run of `Tried`. `code`: a hash of this file and of all that it reaches, because a finished run is known by its
    code, and the registry by which the store finds a method's file does not have this one."""

    code: str = ""

    @classmethod
    def of(cls, run):
        """The run of `Tried`, where a run has a setting that only `Tried` has; else the same run."""
        if not {*run.settings} & ({*Tried.model_fields} - {*Unseen.model_fields}):
            return run
        return cls(**vars(replace(run, method=NAME)), code=own_code())


@cache
def own_code():
    return Code().of_run("unseen", "paper/tried.py")


@dataclass(frozen=True)
class TriedPlace(AuditPlace):
    """A place where runs of `Tried` are audited, too."""

    def bench(self):
        register()  # in each process that measures
        return super().bench()


def register():
    METHODS[NAME] = f"{__name__}:Tried"
