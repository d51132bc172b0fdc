"""Pictures come to an image tower as open_clip and transformers prepare them, whatever their shape and the settings."""

import copy
import itertools
import json
import logging
import pickle

import numpy as np
import open_clip
import pytest
import torch
from conftest import TINY_VIT
from inputs import sample, saved
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from cliperase.cli import main
from cliperase.data.shards import Stream
from cliperase.data.source import load_split
from cliperase.errors import CliperaseError
from cliperase.features import fingerprint
from cliperase.models import load_model
from cliperase.models.compact import model_config
from cliperase.models.framing import Resized
from cliperase.models.openclip import CONFIG_NAME, WEIGHTS_NAME, OpenCLIP, create_model
from cliperase.settings import TrainSettings

SHAPES = {"wide": (32, 128), "landscape": (40, 48), "portrait": (61, 33), "fitting": (32, 32)}  # height, width
MODES = ("shortest", "longest", "squash")
RESNET = {
    "model_cfg": {
        "embed_dim": 32, "vision_cfg": {"layers": [1, 1, 1, 1], "width": 8, "image_size": 32},
        "text_cfg": TINY_VIT["model_cfg"]["text_cfg"],
    },
}  # fmt: skip
FAMILIES = {"ViT": TINY_VIT, "ResNet": RESNET, "timm": model_config("compact")}
SIGLIP = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "interpolation": "bicubic", "resize_mode": "squash"}


def picture(shape, seed=0):
    """A smooth picture with some noise, as photographs are; PIL."""
    draws = np.random.default_rng([seed, *shape])
    smooth = Image.fromarray(draws.integers(0, 256, (5, 5, 3), dtype=np.uint8)).resize(shape[::-1], Image.BICUBIC)
    return Image.fromarray(np.clip(np.asarray(smooth) + draws.normal(0, 10, (*shape, 3)), 0, 255).astype(np.uint8))


def tensor(picture):
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None]


def config_of(family="ViT", **preprocess):
    config = copy.deepcopy(FAMILIES[family])
    config["preprocess_cfg"] = preprocess
    return config


@torch.no_grad()
def check_parity(adapter, folder):
    """Our embeddings are those of open_clip, which loads the folder itself and prepares PIL pictures of every shape.

    Some values of the pixels differ by one of 256 levels, see `framing.resize`.
    """
    theirs, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    for shape in SHAPES.values():
        expected = theirs.eval().encode_image(preprocess(picture(shape))[None], normalize=True)
        found = adapter.encode_image(tensor(picture(shape)))
        assert (found * expected).sum().item() == pytest.approx(1, abs=1e-5), shape


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("family", FAMILIES)
def test_embeddings_are_those_of_open_clip_before_and_after_saving(family, mode, tmp_path):
    model = create_model(config_of(family, resize_mode=mode, fill_color=90, size=32), seed=1).eval()
    model.save(tmp_path / "one")
    check_parity(model, tmp_path / "one")
    loaded = load_model(tmp_path / "one")
    loaded.save(tmp_path / "two")
    check_parity(loaded, tmp_path / "two")
    for shape in SHAPES.values():
        assert torch.equal(*(one.encode_image(tensor(picture(shape))) for one in (model, loaded)))


SETTINGS = [*itertools.product([(24, 24), (16, 40), (40, 16)], MODES, ["bicubic", "bilinear", "random"], [0, 200])]


@pytest.mark.parametrize(("size", "mode", "interpolation", "fill"), SETTINGS)
def test_every_setting_gives_the_pixels_of_open_clip(size, mode, interpolation, fill):
    config = PreprocessCfg(size=size, resize_mode=mode, interpolation=interpolation, fill_color=fill)
    theirs = image_transform_v2(config, is_train=False)
    framing = Resized(size, mode, interpolation, fill)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (config.mean, config.std))
    for shape in [*SHAPES.values(), (17, 101), (200, 90), (1, 7)]:
        expected = (theirs(picture(shape)) * std + mean) * 255
        found = framing(tensor(picture(shape)))
        assert found.shape == (1, 3, *size)
        assert found.dtype == torch.uint8
        difference = (found[0] - expected).abs()
        assert difference.max() < 2.01, shape
        assert difference.mean() < 0.3, shape


def test_float_pictures_are_framed_alike_and_keep_their_gradient():
    whole = tensor(picture((40, 48)))
    for mode in MODES:
        framing = Resized((24, 24), mode, fill=51)
        pixels = (whole.float() / 255).requires_grad_()
        found = framing(pixels)
        assert (255 * found - framing(whole)).abs().max() < 2.5  # torch rounds in between what is uint8, as Pillow does
        found.sum().backward()
        assert pixels.grad.abs().sum() > 0
    noise = torch.full((1, 3, 24, 24), 1.5)
    assert torch.equal(Resized((24, 24))(noise), noise)  # nothing to resize, nothing to clamp


