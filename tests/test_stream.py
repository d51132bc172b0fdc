"""Shards, tar files or row groups: what is read, in which order, what is left out, and that a run on them is one run
however it is cut."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from contextlib import nullcontext

import pyarrow.parquet as pq
import pytest
import torch
from conftest import CLASSES, cases, killed_at, picture, square, write_parquet, write_shard
from hypothesis import given
from hypothesis import strategies as st
from inputs import sample, saved
from PIL import Image

from cliperase.api import evaluate, unlearn
from cliperase.cli import main
from cliperase.data.row_groups import parquet_set
from cliperase.data.rules import Wanted
from cliperase.data.shards import Decoder, Stream, collect, load_forget, load_shards, samples_of, shards_of
from cliperase.data.source import Shards, Tables, is_sharded, load_run, load_split, open_source
from cliperase.errors import CliperaseError
from cliperase.methods.fine_tune import FineTune
from cliperase.models import load_model
from cliperase.settings import TrainSettings
from cliperase.training import PairTraining

RULE = {"concept": "apple"}
SETTINGS = {"steps": 4, "learning_rate": 1e-3, "forget_batch": 4, "retain_batch": 8, "evaluate_every": 2, "lanes": 4}


def numbers(captions):
    return [int(caption.split()[-1]) for caption in captions]


def read(stream, steps):
    return [stream.rows(step, 0, None) for step in range(steps)]


def test_the_last_shards_are_for_test_and_validation(shards):
    assert is_sharded(shards)
    assert not is_sharded(shards / "00000.tar")
    assert not is_sharded("ViT-B-32/openai")
    assert [path.name for path in shards_of(shards, "validation") + shards_of(shards, "test")] == [
        "00008.tar",
        "00009.tar",
    ]
    assert len(shards_of(shards, "train")) == 8


def test_braces_name_some_shards_of_a_folder(shards, tmp_path, monkeypatch):
    some = f"{shards}/{{00002..00006}}.tar"
    assert is_sharded(some)
    assert [[path.name for path in shards_of(some, split)] for split in ("train", "validation", "test")] == [
        ["00002.tar", "00003.tar", "00004.tar"],
        ["00005.tar"],
        ["00006.tar"],
    ]
    with pytest.raises(CliperaseError, match=r"2 of the 3 shards of .* are not there, the first is .*00010\.tar"):
        shards_of(f"{shards}/{{00009..00011}}.tar", "train")
    for name, number in (("train", 1), ("train", 2), ("val", 3)):
        (tmp_path / name).mkdir(exist_ok=True)
        shutil.copy(shards / f"0000{number}.tar", tmp_path / name)
    monkeypatch.chdir(tmp_path)
    by_name = "{train/0000{1,2},val/00003}.tar"
    assert [len(shards_of(by_name, split)) for split in ("train", "validation")] == [2, 1]
    (tmp_path / "{a,b}.tar").mkdir()
    assert not is_sharded("{a,b}.tar")  # a folder of that name, which holds none


def test_a_sample_is_its_picture_and_caption(shards):
    pairs, forgotten = load_shards(shards, "validation", RULE, square(16))
    assert pairs.images.shape == (40, 3, 16, 16)
    assert pairs.images.dtype == torch.uint8
    assert numbers(pairs.texts[i] for i in pairs.text_ids[:, 0].tolist()) == list(range(200, 240))
    assert forgotten.tolist() == [number % 4 == 0 for number in range(200, 240)]
    assert pairs.sources[3] == "00008.tar/000000203"
    mean = pairs.images[1].double().mean(dim=(1, 2)).tolist()
    assert mean == pytest.approx(CLASSES["lemon"], abs=12)


def test_what_is_to_forget_is_found_in_all_training_shards(shards):
    pairs = load_forget(shards, RULE, square(16))
    assert sorted(numbers(pairs.texts)) == list(range(0, 128, 4))


@pytest.mark.parametrize("lanes", [1, 2, 8])
def test_an_epoch_is_every_other_row_once_in_an_order_of_the_seed(lanes, shards):
    kept = [number for number in range(128) if number % 4]
    orders = []
    for seed in (0, 1):
        stream = Stream(shards, RULE, square(16), TrainSettings(retain_batch=8, seed=seed, lanes=lanes))
        batches = read(stream, len(kept) // 8)
        assert all(images.shape == (8, 3, 16, 16) for images, _ in batches)
        orders.append([number for _, captions in batches for number in numbers(captions)])
        assert sorted(orders[-1]) == kept
        following = [number for _, captions in read(stream, len(kept) // 8) for number in numbers(captions)]
        assert sorted(following) == kept
        assert following != orders[-1]
    assert orders[0] != orders[1]


def test_images_belong_to_their_captions(shards):
    for images, captions in read(Stream(shards, RULE, square(8), TrainSettings(retain_batch=8, lanes=2)), 3):
        for image, number in zip(images, numbers(captions), strict=True):
            colour = list(CLASSES.values())[number % 4]
            assert image.double().mean(dim=(1, 2)).tolist() == pytest.approx(colour, abs=15)


@given(steps=st.integers(0, 30))
def test_a_stream_goes_on_where_it_was(steps, shards):
    whole = Stream(shards, RULE, square(4), TrainSettings(retain_batch=8, lanes=2))
    batches = read(whole, steps + 2)
    cut = Stream(shards, RULE, square(4), TrainSettings(retain_batch=8, lanes=2))
    read(cut, steps)
    resumed = Stream(shards, RULE, square(4), TrainSettings(retain_batch=8, lanes=2))
    resumed.seek(json.loads(json.dumps(cut.tell())))
    for (images, captions), (other, said) in zip(read(resumed, 2), batches[steps:], strict=True):
        assert captions == said
        assert torch.equal(images, other)


def broken_shards(folder):
    """Four training shards of 40, two samples of each broken: one without a picture, one without a caption."""
    for shard in range(4):
        write_shard(folder / f"{shard}.tar", range(40), broken=[5], silent=[6])
    for shard in (4, 5):
        write_shard(folder / f"{shard}.tar", range(40))
    return folder


def test_broken_samples_are_counted_and_left_out(tmp_path, monkeypatch):
    stream = Stream(broken_shards(tmp_path), RULE, square(8), TrainSettings(retain_batch=4, lanes=2))
    kept = [number for number in range(40) if number % 4 and number not in (5, 6)]
    assert sorted(number for _, captions in read(stream, 28) for number in numbers(captions)) == sorted(4 * kept)
    read(stream, 1)  # the next epoch's first rows: the whole of the one before has been read
    assert stream.broken() >= 8
    monkeypatch.setattr("cliperase.data.shards.FEWEST", 100)
    stream = Stream(tmp_path, RULE, square(8), TrainSettings(retain_batch=4, lanes=2))
    with pytest.raises(CliperaseError, match=r"2 of \d+ samples are broken, the last is \d.tar, key 00000000[56]"):
        read(stream, 28)


@cases(20)
@given(cut=st.integers(0, 60))
def test_a_resumed_stream_has_counted_the_same(cut, tmp_path_factory):
    folder = broken_shards(tmp_path_factory.mktemp("broken"))
    whole, resumed = (
        Stream(folder, RULE, square(4), TrainSettings(retain_batch=4, lanes=2, broken_percent=10.0)) for _ in range(2)
    )
    read(whole, cut)
    resumed.seek(json.loads(json.dumps(whole.tell())))
    assert [captions for _, captions in read(whole, 10)] == [captions for _, captions in read(resumed, 10)]
    assert whole.tell() == resumed.tell()
    assert whole.broken() == resumed.broken()


@given(part=st.floats(0, 0.99))
def test_a_truncated_shard_is_named_wherever_it_is_cut(part, shards, tmp_path_factory):
    content, cut = (shards / "00000.tar").read_bytes(), tmp_path_factory.mktemp("cut") / "0.tar"
    content = content.rstrip(b"\0")
    cut.write_bytes(content[: int(part * len(content))])
    with pytest.raises(CliperaseError, match=r"0.tar cannot be read to its end \(.+\); fetch it again") as error:
        list(samples_of([cut]))
    assert "\n" not in str(error.value)


@given(member=st.integers(0), junk=st.sampled_from([bytes(512), b"x" * 512]))
def test_a_damaged_header_is_named_wherever_it_is(member, junk, shards, tmp_path_factory):
    """tarfile itself would end there, and what follows would be missing without a word."""
    with tarfile.open(shards / "00000.tar") as tar:
        headers = [one.offset for one in tar]
    at, damaged = headers[member % len(headers)], tmp_path_factory.mktemp("damaged") / "0.tar"
    content = bytearray((shards / "00000.tar").read_bytes())
    content[at : at + 512] = junk
    damaged.write_bytes(content)
    with pytest.raises(CliperaseError, match=r"0.tar cannot be read to its end \(.+\); fetch it again"):
        list(samples_of([damaged]))


def test_what_is_said_of_a_shard_is_no_sample(shards, tmp_path):
    shutil.copy(shards / "00000.tar", tmp_path / "0.tar")
    with tarfile.open(tmp_path / "0.tar", "a") as tar:
        tar.addfile(tarfile.TarInfo("__meta__/of-the-shard.json"))
    keys = [sample["__key__"] for sample in samples_of([tmp_path / "0.tar"])]
    assert keys == [f"{number:09d}" for number in range(16)]


def test_what_cannot_be_streamed_is_said(shards, tmp_path):
    (tmp_path / "0.tar").write_bytes(b"")
    with pytest.raises(CliperaseError, match="holds 1 shards; give three"):
        shards_of(tmp_path, "train")
    with pytest.raises(CliperaseError, match="split 'heldout'"):
        shards_of(shards, "heldout")
    for about, said in (({"lanes": 9}, "8 training shards"), ({"lanes": 3}, "retain_batch of 8")):
        with pytest.raises(CliperaseError, match=said):
            Stream(shards, RULE, square(8), TrainSettings(retain_batch=8, **about))
    with pytest.raises(CliperaseError, match="what is streamed has captions only; give concept, concepts or"):
        Stream(shards, {"classes": ["apple"]}, square(8), TrainSettings(retain_batch=8))
    with pytest.raises(CliperaseError, match="matches none or all"):
        load_forget(shards, {"concept": "zebra"}, square(8))
    with pytest.raises(CliperaseError, match="lane 0 found no pair"):
        read(Stream(shards, {"caption_pattern": "number"}, square(8), TrainSettings(retain_batch=8, lanes=1)), 1)


def test_pictures_of_other_kinds_are_read_and_what_is_none_is_told(tmp_path, caplog):
    for suffix, found in (("gif", True), ("heic", False)):
        folder = tmp_path / suffix
        folder.mkdir()
        for shard in range(3):
            names = [f"{shard}{n}" for n in range(4)]
            files = [(f"{n}.{suffix}", saved(Image.new("L", (8, 8), 9 * int(n)), "GIF")) for n in names]
            files += [(f"{n}.txt", (b"an apple", b"a plum")[int(n) % 2]) for n in names]
            (folder / f"{shard}.tar").write_bytes(sample(dict(sorted(files))))
        with nullcontext() if found else pytest.raises(CliperaseError, match="matches none or all of the rows"):
            assert len(load_split(folder, "test", {"concept": "apple"}, square(8))[0]) == 4
        assert ("4 of 4 samples are left out as broken, the first is" in caplog.text) != found


def test_most_rows_of_a_kind_are_held(shards):
    pairs, matches = collect(shards_of(shards, "train"), Wanted(RULE), Decoder(square(8), 1.0), 3, 5)
    assert (int(matches.sum()), len(pairs)) == (3, 8)


def test_unlearning_in_a_stream_and_a_killed_run_is_the_run(shards, model_folder, tmp_path):
    report = unlearn(model_folder, shards, RULE, settings=SETTINGS, output=tmp_path / "whole")
    assert report["rows"] == {"forget": 32, "retain": "streamed", "broken": 0}
    assert [set(entry) for entry in report["log"]] == [{"step", "FM", "RM", "CM", "validation"}] * 2
    whole = load_model(tmp_path / "whole").state_dict()
    assert any(not torch.equal(value, whole[name]) for name, value in load_model(model_folder).state_dict().items())

    with killed_at(3):
        unlearn(model_folder, shards, RULE, settings=SETTINGS, output=tmp_path / "cut")
    assert (tmp_path / "cut" / "checkpoint.pt").exists()
    unlearn(model_folder, shards, RULE, settings=SETTINGS, output=tmp_path / "cut")
    for name, value in load_model(tmp_path / "cut").state_dict().items():
        assert torch.equal(value, whole[name]), name
    found = evaluate(tmp_path / "whole", shards, RULE)
    assert {"forget_matching_accuracy@16", "retain_matching_accuracy@16"} <= set(found)


def test_methods_that_need_all_rows_say_so(shards, model_folder):
    with pytest.raises(CliperaseError, match="ENMN replaces the data"):
        unlearn(model_folder, shards, RULE, "ENMN", settings=SETTINGS)
    with pytest.raises(CliperaseError, match="augment is for sets in memory"):
        PairTraining(
            load_model(model_folder),
            FineTune(),
            TrainSettings(augment=True),
            Stream(shards, RULE, square(32), TrainSettings(retain_batch=8)),
        )


def test_two_processes_read_the_rows_of_one(shards, model_folder, tmp_path):
    """Each reads its lanes only; the losses are those of a single process.

    The rate is low, because Adam turns the rounding of a gradient near zero into a whole step: the gradients themselves
    are compared in test_parallel.
    """
    settings, said = SETTINGS | {"evaluate_every": 1, "steps": 3, "learning_rate": "1.0e-5"}, []
    for count in (1, 2):
        run = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
        command = ["-m", "cliperase.cli", "unlearn", "--no-audit", "--model", str(model_folder), "--data", str(shards)]
        command += ["--forget", "apple", "--output", str(tmp_path / str(count)), "--set"]
        command += [f"{name}={value}" for name, value in settings.items()]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        done = subprocess.run([*run, *command], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        said.append(json.loads(done.stdout))
    for entry, other in zip(said[0]["log"], said[1]["log"], strict=True):
        terms = {name: entry[name] for name in ("FM", "RM", "CM")}
        assert terms == pytest.approx({name: other[name] for name in terms}, abs=1e-5)
    before, *made = (load_model(folder).state_dict() for folder in (model_folder, tmp_path / "1", tmp_path / "2"))
    for after in made:
        assert any(not torch.equal(value, before[name]) for name, value in after.items())


def test_the_command_says_in_one_line_what_a_shard_lacks(shards, model_folder, tmp_path, capsys):
    for shard in shards.glob("*.tar"):
        (tmp_path / shard.name).write_bytes(shard.read_bytes()[:30000])
    code = main(["unlearn", "--no-audit", "--model", str(model_folder), "--data", str(tmp_path), "--forget", "apple",
                 "--set", "steps=2", "learning_rate=1.0e-3", "--output", str(tmp_path / "out")])  # fmt: skip
    assert code == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("cliperase: shard")
    assert "cannot be read to its end" in said


STREAMED = TrainSettings(retain_batch=8, lanes=4, stream=True)


def test_parquet_files_give_the_rows_of_shards(row_groups):
    source = parquet_set(row_groups)
    assert [str(one.name) for one in shards_of(source, "train")][4:6] == [
        "train-00000-of-00002.parquet, row group 4",
        "train-00001-of-00002.parquet, row group 0",
    ]
    pairs = load_forget(source, RULE, square(16))
    assert sorted({number for text in pairs.texts for number in numbers([text])}) == list(range(0, 128, 4))
    assert pairs.sources[-1] == "train-00001-of-00002.parquet/44"
    batches = read(Stream(source, RULE, square(8), STREAMED), 12)
    kept = [number for _, captions in batches for number in numbers(captions)]
    assert sorted(kept) == [number for number in range(128) if number % 4]
    for images, captions in batches[:3]:
        for image, number in zip(images, numbers(captions), strict=True):
            colour = list(CLASSES.values())[number % 4]
            assert image.double().mean(dim=(1, 2)).tolist() == pytest.approx(colour, abs=15)


def test_a_step_draws_the_caption_that_it_asks_for(row_groups):
    streams = [Stream(parquet_set(row_groups), RULE, square(8), STREAMED) for _ in range(2)]
    (_, first), (_, second) = streams[0].rows(0, 0, None), streams[1].rows(0, 3, None)
    assert all(caption.startswith("a ") for caption in first)
    assert all(caption.startswith("again ") for caption in second)
    assert numbers(first) == numbers(second)


def in_memory_and_streamed(folder, rule, framing):
    """[(validation rows, forget rows) as {row hash: (its texts, whether it is forgotten)}], and the two trainings."""
    found = [load_run(folder, rule, framing, STREAMED.model_copy(update={"stream": one})) for one in (False, True)]

    def rows(pairs, mask):
        texts = [sorted({pairs.texts[i] for i in ids}) for ids in pairs.text_ids.tolist()]
        return dict(zip(pairs.row_hashes, zip(texts, mask.tolist(), strict=True), strict=True))

    return [(rows(pairs, mask), set(training.forget.row_hashes)) for pairs, mask, training in found], found


def test_what_is_streamed_is_validated_on_and_forgets_the_rows_of_memory(row_groups):
    (memory, stream), found = in_memory_and_streamed(row_groups, RULE, square(16))
    assert stream == memory
    assert [training.streamed for *_, training in found] == [False, True]


def labelled(folder, rows=120, label="label", **more):
    """Parquet files with the columns `img`, bytes, and `label`, a text, without a validation split."""
    names = ["apple", "apple_pie", "leaf", "plum"]
    for split, first in (("train", 0), ("test", 500)):
        pictures = [picture((40 * (number % 4), 90, 40), first + number) for number in range(rows)]
        labels = [names[number % 4] for number in range(rows)]
        columns = {"img": pictures, label: labels, **(more if split == "train" else {})}
        write_parquet(folder / f"{split}.parquet", columns)
    return folder


def test_classes_and_a_held_out_split_are_those_of_memory(tmp_path, caplog):
    folder = labelled(tmp_path, caption=[f"number {number}" for number in range(120)])
    (memory, stream), found = in_memory_and_streamed(folder, {"concept": "apple"}, square(16))
    assert stream == memory
    assert len(memory[0]) == 24
    assert caplog.text.count("classes that hold the word and are kept: apple pie") == 2
    validation, mask, training = found[1]
    assert validation.class_names == ["apple", "apple pie", "leaf", "plum"]
    assert [validation.class_names[i] for i in validation.labels[mask].unique()] == ["apple"]
    held = {number for texts, _ in memory[0].values() for text in texts for number in re.findall(r"number (\d+)", text)}
    captions = [caption for _, own in (training.retain.rows(step, 1, None) for step in range(18)) for caption in own]
    seen = set(numbers(captions))
    assert len(seen) == 72
    assert not any(number % 4 == 0 or str(number) in held for number in seen)
    with pytest.raises(CliperaseError, match="concept 'pear' matches no row"):
        load_run(folder, {"concept": "pear"}, square(16), STREAMED)


def test_names_of_classes_beside_their_numbers_are_found_in_memory_and_streamed(tmp_path):
    folder = labelled(tmp_path, label="class")
    for path in folder.glob("*.parquet"):
        table = pq.read_table(path)
        pq.write_table(table.append_column("label", [[n % 4 for n in range(len(table))]]), path, row_group_size=16)
    (memory, stream), found = in_memory_and_streamed(folder, {"concept": "apple"}, square(16))
    assert stream == memory
    assert found[1][0].class_names == ["apple", "apple pie", "leaf", "plum"]


def test_streamed_rows_without_class_or_picture_are_broken(tmp_path):
    folder = labelled(tmp_path, rows=40)
    pictures = [None, b"x", *[picture((0, 90, 40), number) for number in range(4)]]
    labels = ["leaf", "apple", "plum", None, "apple", "leaf"]
    write_parquet(folder / "validation.parquet", {"img": pictures, "label": labels})
    settings = STREAMED.model_copy(update={"lanes": 2})
    pairs, mask, training = load_run(folder, {"classes": ["apple"]}, square(16), settings)
    assert (len(pairs), int(mask.sum()), len(training.forget)) == (3, 1, 10)


def test_a_split_too_large_for_memory_is_streamed(row_groups, data_folder, model_folder, monkeypatch, caplog):
    rows = parquet_set(row_groups)
    pixels = 3 * 40 * 48
    files = sum(path.stat().st_size for path in row_groups.glob("train-*"))
    assert rows.bytes_in_memory("train", square(16)) == files + 128 * pixels
    assert rows.bytes_in_memory() == rows.bytes_in_memory("train")
    assert isinstance(open_source(row_groups), Tables)
    assert "streamed" not in caplog.text
    monkeypatch.setattr("cliperase.data.row_groups.MOST", 100 * pixels)
    assert rows.bytes_in_memory("train", square(16)) == files + 128 * 3 * 16 * 16
    monkeypatch.setattr("cliperase.data.source.total_bytes", lambda: 3 * rows.bytes_in_memory("train") - 6)
    assert isinstance(open_source(row_groups), Shards)
    assert "would take 0.0 GB, more than a third of the memory of 0.0 GB, and are streamed" in caplog.text
    assert isinstance(open_source(row_groups, stream=False), Tables)
    assert isinstance(open_source(row_groups, split="test"), Tables)
    assert load_split(row_groups, "train", RULE, square(8))[1].sum() == 32
    with pytest.raises(CliperaseError, match="are streamed, and so measured by a rule"):
        load_split(row_groups, "train", None, None)
    with pytest.raises(CliperaseError, match=r"split 'heldout' of the shards in .* choose one of test, train, valid"):
        open_source(row_groups).load_split("heldout", RULE, square(8), 1.0)
    with pytest.raises(CliperaseError, match=r"stream is true, and data '.*' are neither shards nor whole parquet"):
        load_run([(picture((1, 2, 3), 0), "an apple")] * 2, RULE, square(8), STREAMED)


def test_unlearning_in_parquet_files_and_a_killed_run_is_the_run(row_groups, model_folder, tmp_path):
    settings = {**SETTINGS, "stream": True}
    report = unlearn(model_folder, row_groups, RULE, settings=settings, output=tmp_path / "whole")
    assert report["rows"] == {"forget": 32, "retain": "streamed", "broken": 0}
    with killed_at(3):
        unlearn(model_folder, row_groups, RULE, settings=settings, output=tmp_path / "cut")
    assert (tmp_path / "cut" / "checkpoint.pt").exists()
    unlearn(model_folder, row_groups, RULE, settings=settings, output=tmp_path / "cut")
    whole = load_model(tmp_path / "whole").state_dict()
    for name, value in load_model(tmp_path / "cut").state_dict().items():
        assert torch.equal(value, whole[name]), name


def test_a_damaged_row_group_is_named(tmp_path):
    content = {"image": [{"bytes": picture((9, 9, 9), n), "path": None} for n in range(32)],
               "captions": [[f"an apple, number {n}"] for n in range(32)]}  # fmt: skip
    for split in ("train", "validation"):
        write_parquet(tmp_path / f"{split}.parquet", content)
    damaged = bytearray((tmp_path / "train.parquet").read_bytes())
    page = pq.read_metadata(tmp_path / "train.parquet").row_group(1).column(0).data_page_offset
    damaged[page : page + 16] = bytes(16)
    (tmp_path / "train.parquet").write_bytes(damaged)
    with pytest.raises(CliperaseError, match=r"train.parquet, row group 1 cannot be read \(.+\); fetch it again"):
        list(samples_of(shards_of(parquet_set(tmp_path), "train")))
