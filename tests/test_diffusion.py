"""Diffusion: the text encoder converted exactly and swapped, pictures that repeat, rates counted by hand."""

import copy
import string

import numpy as np
import pytest
import torch
import yaml
from conftest import TINY_TRAINING, killed_at, make_split
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from hypothesis import given
from hypothesis import strategies as st
from transformers import CLIPTokenizer, YolosConfig, YolosForObjectDetection, YolosImageProcessor

from cliperase import diffusion
from cliperase.datasets import write_split
from cliperase.diffusion import (
    clip_tokenizer,
    create_detector,
    detection_rates,
    from_transformers,
    generate,
    load_pipeline,
    rate_metrics,
    run_diffusion,
    swap_text_encoder,
    to_transformers,
)
from cliperase.encoders import COMPACT, create_model
from cliperase.errors import CliperaseError
from cliperase.generator import PixelAutoencoder, create_pipeline, train_generator

TEXTS = ["a photo of a apple", "a drawing of a lemon", "leaf", ""]


def changed_config(**changes):
    config = copy.deepcopy(COMPACT)
    config["model_cfg"] |= {key: value for key, value in changes.items() if key != "width"}
    config["model_cfg"]["text_cfg"]["width"] = changes.get("width", 128)
    return config


@torch.no_grad()
def hidden_states(model, tokens):
    """open_clip's text tower up to the projection, by its own parts."""
    tower = model.model
    states = tower.transformer(tower.token_embedding(tokens) + tower.positional_embedding, attn_mask=tower.attn_mask)
    return tower.ln_final(states)


@pytest.mark.parametrize("config", [COMPACT, changed_config(quick_gelu=True)], ids=["gelu", "quick gelu"])
def test_the_text_tower_is_converted_exactly(config):
    model = create_model(config, seed=3).eval()
    tokens = model.tokenizer(TEXTS)
    with torch.no_grad():
        found = to_transformers(model)(tokens)
    assert torch.allclose(found.last_hidden_state, hidden_states(model, tokens), atol=1e-5)
    pooled = torch.nn.functional.normalize(found.pooler_output @ model.model.text_projection, dim=1)
    assert torch.allclose(pooled, model.encode_text(TEXTS), atol=1e-5)


def test_and_back_again(model):
    other = create_model(COMPACT, seed=5).eval()
    from_transformers(model, to_transformers(other))
    tokens = model.tokenizer(TEXTS)
    assert torch.equal(hidden_states(model, tokens), hidden_states(other, tokens))
    narrow = create_model(changed_config(width=64), seed=0)
    with pytest.raises(CliperaseError, match="is not the"):
        from_transformers(model, to_transformers(narrow))


@given(st.text(alphabet=string.ascii_letters + string.digits + " .,;:?'-/()", max_size=60))
def test_the_tokenizer_is_open_clips(text):
    """Prompts of plain text without "!", the padding; open_clip's also mends HTML, control characters, encodings."""
    tokenizer, theirs = TOKENIZERS
    found = tokenizer([text], padding="max_length", truncation=True, return_tensors="pt").input_ids
    assert torch.equal(found, theirs([text]))


TOKENIZERS = (clip_tokenizer(24), create_model(COMPACT, seed=0).tokenizer.tokenizer)


def test_a_tokenizer_without_its_files_is_refused():
    with pytest.raises(CliperaseError, match="not 49408"):
        diffusion.check_tokenizer(CLIPTokenizer(), "of a broken folder")


@given(st.integers(0, 2**32 - 1))
def test_folding_pixels_loses_nothing(seed):
    pixels = torch.rand(2, 3, 8, 6, generator=torch.Generator().manual_seed(seed))
    coder = PixelAutoencoder()
    assert coder.encode(pixels).shape == (2, 12, 4, 3)
    assert torch.equal(coder.decode(coder.encode(pixels)).sample, pixels)


