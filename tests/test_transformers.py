"""CLIP and SigLIP of transformers: parity with transformers, saving, unlearning, and folders that are not whole."""

import copy
import json
import math
import shutil

import pytest
import torch
import transformers
from inputs import saved, word_tokenizer_of, write_pictures
from test_preprocessing import SHAPES, Bomb, picture, tensor

from cliperase.api import evaluate, unlearn
from cliperase.cli import main
from cliperase.data.pairs import load_pairs
from cliperase.errors import CliperaseError
from cliperase.models import load_model
from cliperase.models.openclip import OpenCLIP
from cliperase.models.text_encoder import clip_tokenizer
from cliperase.models.transformers_clip import TransformersCLIP
from cliperase.unlearning import Recipe, Run

TEXTS = ["a photo of a apple", "lemon", "a drawing of a leaf that is rather long"]
TOWER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
HALF = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]}
SETTINGS = {"steps": 1, "learning_rate": 1e-3, "forget_batch": 4, "retain_batch": 8, "evaluate_every": 1}
CLIP_PICTURES = {"size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 32}}


def create_clip(**text):
    config = transformers.CLIPConfig(
        text_config={**TOWER, "max_position_embeddings": 16, **text},
        vision_config={**TOWER, "image_size": 32, "patch_size": 8},
        projection_dim=24,
    )
    processor = transformers.CLIPImageProcessor(**CLIP_PICTURES, **HALF)
    return transformers.CLIPModel(config), clip_tokenizer(16), processor


def create_siglip():
    words = word_tokenizer_of([*TEXTS, "a photo of a plum", "a drawing of a apple lemon plum"])
    config = transformers.SiglipConfig(
        text_config={**TOWER, "max_position_embeddings": 16, "vocab_size": len(words), "projection_size": 32},
        vision_config={**TOWER, "image_size": 32, "patch_size": 8},
    )
    processor = transformers.SiglipImageProcessor(size={"height": 32, "width": 32}, **HALF)
    model = transformers.SiglipModel(config)
    with torch.no_grad():
        model.logit_scale.fill_(math.log(10))
        model.logit_bias.fill_(-10)
    return model, words, processor


@pytest.fixture(scope="module", params=["clip", "siglip"])
def folder(request, tmp_path_factory):
    create = {"clip": create_clip, "siglip": create_siglip}[request.param]
    return written(tmp_path_factory.mktemp("model") / request.param, create)


def written(folder, create):
    """The folder of a random model, as transformers writes it."""
    torch.manual_seed(3)
    for part in create():
        part.save_pretrained(folder)
    return folder


def theirs(folder):
    """transformers' own model, tokenizer and image processor of a folder."""
    kind = "CLIP" if json.loads((folder / "config.json").read_text())["model_type"] == "clip" else "Siglip"
    return (
        getattr(transformers, f"{kind}Model").from_pretrained(folder).eval(),
        transformers.AutoTokenizer.from_pretrained(folder),
        getattr(transformers, f"{kind}ImageProcessor").from_pretrained(folder),
    )


def normal(output):
    return torch.nn.functional.normalize(output.pooler_output, dim=1)


@torch.no_grad()
def test_embeddings_are_those_of_transformers(folder):
    ours, (model, words, processor) = load_model(folder), theirs(folder)
    assert type(ours) is TransformersCLIP
    padding = {"padding": "max_length", "max_length": 16} if ours.siglip else {"padding": True}
    tokens = words(TEXTS, truncation=True, return_tensors="pt", **padding).input_ids
    assert torch.equal(ours.encode_text(TEXTS), normal(model.get_text_features(input_ids=tokens)))
    for shape in SHAPES.values():
        pixels = processor(picture(shape), return_tensors="pt").pixel_values
        framed = ours.framing(tensor(picture(shape)))
        assert torch.allclose(ours.pixels(framed), pixels, atol=1e-5)
        found = ours.encode_image(framed)
        assert torch.allclose(found, normal(model.get_image_features(pixel_values=pixels)), atol=1e-5)
    logits = model(input_ids=tokens, pixel_values=pixels).logits_per_image
    bias = 0 if ours.logit_bias is None else ours.logit_bias
    expected = ours.logit_scale * found @ ours.encode_text(TEXTS).T + bias
    assert torch.allclose(logits, expected, atol=1e-4)
    assert (ours.logit_bias is not None) == ours.siglip


@torch.no_grad()
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_picture_is_framed_once_whatever_sizes_are_beside_it(folder, shape, tmp_path, monkeypatch):
    """In one size, beside another size, and where they do not fit into memory: always as transformers frames it."""
    model, (other, _, processor) = load_model(folder), theirs(folder)
    shots = [picture(shape, seed) for seed in range(3)]
    expected = normal(other.get_image_features(pixel_values=processor(shots, return_tensors="pt").pixel_values))
    files = [saved(shot) for shot in shots]

    def embeddings(files, name):
        pairs = load_pairs(write_pictures(tmp_path / name, files), "train", framing=model.framing)
        return model.encode_image(pairs.images[:3])

    assert torch.allclose(embeddings(files, "one size"), expected, atol=1e-5)
    assert torch.allclose(embeddings([*files, saved(picture((50, 70)))], "two sizes"), expected, atol=1e-5)
    monkeypatch.setattr("cliperase.data.decoded.MOST", 1)
    assert torch.allclose(embeddings(files, "too large"), expected, atol=1e-5)


@torch.no_grad()
def test_the_states_of_tokens_lead_to_the_embedding(folder):
    model = load_model(folder)
    if model.siglip:
        assert model.token_states(TEXTS) is None
        return
    states, ends = model.token_states(TEXTS)
    assert states.shape == (len(TEXTS), *model.token_rows(TEXTS).shape[1:], 32)
    assert ends.tolist() == [6, 2, 10]
    found = model.model.text_projection(states[torch.arange(len(TEXTS)), ends])
    assert torch.allclose(torch.nn.functional.normalize(found, dim=1), model.encode_text(TEXTS), atol=1e-5)


@torch.no_grad()
def test_a_saved_folder_is_theirs_bit_for_bit(folder, tmp_path):
    ours = load_model(folder)
    for parameter in ours.parameters():
        parameter.add_(0.01 * torch.randn_like(parameter))
    ours.save(tmp_path)
    again, (model, words, processor) = load_model(tmp_path), theirs(tmp_path)
    images = torch.cat([tensor(picture((40, 48), seed)) for seed in range(3)])
    assert torch.equal(again.encode_text(TEXTS), ours.encode_text(TEXTS))
    assert torch.equal(again.encode_image(images), ours.encode_image(images))
    assert torch.equal(normal(model.get_image_features(pixel_values=ours.pixels(images))), ours.encode_image(images))
    assert len(words) == len(ours.words)
    assert processor.to_dict() == ours.processor.to_dict()


def test_it_is_unlearnt_as_any_other(folder, data_folder, tmp_path):
    before = evaluate(folder, data_folder, {"concept": "apple"})
    settings = {**SETTINGS, "steps": 20, "learning_rate": 3e-3, "evaluate_every": 10}
    report = unlearn(folder, data_folder, {"concept": "apple"}, settings=settings, output=tmp_path)
    assert set(report["log"][0]) >= {"RM", "FM", "CM"}
    after = evaluate(tmp_path, data_folder, {"concept": "apple"})
    assert after["forget_cosine"] < before["forget_cosine"]
    assert theirs(tmp_path)[0].config.model_type == load_model(folder).model.config.model_type


@pytest.mark.parametrize("method", ["SSD", "GradDiff", "null space", "fine-tune"])
def test_methods_know_no_family(folder, method, training):
    model, mask = load_model(folder), training.labels == 0
    before = model.encode_text(TEXTS).detach()
    edits = {"SSD": {"batches": 2, "alpha": 0.5}, "null space": {"batches": 2}}
    settings = edits.get(method, SETTINGS)
    recipe = Recipe.of(method, settings | {"forget_batch": 4, "retain_batch": 8})
    Run(model, recipe, training.select(mask), training.select(~mask), training, mask, progress=False).carry_out()
    assert not torch.equal(model.encode_text(TEXTS), before)


def test_retention_is_the_loss_that_the_model_was_trained_with(folder, training):
    """transformers' own loss, over one batch of different texts: InfoNCE for CLIP, the sigmoid loss for SigLIP."""
    model, mask = load_model(folder), training.labels == 0
    rows = [(training.labels == label).nonzero()[0, 0].item() for label in (1, 2, 3)]
    retain = training.select(torch.tensor([row in rows for row in range(len(training))]))
    recipe = Recipe.of("fine-tune", {**SETTINGS, "retain_batch": 3})
    history = Run(copy.deepcopy(model), recipe, training.select(mask), retain, progress=False).carry_out()
    own, words, _ = theirs(folder)
    texts = [retain.texts[i] for i in retain.text_ids[:, 0].tolist()]
    padding = {"padding": "max_length", "max_length": 16} if model.siglip else {"padding": True}
    tokens = words(texts, return_tensors="pt", **padding).input_ids
    loss = own(input_ids=tokens, pixel_values=model.pixels(retain.images), return_loss=True).loss
    assert history.log[0]["RM"] == pytest.approx(loss.item(), rel=1e-5)


def test_a_narrow_vocabulary_is_widened_again(folder):
    model = load_model(folder)
    before, rows = model.encode_text(TEXTS), model.model.text_model.embeddings.token_embedding.weight.shape[0]
    model.narrow_vocabulary(TEXTS[:1])
    assert model.model.text_model.embeddings.token_embedding.weight.shape[0] < min(rows, 10)
    assert torch.equal(model.encode_text(TEXTS), before)
    model.widen_vocabulary()
    assert torch.equal(model.encode_text(TEXTS), before)
    assert model.model.text_model.embeddings.token_embedding.weight.shape[0] == rows


@torch.no_grad()
def test_the_heads_take_a_matrix(folder):
    model, images = load_model(folder), tensor(picture((32, 32)))
    texts, features = model.encode_text(TEXTS), model.encode_image(images)
    matrix = torch.randn(texts.shape[1], texts.shape[1], generator=torch.Generator().manual_seed(0))
    model.multiply_text_head(matrix)
    assert torch.allclose(model.encode_text(TEXTS), torch.nn.functional.normalize(texts @ matrix, dim=1), atol=1e-4)
    if model.siglip:
        with pytest.raises(CliperaseError, match="image tower has no linear projection"):
            model.multiply_image_head(matrix)
    else:
        model.multiply_image_head(matrix)
        expected = torch.nn.functional.normalize(features @ matrix, dim=1)
        assert torch.allclose(model.encode_image(images), expected, atol=1e-4)


def test_the_image_tower_gives_the_features(folder):
    model, outputs = load_model(folder), []
    model.image_tower.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    features = model.encode_image(torch.cat([tensor(picture((32, 32), seed)) for seed in range(2)]))
    assert torch.equal(torch.nn.functional.normalize(outputs[0], dim=1), features)


def test_configurations_with_the_old_end_of_text(tmp_path):
    """Published CLIPs say 2, which is wrong, and transformers then takes the largest token."""
    folder = written(tmp_path, lambda: create_clip(eos_token_id=2))
    model, words, _ = theirs(folder)
    tokens = words(TEXTS, padding=True, truncation=True, return_tensors="pt").input_ids
    with torch.no_grad():
        assert torch.equal(load_model(folder).encode_text(TEXTS), normal(model.get_text_features(input_ids=tokens)))


def test_other_scales_of_the_pixels(tmp_path):
    """An image processor may leave 0…255 as they are, or not normalise."""
    for number, changed in enumerate([{"do_rescale": False}, {"do_normalize": False}, {"rescale_factor": 1 / 127.5}]):
        folder = written(tmp_path / str(number), create_clip)
        path = folder / "preprocessor_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changed))
        expected = theirs(folder)[2](picture((40, 48)), return_tensors="pt").pixel_values
        found = load_model(folder).pixels(tensor(picture((40, 48))))
        assert torch.allclose(found, expected.float(), rtol=1e-4, atol=1e-4), changed


def changed(folder, tmp_path, name, change):
    """A copy of a folder, one of its JSON files changed."""
    shutil.copytree(folder, tmp_path / "copy", dirs_exist_ok=True)
    content = json.loads((tmp_path / "copy" / name).read_text())
    change(content)
    (tmp_path / "copy" / name).write_text(json.dumps(content))
    return tmp_path / "copy"


def test_folders_that_are_not_what_they_seem(tmp_path, data_folder, capsys):
    whole = written(tmp_path / "whole", create_clip)
    cases = {
        "NaFlex": ("config.json", lambda c: c.update(model_type="siglip2")),
        "sets trust_remote_code": ("config.json", lambda c: c.update(trust_remote_code=True)),
        "has no weight": ("config.json", lambda c: c["text_config"].update(num_hidden_layers=3)),
        "no fixed size; give its size or crop_size a height": (
            "preprocessor_config.json",
            lambda c: c.update(do_center_crop=False),
        ),
        r"pictures of \(24, 24\)": ("preprocessor_config.json", lambda c: c["crop_size"].update(height=24, width=24)),
    }
    for said, (name, change) in cases.items():
        with pytest.raises(CliperaseError, match=said):
            load_model(changed(whole, tmp_path / said[:6], name, change))
    headless = changed(
        written(tmp_path / "siglip", create_siglip), tmp_path / "headless", "config.json",
        lambda c: c["vision_config"].update(vision_use_head=False),
    )  # fmt: skip
    with pytest.raises(CliperaseError, match="has no head that pools an image; take another model"):
        load_model(headless)
    for name, said in (("model.safetensors", "cannot be loaded"), ("preprocessor_config.json", "cannot be loaded"),
                       ("tokenizer.json", "tokenizer of model .* has 2 tokens|cannot be loaded")):  # fmt: skip
        shutil.copytree(whole, tmp_path / f"without {name}")
        (tmp_path / f"without {name}" / name).unlink()
        with pytest.raises(CliperaseError, match=said):
            load_model(tmp_path / f"without {name}")
    (whole / "model.safetensors").write_bytes((whole / "model.safetensors").read_bytes()[:1000])
    assert main(["evaluate", "--model", str(whole), "--data", str(data_folder)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_an_open_clip_configuration_beside_it_goes_first(model_folder, tmp_path):
    """Folders from the hub often hold both."""
    written(tmp_path, create_clip)
    assert type(load_model(tmp_path)) is TransformersCLIP
    shutil.copytree(model_folder, tmp_path, dirs_exist_ok=True)
    assert type(load_model(tmp_path)) is OpenCLIP


def test_ssd_leaves_the_temperature_and_the_bias(tmp_path, training):
    model, mask = load_model(written(tmp_path, create_siglip)), training.labels == 0
    recipe = Recipe.of("SSD", {"batches": 2, "alpha": 1e-6, "forget_batch": 4, "retain_batch": 8})
    Run(model, recipe, training.select(mask), training.select(~mask), progress=False).carry_out()
    assert model.logit_scale.item() == pytest.approx(10)
    assert model.logit_bias.item() == -10


def test_a_folder_that_a_processor_and_an_old_version_wrote(tmp_path):
    """Tokenizer and image processor saved as one, and the weights as a pickle, of which no code is run."""
    torch.manual_seed(3)
    model, words, processor = create_clip()
    transformers.CLIPProcessor(processor, words).save_pretrained(tmp_path)
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    loaded, images = load_model(tmp_path), tensor(picture((40, 48)))
    assert loaded.framing.size == (32, 32)
    with torch.no_grad():
        features = normal(model.eval().get_image_features(pixel_values=loaded.pixels(images)))
    assert torch.equal(loaded.encode_image(images), features)
    torch.save({**model.state_dict(), "logit_scale": Bomb(str(tmp_path / "ran"))}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CliperaseError, match="cannot be loaded"):
        load_model(tmp_path)
    assert not (tmp_path / "ran").exists()
