"""What a concept matches in captions, in every script, and what is said of what it does not."""

import re
import unicodedata
from dataclasses import replace

import pytest
from conftest import square
from hypothesis import given
from hypothesis import strategies as st
from inputs import caption_rows, captioned, colours, write_rows

from cliperase.api import unlearn
from cliperase.data.pairs import load_pairs
from cliperase.data.rules import caption_pattern, forget_mask, near_misses
from cliperase.data.source import load_split, load_training
from cliperase.errors import CliperaseError
from cliperase.metrics.tasks import task_of
from cliperase.models import load_model
from cliperase.settings import TrainSettings


def matched(captions, **rule):
    return [caption for caption in captions if caption_pattern(rule).search(caption)]


WORDS = {  # concept -> captions that hold it, captions that hold it as a part of another word or not at all
    "苹果": (["苹果", "一个红苹果在桌上", "苹果和梨"], ["一个梨"]),
    "りんご": (["赤いりんごの写真", "りんご"], ["みかんの写真"]),
    "リンゴ": (["リンゴジュース", "このリンゴ"], ["レモン"]),
    "แอปเปิ้ล": (["ภาพแอปเปิ้ลสีแดง", "ได้แอปเปิ้ลมา"], ["ภาพกล้วย"]),
    "사과": (["빨간 사과", "사과가 있는 사진", "사과를 먹는 사람"], ["사과문을 읽다", "배"]),
    "яблоко": (["красное яблоко.", "ЯБЛОКО"], ["яблоком"]),
    "सेब": (["लाल सेब", "सेब, केला"], ["सेबों का ढेर"]),
    "تفاحة": (["صورة تفاحة حمراء"], ["والتفاحة"]),
    "U.S.": (["the U.S. flag", "in the U.S."], ["the U.S.A. flag", "the US flag"]),
    "C++": (["a book about C++", "C++, C and C#", "c++"], ["C code", "C+ grade", "C++17"]),
    "C": (["a C program", "vitamin C."], ["C++ code", "a C# shirt", "CD"]),
    "50%": (["50% off", "a sign: 50%!", "-50%"], ["150% more", "50 people", "1.50%"]),
    "#1": (["we are #1", "#1 fan"], ["#12", "number 1"]),
    ".NET": (["a .NET book"], ["ASP.NET", "net"]),
    "🍎": (["🍎", "an 🍎 on a desk", "🍎🍎pie", "red🍎"], ["🍏"]),
    "👩": (["👩 at work"], ["👩\u200d🍳 cooks"]),
    "👍": (["👍!"], ["👍🏽"]),
    "🇫🇷": (["🇩🇪🇫🇷", "the 🇫🇷 flag"], ["🇨🇫🇷🇺"]),
    "caf\u00e9": (["a cafe\u0301 at night", "a CAF\u00c9", "caf\u00e9."], ["cafe", "caf\u00e9s"]),
    "cafe": (["a cafe"], ["a cafe\u0301", "a caf\u00e9"]),
    "stra\u00dfe": (["eine STRASSE", "die Stra\u00dfe"], ["Stra\u00dfenbahn"]),
    "ice cream": (["an ice  cream", "ice\u00a0cream", "Ice\ncream!"], ["ice creams", "nice cream"]),
    "women's": (["a women\u2019s shoe", "women's"], ["women"]),
    "\uff21\uff22\uff23": (["abc", "the ABC."], ["abcd"]),  # full width
    "apple": (["apple's core", "apple-tree", "salt+apple+pepper", "(apple)"], ["apples", "pineapple", "apple_"]),
    "lemon": (["#lemon", "a lemon"], ["lemonade"]),
    "50": (["50 people", "50."], ["1.50", "1,500", "50,000", "v50"]),
}  # fmt: skip


@pytest.mark.parametrize("word", WORDS)
def test_a_word_is_found_in_every_script_and_only_as_a_word(word):
    whole, others = WORDS[word]
    assert matched([*whole, *others], concept=word) == whole


@given(st.text(st.sampled_from("abZ _-.'1é"), min_size=1), st.sampled_from(["a", "ab", "b1", "Z"]))
def test_plain_words_are_found_as_before(text, word):
    """In Latin letters without signs behind them, the edges are those of a regular expression."""
    plain = " ".join(unicodedata.normalize("NFKC", text).split())
    if not re.search(r"\d[.,]\d", plain):
        assert bool(matched([text], concept=word)) == bool(re.search(rf"\b{word}\b", plain, re.IGNORECASE))


