"""The loop: determinism, resuming after a kill, micro-batches, selection, and what it must not touch."""

import copy
from dataclasses import replace

import pytest
import torch

from cliperase import checkpoints
from cliperase.data.sampling import mirror_and_shift
from cliperase.errors import CliperaseError
from cliperase.features import Features, Original
from cliperase.loop import Loop, Training, create_schedule, run_loop
from cliperase.methods import create_method
from cliperase.methods.base import LossMethod, all_classes
from cliperase.methods.fine_tune import FineTune
from cliperase.methods.gradient_ascent import ascent
from cliperase.methods.gradients import mean_over_batches
from cliperase.methods.salun import SalUn
from cliperase.settings import TrainSettings
from cliperase.training import PairTraining
from cliperase.unlearning import Recipe, Run, edit_once, narrowed

CONFIG = TrainSettings(steps=6, learning_rate=1e-3, forget_batch=4, retain_batch=6, evaluate_every=2)


@pytest.fixture
def sets(training):
    return training.select(training.labels == 0), training.select(training.labels != 0)


def original_of(model, sets):
    forget, retain = sets
    return Original(Features.of(model, forget), Features.of(model, retain), model.logit_scale.item())


def weights_after(model, sets, config=CONFIG, method=None, **options):
    student = copy.deepcopy(model)
    original = original_of(student, sets)
    method = method or create_method("CLIPErase", {})
    return student.state_dict(), train(student, method, sets[1], config, sets[0], original, **options)


def train(model, method, retain, config, forget=None, original=None, validate=None, checkpoint=None):
    """As `unlearning.Run` does."""
    with narrowed(model, retain, *([forget] if forget is not None else [])):
        training = PairTraining(model, method, config, retain, forget, original)
        if not method.takes_steps:
            return edit_once(training, validate)
        return run_loop(training, validate, checkpoint, progress=False)


def same(a, b, tolerance=0.0):
    return all(torch.allclose(a[k].double(), b[k].double(), rtol=0, atol=tolerance) for k in a)


def test_a_seed_fixes_the_result_and_another_seed_changes_it(model, sets):
    first, history = weights_after(model, sets)
    again, _ = weights_after(model, sets)
    other, _ = weights_after(model, sets, CONFIG.model_copy(update={"seed": 1}))
    assert same(first, again)
    assert not same(first, other)
    assert [entry["step"] for entry in history.log] == [2, 4, 6]
    assert set(history.log[0]) == {"step", "RM", "FM", "CM", "validation"}


def test_texts_that_the_model_reads_as_one_are_positives_of_each_other(model, sets):
    """Half of the rows write their prompt in capitals and with more blanks."""
    retain = sets[1]
    loud = [text.upper().replace(" ", "  ") for text in retain.texts]
    texts = sorted({*retain.texts, *loud})
    ids = [texts.index(loud[i] if row % 2 else retain.texts[i]) for row, i in enumerate(retain.text_ids[:, 0].tolist())]
    spelt = replace(retain, texts=texts, text_ids=torch.tensor(ids)[:, None])
    batches = [PairTraining(model, create_method("fine-tune", {}), CONFIG, pairs).batch(0).retain for pairs in
               (retain, spelt)]  # fmt: skip
    equal = [batch.text_ids[:, None] == batch.text_ids[None, :] for batch in batches]
    assert torch.equal(*equal)
    assert not equal[0].all()
    assert torch.allclose(batches[0].text, batches[1].text, atol=1e-6)


def test_the_forgotten_pairs_move_apart(model, sets):
    before = original_of(model, sets).forget
    state, _ = weights_after(model, sets, CONFIG.model_copy(update={"steps": 20}))
    model.load_state_dict(state)
    after = Features.of(model, sets[0])
    column = sets[0].text_ids[:, 0]
    cosine = [(f.image * f.text[column]).sum(dim=1).mean() for f in (before, after)]
    assert cosine[1] < cosine[0] - 0.2


