"""What is the same text to a model is the same text to the metrics; rows of one picture belong together."""

from dataclasses import replace

import from_hub
import pytest
import torch
from inputs import caption_rows, colours, write_rows

from cliperase.data.pairs import load_pairs
from cliperase.errors import CliperaseError
from cliperase.metrics.encode import encode_images, encode_texts, number_texts
from cliperase.metrics.scores import retrieval_recall
from cliperase.metrics.tasks import (
    MATCHING,
    RETRIEVAL,
    groups,
    matching_metrics,
    own_captions,
    retrieval_metrics,
    task_of,
)


@pytest.mark.parametrize(
    "names",
    [["Bass", "bass"], ["caf\u00e9", "cafe\u0301"], ["ice cream", "ice\u00a0 cream"], ["M&amp;M", "M&M"], ["a", " "]],
)
def test_names_that_a_tokenizer_takes_for_one_are_refused(names, tmp_path):
    with pytest.raises(CliperaseError, match=r"are the same prompt|has the name ' '; give it one"):
        load_pairs(colours(tmp_path, (0, 0), names=names), "train")


def test_names_that_become_one_when_they_are_converted_are_refused(tmp_path, capsys):
    for split in ("train", "validation", "test"):
        colours(tmp_path / "in", (0, 0), split=split, names=("ice_cream", "ice cream"))
    assert from_hub.main(["--source", str(tmp_path / "in"), "--label", "label", "--output", str(tmp_path / "out")]) == 2
    assert "are the same prompt to a model" in capsys.readouterr().err


def test_classes_that_differ_behind_the_length_of_a_text_are_told_by_the_model(tmp_path, base_model):
    long = "very " * 90
    pairs = load_pairs(colours(tmp_path, (0, 0), names=(f"{long}apple", f"{long}lamp")), "train")
    with pytest.raises(CliperaseError, match=r"the model reads .* as one text; merge the classes or rename one"):
        task_of(pairs).measure(base_model, pairs, pairs.labels == 0)


def test_texts_are_one_where_their_tokens_are(base_model):
    texts = ["a dog", "A  Dog", "a dog ", "a cat", f"a cat {'and ' * 90}a dog", f"a cat {'and ' * 90}a bird"]
    numbers = number_texts(base_model, texts).tolist()
    assert numbers[0] == numbers[1] == numbers[2]
    assert numbers[4] == numbers[5]
    assert len(set(numbers)) == 3


def test_captions_that_differ_by_case_and_blanks_are_no_rivals(tmp_path, base_model):
    """Forty ways to write two texts: against all rows, a picture that finds its text finds all the ways."""
    texts = [("a dog" if n % 2 else "a cat").replace(" ", " " * (1 + n)).upper() for n in range(40)]
    pairs = load_pairs(write_rows(tmp_path, caption_rows(list(enumerate(texts)))), "train")
    assert len(pairs.texts) == 40
    nothing = torch.zeros(40, dtype=torch.bool)
    plain = replace(pairs, texts=["a cat", "a dog"], text_ids=torch.arange(40)[:, None] % 2)
    found, expected = (matching_metrics(base_model, one, nothing) for one in (pairs, plain))
    assert found == pytest.approx(expected)
    assert found["retain_text_to_image_accuracy@all"] == 50  # both texts find the same picture first


