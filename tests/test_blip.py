"""BLIP: the adapter, its heads, the small model made here, and folders that are not what they seem."""

import copy
import shutil

import pytest
import torch
from conftest import TINY_BLIP, TINY_TRAINING, killed_at
from transformers import BlipForImageTextRetrieval

from cliperase.data.pairs import read_table, write_split
from cliperase.errors import CliperaseError
from cliperase.files import write_json
from cliperase.models import load_model
from cliperase.models.blip import BLIP
from paper import small_blip
from paper.hybrid_blip import caption_loss, load_captioner
from paper.small_blip import SMALL, create_blip, pretrain_blip, start_from, word_tokenizer

TEXTS = ["a photo of a apple", "a photo of a lemon", "apple"]


@pytest.fixture
def small(blip_folder):
    return load_model(blip_folder / "matching")


@pytest.fixture(scope="module")
def plain(training, tmp_path_factory):
    """A BLIP as others publish them, without convolutions: our adapter and transformers' own model."""
    folder = tmp_path_factory.mktemp("plain")
    vision = {**TINY_BLIP["vision_config"], "convolutional": False}
    create_blip(training.texts, size={**TINY_BLIP, "vision_config": vision})[0].save(folder)
    ours = load_model(folder)
    assert type(ours) is BLIP  # not the small one's family
    return ours, BlipForImageTextRetrieval.from_pretrained(folder).eval()


def test_cosines_are_those_of_transformers(plain, training):
    """Its own forward, contrastive branch: the product of normalised features."""
    ours, theirs = plain
    inputs, pixels = ours.words(TEXTS, padding=True, return_tensors="pt"), ours.pixels(training.images[:4])
    with torch.no_grad():
        found = theirs(inputs.input_ids, pixels, attention_mask=inputs.attention_mask, use_itm_head=False).itm_score
        expected = ours.encode_image(training.images[:4]) @ ours.encode_text(TEXTS).T
    assert torch.allclose(found, expected, atol=1e-5)


