"""Methods: their terms by hand on small embeddings, and what is special in each."""

import sys

import pytest
import torch

from cliperase.errors import CliperaseError
from cliperase.losses import consistency, forgetting, info_nce, retention
from cliperase.methods import METHODS, create_method
from cliperase.methods.batch import Batch, Pairs
from cliperase.methods.multidelete import shuffled_similarity


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


def test_multidelete_never_shuffles_onto_a_true_pair(batch):
    retain_ids = torch.tensor([0, 0, 0, 7, 0])  # only row 3 has another text than the forget rows
    retain = Pairs(batch.retain.image, batch.retain.text, retain_ids)
    for _ in range(20):
        target = shuffled_similarity(Batch(**{**vars(batch), "retain": retain}))
        expected = batch.original_forget.image @ batch.original_retain.text[3]
        assert torch.allclose(target, expected)
    all_true = Pairs(batch.retain.image, batch.retain.text, torch.zeros(5, dtype=torch.long))
    with pytest.raises(CliperaseError, match="enlarge it"):
        shuffled_similarity(Batch(**{**vars(batch), "retain": all_true}))


def test_enmn_noise_raises_the_forget_error_and_lowers_the_retain_error(model, training):
    forget, retain = training.select(training.labels == 0), training.select(training.labels != 0)
    method = create_method("ENMN", {"images_per_text": 2, "noise_steps": 30})
    noise_forget, noise_retain = method.prepare(model, forget, retain, seed=0)

    def error(noise):
        texts = sorted({*noise_forget.texts, *noise_retain.texts})
        labels = torch.tensor([texts.index(noise.texts[i]) for i in noise.text_ids[:, 0]])
        with torch.no_grad():
            logits = model.logit_scale * model.encode_image(noise.images) @ model.encode_text(texts).T
        return torch.nn.functional.cross_entropy(logits, labels).item()

    grey = noise_retain.images.clone().fill_(128)
    assert len(noise_forget) == 2
    assert len(noise_retain) == 6
    assert error(noise_retain) < error(type(noise_retain)(**{**vars(noise_retain), "images": grey}))
    assert error(noise_forget) > error(noise_retain)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_gives_finite_scalar_terms_and_says_where_it_is_from(name, batch):
    terms = METHODS[name]().loss(batch)
    assert terms
    assert all(value.ndim == 0 and torch.isfinite(value) for value in terms.values())
    assert len(sys.modules[METHODS[name].__module__].__doc__) > 80


@pytest.mark.parametrize("value", ["3", None, "three", True])
def test_a_lambda_that_is_not_a_number(value):
    with pytest.raises(CliperaseError, match=r"lambda_fm is .*give a float"):
        create_method("CLIPErase", {"lambda_fm": value})


def test_unknown_method_and_setting():
    with pytest.raises(CliperaseError, match="'CLIPerase' unknown"):
        create_method("CLIPerase", {})
    with pytest.raises(CliperaseError, match="no setting 'lambda'"):
        create_method("CLIPErase", {"lambda": 1.0})