def test_plural_and_case_are_options():
    captions = ["an apple", "two Apples", "berries", "a berry", "leaves", "mice", "boxes", "an Apple"]
    assert matched(captions, concept="apple", plural=True) == ["an apple", "two Apples", "an Apple"]
    assert matched(captions, concept="Apple", case=True) == ["an Apple"]
    assert matched(captions, concept="Apple", case=True, plural=True) == ["two Apples", "an Apple"]
    many = {"concepts": ["berry", "leaf", "mouse", "box"]}
    assert matched(captions, **many, plural=True) == ["berries", "a berry", "leaves", "mice", "boxes"]
    assert matched(captions, **many) == ["a berry"]


def test_several_concepts_in_one_rule():
    pairs = captioned(["a dog", "a cat", "a bird", "a dogma"])
    assert forget_mask(pairs, {"concepts": ["dog", "bird"]}).tolist() == [True, False, True, False]
    classes = captioned(["a", "b", "c"], ["dog", "cat", "bird"], [0, 1, 2])
    assert forget_mask(classes, {"concepts": ["bird", "dog"]}).tolist() == [True, False, True]


def test_composed_letters_in_class_names_and_patterns_are_the_same():
    pairs = captioned(["a cafe\u0301", "a bar"], ["caf\u00e9", "bar"], [0, 1])
    for rule in ({"concept": "cafe\u0301"}, {"classes": ["caf\u00e9"]}):
        assert forget_mask(pairs, rule).tolist() == [True, False]
    assert forget_mask(replace(pairs, class_names=[]), {"caption_pattern": "CAFE\u0301$"}).tolist() == [True, False]
    assert near_misses(pairs, {"concept": "cafe\u0301"}) == []


def test_a_class_by_its_exact_name_comes_before_one_of_another_spelling():
    pairs = captioned(["a", "b", "c"], ["m\u00b2", "m2", "m3"], [0, 1, 2])
    for name, expected in (("m\u00b2", 0), ("m2", 1), ("\uff4d2", 1)):  # the last one is of full width
        assert forget_mask(pairs, {"concept": name}).nonzero().tolist() == [[expected]]


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"concept": "a", "plural": "yes"}, "give true or false for plural"),
        ({"classes": ["a"], "case": True}, "case go with concept or concepts only"),
        ({"concept": "a", "concepts": ["b"]}, "give one of"),
        ({"concepts": "a"}, "give a list of strings"),
        ({"concept": " "}, "holds a blank text"),
        ({"concept": "a", "colour": 1}, "give one of"),
    ],
)
def test_rules_that_say_two_things_or_nothing_are_refused(rule, message):
    with pytest.raises(CliperaseError, match=message):
        forget_mask(captioned(["a", "b"]), rule)


def test_an_expression_that_would_take_years_is_stopped(monkeypatch):
    monkeypatch.setattr("cliperase.data.rules.MOST_SECONDS", 0.05)
    pairs = captioned(["a lamp", "a" * 60 + "!"])
    with pytest.raises(CliperaseError, match=r"takes more than 0.05 s on the caption .*without repeats within repeats"):
        forget_mask(pairs, {"caption_pattern": "(a|aa)+$"})
    assert forget_mask(pairs, {"caption_pattern": "a{3,}"}).tolist() == [False, True]


def test_what_was_nearly_matched_is_said():
    pairs = captioned(["an apple", "two apples", "pineapples", "red apples", "a lamp"])
    (note,) = near_misses(pairs, {"concept": "apple"})
    assert "3 of 5 captions hold the word only within another" in note
    assert "apples (2), pineapples (1)" in note
    assert near_misses(pairs, {"concept": "apple", "plural": True})[0].endswith("pineapples (1)")
    assert near_misses(pairs, {"concept": "lamp"}) == []
    (note,) = near_misses(captioned(["a", "b", "c"], ["apple", "Apple logo", "lamp"], [0, 1, 2]), {"concept": "apple"})
    assert note == "classes that hold the word and are kept: Apple logo"


def test_a_word_of_several_that_no_caption_holds_is_said():
    pairs = captioned(["an apple", "a lemon", "a lamp"])
    said = "no caption to forget holds {}; correct it, or take it out"
    assert near_misses(pairs, {"concepts": ["apple", "lemno"]}) == [said.format("'lemno'")]
    assert near_misses(pairs, {"concepts": ["lemons", "lemon", "Apples"]}) == [said.format("'lemons', 'Apples'")]
    assert near_misses(pairs, {"concepts": ["lemon", "apple", "apple"]}) == []
    assert near_misses(captioned(["an apple", "apples"]), {"concepts": ["apple", "pear"]})[1] == said.format("'pear'")


def test_a_class_of_several_without_rows_is_said():
    pairs = captioned(["a", "b", "c"], ["apple", "lamp", "plum"], [0, 1, 1])
    (note,) = near_misses(pairs, {"classes": ["plum", "apple"]})
    assert note == "no row is of the class 'plum'; take it out, or add such rows"
    assert near_misses(pairs, {"classes": ["apple"]}) == []


