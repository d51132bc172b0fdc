"""The open_clip adapter: conformance, saving and loading, and models that are not what they seem."""

import copy
import json
import subprocess
import sys
from argparse import Namespace

import open_clip
import pytest
import torch
from conftest import TINY_BLIP, TINY_VIT
from safetensors.torch import load_file, save_file
from torchvision.transforms.functional import to_pil_image

from cliperase.data.pairs import PairSet
from cliperase.errors import CliperaseError
from cliperase.models import load_model
from cliperase.models.base import ImageTextModel, import_transformers
from cliperase.models.compact import COMPACT, TOWERS, CompactConv, model_config
from cliperase.models.framing import Resized
from cliperase.models.openclip import CONFIG_NAME, WEIGHTS_NAME, OpenCLIP, create_model
from cliperase.models.text_encoder import to_transformers
from cliperase.unlearning import Recipe, Run
from paper.families import SmallBLIP
from paper.small_blip import create_blip

TEXTS = ["a photo of a apple", "a photo of a lemon", "apple"]
PIXELS = torch.randint(0, 256, (2, 3, 64, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.fixture(params=["open_clip", "BLIP", "BLIP of patches"])
def any_model(request, model, training):
    """One model of every family; `parameters that must learn` beside it. Published BLIPs are of patches."""
    if request.param == "open_clip":
        return model, ("model.visual.trunk.blocks.0.0.weight", "model.token_embedding.weight")
    size, tower = TINY_BLIP, "model.vision_model.embeddings.patch_embedding.trunk.blocks.0.0.weight"
    if request.param == "BLIP of patches":
        size = {**size, "vision_config": {**size["vision_config"], "convolutional": False}}
        tower = "model.vision_model.embeddings.patch_embedding.weight"
    adapter, _ = create_blip(training.texts, seed=0, size=size)
    return adapter.eval(), (tower, "model.text_encoder.embeddings.word_embeddings.weight")


def test_conformance(any_model, training, tmp_path):
    """What any adapter must give: shapes, unit norm, gradients into both towers, evaluation that repeats, saving."""
    model, learning = any_model
    images = model.encode_image(training.images[:5])
    texts = model.encode_text(TEXTS)
    assert images.shape[0] == 5
    assert texts.shape == (3, images.shape[1])
    for features in (images, texts):
        assert torch.allclose(features.norm(dim=1), torch.ones(len(features)), atol=1e-5)
    (model.logit_scale * images @ texts.T).sum().backward()
    for name in learning:
        assert model.get_parameter(name).grad.abs().max() > 0, name
    assert torch.equal(model.encode_image(training.images[:5]), images)
    assert torch.allclose(model.encode_text(TEXTS[:1]), texts[:1], atol=1e-6)  # whatever it is padded to
    model.save(tmp_path / "saved")
    loaded = load_model(tmp_path / "saved")
    assert torch.equal(loaded.encode_image(training.images[:5]), images)
    assert torch.equal(loaded.encode_text(TEXTS), texts)
    before = model.encode_text(TEXTS)
    matrix = torch.randn(before.shape[1], before.shape[1], generator=torch.Generator().manual_seed(0))
    model.multiply_text_head(matrix)
    expected = torch.nn.functional.normalize(before @ matrix, dim=1)  # not its transpose
    assert torch.allclose(model.encode_text(TEXTS), expected, atol=1e-4)
    model.multiply_image_head(matrix)
    expected = torch.nn.functional.normalize(images @ matrix, dim=1)
    assert torch.allclose(model.encode_image(training.images[:5]), expected, atol=1e-4)


@pytest.mark.parametrize("method", ["CLIPErase", "SSD", "null space"])
def test_methods_know_no_family(any_model, method, training):
    """The same method object on every family: one unlearning through the one loop."""
    model, _ = any_model
    settings = {"CLIPErase": {"steps": 2, "learning_rate": 1e-3}, "SSD": {"batches": 2, "alpha": 1.0}}.get(method, {})
    recipe = Recipe.of(method, settings | {"forget_batch": 4, "retain_batch": 8})
    before = model.encode_text(TEXTS).detach()
    mask = training.labels == 0
    Run(model, recipe, training.select(mask), training.select(~mask), training, mask, progress=False).carry_out()
    assert not torch.equal(model.encode_text(TEXTS), before)


def test_uint8_and_float_images_are_the_same(model, training):
    images = training.images[:4]
    assert torch.allclose(model.encode_image(images), model.encode_image(images.float() / 255))


def test_other_image_sizes_are_resized(model):
    assert model.encode_image(torch.randint(0, 256, (2, 3, 64, 48), dtype=torch.uint8)).shape == (2, 128)


def test_the_tokenizer_is_whole(model):
    assert model.tokenizer.tokenizer.vocab_size == 49408
    tokens = model.tokenizer(TEXTS)
    assert tokens.shape == (3, 24)
    assert len({tuple(row) for row in tokens.tolist()}) == 3


def test_leaving_out_the_padding_changes_nothing(model):
    whole = model.model.encode_text(model.tokenizer(TEXTS), normalize=True)
    assert torch.allclose(model.encode_text(TEXTS), whole, atol=1e-6)
    alone = torch.cat([model.encode_text([text]) for text in TEXTS])
    assert torch.allclose(alone, whole, atol=1e-6)
    model.encode_text(TEXTS).sum().backward()
    assert model.model.positional_embedding.grad[0].abs().max() > 0


def test_the_text_head_takes_a_matrix(model):
    images = model.encode_image(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
    before = model.encode_text(TEXTS)
    model.multiply_text_head(2 * torch.eye(128))
    assert torch.allclose(model.encode_text(TEXTS), before, atol=1e-6)  # the norm takes the factor out again
    flip = torch.eye(128).flip(0)
    model.multiply_text_head(flip)
    assert torch.allclose(model.encode_text(TEXTS), before @ flip, atol=1e-6)
    assert torch.equal(images, model.encode_image(torch.zeros(1, 3, 32, 32, dtype=torch.uint8)))


ARCHITECTURES = {name: model_config(name) for name in TOWERS} | {"larger": model_config("wide", 64), "ViT": TINY_VIT}


@pytest.mark.parametrize("config", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_a_saved_model_gives_the_same_embeddings_bit_for_bit(config, tmp_path):
    model = create_model(config, seed=3).eval()
    model.save(tmp_path)
    loaded = load_model(tmp_path)
    assert torch.equal(loaded.encode_image(PIXELS), model.encode_image(PIXELS))
    assert torch.equal(loaded.encode_text(TEXTS), model.encode_text(TEXTS))
    assert loaded.config == config
    loaded.save(tmp_path / "again")
    for name in (CONFIG_NAME, WEIGHTS_NAME):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / name).read_bytes()


def test_open_clip_itself_loads_it(model, model_folder, training):
    loaded, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{model_folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{model_folder}")
    loaded.eval()
    with torch.no_grad():
        texts = loaded.encode_text(tokenizer(TEXTS), normalize=True)
    assert torch.allclose(texts, model.encode_text(TEXTS), atol=1e-6)
    pixels = preprocess(to_pil_image(training.images[0]))[None]
    with torch.no_grad():
        image = loaded.encode_image(pixels, normalize=True)
    assert torch.allclose(image, model.encode_image(training.images[:1]), atol=1e-5)


def test_pictures_are_cut_to_the_middle_not_squashed():
    wide = torch.zeros(1, 3, 10, 30)
    wide[..., 10:20] = 1.0
    assert torch.equal(Resized((10, 10))(wide), torch.ones(1, 3, 10, 10))
    assert Resized((32, 32))(torch.rand(2, 3, 64, 48)).shape == (2, 3, 32, 32)


def test_openais_activation_is_kept_and_saved(monkeypatch, tmp_path):
    """Their weights need QuickGELU, which the architecture's name alone does not say."""
    create = open_clip.create_model
    asked = {}

    def without_download(name, pretrained=None, **options):
        asked.update(options)
        return create(name, force_quick_gelu=options["force_quick_gelu"])

    monkeypatch.setattr(open_clip, "create_model", without_download)
    loaded = load_model("RN50/openai")
    assert asked["require_pretrained"]
    assert asked["force_quick_gelu"]
    assert loaded.config["model_cfg"]["quick_gelu"] is True
    assert "QuickGELU" in str(loaded.model.transformer)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_openais_weights_in_a_file_are_known_by_the_numbers_beside_them(suffix, tmp_path, monkeypatch):
    """The `state_dict` of their archive holds three numbers that no other weights hold."""
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny", TINY_VIT["model_cfg"])
    weights = open_clip.create_model("tiny").state_dict()
    numbers = {"input_resolution": 32, "context_length": 16, "vocab_size": 49408}
    openais = weights | {name: torch.tensor(number) for name, number in numbers.items()}
    for name, held in (("others", weights), ("openais", openais)):
        path = tmp_path / f"{name}{suffix}"
        save_file(held, path) if suffix == ".safetensors" else torch.save(held, path)
    theirs, other = (load_model(f"tiny/{tmp_path / name}{suffix}") for name in ("openais", "others"))
    assert "QuickGELU" in str(theirs.model.transformer)
    assert "QuickGELU" not in str(other.model.transformer)
    assert torch.equal(theirs.model.token_embedding.weight, weights["token_embedding.weight"])
    theirs.save(tmp_path / "saved")
    assert torch.equal(load_model(tmp_path / "saved").encode_text(TEXTS), theirs.encode_text(TEXTS))


def test_a_torchscript_archive_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny", TINY_VIT["model_cfg"])
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "ViT-B-32.pt")
    with pytest.raises(
        CliperaseError, match="TorchScript archive, and no code of a model is run; write the tag openai"
    ):
        load_model(f"tiny/{tmp_path / 'ViT-B-32.pt'}")


def test_other_text_towers_keep_their_padding():
    """Without a causal mask the padding is seen, and with other pooling the end token is not what is pooled."""
    for change in ({"pool_type": "last"}, {"no_causal_mask": True}):
        config = copy.deepcopy(COMPACT)
        config["model_cfg"]["text_cfg"] |= change
        model = create_model(config).eval()
        whole = model.model.encode_text(model.tokenizer(TEXTS), normalize=True)
        assert torch.equal(model.encode_text(TEXTS), whole), change


def test_a_built_in_model_with_weights_from_a_file(tmp_path):
    path = tmp_path / "weights.pt"
    torch.save(open_clip.create_model("RN50").state_dict(), path)
    loaded = load_model(f"RN50/{path}")
    assert loaded.framing == Resized((224, 224))
    assert loaded.encode_text(["apple"]).shape == (1, 1024)


def test_a_text_tower_apart_from_the_model_is_found_too():
    """open_clip keeps it in `text` for most of its larger models; where it is of another library, nothing is done."""
    model = OpenCLIP(
        open_clip.CustomTextCLIP(**TINY_VIT["model_cfg"]), create_model(TINY_VIT).tokenizer.tokenizer, TINY_VIT
    )
    assert model.eval().clip_text_tower is model.model.text
    assert model.token_states(TEXTS) is None  # open_clip may pool or mask it in another way
    before, count = model.encode_text(TEXTS), len(list(model.parameters()))
    model.narrow_vocabulary(TEXTS)
    assert model.model.text.token_embedding.weight.shape[0] < 10
    assert torch.equal(model.encode_text(TEXTS), before)
    model.widen_vocabulary()
    assert torch.equal(model.encode_text(TEXTS), before)
    model.multiply_text_head(torch.eye(32).flip(0))
    assert torch.allclose(model.encode_text(TEXTS), before.flip(1), atol=1e-6)
    model.model.text = torch.nn.Linear(2, 2)
    assert model.clip_text_tower is None
    model.narrow_vocabulary(TEXTS)
    model.widen_vocabulary()
    with pytest.raises(CliperaseError, match="no linear projection to edit"):
        model.multiply_text_head(torch.eye(32))
    model.model.visual = torch.nn.Linear(2, 2)
    with pytest.raises(CliperaseError, match="the image tower has no linear projection to edit"):
        model.multiply_image_head(torch.eye(32))
    with pytest.raises(CliperaseError, match="the image tower shows no layer before its last; choose another method"):
        model.image_map(PIXELS, 0.5)
    with pytest.raises(CliperaseError, match="OpenCLIP has no CLIP text tower to convert; give an open_clip CLIP"):
        to_transformers(model)
    assert len(list(model.parameters())) < count


def test_an_adapter_defines_what_the_interface_asks():
    class Half(ImageTextModel):
        def encode_image(self, images):
            return images

    with pytest.raises(TypeError, match=r"abstract class Half.*encode_text.*load.*logit_scale"):
        Half()


def test_what_a_family_or_this_machine_has_not_is_said(model, monkeypatch):
    for tower in ("text", "image"):
        with pytest.raises(CliperaseError, match=f"the {tower} tower has no linear projection to edit; choose another"):
            getattr(ImageTextModel, f"multiply_{tower}_head")(model, torch.eye(2))  # of a family without
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(CliperaseError, match=r"needs transformers \(.+\); pip install"):
        import_transformers()


def python(*lines):
    """Run in a process of its own, where nothing has been imported; what it prints, as words."""
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_families_are_imported_when_they_are_needed(model_folder, blip_folder):
    heavy = "import sys; print(*({'torch', 'open_clip', 'transformers', 'cliperase.models.blip'} & set(sys.modules)))"
    assert python("import paper, cliperase.models", heavy) == []
    blip = str(blip_folder / "matching")
    recognised = python(
        "from cliperase.models.blip import BLIP; from paper.families import SmallBLIP",
        f"print(BLIP.recognises({blip!r}), SmallBLIP.recognises({blip!r}))",
        heavy,
    )
    assert recognised[:2] == ["True", "True"]
    assert "transformers" not in recognised
    loaded = python("from cliperase.models import load_model", f"load_model({str(model_folder)!r})", heavy)
    assert "open_clip" in loaded
    assert "cliperase.models.blip" not in loaded


def test_a_family_that_is_registered_is_asked_first(blip_folder, model_folder):
    assert type(load_model(blip_folder / "matching")) is SmallBLIP
    assert type(load_model(model_folder)) is OpenCLIP


def test_models_that_cannot_be_loaded(tmp_path, model_folder):
    with pytest.raises(CliperaseError, match="neither a folder nor"):
        load_model("nowhere")
    for absent in ("no-such-model/openai", tmp_path / "no-model"):
        with pytest.raises(CliperaseError, match="neither a folder nor"):
            load_model(absent)
    for source in ("RN50", "RN50/opneai"):
        with pytest.raises(CliperaseError, match="names no weights; write RN50/<file> or a tag: openai, yfcc15m"):
            load_model(source)
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    with pytest.raises(CliperaseError, match="is an adapter, such as LoRA; merge it into its model"):
        load_model(adapter)
    for source, kind in ((load_model(model_folder), "OpenCLIP"), (None, "NoneType")):
        with pytest.raises(CliperaseError, match=f"model is {kind}; give the name of one, or its folder"):
            load_model(source)
    folder = tmp_path / "half"
    folder.mkdir()
    with pytest.raises(CliperaseError, match=rf"a folder of no known family; give one of: .*{CONFIG_NAME}.*blip:<hub"):
        load_model(folder)
    (folder / CONFIG_NAME).write_text((model_folder / CONFIG_NAME).read_text())
    with pytest.raises(CliperaseError, match=WEIGHTS_NAME):  # open_clip would go on with random weights
        load_model(folder)
    (folder / WEIGHTS_NAME).write_bytes((model_folder / WEIGHTS_NAME).read_bytes()[:1000])
    with pytest.raises(CliperaseError, match="cannot be loaded"):
        load_model(folder)
    (folder / CONFIG_NAME).unlink()
    with pytest.raises(CliperaseError, match=f"half holds no {CONFIG_NAME}; train or copy the model again"):
        load_model(folder)


def test_a_tokenizer_that_lost_its_words_is_refused(model_folder, monkeypatch):
    """As transformers makes one where it finds no files: a few tokens, and no error."""
    from types import SimpleNamespace

    monkeypatch.setattr(open_clip, "get_tokenizer", lambda name: SimpleNamespace(tokenizer=["<s>", "</s>"]))
    with pytest.raises(CliperaseError, match="has 2 tokens, the model 49408"):
        load_model(model_folder)


def test_weights_of_another_architecture_are_refused(tmp_path, model_folder):
    config = json.loads((model_folder / CONFIG_NAME).read_text())
    config["model_cfg"]["text_cfg"]["layers"] = 3
    folder = tmp_path / "other"
    create_model(config).save(folder)
    (folder / CONFIG_NAME).write_text((model_folder / CONFIG_NAME).read_text())
    with pytest.raises(
        CliperaseError, match=r"cannot be loaded \(Error.* in loading state_dict for CLIP: Unexpected key"
    ):
        load_model(folder)


def test_the_checkpoint_of_a_training_is_loaded_without_a_word_or_refused_by_its_cause(tmp_path, model_folder, caplog):
    weights = {f"module.{name}": tensor for name, tensor in load_file(model_folder / WEIGHTS_NAME).items()}
    (tmp_path / CONFIG_NAME).write_text((model_folder / CONFIG_NAME).read_text())
    torch.save({"epoch": 3, "state_dict": weights, "optimizer": {}}, tmp_path / "epoch_3.pt")
    loaded, original = load_model(tmp_path), load_model(model_folder)
    assert torch.equal(loaded.encode_text(["an apple"]), original.encode_text(["an apple"]))
    assert not caplog.records
    torch.save({"state_dict": weights, "args": Namespace(lr=1)}, tmp_path / "epoch_3.pt")
    with pytest.raises(CliperaseError, match="its file holds more than weights, and code is not run; write the state_"):
        load_model(tmp_path)


def test_saving_where_one_cannot_write(model, tmp_path):
    (tmp_path / "file").write_text("held")
    with pytest.raises(CliperaseError, match="cannot be written"):
        model.save(tmp_path / "file" / "model")
    assert (tmp_path / "file").read_text() == "held"


def test_a_narrow_vocabulary_trains_to_the_same_weights_as_the_whole():
    whole, narrow = create_model(COMPACT, 0), create_model(COMPACT, 0)
    narrow.narrow_vocabulary(TEXTS)
    assert sum(p.numel() for p in narrow.parameters()) < sum(p.numel() for p in whole.parameters()) / 4
    for model in (whole, narrow):
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
        for _ in range(3):
            optimizer.zero_grad()
            model.encode_text(TEXTS).pow(3).sum().backward()
            optimizer.step()
    unseen = ["a zebra's violin", *TEXTS]
    with torch.no_grad():
        assert torch.allclose(whole.encode_text(unseen), narrow.encode_text(unseen), atol=1e-6)
    narrow.widen_vocabulary()
    assert narrow.state_dict().keys() == whole.state_dict().keys()
    assert all(
        torch.allclose(narrow.state_dict()[name], tensor, atol=1e-6) for name, tensor in whole.state_dict().items()
    )


def test_a_model_is_whole_again_when_training_stops_with_an_error():
    model = create_model(COMPACT, 0)
    shape = model.model.token_embedding.weight.shape
    pairs = PairSet(torch.zeros(2, 3, 32, 32, dtype=torch.uint8), TEXTS[:2], torch.tensor([[0], [1]]), None, [], [], [])
    settings = {"steps": 1, "learning_rate": 1e-3, "retain_batch": 2, "lambda_rm": 0.0, "lambda_fm": 0.0}
    recipe = Recipe.of("CLIPErase", {**settings, "lambda_cm": 0.0})
    with pytest.raises(CliperaseError, match="switched off"):
        Run(model, recipe, pairs, pairs).carry_out()
    assert model.model.token_embedding.weight.shape == shape


@pytest.mark.parametrize("sizes", TOWERS.values(), ids=TOWERS)
def test_a_small_tower_is_convolution_norm_relu_and_pooling(sizes):
    """Whatever order and shortcuts its `forward` takes, in both modes of the norm, values and gradients."""
    tower = CompactConv(**{**sizes, "widths": (4, 6, 8, 10)}).double()
    images = torch.randn(5, 3, 16, 16, dtype=torch.float64)
    for training in (True, False):  # the first pass also moves the statistics
        tower.train(training)
        expected = images
        for block, halved in zip(tower.blocks, sizes["halved"], strict=True):
            expected = block(expected).relu()
            expected = torch.nn.functional.max_pool2d(expected, 2) if halved else expected
        before = expected
        for block in tower.residual:
            expected = block(expected).relu()
        expected = (expected + before if sizes["residual"] else expected).amax(dim=(2, 3))
        slow = torch.autograd.grad(expected.pow(2).sum(), list(tower.parameters()))
        fast = torch.autograd.grad(tower(images).pow(2).sum(), list(tower.parameters()))
        assert torch.allclose(tower(images), expected)
        assert all(torch.allclose(a, b) for a, b in zip(slow, fast, strict=True))


def test_a_small_model_has_the_tower_and_the_size_that_were_asked_for():
    wide = create_model(model_config("wide", 64), seed=0)
    assert wide.framing.size == (64, 64)
    assert wide.image_trunk.num_features == 256
    with pytest.raises(CliperaseError, match="architecture 'deep' unknown; choose one of compact, wide"):
        model_config("deep")
