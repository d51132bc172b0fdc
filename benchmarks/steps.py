"""Steps of training to compare: the library's, the bare one of the same model and batch, and the paper's plain loop.

A step is a function of its number. Seconds say little about another machine, so what is reported are ratios of steps
that took turns in one process. What is to be retained stands in memory, or is streamed from shards.
"""

import copy
import io
import time
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice
from pathlib import Path

import open_clip
import torch
import torch.nn.functional as F
import webdataset
from torchvision.transforms.functional import resize, to_pil_image

from cliperase.data.pairs import PairSet
from cliperase.data.shards import Stream
from cliperase.features import Features, LiveFeatures, Original
from cliperase.loop import Loop
from cliperase.losses import consistency, forgetting, retention
from cliperase.methods import create_method
from cliperase.models import load_model
from cliperase.models.base import ImageTextModel, pick_device
from cliperase.models.blip import BLIP
from cliperase.models.compact import COMPACT
from cliperase.models.openclip import create_model
from cliperase.settings import TrainSettings
from cliperase.training import PairTraining

CLASSES = 75  # one of them is forgotten
MANY = 10**6  # steps, more than are ever taken
NOTHING = {"caption_pattern": r"\bno caption says this\b"}  # of the shards: the forget set stands in memory
PICTURES = 64  # different ones in the shards; captions differ all


@dataclass(frozen=True)
class Task:
    """A model, the rows that it is to forget and to retain, with embeddings of those in memory, and how many a step
    takes. `retain` may be a folder of shards."""

    model: ImageTextModel
    forget: PairSet
    retain: PairSet | Path
    original: Original
    forget_batch: int
    retain_batch: int

    def copy(self):
        """The same with a model of its own, because a step changes it."""
        return replace(self, model=copy.deepcopy(self.model))


def create_task(model, forget_batch, retain_batch, shards=None, growth=1):
    """`model`: see `named_model`. `shards`: a folder of what is to be retained, else it stands in memory. `growth`: so
    many times the rows in memory.

    The original's embeddings are random, too: what a step costs does not depend on them.
    """
    loaded = named_model(model).to(pick_device()).eval()
    forget = random_pairs(2 * forget_batch * growth, 0, 1, loaded.framing.size)
    retain = shards or random_pairs(4 * retain_batch * growth, 1, CLASSES - 1, loaded.framing.size)
    known = [random_features(loaded, pairs) if isinstance(pairs, PairSet) else None for pairs in (forget, retain)]
    return Task(loaded, forget, retain, Original(*known, loaded.logit_scale.item()), forget_batch, retain_batch)


def random_features(model, pairs):
    with torch.no_grad():
        width = model.encode_text(pairs.texts[:1]).shape[1]
    return Features(*(F.normalize(torch.randn(count, width), dim=1) for count in (len(pairs), len(pairs.texts))))


@cache
def named_model(name):
    """`name`: compact, compact BLIP, an architecture of open_clip (random weights: a step takes as long), or as in
    `load_model`."""
    if name == "compact":
        return create_model(COMPACT)
    if name == "compact BLIP":
        from paper.small_blip import create_blip

        return create_blip(class_texts(0, CLASSES))[0]
    if name in open_clip.list_models():
        model = open_clip.get_model_config(name)
        pixels = {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD}
        return create_model(
            {"model_cfg": model, "preprocess_cfg": {**pixels, "size": model["vision_cfg"]["image_size"]}}
        )
    return load_model(name)


def class_texts(first, count):
    return [f"a photo of a thing {number}" for number in range(first, first + count)]


def random_pairs(rows, first_class, classes, size):
    """Random images with class captions: the cost of a step does not depend on what is on them."""
    texts = class_texts(first_class, classes)
    labels = torch.arange(rows) % classes
    return PairSet(
        images=torch.randint(0, 256, (rows, 3, *size), dtype=torch.uint8),
        texts=texts,
        text_ids=labels[:, None],
        labels=labels,
        class_names=texts,
        row_hashes=[str(i) for i in range(rows)],
        sources=["random"] * rows,
    )


def write_shards(folder, side, shards=12, rows=500):
    """Tar files of JPEGs of `side` pixels, soft as photographs are, each row with a caption of its own. The last two
    are not for training."""
    generator, encoded = torch.Generator().manual_seed(0), []
    for picture in torch.randint(0, 256, (PICTURES, 3, 16, 16), dtype=torch.uint8, generator=generator):
        file = io.BytesIO()
        to_pil_image(resize(picture, [side, side])).save(file, "JPEG", quality=95)
        encoded.append(file.getvalue())
    for shard in range(shards):
        with webdataset.TarWriter(str(Path(folder) / f"{shard:05d}.tar")) as tar:
            for number in range(shard * rows, (shard + 1) * rows):
                caption = f"a photo of a thing with the number {number}"
                tar.write({"__key__": f"{number:09d}", "jpg": encoded[number % PICTURES], "txt": caption})