@pytest.fixture(scope="module")
def pipeline_folder(data_folder, model_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("generator") / "pipeline"
    train_generator(data_folder, model_folder, folder, TINY_TRAINING)
    return folder


def test_a_killed_training_ends_the_same(data_folder, model_folder, pipeline_folder, tmp_path):
    with killed_at(step=3):
        train_generator(data_folder, model_folder, tmp_path / "again", TINY_TRAINING)
    assert not (tmp_path / "again").exists()
    train_generator(data_folder, model_folder, tmp_path / "again", TINY_TRAINING)
    one, other = (load_pipeline(folder).unet.state_dict() for folder in (pipeline_folder, tmp_path / "again"))
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert not list(tmp_path.glob("*checkpoint*"))


def test_pictures_repeat_and_depend_on_noise_and_text_only(pipeline_folder, model):
    pipeline = load_pipeline(pipeline_folder)
    settings = {"images": 3, "seed": 0, "steps": 2, "guidance": 3.0}
    one = generate(pipeline, TEXTS[:2], **settings)
    assert one.shape == (2, 3, 3, 32, 32)
    assert one.dtype == torch.uint8
    assert torch.equal(one, generate(pipeline, TEXTS[:2], **settings))
    in_parts = generate(pipeline, TEXTS[:2], **settings, batch_size=2)  # sums in another order round otherwise
    assert (one.int() - in_parts.int()).abs().max() <= 1
    assert not torch.equal(one, generate(pipeline, TEXTS[:2], **{**settings, "seed": 1}))
    swap_text_encoder(pipeline, create_model(COMPACT, seed=9).eval())
    assert not torch.equal(one, generate(pipeline, TEXTS[:2], **settings))
    swap_text_encoder(pipeline, model)  # the one it was trained with
    assert torch.equal(one, generate(pipeline, TEXTS[:2], **settings))


@pytest.mark.parametrize(
    ("text", "whole", "said"),
    [
        ({"width": 64}, {}, "width 128, this model has 64"),
        ({"layers": 3}, {}, "a number of text layers of 2, this model has 3"),
        ({"context_length": 16}, {}, "a context length of 24, this model has 16"),
        ({}, {"quick_gelu": True}, "the activation gelu, this model has quick_gelu"),
    ],
)
def test_a_text_encoder_of_another_shape_is_refused(text, whole, said, pipeline_folder):
    pipeline = load_pipeline(pipeline_folder)
    before = pipeline.text_encoder
    config = changed_config(**whole)
    config["model_cfg"]["text_cfg"] |= text
    with pytest.raises(CliperaseError, match=said):
        swap_text_encoder(pipeline, create_model(config, seed=0))
    assert pipeline.text_encoder is before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"forgotten": ["plum"]}, "'plum' is forgotten but not among the concepts"),
        ({"concepts": "apple"}, "concepts is 'apple'; give a list"),
        ({"images": 0}, "images is 0; give a whole number"),
        ({"guidance": "3"}, "guidance is '3'; give a number"),
        ({"prompt": "a photo"}, "write {} where the concept goes"),
        ({"rows": ["gone"]}, "row 'gone' is not in the parameters"),
        ({"rows": ["original"]}, "row 'original' is no method"),
    ],
)
def test_settings_are_looked_at_before_anything_is_generated(change, said):
    settings = {"concepts": ["apple"], "forgotten": ["apple"], "rows": ["SSD"], "prompt": "a photo of a {}"}
    settings |= {"images": 1, "steps": 1, "shown": 1, "guidance": 2.0, "threshold": 0.5}
    params = {"seeds": [0], "unlearn": {}, "methods": {"SSD": {}}, "diffusion": settings | change}
    with pytest.raises(CliperaseError, match=said):
        run_diffusion(params, "none", "none", "none", "none")


def test_a_generator_needs_classes(data_folder, model_folder, tmp_path):
    captions = tmp_path / "captions"
    captions.mkdir()
    write_split(make_split("train").remove_columns("label"), captions, "train")
    with pytest.raises(CliperaseError, match="has no classes"):
        train_generator(captions, model_folder, tmp_path / "out", TINY_TRAINING)


def test_a_broken_pipeline_is_one_line(tmp_path):
    with pytest.raises(CliperaseError, match="cannot be loaded"):
        load_pipeline(tmp_path)


def test_any_stable_diffusion_pipeline_will_do(model, tmp_path):
    """A pipeline as others make them, with an autoencoder that halves the picture, put together offline."""
    encoder = to_transformers(model)
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(8, 16), layers_per_block=1, cross_attention_dim=128, norm_num_groups=4,
        attention_head_dim=2, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    coder = AutoencoderKL(
        block_out_channels=(8, 8), norm_num_groups=4, down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
    )  # fmt: skip
    StableDiffusionPipeline(
        vae=coder, text_encoder=encoder, tokenizer=clip_tokenizer(24), unet=unet, scheduler=DDIMScheduler(),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    ).save_pretrained(tmp_path)  # fmt: skip
    pipeline = load_pipeline(tmp_path)
    before = generate(pipeline, TEXTS[:1], images=2, steps=2)
    swap_text_encoder(pipeline, create_model(COMPACT, seed=1).eval())
    after = generate(pipeline, TEXTS[:1], images=2, steps=2)
    assert after.shape == (1, 2, 3, 16, 16)
    assert not torch.equal(before, after)