def test_the_matching_head_is_theirs(plain, training):
    ours, theirs = plain
    inputs = ours.words(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        found = theirs(inputs.input_ids, ours.pixels(training.images[:3]), attention_mask=inputs.attention_mask)
        expected = ours.matching(ours.look(training.images[:3]), TEXTS)
    assert torch.allclose(found.itm_score[:, 1] - found.itm_score[:, 0], expected, atol=1e-5)


@pytest.mark.parametrize("changed", [{}, {"do_rescale": False}, {"do_normalize": False}, {"rescale_factor": 1 / 127.5}])
def test_colours_are_those_of_its_processor(changed, plain):
    ours, _ = plain
    processor = type(ours.processor).from_dict({**ours.processor.to_dict(), **changed})
    images = torch.randint(0, 256, (2, 3, *ours.framing.size), generator=torch.Generator().manual_seed(0)).byte()
    expected = processor(list(images), return_tensors="pt").pixel_values
    assert torch.allclose(BLIP(ours.model, ours.words, processor).pixels(images), expected, rtol=1e-4, atol=1e-4)


def test_convolutions_start_from_the_clip_and_are_kept(training, model, model_folder, tmp_path):
    adapter, _ = create_blip(training.texts, size=TINY_BLIP)
    start_from(adapter.eval(), model_folder)
    trunk = adapter.model.vision_model.embeddings.patch_embedding.trunk
    pixels = adapter.pixels(training.images[:2])
    assert torch.equal(trunk(pixels), model.model.visual.trunk(pixels))
    adapter.save(tmp_path / "saved")
    again = load_model(tmp_path / "saved")
    assert torch.equal(again.encode_image(training.images[:2]), adapter.encode_image(training.images[:2]))


def test_weights_that_were_saved_in_half_are_trained_in_full(blip_folder, tmp_path):
    for part, load in (("matching", load_model), ("captioner", load_captioner)):
        load(blip_folder / part).half().save(tmp_path / part)
        assert {weight.dtype for weight in load(tmp_path / part).parameters()} == {torch.float32}


def test_a_model_without_convolutions_gives_no_start(training, blip_folder):
    adapter, _ = create_blip(training.texts, size=TINY_BLIP)
    with pytest.raises(CliperaseError, match="no convolutions to start from"):
        start_from(adapter, blip_folder / "matching")


def test_the_caption_loss_is_theirs_without_the_smoothing(blip_folder, small, training):
    adapter = load_captioner(blip_folder / "captioner")
    captioner = adapter.model
    tokens, _ = small.read([TEXTS[0]])
    tokens[:, 0] = captioner.config.text_config.bos_token_id
    states = captioner.vision_model(pixel_values=small.pixels(training.images[:1])).last_hidden_state
    seen = torch.ones(states.shape[:2], dtype=torch.long)
    logits = captioner.text_decoder(
        input_ids=tokens, encoder_hidden_states=states, encoder_attention_mask=seen
    ).logits[0].log_softmax(dim=1)  # fmt: skip
    by_hand = -sum(logits[place, token] for place, token in enumerate(tokens[0, 1:])) / (tokens.shape[1] - 1)
    assert torch.allclose(caption_loss(adapter, states, [TEXTS[0]])[0], by_hand, atol=1e-5)


def test_a_killed_training_ends_the_same(data_folder, model_folder, blip_folder, tmp_path):
    with killed_at(step=3):
        pretrain_blip(data_folder, model_folder, tmp_path / "again", TINY_TRAINING, TINY_BLIP)
    pretrain_blip(data_folder, model_folder, tmp_path / "again", TINY_TRAINING, TINY_BLIP)
    for part, load in (("matching", load_model), ("captioner", load_captioner)):
        one, other = (load(where / part).model.state_dict() for where in (blip_folder, tmp_path / "again"))
        assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_a_killed_training_does_not_go_on_with_other_data(data_folder, model_folder, tmp_path):
    with killed_at(step=3):
        pretrain_blip(data_folder, model_folder, tmp_path / "again", TINY_TRAINING, TINY_BLIP)
    rows = read_table(data_folder, "train").select(range(16, 32))
    write_split(rows, tmp_path / "other", "train")
    with pytest.raises(CliperaseError, match="of another run"):
        pretrain_blip(tmp_path / "other", model_folder, tmp_path / "again", TINY_TRAINING, TINY_BLIP)


def test_both_models_have_the_same_image_tower(blip_folder, small):
    captioner = load_captioner(blip_folder / "captioner").model
    other = captioner.vision_model.state_dict()
    assert all(torch.equal(value, other[name]) for name, value in small.model.vision_model.state_dict().items())


def test_a_different_text_is_drawn_to_be_told_apart(data_folder, training, monkeypatch):
    """The wrong text of the matching loss is never the same text, whatever the cosines are."""
    both = torch.nn.ModuleList(create_blip(training.texts, size=TINY_BLIP))
    work = small_blip.BlipTraining(both, training, small_blip.BlipSettings(**TINY_TRAINING))
    asked = []
    monkeypatch.setattr(both[0], "matching", lambda states, texts: asked.extend(texts) or torch.zeros(len(texts)))
    ids = torch.tensor([0, 0, 1, 1])
    texts = [TEXTS[0], TEXTS[0], TEXTS[1], TEXTS[1]]
    for _ in range(20):
        work.match(both[0], torch.zeros(4, 1, 32), texts, torch.rand(4, 4), ids)
    for start in range(0, len(asked), 8):
        own, wrong = asked[start : start + 4], asked[start + 4 : start + 8]
        assert all(one != other for one, other in zip(own, wrong, strict=True))


def test_accuracy_of_the_matching_head_by_hand(small, training, monkeypatch):
    """A head that says yes to every prompt with an apple finds the apples, and nothing else."""
    monkeypatch.setattr(small, "matching", lambda states, texts: torch.tensor([float("apple" in t) for t in texts]))
    forgotten = training.labels == training.class_names.index("apple")
    assert small.further_metrics(training, forgotten) == {
        "forget_itm_accuracy@4": 100.0,
        "retain_itm_accuracy@4": 0.0,
    }


def test_the_words_are_all_there_and_case_does_not_matter():
    tokenizer = word_tokenizer(["a photo of a Apple", "Apple logo"])
    assert tokenizer.unk_token_id not in tokenizer("a photo of a apple logo").input_ids
    assert tokenizer("APPLE").input_ids == tokenizer("apple").input_ids
    assert tokenizer.unk_token_id in tokenizer("pear").input_ids


def test_a_tokenizer_that_lost_its_words_is_refused(blip_folder, tmp_path):
    import shutil

    shutil.copytree(blip_folder / "matching", tmp_path / "broken")
    for file in ("tokenizer.json", "vocab.txt"):
        (tmp_path / "broken" / file).unlink(missing_ok=True)
    with pytest.raises(CliperaseError, match=r"tokenizer has|cannot be loaded"):
        load_model(tmp_path / "broken")
    word_tokenizer([]).save_pretrained(tmp_path / "broken")  # whole, but of no words
    with pytest.raises(CliperaseError, match="tokenizer has"):
        load_model(tmp_path / "broken")


def test_a_captioner_is_not_a_matching_model(blip_folder):
    with pytest.raises(CliperaseError, match="has no weight"):
        load_model(blip_folder / "captioner")


def test_a_truncated_model_is_one_line(blip_folder, tmp_path):
    import shutil

    shutil.copytree(blip_folder / "matching", tmp_path / "broken")
    weights = tmp_path / "broken" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(CliperaseError, match="cannot be loaded"):
        load_model(tmp_path / "broken")


def test_pictures_of_another_size_are_squeezed(small):
    assert small.encode_image(torch.randint(0, 256, (2, 3, 48, 64), dtype=torch.uint8)).shape == (2, 32)


def test_a_blip_without_initial_weights_of_its_own_would_not_learn():
    """transformers' default of 1e-10 for the image tower is meant for loading; ours is not left at it."""
    assert SMALL["vision_config"]["initializer_range"] > 1e-3
    both = copy.deepcopy(create_blip(["a"])[0])
    assert both.model.vision_model.encoder.layers[0].mlp.fc1.weight.std() > 1e-3


def test_a_damaged_result_is_found_by_every_name_of_it(blip_folder, tmp_path):
    shutil.copytree(blip_folder / "matching", tmp_path / "result")
    write_json(tmp_path / "result" / "manifest.json", {"cliperase": "1", "files": {"config.json": "of another"}})
    for name in ("", "blip:"):
        with pytest.raises(CliperaseError, match=r"config.json is not the file of manifest\.json"):
            load_model(f"{name}{tmp_path / 'result'}")