def test_a_non_square_tower_takes_non_square_pictures(tmp_path):
    config = config_of(resize_mode="longest")
    config["model_cfg"]["vision_cfg"]["image_size"] = [16, 48]
    model = create_model(config, seed=2).eval()
    model.save(tmp_path)
    assert load_model(tmp_path).framing == Resized((16, 48), "longest")
    check_parity(model, tmp_path)


def test_what_a_configuration_lacks_is_as_in_open_clip(tmp_path):
    """As downloaded: no size, no mode, or nothing at all; and a size that is not the tower's."""
    for number, preprocess in enumerate([{}, {"mean": [0.1, 0.2, 0.3]}, {"std": 0.3, "mean": 0.4}, {"size": 200}]):
        folder = tmp_path / str(number)
        create_model(config_of(**preprocess), seed=1).save(folder)
        loaded = load_model(folder)
        assert loaded.framing.size == (32, 32)
        check_parity(loaded, folder)


def test_a_built_in_siglip_is_saved_with_all_of_its_preprocessing(monkeypatch, tmp_path):
    """Its own tokenizer cannot be had without a network, so another's stands in."""
    created = create_model(config_of(**SIGLIP), seed=1)
    open_clip.model.set_model_preprocess_cfg(created.model, {**SIGLIP, "size": 32, "mode": "RGB", "fill_color": 0})
    monkeypatch.setattr(open_clip, "create_model", lambda name, **options: created.model)
    monkeypatch.setattr(open_clip, "get_tokenizer", lambda name, **options: created.tokenizer.tokenizer)
    monkeypatch.setattr(open_clip, "get_model_config", lambda name: copy.deepcopy(TINY_VIT["model_cfg"]))
    loaded = load_model("ViT-B-16-SigLIP/webli")
    monkeypatch.undo()
    loaded.save(tmp_path)
    saved = json.loads((tmp_path / CONFIG_NAME).read_text())["preprocess_cfg"]
    assert saved == {**SIGLIP, "size": 32, "mode": "RGB", "fill_color": 0}
    assert loaded.framing == load_model(tmp_path).framing == Resized((32, 32), "squash")
    check_parity(load_model(tmp_path), tmp_path)