def test_pictures_that_cannot_be_folded_are_refused(model):
    with pytest.raises(CliperaseError, match="multiple of 8"):
        create_pipeline(model, 36)


def test_rates_by_hand():
    pictures = torch.zeros(3, 4, 3, 2, 2, dtype=torch.uint8)
    pictures[1, :, 0] = 1  # what each picture shows is written in its first pixel
    pictures[2, :, 0] = 2
    pictures[2, 0, 0] = 0  # one picture of the third prompt shows the first concept

    def detect(images):
        return torch.nn.functional.one_hot(images[:, 0, 0, 0].long(), 3).bool()

    rates = detection_rates(detect, pictures)
    assert rates.tolist() == [[100, 0, 0], [0, 100, 0], [25, 0, 75]]
    assert rate_metrics(rates, ["apple", "bicycle", "light bulb"], "apple") == {
        "detection_rate@apple": 100,
        "detection_rate@bicycle": 100,
        "detection_rate@light bulb": 75,
        "detection_rate": 100,
        "other_detection_rate": 87.5,
        "false_detection_rate": 12.5,
    }


def test_a_model_detects_by_its_nearest_prompt(model_folder, training):
    seen = create_detector(model_folder, training.class_names)(training.images[:6])
    assert seen.shape == (6, 4)
    assert (seen.sum(dim=1) == 1).all()


def test_an_object_detector_of_transformers(tmp_path):
    names = {0: "apple", 1: "bicycle"}
    config = YolosConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=[32, 32],
        patch_size=8, num_detection_tokens=4, id2label=names, label2id={name: key for key, name in names.items()},
    )  # fmt: skip
    YolosForObjectDetection(config).save_pretrained(tmp_path)
    YolosImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    seen = create_detector(f"coco:{tmp_path}", ["apple", "bicycle"], threshold=0.0)(images)
    assert seen.any()
    assert not create_detector(f"coco:{tmp_path}", ["apple", "bicycle"], threshold=1.1)(images).any()
    with pytest.raises(CliperaseError, match="knows no 'pear'"):
        create_detector(f"coco:{tmp_path}", ["pear"])


def test_the_command(data_folder, model_folder, pipeline_folder, tmp_path):
    from cliperase.cli import main
    from cliperase.results import read_results

    params = {
        "profile": "test", "provenance": "icons", "model": "compact", "pretrain": {"seed": 0}, "seeds": [0, 1],
        "unlearn": {"steps": 2, "forget_batch": 4, "retain_batch": 8, "evaluate_every": 1},
        "methods": {"CLIPErase": {"learning_rate": 1e-3}},
        "diffusion": {"concepts": ["apple", "lemon"], "forgotten": ["apple"], "rows": ["CLIPErase"], "images": 2,
                      "steps": 2, "guidance": 2.0, "prompt": "a photo of a {}", "threshold": 0.5, "shown": 1},
    }  # fmt: skip
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    command = ["diffusion", "--data", str(data_folder), "--model", str(model_folder), "--detector", str(model_folder)]
    command += ["--pipeline", str(pipeline_folder), "--pictures", str(data_folder), "--params"]
    command += [str(tmp_path / "params.yaml"), "--output", str(tmp_path / "grids.npz"), "--table"]
    assert main([*command, str(tmp_path / "table.csv")]) == 0
    table = read_results(tmp_path / "table.csv")
    generated = table[table.split == "generated"]
    assert set(zip(generated.method, generated.seed, strict=True)) == {
        (method, seed) for method in ("original", "CLIPErase") for seed in ("0", "1")
    }
    assert table[table.method == "detector"].metric.str.startswith("detector_accuracy").all()
    grids = np.load(tmp_path / "grids.npz")
    assert {name: grids[name].shape for name in grids} == {
        "original": (2, 1, 32, 32, 3),
        "CLIPErase/apple": (2, 1, 32, 32, 3),
    }