def test_batch_norm_statistics_stay_unless_asked(model, sets):
    def statistics(state):
        return {k: v for k, v in state.items() if "running" in k}

    kept, _ = weights_after(model, sets)
    moved, _ = weights_after(model, sets, CONFIG.model_copy(update={"update_norm_statistics": True}))
    before = statistics(model.state_dict())
    assert before
    assert same(before, statistics(kept))
    assert not same(before, statistics(moved))


def test_micro_batches_give_the_whole_batchs_gradient(model, sets):
    gradients = []
    for size in (0, 3):
        student = copy.deepcopy(model).double()
        original = original_of(student, sets)
        original = Original(
            *(Features(f.image.double(), f.text.double()) for f in (original.forget, original.retain)),
            original.logit_scale,
        )
        config = CONFIG.model_copy(update={"micro_batch": size})
        loop = Loop(PairTraining(student, create_method("CLIPErase", {}), config, sets[1], sets[0], original))
        encode = student.encode_image
        student.encode_image = lambda images, encode=encode: encode(images.double() / 255)
        loop.step(0)
        gradients.append({name: p.grad for name, p in student.named_parameters()})
    assert same(*gradients, tolerance=1e-12)


def test_salun_moves_only_masked_weights_and_resumes(model, sets):
    method = create_method("SalUn", {"keep": 0.3, "batches": 2})
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    student = copy.deepcopy(model)
    training = PairTraining(student, method, CONFIG.model_copy(update={"weight_decay": 0.1}), sets[1], sets[0])
    loop = Loop(training)
    for step in range(3):
        loop.step(step)
    moved = kept = 0
    for name, p in student.named_parameters():
        mask = training.movable[name]
        assert torch.equal(p[~mask], before[name][~mask]), name
        moved, kept = moved + (p != before[name]).sum().item(), kept + mask.sum().item()
    assert 0 < moved <= kept
    reached = sum(
        (g != 0).sum().item() for g in mean_over_batches(model, ascent, fresh_loop(model, sets).batch, 2).values()
    )
    assert kept == pytest.approx(0.3 * reached, rel=0.01)


def fresh_loop(model, sets):
    return PairTraining(model.eval(), create_method("GA", {}), CONFIG, sets[1], sets[0])


def test_salun_without_a_gradient_says_so(model, sets):
    class Constant(SalUn):
        def restrict(self, model, batch):
            return super().restrict(torch.nn.Linear(2, 2), batch)  # which no embedding comes from

    with pytest.raises(CliperaseError, match="SalUn: the forget loss has no gradient in any weight; give a trained"):
        PairTraining(model, Constant(batches=1), CONFIG, sets[1], sets[0])


