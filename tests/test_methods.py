"""Methods: their terms by hand on small embeddings, and what is special in each."""

import re
import subprocess
import sys
from dataclasses import replace
from math import exp, log
from types import SimpleNamespace

import pytest
import torch
from pydantic import PositiveInt

from cliperase.batch import Batch, Pairs
from cliperase.errors import CliperaseError
from cliperase.losses import consistency, forgetting, info_nce, retention, sigmoid_loss
from cliperase.methods import METHODS, create_method, method_class, slug
from cliperase.methods.base import EditMethod, LossMethod
from cliperase.methods.gradients import mean_over_batches
from cliperase.methods.leace import erasure
from cliperase.methods.multidelete import other_texts, over_matrix, similarity_to_others
from cliperase.methods.null_space import distinctive, projection
from cliperase.methods.random_labels import wrong_captions
from cliperase.methods.slug import pareto_layers
from cliperase.methods.ssd import share_of_forget
from cliperase.unlearning import Recipe


def features(seed, n, d=4):
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(n, d, generator=generator, dtype=torch.float64), dim=1)


@pytest.fixture
def batch():
    forget_ids, retain_ids = torch.zeros(3, dtype=torch.long), torch.tensor([1, 2, 3, 1, 2])
    one_text = features(9, 1).repeat(3, 1)
    return Batch(
        forget=Pairs(features(0, 3), one_text, forget_ids),
        retain=Pairs(features(1, 5), features(2, 5), retain_ids),
        original_forget=Pairs(features(3, 3), features(4, 3), forget_ids),
        original_retain=Pairs(features(5, 5), features(6, 5), retain_ids),
        logit_scale=torch.tensor(3.0, dtype=torch.float64),
        original_logit_scale=torch.tensor(2.0, dtype=torch.float64),
        step=0,
        steps=1,
        generator=torch.Generator().manual_seed(0),
    )


def test_cliperase_sums_its_weighted_terms(batch):
    terms = create_method("CLIPErase", {"lambda_rm": 0.5, "lambda_fm": 2.0, "lambda_cm": 4.0}).loss(batch)
    r, o = batch.retain, batch.original_retain
    assert set(terms) == {"RM", "FM", "CM"}
    assert terms["FM"].item() == pytest.approx(2.0 * forgetting(batch.forget.image, batch.forget.text).item())
    assert terms["RM"].item() == pytest.approx(0.5 * retention(r.image, r.text, 3.0, r.text_ids).item())
    expected = 4.0 * consistency((o.image, o.text), (r.image, r.text), 2.0).item()
    assert terms["CM"].item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("method", "settings"),
    [("CLIPErase", {"lambda_fm": 0.0}), ("fine-tune", {}), ("GradDiff", {}), ("random labels", {}),
     ("SCRUB", {"forget_share": 0.0}), ("unseen", {"lambda_rm": 1.0})],
)  # fmt: skip
def test_retention_is_the_loss_of_the_models_training(batch, method, settings):
    """With a bias it is SigLIP's."""
    bias, r = torch.tensor(-4.0, dtype=torch.float64), batch.retain
    loss = create_method(method, settings).loss
    assert loss(batch)["RM"].item() == pytest.approx(retention(r.image, r.text, 3.0, r.text_ids).item())
    expected = sigmoid_loss(r.image, r.text, 3.0, bias, r.text_ids).item()
    assert loss(replace(batch, logit_bias=bias))["RM"].item() == pytest.approx(expected)


def test_defaults_are_the_papers():
    method = create_method("CLIPErase", {})
    assert (method.lambda_rm, method.lambda_fm, method.lambda_cm) == (1.0, 3.0, 3.0)


def test_a_zero_lambda_leaves_its_term_out(batch):
    assert set(create_method("CLIPErase", {"lambda_rm": 0.0, "lambda_cm": 0.0}).loss(batch)) == {"FM"}


def test_gradient_ascent_is_minus_infonce_against_the_retain_pairs(batch):
    f, r = batch.forget, batch.retain
    expected = -info_nce(f.image, f.text, 3.0, f.text_ids, negatives=(r.image, r.text, r.text_ids)).item()
    assert create_method("GA", {}).loss(batch)["GA"].item() == pytest.approx(expected)


def test_gradient_ascent_has_a_gradient_although_all_forget_texts_are_one(batch):
    image = batch.forget.image.clone().requires_grad_()
    forget = Pairs(image, batch.forget.text, batch.forget.text_ids)
    create_method("GA", {}).loss(Batch(**{**vars(batch), "forget": forget}))["GA"].backward()
    assert image.grad.abs().max() > 1e-3


