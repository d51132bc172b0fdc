"""Train the compact CLIP: from scratch, without a concept (the retrained reference), or on from another model."""

from pathlib import Path

import torch

from cliperase.checkpoints import remove_checkpoint
from cliperase.datasets import load_pairs, split_pairs
from cliperase.encoders import COMPACT, create_model, load_model, pick_device
from cliperase.errors import CliperaseError
from cliperase.methods.fine_tune import FineTune
from cliperase.tasks import task_of
from cliperase.train import train, train_config

THREADS = 2  # sums in another order give another model: the same number on every machine


def pretrain(data, output, settings, without=None, start=None):
    """Train a compact CLIP and save it as an open_clip folder. Resumes when killed.

    `settings`: those of the loop, with `seed` and, where it is not the compact model's 32, `image_size`.
    `without` leaves a concept out of training. `start`, a model folder, gives the first weights, for the image
    tower takes pictures of any size. Returns the validation quality, in percent, by the task of the data.
    """
    if pick_device().type == "cpu":
        torch.set_num_threads(THREADS)
    settings = dict(settings)
    seed, size = settings.pop("seed", 0), settings.pop("image_size", COMPACT["preprocess_cfg"]["size"])
    config = train_config(settings, seed)
    retain, seen = load_pairs(data, "train"), load_pairs(data, "validation")
    if without:
        retain, seen = (split_pairs(pairs, {"concept": without})[1] for pairs in (retain, seen))
    model = create_model(sized(COMPACT, size), seed)
    if start:
        try:
            model.load_state_dict(load_model(start).state_dict())
        except RuntimeError as error:
            raise CliperaseError(f"model {start} is of another architecture than the compact one ({error})") from None
    model.to(pick_device())

    def validate(model):
        return {"score": task_of(seen).quality(model, seen)}

    output = Path(output)
    checkpoint = output.with_name(f"{output.name}.checkpoint.safetensors")  # outside `output`, which dvc clears
    history = train(model, FineTune(), retain, config, validate=validate, checkpoint=checkpoint)
    model.save(output)
    remove_checkpoint(checkpoint)
    return history.validation["score"]


def sized(config, image_size):
    """The model configuration for pictures of another size."""
    model = {**config["model_cfg"], "vision_cfg": {**config["model_cfg"]["vision_cfg"], "image_size": image_size}}
    return {"model_cfg": model, "preprocess_cfg": {**config["preprocess_cfg"], "size": image_size}}