def test_images_that_are_constants_of_the_loss_do_not_move(model, sets):
    """Only the text tower learns: images have no gradient, and texts the same one, whole or in pieces."""
    found = []
    for size in (0, 3):
        student = copy.deepcopy(model)
        about = (create_method("GA", {"towers": "text"}), CONFIG.model_copy(update={"micro_batch": size}))
        PairTraining(student, *about, sets[1], sets[0], original_of(model, sets)).backward(0)
        found.append({name: p.grad for name, p in student.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        assert (gradient - found[1][name]).abs().max() <= 1e-5 * gradient.abs().max() + 1e-9, name
    assert found[0]["model.text_projection"].abs().max() > 1e-3
    assert not any("visual" in name for name in found[0])


@pytest.mark.parametrize("autocast", [False, True])
def test_a_student_that_has_not_moved_obeys(autocast, model, training):
    """CM is zero before the first step, because both are encoded in the same precision."""
    seen, forget = [], training.labels == 0

    class Watched(type(create_method("CLIPErase", {}))):
        def loss(self, batch):
            terms = super().loss(batch)
            seen.append((terms["CM"].item(), (batch.retain.image - batch.original_retain.image).abs().max().item()))
            return terms

    settings = CONFIG.model_copy(update={"steps": 1, "autocast": autocast, "forget_batch": 4, "retain_batch": 24})
    recipe = Recipe("CLIPErase", Watched(), settings)
    Run(model, recipe, training.select(forget), training.select(~forget), progress=False).carry_out()
    ((divergence, difference),) = seen
    assert abs(divergence) < 1e-6
    assert difference < 1e-6


def test_the_forget_share_is_that_of_all_rows(model, sets):
    batch = PairTraining(model, create_method("GA", {}), CONFIG, sets[1], sets[0]).batch(0)
    assert batch.forget_share == len(sets[0]) / (len(sets[0]) + len(sets[1])) == 0.25


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("CLIPErase/FMUClip", {}),
        ("CLIPErase/SALMU", {}),
        ("CLIPErase/SALMU", {"retention": 0.0, "consistency": 0.0}),  # nothing holds what it forgets
    ],
)
def test_the_other_two_cliperases_run_through_the_loop(name, settings, model, sets):
    config = CONFIG.model_copy(update={"steps": 20})
    state, history = weights_after(model, sets, config, create_method(name, settings))
    assert all(set(entry) == {"step", "RM", "FM", "CM", "validation"} for entry in history.log)
    assert not same(state, model.state_dict())
    first, last = (history.log[place]["FM"] for place in (0, -1))
    assert last < first - 1 if name == "CLIPErase/FMUClip" else last < (0.5 if settings else 1) * first


def test_task_negation_raises_the_loss_that_fine_tuning_lowers(model, sets):
    def error(student):
        return -ascent(PairTraining(student.eval(), create_method("GA", {}), CONFIG, sets[1], sets[0]).batch(0)).item()

    start = error(model)
    settings = {"fine_tune_steps": 5, "fine_tune_rate": 1e-3}
    found = {}
    for scale in (-1.0, 0.0, 1.0):  # -1 is fine-tuning itself
        student, method = copy.deepcopy(model), create_method("task negation", settings | {"scale": abs(scale)})
        method = method.model_copy(update={"scale": scale})
        train(student, method, sets[1], CONFIG, sets[0], original_of(model, sets))
        found[scale] = error(student)
    assert found[-1.0] < start < found[1.0]
    assert found[0.0] == pytest.approx(start, abs=1e-4)


def test_leace_hides_the_concept_from_the_means_of_the_images(model, sets):
    def gap(student):
        means = [torch.nn.functional.normalize(Features.of(student, one).image.mean(dim=0), dim=0) for one in sets]
        return (1 - means[0] @ means[1]).item()

    start, texts = gap(model), model.encode_text(sets[0].texts).detach()
    train(model, create_method("LEACE", {}), sets[1], CONFIG, sets[0], original_of(model, sets))
    assert gap(model) < 0.05 * start
    assert torch.equal(model.encode_text(sets[0].texts), texts)


