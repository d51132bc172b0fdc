"""Diffusion: the text encoder swapped, pictures that repeat, rates counted by hand."""

import numpy as np
import pytest
import torch
from conftest import PROFILE, TINY_TRAINING, changed_config, killed_at, make_split, write_profile
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    OwlViTConfig,
    OwlViTForObjectDetection,
    OwlViTImageProcessor,
    OwlViTProcessor,
    YolosConfig,
    YolosForObjectDetection,
    YolosImageProcessor,
)

from cliperase.data.pairs import load_pairs, write_split
from cliperase.data.templates import PROMPT
from cliperase.errors import CliperaseError
from cliperase.metrics.encode import encode_images
from cliperase.models import load_model
from cliperase.models.compact import COMPACT
from cliperase.models.openclip import create_model
from cliperase.models.text_encoder import clip_tokenizer, to_transformers
from cliperase.settings import checked
from paper.diffusion import (
    create_detector,
    generate,
    load_pipeline,
    swap_text_encoder,
)
from paper.experiments import experiment_of
from paper.generator import PixelAutoencoder, create_pipeline, train_generator
from paper.params import Profile
from paper.rates import detection_rates, rate_metrics

TEXTS = ["a photo of a apple", "a drawing of a lemon", "leaf", ""]


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


def test_a_pipeline_that_was_saved_in_half_is_read_in_full(pipeline_folder, tmp_path):
    load_pipeline(pipeline_folder).to(torch.float16).save_pretrained(tmp_path)
    pipeline = load_pipeline(tmp_path)
    parts = (pipeline.text_encoder, pipeline.unet)
    assert {weight.dtype for part in parts for weight in part.parameters()} == {torch.float32}


def test_a_killed_training_ends_the_same(data_folder, model_folder, pipeline_folder, tmp_path):
    with killed_at(step=3):
        train_generator(data_folder, model_folder, tmp_path / "again", TINY_TRAINING)
    assert not (tmp_path / "again").exists()
    train_generator(data_folder, model_folder, tmp_path / "again", TINY_TRAINING)
    one, other = (load_pipeline(folder).unet.state_dict() for folder in (pipeline_folder, tmp_path / "again"))
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert not list(tmp_path.glob("*checkpoint*"))


def test_a_killed_training_does_not_go_on_with_another_reader(data_folder, model_folder, model, tmp_path):
    with killed_at(step=3):
        train_generator(data_folder, model_folder, tmp_path / "again", TINY_TRAINING)
    create_model(COMPACT, seed=9).save(tmp_path / "other")
    with pytest.raises(CliperaseError, match="of another run"):
        train_generator(data_folder, tmp_path / "other", tmp_path / "again", TINY_TRAINING)


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
        ({"images": 0}, "images is 0; give at least 1"),
        ({"batch": 0.5}, "batch is 0.5; give a whole number"),
        ({"guidance": "3"}, "guidance is '3'; give a number"),
        ({"prompt": "a photo"}, "write {} where the concept goes"),
        ({"methods": {"gone": {}}}, "method 'gone' unknown"),
        ({"methods": {"GA": {}}}, "GA needs learning_rate"),
        ({"methods": {"original": {}}}, "row 'original' is no method"),
    ],
)
def test_settings_are_looked_at_before_anything_is_generated(change, said, data_folder, model_folder):
    settings = {"concepts": ["apple"], "forgotten": ["apple"], "methods": {"SSD": {}}, "prompt": "a photo of a {}"}
    settings |= {"images": 1, "steps": 1, "batch": 1, "shown": 1, "guidance": 2.0, "threshold": 0.5}
    settings |= {"pipeline": "none", "detector": "none"}
    profile = checked(Profile, PROFILE | {"experiments": {"diffusion": settings | change}}, "profile")
    with pytest.raises(CliperaseError, match=said):
        experiment_of(profile, "diffusion").run(profile, data_folder, model_folder)


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
    model = load_model(model_folder)
    with torch.no_grad():
        texts = model.encode_text([PROMPT.format(name) for name in training.class_names])
        nearest = torch.cdist(encode_images(model, training.images[:6]), texts)
    assert seen.int().argmax(dim=1).tolist() == nearest.argmin(dim=1).tolist()


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
    assert torch.equal(create_detector(f"coco:{tmp_path}", ["bicycle", "apple"], threshold=0.0)(images), seen.flip(1))
    assert not create_detector(f"coco:{tmp_path}", ["apple", "bicycle"], threshold=1.1)(images).any()
    with pytest.raises(CliperaseError, match="knows no 'pear'"):
        create_detector(f"coco:{tmp_path}", ["pear"])


