"""Probes on tiny models whose answers follow by hand: what only seems forgotten is found, and what is gone is not."""

from dataclasses import replace

import pytest
import torch

from cliperase.audit import create_probe, other_words
from cliperase.audit.auditing import AuditSettings, carry_out, measured, result_of
from cliperase.audit.case import Case, Split, Subject
from cliperase.audit.image_attack import ImageAttack
from cliperase.audit.membership import matched_rows
from cliperase.audit.page import write_page
from cliperase.audit.text_attack import PLACE, TextAttack
from cliperase.audit.verdict import finding
from cliperase.audit.wording import misspellings
from cliperase.data.pairs import PairSet
from cliperase.data.rules import Rule
from cliperase.data.templates import PROMPT
from cliperase.data.words import as_read
from cliperase.models.base import ImageTextModel
from cliperase.models.framing import Resized

CLASSES = ["apple", "lemon", "leaf"]  # the colour of each is one channel
TOKENS = {"": 0, PLACE: 2, "aple": 4, "apples": 4, "pomme": 4, "apple": 4, "lemon": 5, "leaf": 6}  # 1: start, 3: other
BRIGHT, DIM, OTHER = 220, 200, 20  # of training images, of other images, of the other channels
ALL = 1.0  # more than any channel holds


class Colours(ImageTextModel):
    """An image is its mean colour, a text the sum of its tokens; the name of a class points to its channel.

    `push`: so much is taken from the channel of the apple in images where it is above `over`. `word`: that channel in
    the apple's token. `one_prompt`: the text that is turned round, and no other.
    """

    framing = Resized((4, 4))
    recognises = load = save = None
    logit_scale = torch.tensor(10.0)

    def __init__(self, push=0.0, over=0.0, word=1.0, one_prompt=""):
        super().__init__()
        self.set_colours([0.0] * 3, [1.0] * 3)
        self.register_buffer("moved", torch.tensor([push, over, float(bool(one_prompt))]))
        self.one_prompt, self.tower = one_prompt, torch.nn.Module()
        vectors = torch.zeros(7, 4)
        vectors[3, 3], vectors[4:, :3] = 0.1, torch.diag(torch.tensor([word, 1.0, 1.0]))
        self.tower.token_embedding = torch.nn.Embedding.from_pretrained(vectors, freeze=False)

    clip_text_tower = property(lambda self: self.tower)

    def encode_image(self, images):
        colours, (push, over, _) = self.pixels(images).mean(dim=(2, 3)), self.moved
        apple = colours[:, :1] - push * (colours[:, :1] > over)
        return torch.nn.functional.normalize(torch.cat([apple, colours[:, 1:], torch.zeros_like(apple)], dim=1), dim=1)

    def token_rows(self, texts):
        rows = [[1, *(TOKENS.get(word, 3) for word in text.split())] for text in texts]
        return torch.tensor([row + [0] * (24 - len(row)) for row in rows])

    def encode_text(self, texts):
        signs = torch.tensor([[-1.0 if text == self.one_prompt else 1.0] for text in texts])
        sums = self.tower.token_embedding(self.token_rows(texts)).sum(dim=1)
        return signs * torch.nn.functional.normalize(sums, dim=1)


def split_of(bright, forget=("apple",), each=6, captions=False):
    """`each` images of every class in turn of the classes, as data sets often are; without classes, as captions."""
    labels = torch.arange(len(CLASSES)).repeat_interleave(each)
    images = torch.full((len(labels), 3, 4, 4), OTHER, dtype=torch.uint8)
    images[torch.arange(len(labels)), labels] = bright - (torch.arange(len(labels)) % 2).byte()[:, None, None]
    forgotten = torch.isin(labels, torch.tensor([CLASSES.index(name) for name in forget]))
    texts = [PROMPT.format(name) for name in CLASSES]
    about = (None, []) if captions else (labels, CLASSES)
    return Split.of(PairSet(images, texts, labels[:, None], *about, [""] * len(labels), [""] * len(labels)), forgotten)