def test_gradient_difference_and_kl_min_share_the_ascent(batch):
    ascent = create_method("GA", {}).loss(batch)["GA"].item()
    difference = create_method("GradDiff", {"gamma": 0.5, "alpha": 2.0}).loss(batch)
    r = batch.retain
    assert difference["GA"].item() == pytest.approx(0.5 * ascent)
    assert difference["RM"].item() == pytest.approx(2 * retention(r.image, r.text, 3.0, r.text_ids).item())
    kl = create_method("KL-min", {"beta": 3.0}).loss(batch)
    o = batch.original_retain
    assert kl["GA"].item() == pytest.approx(ascent)
    assert kl["KL"].item() == pytest.approx(3 * consistency((o.image, o.text), (r.image, r.text), 2.0).item())


def test_fine_tune_ignores_the_forget_set(batch):
    without = Batch(**{**vars(batch), "forget": None})
    method = create_method("fine-tune", {})
    assert method.loss(batch)["RM"].item() == method.loss(without)["RM"].item()


def test_multidelete_is_zero_on_what_the_original_keeps(batch):
    same = Batch(**{**vars(batch), "retain": batch.original_retain})
    terms = create_method("MultiDelete", {}).loss(same)
    assert terms["multimodal"].item() == 0
    assert terms["unimodal"].item() == 0


def test_multidelete_by_hand(batch):
    """Only retain row 1 has another text than the forget rows; retain row 0 is as the original has it."""
    forget_ids, retain_ids = torch.tensor([0, 0]), torch.tensor([0, 1])

    def pairs(image, text, ids):
        return Pairs(torch.tensor(image, dtype=torch.float64), torch.tensor(text, dtype=torch.float64), ids)

    tried = replace(
        batch,
        forget=pairs([[0.6, 0.8], [0, 1]], [[1, 0], [1, 0]], forget_ids),  # similarities 0.6 and 0
        original_forget=pairs([[0, 1], [1, 0]], [[0, 1], [0, 1]], forget_ids),  # with text 1: 0.8 and 0.6
        retain=pairs([[1, 0], [0.8, 0.6]], [[0, 1], [0, 1]], retain_ids),
        original_retain=pairs([[1, 0], [0, 1]], [[0, 1], [0.6, 0.8]], retain_ids),
    )
    settings = {"decoupling": 2.0, "multimodal": 3.0, "unimodal": 5.0}
    terms = create_method("MultiDelete", {**settings, "decoupling_over": "pairs"}).loss(tried)
    assert set(terms) == {"decoupling", "multimodal", "unimodal"}
    assert terms["decoupling"].item() == pytest.approx(2 * (0.2**2 + 0.6**2) / 2)
    assert terms["multimodal"].item() == pytest.approx(3 * 0.2**2 / 2)  # products (0, 0.6) and (0, 0.8)
    assert terms["unimodal"].item() == pytest.approx(5 * ((0.8**2 + 0.4**2) / 2 + (0.6**2 + 0.2**2) / 2))
    whole = create_method("MultiDelete", settings).loss(tried)
    # similarities 0.6 0.6 | 0 0, targets 0.8 0.8 | 0.6 0.6, and both directions
    assert whole["decoupling"].item() == pytest.approx(2 * 2 * (2 * 0.2**2 + 2 * 0.6**2) / 4)
    assert {name: whole[name] for name in ("multimodal", "unimodal")} == {
        name: terms[name] for name in ("multimodal", "unimodal")
    }


def test_multidelete_over_the_matrix_moves_texts_together(batch):
    """One retain text is not the forget texts', so the target is known: it is the same for every column."""
    ids = torch.tensor([0, 0, 0, 7, 0])
    tried = replace(
        batch, retain=replace(batch.retain, text_ids=ids), forget=replace(batch.forget, text=features(8, 3))
    )
    target = (batch.original_forget.image @ batch.original_retain.text[3])[:, None]
    published = torch.nn.functional.mse_loss
    student = tried.forget.image @ tried.forget.text.T
    expected = published(student, target.expand(3, 3)) + published(student.T, target.expand(3, 3).T)
    assert create_method("MultiDelete", {}).loss(tried)["decoupling"].item() == pytest.approx(expected.item())