def test_a_detector_that_is_asked_by_name(tmp_path):
    """OWL-ViT, random: at no threshold every name is found somewhere, at an impossible one none is."""
    text = {"vocab_size": 49408, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    text |= {"num_attention_heads": 2, "max_position_embeddings": 16}
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision |= {"image_size": 32, "patch_size": 8}
    config = OwlViTConfig(text_config=text, vision_config=vision, projection_dim=16)
    OwlViTForObjectDetection(config).save_pretrained(tmp_path)
    pictures = OwlViTImageProcessor(size={"height": 32, "width": 32}, crop_size={"height": 32, "width": 32})
    OwlViTProcessor(pictures, clip_tokenizer(16)).save_pretrained(tmp_path)
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    assert create_detector(f"open:{tmp_path}", ["apple", "pear"], threshold=0.0)(images).any()
    assert not create_detector(f"open:{tmp_path}", ["apple", "pear"], threshold=1.1)(images).any()


def test_the_command(data_folder, model_folder, pipeline_folder, tmp_path):
    from paper.__main__ import main
    from paper.results import read_results

    diffusion = {
        "concepts": ["apple", "lemon"], "forgotten": ["apple"], "methods": {"CLIPErase": {"learning_rate": 1e-3}},
        "images": 2, "steps": 2, "guidance": 2.0, "batch": 50, "prompt": PROMPT, "threshold": 0.5, "shown": 1,
        "pipeline": str(pipeline_folder), "detector": str(model_folder), "measured_on": [str(data_folder)],
    }  # fmt: skip
    path = write_profile(tmp_path, seeds=[0, 1], experiments={"diffusion": diffusion})
    command = ["experiment", "diffusion", "--profile", str(path), "--data", str(data_folder)]
    command += ["--model", str(model_folder), "--arrays", str(tmp_path / "grids.npz"), "--output"]
    assert main([*command, str(tmp_path / "table.csv")]) == 0
    table = read_results(tmp_path / "table.csv")
    generated = table[table.split == "generated"]
    assert set(zip(generated.method, generated.seed, strict=True)) == {
        (method, seed) for method in ("original", "CLIPErase") for seed in ("0", "1")
    }
    shown, tests = ["apple", "lemon"], load_pairs(data_folder, "test")
    detect = create_detector(model_folder, shown)
    right = [100 * detect(tests.images[tests.labels == tests.class_names.index(name)])[:, place].float().mean().item()
             for place, name in enumerate(shown)]  # fmt: skip
    measured = table[table.method == "detector"].set_index("metric").value
    assert measured.to_dict() == pytest.approx(
        {
            "detector_accuracy": sum(right) / 2,
            **{f"detector_accuracy@{n}": r for n, r in zip(shown, right, strict=True)},
        }
    )
    validated = table[(table.split == "validation") & (table.metric == "retain_accuracy")]
    assert set(validated.method) == {"original", "CLIPErase"}
    grids = np.load(tmp_path / "grids.npz")
    assert {name: grids[name].shape for name in grids} == dict.fromkeys(
        ("original", "CLIPErase/apple"), (2, 1, 32, 32, 3)
    )
    pipeline = load_pipeline(pipeline_folder)
    swap_text_encoder(pipeline, load_model(model_folder))
    prompts = [PROMPT.format(name) for name in shown]
    measured = generate(pipeline, prompts, images=2, seed=0, steps=2, guidance=2.0).permute(0, 1, 3, 4, 2)
    first = torch.from_numpy(grids["original"]).int() - measured[:, :1].int()
    assert first.abs().max() <= 1  # sums in another order round otherwise


def test_a_search_is_by_what_is_drawn(data_folder, model_folder, pipeline_folder, tmp_path):
    """Two candidates of a row: the rates, the score by hand, and what `paper.choices` reads."""
    from paper.choices import TASKS, summarise_search
    from paper.search import Search, run_search

    diffusion = {
        "concepts": ["apple", "lemon"], "forgotten": ["apple"], "methods": {"GA": {}}, "tuned": "diffusion",
        "images": 2, "steps": 2, "guidance": 2.0, "batch": 50, "prompt": PROMPT, "threshold": 0.5, "shown": 1,
        "pipeline": str(pipeline_folder), "detector": str(model_folder),
    }  # fmt: skip
    profile = checked(Profile, PROFILE | {"concepts": ["apple"], "experiments": {"diffusion": diffusion}}, "profile")
    search = Search(["lemon"], {"GA": {"learning_rate": [1e-3, 1e-2]}}, seed=100, drawn=2)
    table = run_search(profile, search, "diffusion", data_folder, model_folder)
    drawn = table[table.split == "generated"].pivot(index="method", columns="metric", values="value")
    detect = create_detector(model_folder, diffusion["concepts"])
    pictures = generate(load_pipeline(pipeline_folder), ["a photo of a apple", "a photo of a lemon"], 2, 100, 2, 2.0)
    kept = rate_metrics(detection_rates(detect, pictures), diffusion["concepts"], "lemon")["other_detection_rate"]
    lost = (kept - drawn.other_detection_rate).clip(lower=0)
    assert drawn.selection_score.tolist() == pytest.approx((100 - (drawn.detection_rate + lost) / 2).tolist())
    lines = summarise_search(table, search, TASKS["diffusion"])
    assert list(lines.selection_score) == drawn.selection_score.tolist()
