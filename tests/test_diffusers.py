"""Text encoders of diffusers' pipelines: out of them into a CLIP, and an unlearned CLIP's back into a copy of them."""

import copy
import json
import shutil

import diffusers
import pytest
import torch
from conftest import TINY_VIT
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from cliperase.cli import main
from cliperase.errors import CliperaseError
from cliperase.manifest import check_result
from cliperase.models import load_model
from cliperase.models.openclip import OpenCLIP, create_model
from cliperase.models.pipeline import head_of, read_encoder
from cliperase.models.text_encoder import clip_tokenizer

PROMPTS = ["a photo of a apple", "two dogs, one cat"]
TEXT = TINY_VIT["model_cfg"]["text_cfg"]
LARGE = {"width": 48, "heads": 3, "layers": 3}  # beside the usual one, as ViT-bigG/14 is beside ViT-L/14
LICENSE, OLD = "LICENSE.md", "old.safetensors"
PUBLISHED = {"dropout": 0.0, "torch_dtype": "float16", "_name_or_path": "openai/clip"}  # keys of old configurations


def clip(seed=3, **text):
    """A CLIP whose text tower fits into one of the pipelines; `text` changes it."""
    config = copy.deepcopy(TINY_VIT)
    config["model_cfg"]["text_cfg"] |= {"layers": 2, **text}
    return create_model(config, seed).eval()


def encoder(kind=CLIPTextModel, layers=2, width=32, heads=2, **other):
    """A random encoder, as transformers makes it. Published ones have the old end of text, 2, or the right one."""
    torch.manual_seed(8)
    return kind(
        CLIPTextConfig(
            vocab_size=TEXT["vocab_size"], hidden_size=width, intermediate_size=4 * width, projection_dim=32,
            num_hidden_layers=layers, num_attention_heads=heads, max_position_embeddings=TEXT["context_length"],
            **{"hidden_act": "gelu", "eos_token_id": 2, **other},
        )
    ).eval()  # fmt: skip


def parts(width, **unet):
    """What a tiny pipeline has beside its encoders; its denoiser reads states of that width."""
    torch.manual_seed(0)
    denoiser = diffusers.UNet2DConditionModel(
        sample_size=8, block_out_channels=(8, 16), layers_per_block=1, cross_attention_dim=width, norm_num_groups=4,
        attention_head_dim=2, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), **unet,
    )  # fmt: skip
    coder = diffusers.AutoencoderKL(
        block_out_channels=(8, 8), norm_num_groups=4, down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
    )  # fmt: skip
    return {"unet": denoiser, "vae": coder, "scheduler": diffusers.DDIMScheduler(steps_offset=1, clip_sample=False)}


@pytest.fixture(scope="module", params=["SD 1", "SD 2", "SDXL"])
def case(request, tmp_path_factory):
    """(folder of a pipeline, [(a CLIP that fits, the name of its encoder)])."""
    folder = tmp_path_factory.mktemp("pipeline") / "whole"
    if request.param == "SDXL":
        made = diffusers.StableDiffusionXLPipeline(
            text_encoder=encoder(), tokenizer=clip_tokenizer(16), tokenizer_2=clip_tokenizer(16, "!"),
            text_encoder_2=encoder(CLIPTextModelWithProjection, 3, 48, 3),
            **parts(80, addition_embed_type="text_time", addition_time_embed_dim=8,
                    projection_class_embeddings_input_dim=32 + 6 * 8),
        )  # fmt: skip
        fitting = [(clip(), "text_encoder"), (clip(**LARGE), "text_encoder_2")]
    else:
        reader = encoder(layers=1 if request.param == "SD 2" else 2, eos_token_id=49407)
        made = diffusers.StableDiffusionPipeline(
            text_encoder=reader, tokenizer=clip_tokenizer(16), safety_checker=None, feature_extractor=None,
            requires_safety_checker=False, **parts(32),
        )  # fmt: skip
        fitting = [(clip(), "text_encoder")]
    made.save_pretrained(folder)
    path = folder / "text_encoder" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | PUBLISHED))
    for name in (LICENSE, OLD, "text_encoder/model.fp16.safetensors"):
        (folder / name).write_text(name)  # the last two would hold the encoder as it was
    return folder, fitting