def test_multidelete_over_the_matrix_draws_no_text_of_any_forget_row(batch):
    """Retain rows share the texts of the forget rows, each of its own; one is of another text."""
    own = replace(batch.forget, text_ids=torch.tensor([0, 1, 2]))
    shared = replace(batch.retain, text_ids=torch.tensor([0, 1, 2, 7, 1]))
    tried = replace(batch, forget=own, retain=shared)
    target = (batch.original_forget.image @ batch.original_retain.text[3])[:, None]
    expected = 2 * (own.image @ own.text.T - target).square().mean()
    for _ in range(20):
        assert torch.allclose(over_matrix(tried), expected)


def test_multidelete_draws_the_same_texts_over_the_matrix_where_none_is_shared(batch):
    draws = []
    for of_any in (False, True):
        batch.generator.manual_seed(0)
        draws.append([other_texts(batch, of_any).tolist() for _ in range(5)])
    assert draws[0] == draws[1]


def test_multidelete_never_shuffles_onto_a_true_pair(batch):
    retain_ids = torch.tensor([0, 0, 0, 7, 0])  # only row 3 has another text than the forget rows
    retain = Pairs(batch.retain.image, batch.retain.text, retain_ids)
    for _ in range(20):
        target = similarity_to_others(Batch(**{**vars(batch), "retain": retain}))
        expected = batch.original_forget.image @ batch.original_retain.text[3]
        assert torch.allclose(target, expected)
    all_true = Pairs(batch.retain.image, batch.retain.text, torch.zeros(5, dtype=torch.long))
    with pytest.raises(CliperaseError, match="enlarge retain_batch"):
        similarity_to_others(Batch(**{**vars(batch), "retain": all_true}))


def test_enmn_noise_raises_the_forget_error_and_lowers_the_retain_error(model, training):
    """Both beside grey and beside noise that was not learnt: by half of it at least."""
    forget, retain = training.select(training.labels == 0), training.select(training.labels != 0)
    method = create_method("ENMN", {"images_per_text": 2, "noise_steps": 30})
    noise_forget, noise_retain = method.prepare(model, forget, retain, seed=0)
    texts = sorted({*noise_forget.texts, *noise_retain.texts})

    def error(noise, images):
        labels = torch.tensor([texts.index(noise.texts[i]) for i in noise.text_ids[:, 0]])
        with torch.no_grad():
            logits = model.logit_scale * model.encode_image(images) @ model.encode_text(texts).T
        return torch.nn.functional.cross_entropy(logits, labels).item()

    def grey(images):
        return torch.full_like(images, 128)

    def unlearnt(images):
        noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
        return (noise.sigmoid() * 255).to(torch.uint8)

    assert len(noise_forget) == 2
    assert len(noise_retain) == 6
    for plain in (grey, unlearnt):
        assert error(noise_retain, noise_retain.images) < 0.5 * error(noise_retain, plain(noise_retain.images))
        assert error(noise_forget, noise_forget.images) > 1.5 * error(noise_forget, plain(noise_forget.images))


def test_enmn_by_hand(batch):
    """InfoNCE of three pairs: one of the forget noise, and two of the retain noise that are equal and share a text."""
    across, up = [1.0, 0.0], [0.0, 1.0]
    forget = Pairs(torch.tensor([across]), torch.tensor([[0.6, 0.8]]), torch.tensor([0]))
    retain = Pairs(torch.tensor([up, up]), torch.tensor([up, up]), torch.tensor([1, 1]))
    terms = create_method("ENMN", {}).loss(replace(batch, forget=forget, retain=retain))
    # logits at a scale of 3, image to text: 1.8 0 0 | 2.4 3 3 | 2.4 3 3; text to image is the transpose
    image_to_text = (log(1 + 2 * exp(-1.8)) + 2 * log(2 + exp(-0.6))) / 3
    text_to_image = (log(1 + 2 * exp(0.6)) + 2 * log(2 + exp(-3.0))) / 3
    assert set(terms) == {"noise"}
    assert terms["noise"].item() == pytest.approx((image_to_text + text_to_image) / 2)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_losses_or_edits_the_weights(name, batch):
    method = create_method(name, {})
    if method.takes_steps:
        assert isinstance(method, LossMethod)
        terms = method.loss(batch)
        assert terms
        assert all(value.ndim == 0 and torch.isfinite(value) for value in terms.values())
    else:
        assert isinstance(method, EditMethod)