@pytest.mark.parametrize(
    ("pairs", "concept", "message"),
    [
        (captioned(["a", "b"], ["apple", "lamp"], [0, 1]), "aple", "matches no row; the nearest are 'apple', by exact"),
        (captioned(["a", "b"], ["apple", "lamp"], [0, 1]), "Apple", "the nearest are 'apple'"),
        (captioned(["a", "b"], ["sweet pepper", "lamp"], [0, 1]), "pepper", "the nearest are 'sweet pepper'"),
        (captioned(["two apples", "b"]), "apple", r"matches no row of 2; .*within another.*: apples \(1\)"),
        (captioned(["an apple", "b"]), "appel", "the nearest words of the captions are 'apple'"),
        (captioned(["APPLE pie", "b"]), "zebra", "matches no row of 2; correct it, or add such rows$"),
    ],
)
def test_a_concept_that_matches_nothing_names_what_is_near(pairs, concept, message):
    with pytest.raises(CliperaseError, match=message):
        forget_mask(pairs, {"concept": concept})


@pytest.fixture
def three_splits(tmp_path):
    for number, split in enumerate(("train", "validation", "test")):
        colours(tmp_path, (number, 0), split=split, numbers=range(8))
    return tmp_path


def test_unknown_row_hashes_are_counted(three_splits):
    known = load_pairs(three_splits, "train").row_hashes[:1] + load_pairs(three_splits, "test").row_hashes[:1]
    training = load_training(three_splits, {"rows": known}, square(32), TrainSettings())
    assert training.rows == {"forget": 1, "retain": 7}
    for rows, message in (
        (
            [*known, "0" * 12],
            "1 of the 3 row hashes of the forget rule are of no row in .* is '000000000000'",
        ),
        (["b", *known, "a"], "2 of the 4 row hashes .* the first is 'b'"),
    ):
        for load in (
            lambda rule: load_training(three_splits, rule, square(32), TrainSettings()),
            lambda rule: load_split(three_splits, "test", rule, square(32)),
        ):
            with pytest.raises(CliperaseError, match=message):
                load({"rows": rows})


def test_rows_of_training_alone_may_be_forgotten_and_retention_selects(three_splits, model_folder):
    rule = {"rows": load_pairs(three_splits, "train").row_hashes[:3]}
    pairs, forgotten = load_split(three_splits, "validation", rule, square(32))
    assert not forgotten.any()
    rows, before = (load_model(model_folder), pairs, forgotten), {"retain_accuracy": 100.0}
    metrics = task_of(pairs).validate(*rows, before)
    assert metrics["score"] == metrics["retain_accuracy"]  # of 100 that the original is said to have
    assert "remaining" not in metrics
    report = unlearn(model_folder, three_splits, rule, settings={"steps": 2, "learning_rate": 1e-3, "forget_batch": 2})
    assert report["rows"] == {"forget": 3, "retain": 5}
    with pytest.raises(
        CliperaseError, match="SLUG searches its step on validation rows to forget; the rule matches none"
    ):
        unlearn(model_folder, three_splits, rule, "SLUG", settings={"forget_batch": 2, "retain_batch": 4})
    with pytest.raises(CliperaseError, match="matches no row of 8; correct it, or add such rows"):
        load_training(
            three_splits, {"rows": load_pairs(three_splits, "test").row_hashes[:1]}, square(32), TrainSettings()
        )


def test_near_misses_are_said_when_training_starts(three_splits, shards, caplog):
    load_training(three_splits, {"concept": "apple"}, square(32), TrainSettings())
    assert not caplog.text
    rows = caption_rows([(n, text) for n, text in enumerate(["an apple", "two apples", "a lamp"])])
    for split in ("train", "validation"):
        write_rows(three_splits / "words", rows, split)
    load_training(three_splits / "words", {"concept": "apple"}, square(32), TrainSettings())
    assert "1 of 3 captions hold the word only within another" in caplog.text
    load_split(three_splits / "words", "validation", {"concepts": ["apple", "pear"]}, None)
    assert "split 'validation': no row is of ['pear'], so that nothing there tells" in caplog.text
    load_training(shards, {"concepts": ["apple", "pear"]}, square(32), TrainSettings(retain_batch=8))
    assert "no caption to forget holds 'pear'; correct it, or take it out" in caplog.text
    caplog.clear()
    load_training(shards, {"concepts": ["apple", "pear"]}, square(32), TrainSettings(retain_batch=8), 1)
    assert not caplog.text  # not all were read
    with pytest.raises(CliperaseError, match=r"matches none or all .*: apple"):
        load_training(shards, {"concept": "appl"}, square(32), TrainSettings(retain_batch=8))
