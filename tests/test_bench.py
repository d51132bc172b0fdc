"""The steps that `make bench` compares: each does what it says, from memory and from shards."""

import pandas as pd
import pytest
import torch

from benchmarks.bench import COLUMNS, Case, page, timed
from benchmarks.steps import NOTHING, create_task, encode_tokens, named_model, shortened, tokens_of, write_shards
from cliperase.data.shards import Stream
from cliperase.settings import TrainSettings


@pytest.mark.parametrize("name", ["compact", "compact BLIP"])
def test_a_bare_step_encodes_what_the_library_encodes(name):
    model, texts = named_model(name), ["a photo of a thing 3", "a photo"]
    tokens = tokens_of(model, texts)
    assert shortened(model, tokens).shape[1] < tokens.shape[1]
    for read in (tokens, shortened(model, tokens)):
        assert torch.allclose(encode_tokens(model, read), model.encode_text(texts), atol=1e-5)


@pytest.mark.parametrize(("model", "streamed"), [("compact", True), ("compact BLIP", False)])
def test_a_case_gives_the_ratios_of_its_page(model, streamed, tmp_path):
    write_shards(tmp_path, 40, shards=10, rows=8)
    case = Case(model, 2, 8, side=40 if streamed else None, rounds=1, steps=1)
    rows = timed(case, tmp_path if streamed else None)
    found = {name: value for name, value, _ in rows}
    assert found["over bare"] == pytest.approx(found["library step"] / found["bare step"])
    assert found["plain loop over library"] == pytest.approx(found["plain loop step"] / found["library step"])
    assert ("over bare with teacher" in found) == streamed
    about = ("a case", model, "shards" if streamed else "memory", "2 + 8")
    text = page(pd.DataFrame([(*about, *row) for row in rows], columns=COLUMNS))
    assert f"| a case | 2 + 8 | {found['library step']:.1f} | {found['over bare']:.2f} |" in text


def test_the_shards_of_the_bench_have_a_caption_for_each_row(tmp_path):
    write_shards(tmp_path, 40, shards=3, rows=8)
    task = create_task("compact", 2, 8, tmp_path)
    stream = Stream(task.retain, NOTHING, task.model.framing, TrainSettings(retain_batch=8, lanes=1))
    images, captions = stream.rows(0, 0, None)
    assert images.shape == (8, 3, 32, 32)
    assert len(set(captions)) == 8