LAYOUTS = {
    "one after the other": [(n // 5, f"{k} of {n // 5}") for n, k in zip(range(20), [0, 1, 2, 3, 4] * 4, strict=True)],
    "mixed": [(n % 4, f"{n // 4} of {n % 4}") for n in range(20)],
    "as many as there are": [(0, "0 of 0"), (0, "1 of 0"), (1, "0 of 1"), (2, "0 of 2"), (2, "1 of 2"), (2, "2 of 2")],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_of_one_picture_are_one_with_all_its_captions(layout, tmp_path, capsys):
    def check(folder):
        pairs = load_pairs(folder, "train")
        assert len(pairs) == len({n for n, _ in LAYOUTS[layout]})
        for row, ids in enumerate(pairs.text_ids.tolist()):
            assert {pairs.texts[i].split()[-1] for i in ids} == {str(row)}
        assert len(pairs.texts) == len(LAYOUTS[layout])
        assert task_of(pairs) is RETRIEVAL

    check(write_rows(tmp_path / "in", caption_rows(LAYOUTS[layout])))
    for split, number in (("validation", 100), ("test", 101)):
        write_rows(tmp_path / "in", caption_rows([(number, "a"), (number, "b")]), split)
    command = ["--source", str(tmp_path / "in"), "--captions", "captions", "--output", str(tmp_path / "out")]
    assert from_hub.main(command) == 0
    assert f"{len(LAYOUTS[layout])} rows show" in capsys.readouterr().out
    check(tmp_path / "out")
    command = ["--source", str(tmp_path / "in"), "--captions", "captions", "--output", str(tmp_path / "held")]
    assert from_hub.main([*command, "--validation", "1"]) == 0  # held out by picture
    train, validation = (load_pairs(tmp_path / "held", split) for split in ("train", "validation"))
    assert not set(train.row_hashes) & set(validation.row_hashes)


def test_a_few_repeated_pictures_do_not_make_matching_retrieval(tmp_path):
    rows = caption_rows([(n, f"number {n}") for n in range(20)] + [(3, "another of 3")])
    pairs = load_pairs(write_rows(tmp_path, rows), "train")
    assert len(pairs) == 20
    assert task_of(pairs) is MATCHING


def test_a_picture_in_several_rows_of_captions_is_one_candidate(tmp_path, base_model):
    """Three pictures, each in two rows of two captions: a query finds its picture in whichever row it stands."""
    rows = [{"image": one["image"], "captions": [f"{n} {k}", f"{n} {k} again"]}
            for k in range(2) for n, one in enumerate(caption_rows([(60 * n, "") for n in range(3)]))]  # fmt: skip
    pairs = load_pairs(write_rows(tmp_path, rows), "train")
    assert len(pairs) == 6
    alone = pairs.select(torch.arange(6) < 3)
    nothing = torch.zeros(6, dtype=torch.bool)
    found, expected = (retrieval_metrics(base_model, one, nothing[: len(one)]) for one in (pairs, alone))
    assert found["retain_text_retrieval_r@1"] >= expected["retain_text_retrieval_r@1"]  # more captions to find
    assert found["retain_image_retrieval_r@5"] == 100


def test_captions_that_fill_up_short_rows_do_not_count(tmp_path, base_model):
    """One picture has seven captions and the others five, as in COCO: nothing but these is asked and found."""
    said = [[f"{n} {word}" for word in ("red", "blue", "green", "old", "new")] for n in range(20)]
    said[0] += ["one more", "and another"]
    rows = [
        {**one, "captions": own} for one, own in zip(caption_rows([(12 * n, "") for n in range(20)]), said, strict=True)
    ]
    pairs = load_pairs(write_rows(tmp_path, rows), "train")
    image, text = encode_images(base_model, pairs.images), encode_texts(base_model, pairs.texts)
    owner = torch.tensor([n for n, own in enumerate(said) for _ in own])
    captions = text[[pairs.texts.index(one) for own in said for one in own]]
    forgotten = torch.arange(20) == 1
    found = retrieval_metrics(base_model, pairs, forgotten)
    for group, rows in groups(forgotten):
        recalls = retrieval_recall(image, captions, owner, rows)
        assert {name: found[f"{group}_{name}"] for name in recalls} == recalls
    own = captions[owner == 1]
    assert found["forget_cosine"] == pytest.approx((own @ image[1]).mean().item())
    assert found["unrelated_cosine"] == pytest.approx((image[~forgotten] @ own.T).mean().item())


def test_a_caption_that_a_row_was_given_twice_counts_twice():
    row, ids = own_captions(torch.tensor([[3, 1, 1, 2], [0, 0, 0, 0], [5, 6, 5, 6], [4, 5, 6, 4]]))
    assert row.tolist() == [0, 0, 0, 0, 1, 2, 2, 3, 3, 3]
    assert ids.tolist() == [3, 1, 1, 2, 0, 5, 6, 4, 5, 6]