def case_of(after, test, training=None, other=None, rule=None):
    subjects = [Subject(model, name) for model, name in ((Colours(), "original"), (after, "unlearned"))]
    others = {"elsewhere": other} if other else {}
    return Case(*subjects, [], Rule.of(rule or {"concept": "apple"}), test, training, others, progress=False)


def values(case, name, **settings):
    """{measure: (before, after)} of one probe."""
    return {one.name: (one.before.value, one.after.value) for one in create_probe(name, settings).run(case)}


# Planted failures: (probe, settings, what only seems to forget, what forgets, {figure: before, seeming, forgetting})

NAMED = PROMPT.format("apple")
PLANTED = {
    "other-words": (
        {"synonyms": {"apple": ["pomme"]}}, {"one_prompt": NAMED}, {"word": -ALL},
        {"template_mean": (100, 93.75, 0), "template_worst": (100, 100, 0), "plural_mean": (100, 100, 0),
         "typo_mean": (25, 25, 0), "typo_worst": (100, 100, 0), "synonym_mean": (100, 100, 0)},
    ),  # of the typing errors the tokens hold one
    "text-attack": ({}, {"word": -0.5}, {"word": -100.0}, {"success": (100, 100, 0)}),  # within reach, and out of it
    "image-attack": ({}, {"push": (DIM - OTHER + 0.5) / 255}, {"push": ALL}, {"success": (100, 100, 0)}),
    "other-sources": (
        {}, {"push": ALL, "over": 0.5}, {"push": ALL},
        {"elsewhere_forget_accuracy": (100, 100, 0)},
    ),
    "salmu": (
        {}, {"push": ALL, "over": (BRIGHT + DIM) / 2 / 255}, {"push": ALL},
        {"RetFail": (1, 1, 1 / 3), "leakage_rate": (100, 100, 0), "leakage_gone": (0, 0, 100)},
    ),
}  # fmt: skip
SPLITS = {"test": split_of(DIM), "training": split_of(BRIGHT), "other": split_of(100)}


@pytest.mark.parametrize("name", PLANTED)
def test_what_only_seems_forgotten_is_found_and_what_is_gone_is_not(name):
    settings, seeming, forgetting, figures = PLANTED[name]
    for number, edit in enumerate((seeming, forgetting), 1):
        case = case_of(Colours(**edit), **SPLITS)
        answer = values(case, "salmu" if name == "salmu" else "reference-gap")
        first = answer["AssocStr"] if name == "salmu" else answer["forget_accuracy"]
        assert first[1] <= 0 < first[0]  # by the usual question each of them seems to have forgotten
        found = values(case, name, **settings)
        for figure, expected in figures.items():
            assert found[figure] == pytest.approx((expected[0], expected[number])), figure


@pytest.mark.parametrize("name", PLANTED)
def test_an_unchanged_model_is_as_the_original(name):
    for measure in measured(case_of(Colours(), **SPLITS), name, create_probe(name, PLANTED[name][0]))["measures"]:
        assert measure["before"] == measure["after"]
        assert finding(measure | {"never": None}) == "as the original", measure["name"]


# Which rows are taken


TWO = {"concepts": ["lemon", "apple"]}


@pytest.mark.parametrize("captions", [False, True])
def test_rows_are_taken_evenly_of_the_forgotten_concepts(captions):
    split = split_of(DIM, ("apple", "lemon"), captions=captions)
    case = case_of(Colours(), split, split, rule=TWO)
    assert [rows.tolist() for _, rows in matched_rows(case, 5)] == [[0, 1, 2, 6, 7]] * 2
    assert case.spread(split, 99).tolist() == list(range(12))
    one = split_of(DIM, captions=captions)
    assert case_of(Colours(), one).spread(one, 4).tolist() == [0, 1, 2, 3]


def test_attacks_take_rows_of_every_forgotten_concept(monkeypatch):
    split = split_of(DIM, ("apple", "lemon"))
    case, asked = case_of(Colours(), split, split, rule=TWO), []
    attacked, texts = ImageAttack.attacked, TextAttack.texts

    def attack(self, model, images, words, own):
        asked.append(own.unique().tolist())
        return attacked(self, model, images, words, own)

    def prefixed(self, subject, split, numbers, prefix, never):
        asked.append(numbers.tolist())
        return texts(self, subject, split, numbers, prefix, never)

    monkeypatch.setattr(ImageAttack, "attacked", attack)
    monkeypatch.setattr(TextAttack, "texts", prefixed)
    for name in ("image-attack", "text-attack"):
        values(case, name, images=4)
        assert asked[0] == [0, 1]
        asked.clear()