def test_which_methods_replace_the_data_edit_before_restrict_the_weights_or_have_other_targets(model):
    """Who defines one of the four says so to the loop; the others hand on what they were given."""
    own = {name: vars(method_class(name)) for name in METHODS}
    assert [name for name in own if "prepare" in own[name]] == ["ENMN"]
    assert [name for name in own if method_class(name).replaces_data] == ["ENMN"]
    assert [name for name in own if "restrict" in own[name]] == ["SalUn"]
    assert [name for name in own if {"targets", "start"} & set(own[name])] == ["unseen"]
    plain, forget, retain = create_method("GA", {}), object(), object()
    assert plain.prepare(model, forget, retain, seed=0) == (forget, retain)
    assert plain.restrict(model, None) == {}
    assert plain.targets(model, forget, retain, "as it is") == "as it is"


def test_a_method_without_losses_or_edit_cannot_be_made():
    for base, missing in ((LossMethod, "loss"), (EditMethod, "apply")):
        with pytest.raises(TypeError, match=missing):
            type("Empty", (base,), {})()


def test_a_method_is_imported_when_it_is_asked_for():
    code = (
        "import sys; from cliperase.methods import METHODS, method_class; assert len(METHODS) == 19; "
        "method_class('GA'); print([name for name in sys.modules if name.startswith('cliperase.methods.')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert sorted(re.findall(r"methods\.(\w+)", done.stdout)) == ["base", "gradient_ascent"]


@pytest.mark.parametrize("name", METHODS)
def test_every_method_says_where_it_is_from_how_it_is_set_and_how_it_fails(name):
    """The first paragraph of its file names a paper's year, or says `ours`; two others begin with fixed words."""
    first, *others = sys.modules[method_class(name).__module__].__doc__.strip().split("\n\n")
    assert re.search(r"\((ours\b|[^()]*\b20\d\d\b)", first)
    for heading, word in (
        ("Settings: ", "profile"),
        ("Known failure: ", ""),
    ):  # what is usual beside what is ours
        (paragraph,) = [text for text in others if text.startswith(heading)]
        assert re.search(word, paragraph)


def test_gradient_ascent_on_text_leaves_the_images_alone(batch):
    image = batch.forget.image.clone().requires_grad_()
    text = batch.forget.text.clone().requires_grad_()
    tried = replace(batch, forget=Pairs(image, text, batch.forget.text_ids))
    create_method("GA", {"towers": "text"}).loss(tried)["GA"].backward()
    assert image.grad is None
    assert text.grad.abs().max() > 1e-3
    with pytest.raises(CliperaseError, match="GA: towers is 'image'; choose one of 'both' or 'text'"):
        create_method("GA", {"towers": "image"})


def test_random_labels_by_hand(batch):
    """One retain text is not the forget text, so the drawn label is known."""
    retain = replace(batch.retain, text_ids=torch.tensor([0, 0, 0, 7, 0]))
    f = batch.forget
    logits = 3.0 * f.image @ torch.cat([retain.text, f.text]).T
    expected = -logits.log_softmax(dim=1)[:, 3].mean().item()
    assert wrong_captions(replace(batch, retain=retain)).item() == pytest.approx(expected)


def test_scrub_disobeys_by_hand(batch):
    method = create_method("SCRUB", {"mu": 2.0, "temperature": 1.0})
    first = method.loss(replace(batch, step=0, steps=10))
    expected = 0.0
    for i in range(3):
        before = [
            batch.original_forget.image[i] @ t for t in (batch.original_forget.text[i], *batch.original_retain.text)
        ]
        after = [batch.forget.image[i] @ t for t in (batch.forget.text[i], *batch.retain.text)]
        p, q = (torch.stack(v).mul(2.0).softmax(dim=0) for v in (before, after))
        expected += (p * (p / q).log()).sum().item() / 3
    assert first["disobey"].item() == pytest.approx(-2.0 * expected)


def test_scrub_takes_turns_as_published(batch):
    """Three rounds of ten begin with steps that disobey; each turn is half a round."""
    method = create_method("SCRUB", {})
    assert (method.temperature, method.alpha, method.mu, method.forget_share, method.rounds) == (2.0, 0.5, 1.0, 0.3, 10)

    def turns(steps, **settings):
        method = create_method("SCRUB", settings)
        found = [set(method.loss(replace(batch, step=step, steps=steps))) for step in range(steps)]
        assert all(terms in ({"disobey"}, {"RM", "KL"}) for terms in found)
        return "".join("-" if terms == {"disobey"} else "+" for terms in found)

    assert turns(40) == "--++--++--++" + 28 * "+"
    assert turns(12, rounds=3, forget_share=1.0) == "--++--++--++"
    assert turns(10) == "---+++++++"  # a round of one step is its first turn
    assert turns(8, forget_share=0.0) == 8 * "+"


def test_scrub_at_a_temperature_by_hand(batch):
    """T² · KL of the distributions at logits / T, in both turns."""
    method, o, r = create_method("SCRUB", {"temperature": 4.0, "alpha": 3.0}), batch.original_retain, batch.retain
    disobeyed = method.loss(replace(batch, step=0, steps=10))["disobey"].item()
    rows = []
    for f, texts in ((batch.original_forget, o.text), (batch.forget, r.text)):
        rows.append(torch.cat([(f.image * f.text).sum(dim=1, keepdim=True), f.image @ texts.T], dim=1))
    p, q = ((2.0 * row / 4.0).softmax(dim=1) for row in rows)
    assert disobeyed == pytest.approx(-16 * (p * (p / q).log()).sum(dim=1).mean().item())
    obeyed = method.loss(replace(batch, step=9, steps=10))["KL"].item()
    assert obeyed == pytest.approx(3 * 16 * consistency((o.image, o.text), (r.image, r.text), 2.0 / 4.0).item())


class TwoWeights(torch.nn.Module):
    """`features = (a, b·x)`: a model whose gradients can be written down."""

    def __init__(self):
        super().__init__()
        self.a = torch.nn.Parameter(torch.tensor([[3.0]], dtype=torch.float64))
        self.b = torch.nn.Parameter(torch.tensor([[4.0]], dtype=torch.float64))
        self.unused = torch.nn.Parameter(torch.ones(2, 2, dtype=torch.float64))


def test_mean_over_batches_by_hand():
    model = TwoWeights()
    x = [1.0, 3.0]
    means = mean_over_batches(model, lambda v: (model.a * v + 2 * model.b).sum(), x.__getitem__, 2)
    assert (means["a"].item(), means["b"].item(), means["unused"].abs().sum().item()) == (2.0, 2.0, 0.0)
    squares = mean_over_batches(model, lambda v: (model.a * v).sum(), x.__getitem__, 2, power=2)
    assert squares["a"].item() == 5.0
    assert model.a.grad is None


def test_ssd_dampens_what_only_the_forget_set_needs(monkeypatch):
    model = TwoWeights()
    found = iter([{"a": 40.0, "b": 1.0, "unused": 0.0}, {"a": 2.0, "b": 1.0, "unused": 0.0}])

    def importance(model, *_, power):
        assert power == 2
        values = next(found)
        return {name: torch.full_like(p, values[name]) for name, p in model.named_parameters()}

    monkeypatch.setattr("cliperase.methods.ssd.mean_over_batches", importance)
    create_method("SSD", {"alpha": 10.0, "dampening": 2.0, "importance_of": "retain"}).apply(model, None)
    assert model.a.item() == pytest.approx(3.0 * 2.0 * 2.0 / 40.0)
    assert model.b.item() == 4.0
    assert torch.equal(model.unused, torch.ones(2, 2, dtype=torch.float64))


def test_ssd_takes_the_forget_set_as_a_part_of_the_data(monkeypatch):
    """F_f and F_r of three weights, of which Df has a share of 4 %: F_D = 0.04·F_f + 0.96·F_r."""
    found = {"a": (50.0, 1.0), "b": (30.0, 5.0), "unused": (20.0, 0.0)}

    def apply(**settings):
        model, calls = TwoWeights(), iter((0, 1))

        def importance(model, *_, power):
            place = next(calls)
            return {name: torch.full_like(p, found[name][place]) for name, p in model.named_parameters()}

        monkeypatch.setattr("cliperase.methods.ssd.mean_over_batches", importance)
        create_method("SSD", settings).apply(model, lambda _: SimpleNamespace(forget_share=0.04))
        return model.a.item(), model.b.item(), model.unused[0, 0].item()

    a, b, unused = apply(alpha=10.0)
    assert a == pytest.approx(3.0 * (0.04 * 50 + 0.96) / 50)  # 50 > 10 · 2.96
    assert b == 4.0  # 30 < 10 · 6
    assert unused == pytest.approx(0.04)  # 20 > 10 · 0.8: only Df needs it, and still it is not erased
    assert apply(alpha=25.0) == (3.0, 4.0, 1.0)  # 1 / 0.04: nothing can be above it
    assert apply(alpha=1e12, importance_of="retain")[2] == 0.0  # erased whatever α is


def test_ssd_of_rows_that_nobody_counted(model):
    with pytest.raises(CliperaseError, match="set importance_of=retain"):
        share_of_forget(lambda _: SimpleNamespace(forget_share=None))


@torch.no_grad()
def test_slug_finds_the_step_that_validation_likes():
    """Forgetting falls with `a`; a score that peaks at a = 1.2 must be found to within the search's last step."""
    model = TwoWeights()

    def validate(model):
        a = model.a.item()
        return {"score": -abs(a - 1.2), "remaining": 100.0 if a > 1.2 else 0.0}

    method = create_method("SLUG", {"search_steps": 8})
    ones = {"a": torch.ones(1, 1, dtype=torch.float64)}
    score, name, weights = method.search(model, "a", ones["a"], validate)
    assert name == "a"
    assert weights.item() == pytest.approx(1.2, abs=3.0 / 2**7)
    assert score == pytest.approx(0, abs=3.0 / 2**7)
    assert model.a.item() == 3.0  # left as it was
    with pytest.raises(CliperaseError, match="SLUG searches its step on validation data, and there are none"):
        method.apply(model, None)


def test_slug_prefers_important_layers_that_point_elsewhere():
    model = torch.nn.ParameterDict({n: torch.nn.Parameter(torch.eye(2)) for n in ("big", "aligned", "small", "dull")})
    model["bias"] = torch.nn.Parameter(torch.ones(2))
    across, along = torch.tensor([[0.0, 1.0], [0.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    between = across + along
    forget = {"big": 9 * between, "aligned": 5 * along, "small": across, "dull": 0.5 * along, "bias": torch.ones(2)}
    retain = dict.fromkeys(("big", "aligned", "small", "dull"), along) | {"bias": torch.ones(2)}
    assert pareto_layers(model, forget, retain) == ["big", "small"]


def test_slug_leaves_embeddings_and_positions_out(model, monkeypatch):
    """Were every layer on the front, these would not be there, in any tower of any family."""
    named = dict(model.named_parameters())
    forget = {name: torch.full_like(p, 1.0 / p.numel() ** 0.5) for name, p in named.items()}
    for number, name in enumerate(named):  # falling importance, falling alignment
        forget[name] *= named[name].norm() * 0.9**number
    retain = {name: torch.zeros_like(p) for name, p in named.items()}
    for number, (name, p) in enumerate(named.items()):
        retain[name].view(-1)[: max(1, round(p.numel() * 0.9**number))] = 1.0
    embeddings = {"model.token_embedding.weight", "model.positional_embedding"}
    assert not embeddings & set(pareto_layers(model, forget, retain))
    ones = {name: torch.ones_like(p) for name, p in named.items()}
    only = [
        {other: ones[other] if other == name else torch.zeros_like(p) for other, p in named.items()} for name in named
    ]
    fronts = set()
    for kept_out in (slug.NO_LAYERS, ()):  # alone with a gradient, a layer is the front
        monkeypatch.setattr(slug, "NO_LAYERS", kept_out)
        fronts.add(frozenset(layer for gradient in only for layer in pareto_layers(model, gradient, ones)))
    fewer, more = sorted(fronts, key=len)
    assert more - fewer == embeddings
    assert "model.visual.head.proj.weight" in fewer


def test_null_space_leaves_what_texts_share():
    common, own = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.6, 0.8, 0.0])
    assert distinctive(own, common).tolist() == pytest.approx([0.0, 1.0, 0.0])
    with pytest.raises(CliperaseError, match="nothing to remove; choose another rule"):
        distinctive(common, 2 * common)


def test_null_space_takes_a_direction_for_each_text():
    """Three texts, each seen several times and once with noise of rounding, beside the direction that all share."""
    common = torch.nn.functional.normalize(torch.ones(8, dtype=torch.float64), dim=0)
    texts = features(3, 3, d=8)
    seen = texts[[0, 1, 2, 0, 0, 1]] + 1e-7 * features(4, 6, d=8)
    removed = projection(seen, common)
    assert torch.allclose(removed @ removed, removed, atol=1e-5)
    assert removed.trace().item() == pytest.approx(3, abs=1e-5)
    assert torch.allclose(removed @ common, torch.zeros(8, dtype=torch.float64), atol=1e-5)
    own = texts - torch.outer(texts @ common, common)
    left = own - own @ removed
    assert left.norm(dim=1).max() < 1e-5  # nothing of any text is left but what all share
    one = distinctive(seen.mean(dim=0), common)
    assert torch.equal(projection(seen, common, rank=1), torch.outer(one, one))
    two = projection(seen, common, rank=2)
    assert two.trace().item() == pytest.approx(2)
    assert torch.allclose(removed @ two, two, atol=1e-5)  # each rank is a part of the next
    assert torch.allclose(two @ one, one)
    assert torch.allclose(projection(texts[[0, 0]], common), projection(texts[[0, 0]], common, rank=1))


def test_null_space_of_texts_that_span_everything():
    with pytest.raises(CliperaseError, match="span all 4 dimensions; give a rank"):
        projection(features(0, 20), features(1, 1)[0])
    assert projection(features(0, 20), features(1, 1)[0], rank=2).trace().item() == pytest.approx(2)


def test_fmuclip_by_hand(batch):
    """Cross-entropy and KL of rows over one mixed batch, forget rows first, the diagonal as the only positives."""
    f, r, of, o = batch.forget, batch.retain, batch.original_forget, batch.original_retain
    image, text = torch.cat([f.image, r.image]), torch.cat([f.text, r.text])
    before = 2.0 * torch.cat([of.image, o.image]) @ torch.cat([of.text, o.text]).T
    after = 3.0 * image @ text.T
    errors = sum(torch.nn.functional.cross_entropy(m, torch.arange(8), reduction="none") for m in (after, after.T))
    divergence = sum(
        (p.softmax(dim=1) * (p.log_softmax(dim=1) - q.log_softmax(dim=1))).sum(dim=1)
        for p, q in ((before, after), (before.T, after.T))
    )
    terms = create_method("CLIPErase/FMUClip", {}).loss(batch)
    assert set(terms) == {"RM", "FM", "CM"}
    assert terms["FM"].item() == pytest.approx(-3 * errors[:3].mean().item())
    assert terms["RM"].item() == pytest.approx(errors[3:].mean().item())
    assert terms["CM"].item() == pytest.approx(3 * divergence[3:].mean().item())


def test_salmu_by_hand(batch):
    mse, f, r, o = torch.nn.functional.mse_loss, batch.forget, batch.retain, batch.original_retain
    terms = create_method("CLIPErase/SALMU", {"retention": 2.0, "consistency": 5.0}).loss(batch)
    similarity, kept, was = f.image @ f.text.T, r.image @ r.text.T, o.image @ o.text.T
    nothing = torch.zeros_like(similarity)
    assert terms["FM"].item() == pytest.approx((mse(similarity, nothing) + mse(similarity.T, nothing)).item())
    assert terms["RM"].item() == pytest.approx(2 * (mse(kept, was) + mse(kept.T, was.T)).item())
    assert terms["CM"].item() == pytest.approx(5 * (mse(r.image, o.image) + mse(r.text, o.text)).item())


def test_task_negation_steps_back_as_far_as_fine_tuning_went(batch, monkeypatch):
    """The loss is a - 2·b, so AdamW moves each by its rate at every step: a falls, b rises."""
    model = TwoWeights()
    monkeypatch.setattr("cliperase.methods.task_negation.pairs_against", lambda *_: (model.a - 2 * model.b).sum())
    settings = {"scale": 0.5, "fine_tune_steps": 3, "fine_tune_rate": 0.1}
    create_method("task negation", settings).apply(model, lambda _: batch)
    assert model.a.item() == pytest.approx(3.0 + 0.5 * 0.3, abs=1e-6)
    assert model.b.item() == pytest.approx(4.0 - 0.5 * 0.3, abs=1e-6)
    assert torch.equal(model.unused, torch.ones(2, 2, dtype=torch.float64))
    assert model.a.grad is None


def test_leace_leaves_no_covariance_and_changes_as_little_as_it_can():
    """Against the closed form with dense square roots, and one that changes more but erases as well."""
    generator = torch.Generator().manual_seed(0)
    z = (torch.arange(400) % 5 == 0).double()[:, None]
    mixing = torch.randn(6, 6, generator=generator, dtype=torch.float64)
    x = torch.randn(400, 6, generator=generator, dtype=torch.float64) @ mixing + z * mixing[0] + 2
    x, z = torch.cat([x, x[:, :1] + x[:, 1:2]], dim=1), z  # of rank 6 in 7 dimensions
    changed = x @ erasure(x, z)

    def covariance(a, b):
        return (a - a.mean(dim=0)).T @ (b - b.mean(dim=0)) / len(a)

    assert covariance(x, z).abs().max() > 0.1
    assert covariance(changed, z).abs().max() < 1e-9
    assert torch.allclose(changed[z[:, 0] == 1].mean(dim=0), changed[z[:, 0] == 0].mean(dim=0))

    def moved(values):
        difference = values - x
        return (difference - difference.mean(dim=0)).square().sum(dim=1).mean()

    along = torch.nn.functional.normalize(covariance(x, z)[:, 0], dim=0)
    plain = x - torch.outer(x @ along, along)  # the direction of the covariance, taken out at right angles
    assert covariance(plain, z).abs().max() < 1e-9
    assert moved(changed) < moved(plain) * (1 - 1e-6) or torch.allclose(moved(changed), moved(plain))
    with pytest.raises(CliperaseError, match="nothing to erase; choose another rule"):
        erasure(x, torch.ones(400, 1, dtype=torch.float64))


@pytest.mark.parametrize("value", ["3", None, "three", True])
def test_a_lambda_that_is_not_a_number(value):
    with pytest.raises(CliperaseError, match=r"CLIPErase: lambda_fm is .*; give a number"):
        create_method("CLIPErase", {"lambda_fm": value})


def test_counts_and_options_are_checked_before_anything_runs():
    with pytest.raises(CliperaseError, match="batches is 0"):
        create_method("null space", {"batches": 0})
    with pytest.raises(CliperaseError, match="consistency_over is 'cosine'; choose one of 'similarity' or 'embedding'"):
        create_method("CLIPErase", {"consistency_over": "cosine"})
    for keep in (0.0, 1.01):
        with pytest.raises(CliperaseError, match=f"SalUn: keep is {keep}; give"):
            create_method("SalUn", {"keep": keep})
    assert create_method("SalUn", {"keep": 1}).keep == 1


SETTINGS = [(name, key, field) for name in METHODS for key, field in method_class(name).model_fields.items()]


@pytest.mark.parametrize(("name", "key", "field"), SETTINGS, ids=[f"{name}-{key}" for name, key, _ in SETTINGS])
def test_every_setting_has_its_bounds(name, key, field):
    """Counts are at least 1, other numbers finite and at least 0, options are named."""
    wrong = {int: (0, -1, 1.0, True, "2", None), float: (-1e-9, float("nan"), float("inf"), True, "1.0", None)}
    wrong[PositiveInt | None] = (0, -1, 1.0, True, "2")
    for value in wrong.get(field.annotation, ("", "unheard of", 1, None)):
        with pytest.raises(CliperaseError, match=rf"^{name}: {key} is {value!r}; \w.*") as caught:
            create_method(name, {key: value})
        assert len(str(caught.value).splitlines()) == 1
    assert getattr(create_method(name, {key: field.default}), key) == field.default
    if field.annotation is float:  # `1` is the number 1.0
        assert type(getattr(create_method(name, {key: 1}), key)) is float


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seed": 1}, "seed is not a setting; give --seed"),
        ({"steps": 1}, "GA needs learning_rate; pass --set learning_rate=…"),
        ({"learning_rate": 1e-3}, "GA needs either steps or epochs over the forget set; pass --set epochs=…"),
        ({"learning_rate": 1e-3, "steps": 1, "epochs": 1.0}, "GA needs either steps or epochs"),
        ({"learning_rate": 1e-3, "steps": 1, "averaging": 0.9}, "averaging is 0.9 and only for pretraining"),
    ],
)
def test_a_recipe_says_what_it_lacks(settings, message):
    with pytest.raises(CliperaseError, match=message):
        Recipe.of("GA", settings)


def test_unknown_method_and_setting():
    with pytest.raises(CliperaseError, match="'CLIPerase' unknown"):
        create_method("CLIPerase", {})
    with pytest.raises(CliperaseError, match="no setting 'lambda'"):
        create_method("CLIPErase", {"lambda": 1.0})
    with pytest.raises(CliperaseError, match="fine-tune has no setting 'lambda_fm'; it has none"):
        create_method("fine-tune", {"lambda_fm": 1.0})
    with pytest.raises(CliperaseError, match=r"GA: the settings are \[1\]; give a mapping"):
        create_method("GA", [1])