def opened(folder):
    pipeline = diffusers.DiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def picture(pipeline):
    """What the pipeline draws from a fixed noise."""
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    drawn = pipeline(PROMPTS[0], num_inference_steps=2, latents=noise, output_type="np", height=16, width=16)
    return torch.from_numpy(drawn.images)


@torch.no_grad()
def own_states(model, layers):
    """(the states behind each of the first layers, the last ones behind the norm, the embedding) by open_clip's parts.

    They are written out here because `states_of` of the library asks open_clip for them.
    """
    tower, tokens = model.model, model.tokenizer(PROMPTS)
    states = [tower.token_embedding(tokens) + tower.positional_embedding]
    for block in tower.transformer.resblocks:
        states.append(block(states[-1], attn_mask=tower.attn_mask))
    ends = tower.ln_final(states[-1])[torch.arange(len(PROMPTS)), tokens.argmax(dim=1)]
    return states[1 : layers + 1], tower.ln_final(states[layers]), ends @ tower.text_projection


def convert(capsys, model, to, output, *more):
    """The report of the command."""
    assert main(["convert", "--model", str(model), "--to", to, "--output", str(output), *map(str, more)]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((output / "report.json").read_text())
    return printed


def test_a_pipeline_takes_an_unlearned_encoder(case, tmp_path, capsys):
    folder, fitting = case
    before, drawn = folder, picture(opened(folder))
    for number, (model, name) in enumerate(fitting):  # both of Stable Diffusion XL's, one after the other
        model.save(tmp_path / f"clip{number}")
        after = tmp_path / f"pipeline{number}"
        report = convert(capsys, tmp_path / f"clip{number}", "pipeline", after, "--into", before)
        assert report["encoder"] == name
        assert min(report["lowest cosines to the original"].values()) > 1 - 1e-6
        assert max(report["largest differences"].values()) < 1e-5
        names = {key.split(".")[0] for key in load_file(after / name / "model.safetensors")}
        assert names == {"text_model"} | ({"text_projection"} if name == "text_encoder_2" else set())
        pipeline = opened(after)
        reader = getattr(pipeline, name)
        with torch.no_grad():
            found = reader(model.tokenizer(PROMPTS), output_hidden_states=True)
        layers, last, embedding = own_states(model, reader.config.num_hidden_layers)
        for ours, theirs in zip(layers, found.hidden_states[1:], strict=True):
            assert torch.allclose(ours, theirs, atol=1e-5)
        assert torch.allclose(last, found.last_hidden_state, atol=1e-5)
        if name == "text_encoder_2":
            assert torch.allclose(embedding, found.text_embeds, atol=1e-5)
        assert (reader.config.eos_token_id, reader.dtype) == (
            opened(before).text_encoder.config.eos_token_id,
            torch.float32,
        )
        assert (picture(pipeline) - drawn).abs().max() > 1e-3
        before, drawn = after, picture(pipeline)
    kept = {path.relative_to(after) for path in after.rglob("*") if path.is_file()}
    assert {str(path) for path in kept} >= {LICENSE, "model_index.json", "manifest.json"}
    assert not any(path.name in (OLD, "model.fp16.safetensors") for path in kept)
    for part in ("unet", "vae", "scheduler", "tokenizer"):
        for path in (folder / part).iterdir():
            assert (after / part / path.name).read_bytes() == path.read_bytes()
    check_result(after)
    assert not list(after.glob(".*"))


def test_a_pipelines_encoder_is_a_clips_text_tower(case, tmp_path):
    """It reads as transformers' encoder does, it is an open_clip model, and the way out gives the pipeline again."""
    folder, fitting = case
    for number, (model, name) in enumerate(fitting):
        model.save(tmp_path / f"clip{number}")
        loaded = load_model(f"pipeline:{folder}@{tmp_path / f'clip{number}'}")
        assert type(loaded) is OpenCLIP
        reader = getattr(opened(folder), name)
        with torch.no_grad():
            found = reader(loaded.tokenizer(PROMPTS), output_hidden_states=True)
        layers, last, embedding = own_states(loaded, reader.config.num_hidden_layers)
        assert torch.allclose(last, found.last_hidden_state, atol=1e-5)
        assert not torch.allclose(last, own_states(model, len(layers))[1], atol=1e-2)
        if name == "text_encoder_2":
            assert torch.allclose(embedding, found.text_embeds, atol=1e-5)
        else:
            assert torch.equal(loaded.model.text_projection, model.model.text_projection)
        noise = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
        assert torch.equal(loaded.encode_image(noise), model.encode_image(noise))
        loaded.save(tmp_path / f"saved{number}")
        assert torch.equal(load_model(tmp_path / f"saved{number}").encode_text(PROMPTS), loaded.encode_text(PROMPTS))


@pytest.fixture
def plain(tmp_path):
    """A folder with what `convert` looks at before it copies: an index, and encoders."""
    folder = tmp_path / "plain"
    encoder().save_pretrained(folder / "text_encoder")
    (folder / "model_index.json").write_text(json.dumps({"text_encoder": ["transformers", "CLIPTextModel"]}))
    return folder


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ({"width": 64}, "text_encoder has hidden_size 32, not 64"),
        ({"layers": 1}, "text_encoder has 2 layers, not 1"),
        ({"layers": 4}, "text_encoder has 2 layers, not 4"),
        ({"context_length": 8}, "max_position_embeddings 16, not 8"),
        ({"mlp_ratio": 2.0}, "intermediate_size 128, not 64"),
    ],
)
def test_an_encoder_of_another_shape_is_refused_both_ways(text, said, plain, tmp_path, capsys):
    clip(**text).save(tmp_path / "clip")
    command = ["convert", "--model", str(tmp_path / "clip"), "--to", "pipeline", "--into", str(plain), "--output"]
    assert main([*command, str(tmp_path / "new")]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not list((tmp_path / "new").iterdir())
    with pytest.raises(CliperaseError, match=said):
        load_model(f"pipeline:{plain}@{tmp_path / 'clip'}")


def test_what_is_no_pipeline_or_has_two_that_fit_is_said(plain, model_folder, tmp_path, capsys):
    clip().save(tmp_path / "clip")
    shutil.copytree(plain, tmp_path / "two")
    shutil.copytree(plain / "text_encoder", tmp_path / "two" / "text_encoder_2")
    index = json.loads((plain / "model_index.json").read_text())
    for name, more in (("two", {"text_encoder_2": index["text_encoder"]}), ("none", {"text_encoder": [None, None]})):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "model_index.json").write_text(json.dumps(index | more))
    cases = [
        (["--into", tmp_path / "two"], "text_encoder and text_encoder_2 of pipeline"),
        (["--into", tmp_path / "none"], "it has none of CLIP"),
        (["--into", tmp_path / "clip"], "holds no model_index.json"),
        ([], "needs --into with the folder of a pipeline"),
    ]
    for more, said in cases:
        command = ["convert", "--model", tmp_path / "clip", "--to", "pipeline", *more, "--output", tmp_path / "new"]
        assert main([str(word) for word in command]) == 2
        assert said in capsys.readouterr().err
    command = ["convert", "--model", tmp_path / "clip", "--to", "transformers", "--into", plain, "--output"]
    assert main([str(word) for word in [*command, tmp_path / "new"]]) == 2
    assert "takes no --into" in capsys.readouterr().err
    (plain / "text_encoder" / "model.safetensors").unlink()
    for source, said in (
        (f"pipeline:{plain}@{tmp_path / 'clip'}", "cannot be loaded"),
        (f"pipeline:{plain}", "no CLIP"),
    ):
        with pytest.raises(CliperaseError, match=said):
            load_model(source)


def test_a_pipeline_that_cannot_be_copied_leaves_nothing(plain, tmp_path, monkeypatch, capsys):
    clip().save(tmp_path / "clip")

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copy", full)
    command = [
        "convert",
        "--model",
        tmp_path / "clip",
        "--to",
        "pipeline",
        "--into",
        plain,
        "--output",
        tmp_path / "new",
    ]
    assert main([str(word) for word in command]) == 2
    assert "No space left" in capsys.readouterr().err
    assert not list((tmp_path / "new").iterdir())


def test_an_encoder_that_is_not_whole_is_one_line(tmp_path):
    encoder().save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights.pop(next(name for name in weights if "position" in name))
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CliperaseError, match=r"text encoder .* has no weight .*position.*; copy the pipeline again"):
        read_encoder(tmp_path, "CLIPTextModel")


def test_a_clip_whose_projection_has_a_bias_is_refused():
    with pytest.raises(CliperaseError, match="another projection than the encoder of a pipeline; take another CLIP"):
        head_of(clip(proj_bias=True))