# What was not measured


def test_shots_that_are_not_measured_are_named():
    case = case_of(Colours(), **SPLITS)
    found = measured(case, "linear-probe", create_probe("linear-probe", {"shots": [1, 6, 16, 0], "draws": 1}))
    assert {one["name"] for one in found["measures"]} >= {"image_recall_1_shots", "text_recall_6_shots"}
    assert found["notes"] == [
        "text_recall of 16 shots is not measured: the smallest class has 8 examples, and a draw takes fewer than there "
        "are.",
        "image_recall of 6, 16 shots is not measured: the smallest class has 6 examples, and a draw takes fewer than "
        "there are.",
    ]
    assert measured(case, "linear-probe", create_probe("linear-probe", {"shots": [1], "draws": 1}))["notes"] == []


class Larger(Colours):
    """Another architecture: longer embeddings, larger pictures."""

    framing = Resized((8, 8))

    def encode_image(self, images):
        return torch.nn.functional.pad(super().encode_image(images), (0, 2))

    def encode_text(self, texts):
        return torch.nn.functional.pad(super().encode_text(texts), (0, 2))


def test_a_reference_of_another_architecture_is_named(tmp_path):
    alike = case_of(Colours(push=ALL), **SPLITS)
    references = [Subject(Colours(push=0.5), "reference 1"), Subject(Larger(), "reference 2")]
    case = replace(alike, references=references)
    probes, settings = {"reference-gap": create_probe("reference-gap", {})}, AuditSettings()
    sources = ["before", "after", "alike", "larger"]
    result = result_of(case, sources, "data", "test", settings, carry_out(case, probes), {})
    differs = "length of embeddings 6 instead of 4; size of pictures 8×8 instead of 4×4"
    assert [one["unlike"] for one in result["models"]] == ["", "", "", differs]
    (said,) = [one for one in result["reasons"] if "architecture" in one]
    assert said.startswith(f"Reference 2 has another architecture than the unlearned model ({differs}).")
    write_page(tmp_path / "page.html", result)
    page = (tmp_path / "page.html").read_text()
    assert f"reference 2, unlike the unlearned model: {differs}</th>" in page
    assert ">reference 1</th>" in page
    plain = result_of(alike, sources[:2], "data", "test", settings, carry_out(alike, probes), {})
    assert not [one for one in plain["reasons"] if "architecture" in one]


# What is asked


@pytest.mark.parametrize("word", ["see", "x", "light bulb", "egg", "Aa", "mississippi"])
def test_misspelt_forms_differ_from_each_other_and_from_what_is_taken(word):
    every = misspellings(word, 99)
    assert every
    assert len({as_read(form) for form in [word, *every]}) == 1 + len(every)
    assert misspellings(word, 99, every[:1]) == every[1:]


def test_misspelt_forms_of_a_usual_word_are_drawn():
    assert misspellings("apple", 4) == ["aple", "applle", "appel", "pple"]
    assert misspellings("cat", 4) == ["ct", "ccat", "cta", "at"]
    assert misspellings("hammer", 4)[:3] == ["hamer", "hammmer", "hmamer"]


def test_a_word_that_is_too_short_for_typing_errors_is_named(monkeypatch):
    asked = []
    monkeypatch.setattr(other_words, "measured", lambda case, kind, lists: asked.append((kind, lists)) or [])
    case, probe = case_of(Colours(), split_of(DIM)), create_probe("other-words", {"typos": 99})
    probe.run(case)
    texts = [texts[0] for kind, lists in asked for texts in lists if kind != "template"]
    assert len(set(texts)) == len(texts)
    assert NAMED not in texts
    assert case.notes == [f"typo_… is of {len(texts) - 1} forms instead of 99: 'apple' has no more."]
