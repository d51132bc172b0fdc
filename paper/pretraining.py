"""Train the compact CLIP: from scratch, without a concept (the retrained reference), or on from another model.

`LossTraining` is the frame for the small models beside it that are no CLIP: the generator of pictures, BLIP, captioner.
"""

from abc import abstractmethod
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field

from cliperase.checkpoints import remove_checkpoint
from cliperase.data.pairs import load_pairs
from cliperase.data.rules import split_pairs
from cliperase.errors import CliperaseError
from cliperase.loop import Training, run_loop
from cliperase.methods.fine_tune import FineTune
from cliperase.metrics.tasks import task_of
from cliperase.models import load_model
from cliperase.models.base import pick_device
from cliperase.models.compact import model_config
from cliperase.models.openclip import create_model
from cliperase.settings import LoopSettings, TrainSettings, checked
from cliperase.training import PairTraining, total
from cliperase.unlearning import narrowed

THREADS = 2  # fixed, because another number of threads sums in another order and gives another model


def pretrain(data, output, settings, without=None, start=None):
    """Train a compact CLIP and save it as an open_clip folder. Resumes when killed.

    `settings`: those of the loop, and where they are not the compact model's, `architecture` and `image_size`.
    `without`: the forget rule of what is left out of training. `start`, a model folder, gives the first weights,
    because the image tower takes pictures of any size. Returns the validation quality, in percent, by the task of the
    data.
    """
    fix_threads()
    settings = dict(settings)
    kind = model_config(settings.pop("architecture", "compact"), settings.pop("image_size", None))
    settings = checked(TrainSettings, settings, "pretraining")
    retain, seen = load_pairs(data, "train"), load_pairs(data, "validation")
    if without:
        retain, seen = (split_pairs(pairs, without)[1] for pairs in (retain, seen))
    model = create_model(kind, settings.seed)
    if start:
        try:
            model.load_state_dict(load_model(start).state_dict())
        except RuntimeError as error:
            raise CliperaseError(f"model {start} is of another architecture ({error})") from None
    model.to(pick_device())

    def validate(model):
        return {"score": task_of(seen).quality(model, seen)}

    checkpoint = checkpoint_beside(output)
    with narrowed(model, retain):
        training = PairTraining(model, FineTune(), settings, retain, selected_on=seen.fingerprint())
        history = run_loop(training, validate, checkpoint)
    model.save(output)
    remove_checkpoint(checkpoint)
    return history.validation["score"]


def fix_threads():
    """On a CPU `THREADS` threads."""
    if pick_device().type == "cpu":
        torch.set_num_threads(THREADS)


def checkpoint_beside(output):
    """Where an unfinished training is kept: beside the folder `output`, which dvc clears."""
    return Path(output).with_name(f"{Path(output).name}.checkpoint.pt")


class LossTraining(Training):
    """A training whose gradients are those of a sum of losses. `start`: the `fingerprint` of what it starts from."""

    learns_statistics = True  # BatchNorm's, in training mode

    def __init__(self, model, settings, start):
        super().__init__(model, settings)
        self.start = start

    def identity(self):
        return super().identity() | {"model and data": self.start}

    @abstractmethod
    def loss(self, step):
        """{term: scalar tensor} of one step."""

    def backward(self, step):
        self.model.train(self.learns_statistics)
        terms = self.loss(step)
        total(terms).backward()
        return {name: value.detach() for name, value in terms.items()}


class AveragedSettings(LoopSettings):
    """Settings of the small models: a one-cycle schedule, and a moving average of the weights that is kept."""

    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    schedule: Literal["constant", "one-cycle"] = "one-cycle"
    rising: float = Field(default=0.1, gt=0, lt=1)
    clip_norm: float = Field(default=1.0, ge=0)
    averaging: float = Field(default=0.995, ge=0, lt=1)


def train_averaged(training, output):
    """Train to the end, from the checkpoint if there is one. Returns the mean loss since the last evaluation."""
    return sum(value for name, value in run_loop(training, None, checkpoint_beside(output)).log[-1].items()
               if name not in ("step", "validation"))  # fmt: skip
