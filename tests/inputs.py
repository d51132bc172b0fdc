"""Inputs as people bring them, built small."""

import io
import struct
import tarfile

import datasets
import numpy as np
import torch
from PIL import Image

from cliperase.data.pairs import PairSet, features_schema, write_split
from cliperase.data.pictures import Decoding, read_picture

RAMP = np.linspace(0, 65535, 1024).round().astype(np.uint16).reshape(32, 32)


def pixels(file, **decoding):
    return np.asarray(read_picture(file, decoding=Decoding(**decoding)))


def saved(picture, kind="PNG", **options):
    """The bytes of a picture file."""
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def tiff(values, sample_format, black=1):
    """A grey TIFF by hand, because Pillow writes few kinds. `black`: 1 where 0 is black, 0 where it is white."""
    height, width = values.shape
    tags = {256: width, 257: height, 258: 8 * values.itemsize, 259: 1, 262: black, 273: 0, 277: 1, 278: height,
            279: values.nbytes, 339: sample_format}  # fmt: skip
    tags[273] = 8 + 2 + 12 * len(tags) + 4  # where the values begin
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + values.tobytes()


def write_pictures(folder, files, split="train", captions=("a",)):
    rows = [{"image": {"bytes": one, "path": None}, "captions": list(captions), "source": ""} for one in files]
    write_split(datasets.Dataset.from_list(rows, features=features_schema()), folder, split)
    return folder


def write_rows(folder, rows, split="train"):
    """Rows {"image": bytes, None or a path, "captions": a list}."""
    full = [
        {"image": one["image"] if isinstance(one["image"], dict | None) else {"bytes": one["image"], "path": None},
         "captions": one["captions"], "source": ""}
        for one in rows
    ]  # fmt: skip
    write_split(datasets.Dataset.from_list(full, features=features_schema()), folder, split)
    return folder


def colours(folder, colour, numbers=range(4), split="train", names=("apple", "lamp"), file=None):
    """A labelled file of plain pictures, each of its own shade."""
    rows = [
        {"image": {"bytes": saved(Image.new("RGB", (8, 8), (*colour, n))), "path": None},
         "captions": [f"a photo of a {names[n % len(names)]}"], "label": n % len(names), "source": ""}
        for n in numbers
    ]  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    table = datasets.Dataset.from_list(rows, features=features_schema(list(names)))
    table.to_parquet(folder / (file or f"{split}-00000-of-00001.parquet"))
    return folder


def caption_rows(captions):
    """Rows of one caption each, (picture number, caption)."""
    return [{"image": saved(Image.new("RGB", (8, 8), (n, n, 0))), "captions": [text]} for n, text in captions]


def captioned(captions, class_names=(), labels=None):
    """A set of these captions, one an image."""
    texts = sorted(set(captions))
    return PairSet(
        images=torch.zeros(len(captions), 3, 2, 2, dtype=torch.uint8),
        texts=texts,
        text_ids=torch.tensor([[texts.index(one)] for one in captions]),
        labels=None if labels is None else torch.tensor(labels),
        class_names=list(class_names),
        row_hashes=[f"{n:012d}" for n in range(len(captions))],
        sources=[""] * len(captions),
    )


def sample(files):
    """Tar members {name: bytes} in order."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for name, one in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(one)
            tar.addfile(member, io.BytesIO(one))
    return content.getvalue()


SHAPE = saved(Image.new("RGB", (8, 8), (9, 9, 9)))


def word_tokenizer_of(texts):
    """A tokenizer of transformers, a token for each word. It ends and pads texts with </s>, as SigLIP's does."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = sorted({word for text in texts for word in text.lower().split()})
    vocabulary = {token: number for number, token in enumerate(["<unk>", "</s>", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    special = {"unk_token": "<unk>", "eos_token": "</s>", "pad_token": "</s>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=16, **special)