@pytest.mark.parametrize(
    ("preprocess", "said"),
    [
        ({"resize_mode": "crop"}, "resize_mode is 'crop'; give one of shortest, longest, squash"),
        ({"interpolation": "nearest"}, "interpolation is 'nearest'; give one of bicubic"),
        ({"mode": "L"}, "mode is 'L'; give one of RGB"),
        ({"mean": [0.5, 0.5]}, r"mean is \[0.5, 0.5\]; give 3 numbers"),
        ({"std": "0.5"}, "std is '0.5'; give 3 numbers"),
        ({"fill_color": [1, 2, 3]}, r"fill_color is \[1, 2, 3\]; give 1 number"),
    ],
)
def test_what_cannot_be_meant_is_refused(preprocess, said, tmp_path, data_folder, capsys):
    create_model(config_of(), seed=1).save(tmp_path)
    (tmp_path / CONFIG_NAME).write_text(json.dumps(config_of(**preprocess)))
    with pytest.raises(CliperaseError, match=said):
        load_model(tmp_path)
    assert main(["evaluate", "--model", str(tmp_path), "--data", str(data_folder)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_another_framing_is_another_cache(training):
    one, other = (create_model(config_of(resize_mode=mode), seed=1) for mode in ("shortest", "squash"))
    assert fingerprint(one, training) != fingerprint(other, training)


@pytest.mark.parametrize("name", ["open_clip_pytorch_model.bin", "weights.pt", "any.safetensors", "model.pth"])
def test_weights_may_have_other_names(name, tmp_path, caplog):
    model = create_model(config_of(), seed=4).eval()
    model.save(tmp_path)
    if name.endswith("safetensors"):
        (tmp_path / WEIGHTS_NAME).rename(tmp_path / name)
    else:
        (tmp_path / WEIGHTS_NAME).unlink()
        torch.save(model.model.state_dict(), tmp_path / name)
    loaded = load_model(tmp_path)
    assert torch.equal(loaded.encode_text(["apple"]), model.encode_text(["apple"]))
    assert torch.equal(loaded.encode_image(tensor(picture((40, 48)))), model.encode_image(tensor(picture((40, 48)))))
    assert "random" not in caplog.text


def test_open_clips_other_warnings_are_heard(tmp_path, caplog):
    create_model(config_of(), seed=4).save(tmp_path)
    load_model(tmp_path)
    logging.getLogger().warning("No pretrained weights, said later")
    assert "said later" in caplog.text


def test_of_several_weights_the_usual_name_counts_else_none(tmp_path):
    model = create_model(config_of(), seed=4).eval()
    model.save(tmp_path)
    torch.save({}, tmp_path / "epoch_1.pt")
    torch.save({}, tmp_path / "epoch_2.pt")
    assert torch.equal(load_model(tmp_path).encode_text(["apple"]), model.encode_text(["apple"]))
    (tmp_path / WEIGHTS_NAME).unlink()
    with pytest.raises(CliperaseError, match=r"holds the weights epoch_1\.pt and epoch_2\.pt; leave one, or name it"):
        load_model(tmp_path)


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("name", ["open_clip_pytorch_model.bin", "weights.pt"])
def test_weights_that_are_code_are_not_run(name, tmp_path):
    create_model(config_of(), seed=4).save(tmp_path)
    (tmp_path / WEIGHTS_NAME).unlink()
    torch.save({"text_projection": Bomb(str(tmp_path / "ran"))}, tmp_path / name)
    with pytest.raises(CliperaseError, match="cannot be loaded"):
        load_model(tmp_path)
    (tmp_path / name).write_bytes(pickle.dumps(Bomb(str(tmp_path / "ran"))))
    with pytest.raises(CliperaseError, match="cannot be loaded"):
        load_model(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_files_of_a_tokenizer_are_saved_with_the_model(tmp_path):
    """A text tower with a tokenizer of transformers: open_clip looks for its files in the folder of the model."""
    from cliperase.models.text_encoder import clip_tokenizer

    clip_tokenizer(16, "!").save_pretrained(tmp_path / "words")
    config = config_of()
    config["model_cfg"]["text_cfg"] |= {"hf_tokenizer_name": str(tmp_path / "words"), "tokenizer_kwargs": {}}
    config["model_cfg"] |= {"custom_text": True, "init_logit_bias": -10}
    tokenizer = open_clip.tokenizer.HFTokenizer(str(tmp_path / "words"), context_length=16)
    classes = {key: value for key, value in config["model_cfg"].items() if key != "custom_text"}
    model = OpenCLIP(open_clip.CustomTextCLIP(**classes), tokenizer, config).eval()
    model.save(tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    assert torch.equal(loaded.encode_text(["a photo of a apple"]), model.encode_text(["a photo of a apple"]))
    assert loaded.logit_bias.item() == -10
    assert loaded.logit_scale.shape == ()


@pytest.mark.parametrize("mode", MODES)
def test_pictures_of_shards_are_framed_by_the_model(mode, tmp_path):
    """Not all cut to the middle: each picture of a shard has a shape of its own."""
    framing = create_model(config_of(resize_mode=mode, fill_color=7)).framing
    for number, shape in enumerate([(40, 48), (32, 128), (61, 33)]):
        files = {"a.png": saved(picture(shape)), "a.txt": b"apple", "b.png": saved(picture((9, 9))), "b.txt": b"b"}
        (tmp_path / f"{number}.tar").write_bytes(sample(files))
    pairs, matches = load_split(tmp_path, "test", {"concept": "apple"}, framing)
    assert torch.equal(pairs.images[matches], framing(tensor(picture((61, 33)))))
    streams = [Stream(tmp_path, {"concept": "b"}, Resized((32, 32), one), TrainSettings(lanes=1)) for one in MODES]
    assert len({stream.fingerprint() for stream in streams}) == len(MODES)  # a run does not go on with another


def test_a_tower_of_transformers_is_not_fetched_for_a_model_that_has_its_weights(tmp_path):
    """Only the configuration of the text tower is there, as on a machine without network."""
    from transformers import BertConfig

    from cliperase.models.text_encoder import clip_tokenizer

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    BertConfig(vocab_size=49408, pad_token_id=1, **sizes).save_pretrained(tmp_path / "tower")
    clip_tokenizer(16, "!").save_pretrained(tmp_path / "words")
    config = config_of()
    text = {
        "hf_model_name": str(tmp_path / "tower"),
        "hf_tokenizer_name": str(tmp_path / "words"),
        "context_length": 16,
    }
    config["model_cfg"]["text_cfg"] = {**text, "hf_pooler_type": "mean_pooler", "hf_proj_type": "linear"}
    parts = copy.deepcopy(config["model_cfg"])
    parts["text_cfg"]["hf_model_pretrained"] = False
    tokenizer = open_clip.tokenizer.HFTokenizer(str(tmp_path / "words"), context_length=16)
    model = OpenCLIP(open_clip.CustomTextCLIP(**parts), tokenizer, config).eval()
    model.save(tmp_path / "model")
    found = load_model(tmp_path / "model").encode_text(["a photo of a apple"])
    assert torch.equal(found, model.encode_text(["a photo of a apple"]))
