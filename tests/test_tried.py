"""What was tried on top of `unseen`: each way to take a step against its formula, and its runs in the store."""

import copy
import json

import pytest
import torch
from torch import nn

from cliperase.batch import Batch, Pairs
from cliperase.losses import retention
from cliperase.methods import METHODS
from cliperase.methods.unseen import Unseen
from paper import tried
from paper.code import Code
from paper.experiments import experiment_of
from paper.params import read_profile
from paper.runs import Run, check_runs, run_all
from paper.store import RunStore
from paper.tried import NAME, Tried, TriedPlace, TriedRun, bargained, projected, register

UNSEEN = Unseen()
SMALL = {"learning_rate": 1e-3, "steps": 2, "evaluate_every": 2, "forget_batch": 4, "retain_batch": 8}


@pytest.fixture(autouse=True)
def forgotten_name(monkeypatch):
    """The library does not know the method after the test."""
    monkeypatch.setitem(METHODS, NAME, "")


def features(seed, rows):
    generator = torch.Generator().manual_seed(seed)
    return nn.functional.normalize(torch.randn(rows, 4, generator=generator, dtype=torch.float64), dim=1)


class Towers(nn.Module):
    """An image and a text tower of one matrix each, and the step of 3 forget and 5 retain pairs that they encode."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        turned = torch.eye(4, dtype=torch.float64) + 0.3 * torch.randn(2, 4, 4, generator=generator).double()
        self.image, self.text, self.unused = nn.Parameter(turned[0]), nn.Parameter(turned[1]), nn.Parameter(turned[0])

    def batch(self, step):
        def pairs(seed, ids):
            inputs = features(seed, len(ids)), features(seed + 1, len(ids))
            encoded = (x @ matrix for x, matrix in zip(inputs, (self.image, self.text), strict=True))
            return Pairs(*(nn.functional.normalize(x, dim=1) for x in encoded), ids)

        def fixed(seed, ids):
            return Pairs(features(seed, len(ids)), features(seed + 1, len(ids)), ids)

        ids = torch.tensor([0, 0, 0]), torch.tensor([1, 2, 3, 1, 2])
        scales = torch.tensor(3.0, dtype=torch.float64), torch.tensor(2.0, dtype=torch.float64)
        return Batch(
            pairs(2, ids[0]), pairs(4, ids[1]), fixed(6, ids[0]), fixed(4, ids[1]), *scales,
            step=step, steps=9, generator=torch.Generator(),
        )  # fmt: skip

    def parts(self, method=UNSEEN):
        """(L_f, L_r) of `unseen`."""
        terms = method.loss(self.batch(0))
        return terms["image"] + terms["text"], terms["retain"] + terms["RM"]

    def gradients(self, method=UNSEEN):
        """[g_f, g_r], each (32,)."""
        found = [torch.autograd.grad(part, (self.image, self.text)) for part in self.parts(method)]
        return [torch.cat([g.flatten() for g in gradients]) for gradients in found]


def step_of(towers, method):
    """The gradient (32,) that the loop would hand to the optimizer, and the terms."""
    method.restrict(towers, towers.batch)
    towers.zero_grad()
    terms = method.loss(towers.batch(0))
    sum(terms.values()).backward()
    assert towers.unused.grad is None or not towers.unused.grad.any()
    return torch.cat([towers.image.grad.flatten(), towers.text.grad.flatten()]), terms


def test_without_a_change_it_is_unseen():
    towers = Towers()
    step, terms = step_of(towers, Tried())
    torch.testing.assert_close(step, sum(towers.gradients()))
    torch.testing.assert_close([terms["forget"], terms["retain"]], [*towers.parts()])


def test_a_bargain_goes_as_far_along_both_gradients():
    towers = Towers()
    step, _ = step_of(towers, Tried(weights="bargained"))
    forget, retain = towers.gradients()
    cos = torch.cosine_similarity(forget, retain, dim=0)
    shares = [((1 - cos) / (1 - cos**2)).sqrt() / g.norm() for g in (forget, retain)]
    torch.testing.assert_close(step, shares[0] * forget + shares[1] * retain)
    torch.testing.assert_close(step @ forget / forget.norm(), step @ retain / retain.norm())
    for share, gradient in zip(shares, (forget, retain), strict=True):
        torch.testing.assert_close(step @ gradient, 1 / share)  # Nash's solution
    against = bargained([forget], [-forget])
    assert all(torch.isfinite(share) for share in against)  # no angle to divide by


def test_a_projection_takes_out_what_is_against_retention_and_nothing_else():
    forget, retain = torch.tensor([-2.0, 3.0]), torch.tensor([4.0, 0.0])
    weights = projected([forget], [retain])
    assert torch.equal(weights[0] * forget + weights[1] * retain, torch.tensor([0.0, 3.0]) + retain)
    assert projected([-forget], [retain]) == (1.0, 1.0)
    towers = Towers()
    step, _ = step_of(towers, Tried(weights="projected", retain=30.0))
    forget, retain = towers.gradients(Unseen(retain=30.0))
    along = (forget @ retain / retain.square().sum()).clamp(max=0.0)
    torch.testing.assert_close(step, forget - along * retain + retain)


def test_a_dual_weight_follows_what_retention_costs():
    """λ is 1 at the first step, then moves by the rate times what L_r lies above that of the original and the slack."""
    towers, method = Towers(), Tried(weights="dual", rate=0.5, slack=0.1)
    original = towers.batch(0).original_retain
    before = method.lambda_rm * retention(original.image, original.text, 2.0, original.text_ids)
    _, first = step_of(towers, method)
    forget, retain = towers.parts()
    torch.testing.assert_close(first["retain"], retain)
    second = method.loss(towers.batch(1))
    torch.testing.assert_close(second["retain"], (1 + 0.5 * (retain - before - 0.1)) * retain)
    torch.testing.assert_close(second["forget"], forget)
    lax = Tried(weights="dual", rate=1e6, slack=1e6)
    step_of(towers, lax)
    assert lax.loss(towers.batch(1))["retain"] == 0  # λ is never negative


def test_a_flat_minimum_forgets_from_the_worst_place_nearby():
    towers = Towers()
    before, (forget, retain) = copy.deepcopy(towers.state_dict()), towers.gradients()
    step, terms = step_of(towers, Tried(radius=0.2))
    assert all(torch.equal(value, before[name]) for name, value in towers.state_dict().items())
    there = copy.deepcopy(towers)
    moved = (0.2 * forget / forget.norm()).reshape(2, 4, 4)
    with torch.no_grad():
        there.image += moved[0]
        there.text += moved[1]
    torch.testing.assert_close(step, there.gradients()[0] + retain)
    torch.testing.assert_close(terms["forget"], there.parts()[0])
    assert terms["forget"] > towers.parts()[0]


def test_invariance_is_the_squared_slope_by_a_factor_of_the_logits():
    towers = Towers()

    def penalty(matrix):
        changed = copy.deepcopy(towers)
        changed.image.data.copy_(matrix)
        batch = changed.batch(0)
        r = batch.retain
        up, down = (retention(r.image, r.text, w * batch.logit_scale, r.text_ids) for w in (1 + 1e-4, 1 - 1e-4))
        return ((up - down) / 2e-4).square().detach()

    step, terms = step_of(towers, Tried(invariance=7.0))
    torch.testing.assert_close(terms["invariance"], 7 * penalty(towers.image), rtol=1e-5, atol=0)
    more = step - step_of(towers, Tried())[0]
    nudge = torch.zeros(4, 4, dtype=torch.float64)
    nudge[1, 2] = 1e-4
    expected = 7 * (penalty(towers.image + nudge) - penalty(towers.image - nudge)) / 2e-4
    torch.testing.assert_close(more[6], expected, rtol=1e-4, atol=1e-9)


def test_leads_can_be_joined():
    towers = Towers()
    flat, _ = step_of(towers, Tried(radius=0.2))
    _, retain = towers.gradients()
    joined, _ = step_of(towers, Tried(radius=0.2, weights="bargained"))
    shares = bargained([flat - retain], [retain])
    torch.testing.assert_close(joined, shares[0] * (flat - retain) + shares[1] * retain)


def test_the_rows_of_the_profile_are_runs_of_it():
    profile = read_profile("icons")
    experiment = experiment_of(profile, "leads")
    runs = experiment.plan(profile, None)
    experiment.place(profile, "data/icons", "artifacts/icons/models", experiment.splits)
    check_runs(runs)  # the method is known by now
    assert len({run.row for run in runs}) == len(experiment.methods) + len(experiment.references)
    own, changes = {run.row for run in runs if run.method == NAME}, {"weights", "radius", "invariance"}
    assert own == {row for row, settings in experiment.methods.items() if changes & {*settings}}
    assert own
    assert all(type(run) is Run for run in runs if run.row not in own)


def run_of(row="unseen", **settings):
    return TriedRun.of(Run("leads", row, "leaf", {"concept": "leaf"}, 0, "unseen", SMALL | settings))


@pytest.fixture
def place(data_folder, base_model, tmp_path):
    base_model.save(tmp_path / "models" / "original")
    where = ("test", "icons", "compact", str(data_folder), str(tmp_path / "models" / "original"), ("validation",))
    return TriedPlace(*where, workers=2, asked=json.dumps([["reference-gap"], {}, 0]))


def test_a_run_is_known_by_this_code_and_another_one_is_not(place, monkeypatch):
    store = RunStore(place)
    before = [store.path(run_of(**settings)) for settings in ({}, {"radius": 0.1})]
    assert {"paper/tried.py", "cliperase/methods/unseen.py"} <= {*Code().reach(["paper/tried.py"])}
    monkeypatch.setattr(tried, "own_code", lambda: "another")
    after = [store.path(run_of(**settings)) for settings in ({}, {"radius": 0.1})]
    assert before[0] == after[0]
    assert before[1] != after[1]


def test_every_process_knows_the_method(place):
    register()
    table = run_all(place, [run_of("unseen"), run_of("unseen, flat", radius=0.1, weights="dual")])
    cosines = table[table.metric == "reference-gap.forget_cosine"].set_index("method").value
    assert cosines["unseen"] != cosines["unseen, flat"]