@pytest.mark.parametrize("name", ["SSD", "SLUG", "null space"])
def test_methods_without_steps_edit_the_model_once(name, model, sets):
    before = {key: value.clone() for key, value in model.state_dict().items()}
    settings = {"SSD": {"alpha": 1.0, "batches": 2}, "SLUG": {"batches": 2, "search_steps": 2}, "null space": {}}[name]
    calls = []

    def validate(student):
        calls.append(1)
        return {"score": float(len(calls)), "remaining": 100.0}

    history = train(model, create_method(name, settings), sets[1], CONFIG, sets[0], original_of(model, sets), validate)
    assert history.best_step == 0
    assert history.validation["remaining"] == 100.0
    assert not same(before, model.state_dict())
    assert not any(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("name", ["CLIPErase", "SalUn", "SSD", "SLUG"])
def test_a_frozen_image_tower_stays_and_the_texts_move(name, model, sets):
    tower = model.model.visual.requires_grad_(False)
    images, texts = ({key: p.clone() for key, p in part.state_dict().items()} for part in (tower, model.model))
    scores = iter(range(100))

    def validate(student):
        return {"score": float(next(scores)), "remaining": 100.0}

    method = create_method(name, {"SSD": {"alpha": 1.0}}.get(name, {}))
    config = CONFIG.model_copy(update={"micro_batch": 3})
    train(model, method, sets[1], config, sets[0], original_of(model, sets), validate)
    assert same(images, tower.state_dict())
    assert not same(texts, model.model.state_dict())


def test_null_space_moves_the_forget_texts_most(model, sets):
    texts = sets[0].texts
    before = model.encode_text(texts).detach()
    train(model, create_method("null space", {}), sets[1], CONFIG, sets[0], original_of(model, sets))
    after = model.encode_text(texts).detach()
    drift = 1 - (before * after).sum(dim=1)
    own = torch.tensor(["apple" in text for text in texts])
    assert drift[own].min() > 10 * drift[~own].max()


def test_null_space_removes_every_forgotten_class_though_few_batches_are_asked_for(model, training):
    """Of their texts nothing is left but what all texts share."""
    sets = training.select(training.labels != 3), training.select(training.labels == 3)
    config = CONFIG.model_copy(update={"forget_batch": 1})
    train(model, create_method("null space", {"batches": 1}), sets[1], config, sets[0], original_of(model, sets))
    left = model.encode_text(sets[0].texts_used(0)).detach()
    assert len(left) == 3
    assert (left @ left.T).min() > 0.9999


def test_as_many_batches_are_read_as_show_every_forgotten_class(model, training):
    forget, retain = training.select(training.labels != 3), training.select(training.labels == 3)
    config = CONFIG.model_copy(update={"forget_batch": 1})
    work = PairTraining(model, create_method("null space", {}), config, retain, forget)
    asked = []
    for least in (1, 20):
        seen = all_classes(lambda step: asked.append(step) or work.batch(step), least)
        assert len(seen) == max(least, work.forget_steps)
    assert asked == [*range(work.forget_steps), *range(20)]
    labels = [forget.labels[work.sources["forget"].sampler.batch(step)].item() for step in range(work.forget_steps)]
    assert set(labels) == {0, 1, 2}
    assert set(labels[:-1]) != {0, 1, 2}
    captions = replace(forget, labels=None, class_names=[])
    assert PairTraining(model, create_method("null space", {}), config, retain, captions).forget_steps == 0


def test_query_arithmetic_takes_the_concept_out_of_every_query(model, sets):
    """At strength 1 nothing is left along the forgotten texts' mean; at strength 0 nothing changes."""
    queries = sets[1].texts
    before = model.encode_text(queries).detach()
    method = create_method("query arithmetic", {"strength": 0.0})
    train(model, method, sets[1], CONFIG, sets[0], original_of(model, sets))
    assert torch.allclose(model.encode_text(queries), before, atol=1e-5)
    concept = torch.nn.functional.normalize(model.encode_text(sets[0].texts_used(0)).detach().mean(dim=0), dim=0)
    train(model, create_method("query arithmetic", {}), sets[1], CONFIG, sets[0], original_of(model, sets))
    after = model.encode_text(queries).detach()
    others = torch.tensor([text not in sets[0].texts_used(0) for text in queries])  # of its own nothing is left
    assert (before @ concept)[others].abs().max() > 0.3
    assert (after @ concept)[others].abs().max() < 1e-4


class Killed(Exception):
    pass


def test_a_killed_run_resumes_to_the_same_result(model, sets, tmp_path, monkeypatch):
    def validate(student):
        return {"score": -student.logit_scale.item()}

    whole, history = weights_after(model, sets, validate=validate)
    path = tmp_path / "run.pt"
    save = checkpoints.save_checkpoint

    def save_then_die(*arguments):
        save(*arguments)
        if arguments[1]["step"] == 4:
            raise Killed

    monkeypatch.setattr("cliperase.loop.save_checkpoint", save_then_die)
    with pytest.raises(Killed):
        weights_after(model, sets, validate=validate, checkpoint=path)
    monkeypatch.undo()
    resumed, second = weights_after(model, sets, validate=validate, checkpoint=path)
    assert same(whole, resumed)
    assert [e["step"] for e in second.log] == [e["step"] for e in history.log]
    assert second.log[0] == history.log[0]
    assert second.best_step == history.best_step


@pytest.mark.parametrize("steps", range(1, 12))
def test_one_cycle_of_any_length(steps):
    weight = torch.nn.Parameter(torch.zeros(1))
    for rising in (0.1, 0.2):
        optimizer = torch.optim.AdamW([weight], lr=0.5)
        settings = TrainSettings(steps=steps, learning_rate=0.5, schedule="one-cycle", rising=rising)
        schedule = create_schedule(optimizer, settings)
        rates = []
        for _ in range(steps):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            if len(rates) < steps:
                schedule.step()
        assert 0.1 < max(rates) <= 0.5 + 1e-9
        assert steps < 3 or rates[-1] < 1e-3


def test_one_cycle_resumes_at_its_place(model, sets, tmp_path, monkeypatch):
    config = CONFIG.model_copy(update={"schedule": "one-cycle", "captions": "random"})
    whole, _ = weights_after(model, sets, config)
    path, save = tmp_path / "run.pt", checkpoints.save_checkpoint

    def save_then_die(*arguments):
        save(*arguments)
        raise Killed

    monkeypatch.setattr("cliperase.loop.save_checkpoint", save_then_die)
    with pytest.raises(Killed):
        weights_after(model, sets, config, checkpoint=path)
    monkeypatch.undo()
    resumed, _ = weights_after(model, sets, config, checkpoint=path)
    assert same(whole, resumed)


def test_a_checkpoint_of_another_run_or_a_broken_one_is_refused(model, sets, tmp_path):
    path = tmp_path / "run.pt"
    weights_after(model, sets, checkpoint=path)
    held = path.read_bytes()
    with pytest.raises(CliperaseError, match=r"of another run \(learning_rate was 0.001\)"):
        weights_after(model, sets, CONFIG.model_copy(update={"learning_rate": 1.0}), checkpoint=path)
    assert path.read_bytes() == held  # nothing lost
    path.write_bytes(held[:100])
    with pytest.raises(CliperaseError, match="cannot be read"):
        weights_after(model, sets, checkpoint=path)


def test_the_best_validated_weights_are_kept_and_the_first_of_equals(model, sets):
    scores = iter([1.0, 5.0, 5.0])
    seen = []

    def validate(student):
        whole = copy.deepcopy(student)
        whole.widen_vocabulary()
        seen.append(whole.state_dict())
        return {"score": next(scores)}

    state, history = weights_after(model, sets, validate=validate)
    assert history.best_step == 4
    assert same(state, seen[1])
    assert not same(state, seen[2])


def test_a_checkpoint_of_other_weights_or_rows_is_refused(model, sets, tmp_path):
    """Same settings, same shapes, same counts: only what the run started from differs."""
    path = tmp_path / "run.pt"
    weights_after(model, sets, checkpoint=path)
    held = path.read_bytes()
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.model.logit_scale += 0.1
    swapped = (sets[1].select(sets[1].labels == 1), sets[1])
    for student, data in ((other, sets), (model, swapped)):
        with pytest.raises(CliperaseError, match="of another run"):
            weights_after(student, data, checkpoint=path)
    assert path.read_bytes() == held


def test_a_checkpoint_of_another_shape_is_refused(tmp_path):
    """A training that does not name its model among what must be equal."""

    class Plain(Training):
        def backward(self, step):
            loss = self.model(torch.ones(1, 2)).sum()
            loss.backward()
            return {"loss": loss.detach()}

    run_loop(Plain(torch.nn.Linear(2, 2), CONFIG), checkpoint=tmp_path / "checkpoint.pt", progress=False)
    with pytest.raises(CliperaseError, match=r"the checkpoint is of another model \(.+\); delete it"):
        run_loop(Plain(torch.nn.Linear(2, 3), CONFIG), checkpoint=tmp_path / "checkpoint.pt", progress=False)


def test_an_average_cannot_be_the_best(model, sets):
    config = CONFIG.model_copy(update={"averaging": 0.9})
    with pytest.raises(CliperaseError, match=r"averaging keeps the average .* set averaging to 0"):
        weights_after(model, sets, config, validate=lambda _: {"score": 0.0})


def test_augmented_images_are_mirrored_or_shifted_and_nothing_else():
    images = torch.arange(2 * 3 * 16 * 8).reshape(2, 3, 16, 8)
    generator = torch.Generator().manual_seed(0)
    seen = set()
    for _ in range(200):
        for image, found in zip(images, mirror_and_shift(images, generator), strict=True):
            padded = torch.nn.functional.pad(image.double(), (1, 1, 2, 2), mode="reflect").long()
            possible = {
                (top, left, mirrored): (part.flip(2) if mirrored else part)
                for top in range(5) for left in range(3) for mirrored in (False, True)
                for part in [padded[:, top : top + 16, left : left + 8]]
            }  # fmt: skip
            hits = [key for key, part in possible.items() if torch.equal(part, found)]
            assert len(hits) == 1
            seen.update(hits)
    assert len(seen) == 30  # all of them


def test_augmented_training_repeats_and_is_refused_beside_known_features(model, sets):
    config = CONFIG.model_copy(update={"augment": True})
    runs = []
    for _ in range(2):
        student = copy.deepcopy(model)
        train(student, create_method("fine-tune", {}), sets[1], config)
        runs.append(student.state_dict())
    assert same(*runs)
    plain = copy.deepcopy(model)
    train(plain, create_method("fine-tune", {}), sets[1], CONFIG)
    assert not same(runs[0], plain.state_dict())
    with pytest.raises(CliperaseError, match=r"augment changes the images, .*; switch it off"):
        weights_after(model, sets, config)


def test_a_step_without_any_loss_says_so(model, sets):
    nothing = create_method("CLIPErase", {"lambda_rm": 0.0, "lambda_fm": 0.0, "lambda_cm": 0.0})
    with pytest.raises(CliperaseError, match="every loss term is switched off"):
        weights_after(model, sets, method=nothing)


def test_a_diverging_loss_says_so(model, sets):
    class Broken(LossMethod):
        def loss(self, batch):
            return {"bad": batch.retain.image.sum() * float("nan")}

    with pytest.raises(CliperaseError, match="loss bad is nan"):
        weights_after(model, sets, method=Broken())


def test_settings_for_a_gpu_move_the_result_by_rounding_at_most(base_model, training):
    """`channels_last` by the order of sums, `autocast` by half precision."""

    def trained(**settings):
        model = copy.deepcopy(base_model)
        config = TrainSettings(steps=2, learning_rate=1e-3, retain_batch=8, **settings)
        history = train(model, FineTune(), training, config)
        assert all(value.dtype == torch.float32 for value in model.parameters())
        return history.log[-1]["RM"]

    plain = trained()
    assert trained(channels_last=True) == pytest.approx(plain, abs=1e-5)
    assert trained(autocast=True) == pytest.approx(plain, rel=0.02)
    assert trained(autocast=True) != plain


def test_the_image_tower_is_what_is_compiled(base_model, training, monkeypatch):
    compiled = []

    def compile_eagerly(function):
        compiled.append(function)
        return function

    monkeypatch.setattr(torch, "compile", compile_eagerly)
    model = copy.deepcopy(base_model)
    train(model, FineTune(), training, TrainSettings(steps=1, learning_rate=1e-3, retain_batch=8, compile=True))
    assert compiled == [model.encode_image]