def library_training(task, method="CLIPErase", **settings):
    """What the library's loop trains, prepared as for a run of unlearning."""
    model, forget, retain, original = task.model, task.forget, task.retain, task.original
    batches = {"forget_batch": task.forget_batch, "retain_batch": task.retain_batch}
    settings = TrainSettings(steps=MANY, learning_rate=1e-4, **batches, **settings)
    if isinstance(retain, PairSet):
        model.narrow_vocabulary([*retain.texts, *forget.texts])
    else:
        retain, original = (
            Stream(retain, NOTHING, model.framing, settings),
            replace(original, retain=LiveFeatures(model)),
        )
    return PairTraining(model, create_method(method, {}), settings, retain, forget, original)


def library_step(task, method="CLIPErase", **settings):
    """A step of unlearning by the library, from drawing rows to the weights."""
    return Loop(library_training(task.copy(), method, **settings)).step


def bare_step(task, teacher=False, **settings):
    """Forward, backward and Adam, and nothing else: the images and the distinct texts of one step of the library,
    already on the device, through the same towers in the same precision.

    `teacher`: before it the original reads the retain rows. Of rows that are streamed nobody knows its embeddings.
    """
    settings = {name: value for name, value in settings.items() if name != "resident"}  # as it is here in any case
    training = library_training(task.copy(), **settings)
    model, rows = training.model, training.draw(0)
    images = training.together(r.images for r in rows)
    tokens = shortened(model, tokens_of(model, sorted({text for r in rows for text in r.captions})))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    original = training.original.retain.model if teacher else None
    known = shortened(model, tokens_of(model, rows[-1].captions))

    def step(_):
        if original:
            with torch.no_grad(), training.precision():
                original.encode_image(images[-task.retain_batch :])
                encode_tokens(original, known)
        optimizer.zero_grad()
        with training.precision():
            image, text = training.image_tower(images), encode_tokens(model, tokens)
        (model.logit_scale * image.float() @ text.float().T).mean().backward()
        optimizer.step()

    return step


def tokens_of(model, texts):
    """(T, L) of T strings, in full length, on the device."""
    return model.tokenizer(texts).to(model.device)


def shortened(model, tokens):
    """The same without the padding that none of the texts needs."""
    if isinstance(model, BLIP):
        return tokens[:, : int((tokens != model.words.pad_token_id).sum(dim=1).max())]
    return tokens[:, : int(tokens.argmax(dim=1).max()) + 1]  # the end token is the largest


def encode_tokens(model, tokens):
    """(T, L) -> (T, D), L2-normalised."""
    if not isinstance(model, BLIP):
        return model.encode_tokens(tokens)
    mask = (tokens != model.words.pad_token_id).long()
    states = model.model.text_encoder(input_ids=tokens, attention_mask=mask, is_decoder=False).last_hidden_state
    return F.normalize(model.model.text_proj(states[:, 0]), dim=-1)


def plain_step(task):
    """The paper's loop as one would write it down: each batch through the towers by itself, every caption in full
    length however often it comes, the original beside the student in every step, Adam over all weights. Pictures of
    shards are decoded when they are needed."""
    student = task.copy().model
    original = copy.deepcopy(student).requires_grad_(False)
    optimizer = torch.optim.Adam(student.parameters(), lr=1e-6)
    draw_forget, draw_retain = (
        drawing(task, task.forget, task.forget_batch),
        drawing(task, task.retain, task.retain_batch),
    )

    def embed_pairs(model, images, tokens):
        return model.encode_image(images), encode_tokens(model, tokens)

    def step(_):
        images, tokens, _ = draw_forget()
        loss = 3 * forgetting(*embed_pairs(student, images, tokens))
        images, tokens, ids = draw_retain()
        after, scale = embed_pairs(student, images, tokens), student.logit_scale
        with torch.no_grad():
            before = embed_pairs(original, images, tokens)
        loss = loss + retention(*after, scale, ids, "diagonal")
        loss = loss + 3 * consistency(before, after, original.logit_scale)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def drawing(task, source, count):
    """A function that draws `count` rows of a set or of shards: (images, tokens, numbers of the captions)."""
    device = task.model.device
    if isinstance(source, PairSet):
        tokens = task.model.tokenizer(source.texts)

        def draw():
            rows = torch.randint(len(source), (count,))
            captions = source.text_ids[rows, 0]
            return [one.to(device) for one in (source.images[rows], tokens[captions], captions)]

        return draw
    decode = decoding(task, count)

    def draw_streamed():
        images, captions = decode()
        return images.to(device), tokens_of(task.model, captions), torch.arange(count, device=device)

    return draw_streamed


def decoding(task, count):
    """A function that reads and decodes `count` rows of the task's shards, in the thread that asks: images, texts."""
    settings = TrainSettings(retain_batch=count, lanes=1)
    (reader,) = Stream(task.retain, NOTHING, task.model.framing, settings).readers

    def decode(_=None):
        images, captions, _ = zip(*islice(reader, count), strict=True)
        return torch.stack(images), [own[0] for own in captions]

    return decode


def now():
    """Seconds, when all that a GPU was asked to do is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def seconds_per_step(step, count):
    start = now()
    for number in range(count):
        step(number)
    return (now() - start) / count


def take_turns(steps, rounds, count):
    """{name: seconds of a step in each round}: `count` steps of each in turn, after one of each for warming up."""
    for step in steps.values():
        seconds_per_step(step, 1)
    measured = [{name: seconds_per_step(step, count) for name, step in steps.items()} for _ in range(rounds)]
    return {name: [one[name] for one in measured] for name in steps}
