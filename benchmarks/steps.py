"""Steps of training to compare: the library's, the bare one of the same model and batch, and the paper's plain loop.

A step is a function of its number. Seconds say little about another machine, so what is reported are ratios of steps
that took turns in one process.
"""

import copy
import time
from dataclasses import dataclass, replace
from functools import cache

import open_clip
import torch

from cliperase.data.pairs import PairSet
from cliperase.features import Original
from cliperase.loop import Loop
from cliperase.losses import consistency, forgetting, retention
from cliperase.methods import create_method
from cliperase.models import load_model
from cliperase.models.base import pick_device
from cliperase.models.compact import COMPACT
from cliperase.models.openclip import OpenCLIP, create_model
from cliperase.settings import TrainSettings
from cliperase.training import PairTraining
from cliperase.unlearning import embed

CLASSES = 75  # one of them is forgotten
MANY = 10**6  # steps, more than are ever taken


@dataclass(frozen=True)
class Task:
    """A model, the rows that it is to forget and to retain, with their embeddings, and how many a step takes."""

    model: OpenCLIP
    forget: PairSet
    retain: PairSet
    original: Original
    forget_batch: int
    retain_batch: int

    def copy(self):
        """The same with a model of its own, because a step changes it."""
        return replace(self, model=copy.deepcopy(self.model))


def create_task(model, forget_batch, retain_batch):
    """`model`: compact, an architecture of open_clip (random weights: a step takes as long), or as in `load_model`."""
    loaded = named_model(model).to(pick_device()).eval()
    forget = random_pairs(2 * forget_batch, 0, 1, loaded.framing.size)
    retain = random_pairs(4 * retain_batch, 1, CLASSES - 1, loaded.framing.size)
    return Task(loaded, forget, retain, embed(loaded, forget, retain), forget_batch, retain_batch)


@cache
def named_model(name):
    if name == "compact":
        return create_model(COMPACT)
    if name in open_clip.list_models():
        model = open_clip.get_model_config(name)
        pixels = {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD}
        return create_model(
            {"model_cfg": model, "preprocess_cfg": {**pixels, "size": model["vision_cfg"]["image_size"]}}
        )
    return load_model(name)


def random_pairs(rows, first_class, classes, size):
    """Random images with class captions: the cost of a step does not depend on what is on them."""
    texts = [f"a photo of a thing {i}" for i in range(first_class, first_class + classes)]
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


def library_training(task, method="CLIPErase", **settings):
    """What the library's loop trains, prepared as for a run of unlearning."""
    model, forget, retain = task.model, task.forget, task.retain
    batches = {"forget_batch": task.forget_batch, "retain_batch": task.retain_batch}
    settings = TrainSettings(steps=MANY, learning_rate=1e-4, **batches, **settings)
    model.narrow_vocabulary([*retain.texts, *forget.texts])
    return PairTraining(model, create_method(method, {}), settings, retain, forget, task.original)


def library_step(task, method="CLIPErase", **settings):
    """A step of unlearning by the library, from drawing rows to the weights."""
    return Loop(library_training(task.copy(), method, **settings)).step


def bare_step(task, **settings):
    """Forward, backward and Adam, and nothing else: the images and the distinct texts of one step of the library,
    already on the device, through the same towers in the same precision."""
    settings = {name: value for name, value in settings.items() if name != "resident"}  # as it is here in any case
    training = library_training(task.copy(), **settings)
    model, rows = training.model, training.draw(0)
    images = training.together(r.images for r in rows)
    tokens = model.tokenizer(sorted({text for r in rows for text in r.captions}))
    tokens = tokens[:, : int(tokens.argmax(dim=1).max()) + 1].to(model.device)  # the end token is the largest
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step(_):
        optimizer.zero_grad()
        with training.precision():
            image, text = training.image_tower(images), model.encode_tokens(tokens)
        (model.logit_scale * image.float() @ text.float().T).mean().backward()
        optimizer.step()

    return step


def plain_step(task):
    """The paper's loop as one would write it down: each batch through the towers by itself, every caption in full
    length however often it comes, the original beside the student in every step, Adam over all weights."""
    student = task.copy().model
    original = copy.deepcopy(student).requires_grad_(False)
    optimizer = torch.optim.Adam(student.parameters(), lr=1e-6)
    tokens = {id(pairs): student.tokenizer(pairs.texts) for pairs in (task.forget, task.retain)}

    def draw(pairs, count):
        rows = torch.randint(len(pairs), (count,))
        captions = pairs.text_ids[rows, 0]
        return (one.to(student.device) for one in (pairs.images[rows], tokens[id(pairs)][captions], captions))

    def embed_pairs(model, images, texts):
        return model.encode_image(images), model.model.encode_text(texts, normalize=True)

    def step(_):
        images, texts, _ = draw(task.forget, task.forget_batch)
        loss = 3 * forgetting(*embed_pairs(student, images, texts))
        images, texts, ids = draw(task.retain, task.retain_batch)
        after, scale = embed_pairs(student, images, texts), student.logit_scale
        with torch.no_grad():
            before = embed_pairs(original, images, texts)
        loss = loss + retention(*after, scale, ids, "diagonal")
        loss = loss + 3 * consistency(before, after, original.logit_scale)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


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
