"""Train the compact CLIP: from scratch, without a concept (the retrained reference), or on from another model.

`Training` is the frame for the small models beside it that are no CLIP: the generator of pictures, and BLIP.
"""

from dataclasses import MISSING, asdict, fields
from pathlib import Path

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from cliperase.checkpoints import load_checkpoint, remove_checkpoint, save_checkpoint
from cliperase.data.pairs import load_pairs
from cliperase.data.rules import split_pairs
from cliperase.errors import CliperaseError
from cliperase.loop import check_finite, one_cycle, train
from cliperase.methods.fine_tune import FineTune
from cliperase.metrics.tasks import task_of
from cliperase.models import load_model
from cliperase.models.base import pick_device
from cliperase.models.compact import model_config
from cliperase.models.openclip import create_model
from cliperase.settings import is_number, train_config

EMA = 0.995  # of the weights of a `Training`
THREADS = 2  # sums in another order give another model: the same number on every machine


def pretrain(data, output, settings, without=None, start=None):
    """Train a compact CLIP and save it as an open_clip folder. Resumes when killed.

    `settings`: those of the loop, with `seed` and, where they are not the compact model's, `architecture` and
    `image_size`.
    `without` leaves a concept out of training. `start`, a model folder, gives the first weights, for the image
    tower takes pictures of any size. Returns the validation quality, in percent, by the task of the data.
    """
    fix_threads()
    settings = dict(settings)
    seed = settings.pop("seed", 0)
    kind = model_config(settings.pop("architecture", "compact"), settings.pop("image_size", None))
    config = train_config(settings, seed)
    retain, seen = load_pairs(data, "train"), load_pairs(data, "validation")
    if without:
        retain, seen = (split_pairs(pairs, {"concept": without})[1] for pairs in (retain, seen))
    model = create_model(kind, seed)
    if start:
        try:
            model.load_state_dict(load_model(start).state_dict())
        except RuntimeError as error:
            raise CliperaseError(f"model {start} is of another architecture ({error})") from None
    model.to(pick_device())

    def validate(model):
        return {"score": task_of(seen).quality(model, seen)}

    checkpoint = checkpoint_beside(output)
    history = train(model, FineTune(), retain, config, validate=validate, checkpoint=checkpoint)
    model.save(output)
    remove_checkpoint(checkpoint)
    return history.validation["score"]


def fix_threads():
    """On a CPU `THREADS` threads."""
    if pick_device().type == "cpu":
        torch.set_num_threads(THREADS)


def checkpoint_beside(output):
    """Where an unfinished training is kept: beside the folder `output`, which dvc clears."""
    return Path(output).with_name(f"{Path(output).name}.checkpoint.safetensors")


def configuration(kind, settings, where):
    """`settings`, a mapping, as the dataclass `kind` of numbers; what is unknown, missing or no number is named."""
    known = {field.name: field for field in fields(kind)}
    for name, value in settings.items():
        if name not in known:
            raise CliperaseError(f"{where} has no setting {name!r}; it has {', '.join(known)}")
        if not is_number(value) or (known[name].type is int and not isinstance(value, int)):
            raise CliperaseError(f"{where}: {name} is {value!r}; give a number, written 1.0e-3 in YAML, not 1e-3")
        least = 1 if known[name].type is int and name != "seed" else 0
        if value < least:
            raise CliperaseError(f"{where}: {name} is {value!r}; give at least {least}")
    missing = [name for name, field in known.items() if field.default is MISSING and name not in settings]
    if missing:
        raise CliperaseError(f"{where} needs a setting {missing[0]!r}; add it")
    return kind(**settings)


class Training:
    """Steps of AdamW under a one-cycle schedule, and a moving average of the weights, which is what is kept.

    A subclass defines `loss(step) -> scalar`. `config` has `steps`, `learning_rate`, `checkpoint_every` and `seed`;
    `start` is the `fingerprint` of what the run starts from, which a resumed one must share. The other names are those
    that `checkpoints.py` asks for.
    """

    position = None  # rows are a function of the step

    def __init__(self, model, config, start):
        self.model, self.config, self.settings = model, config, {**asdict(config), "model and data": start}
        self.generator = torch.Generator().manual_seed(config.seed)
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, fused=True)
        self.scheduler = one_cycle(self.optimizer, config, rising=0.1)
        self.averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(EMA))

    def run(self, output):
        """All steps that the checkpoint beside `output` leaves; then `model` has the averaged weights. Their losses."""
        checkpoint = checkpoint_beside(output)
        log, average, start, _ = load_checkpoint(checkpoint, self) or ([], None, 0, 0.0)
        if average:
            self.averaged.module.load_state_dict(average[2])
            self.averaged.n_averaged.fill_(start)
        self.model.train()
        bar = tqdm(range(start, self.config.steps), initial=start, total=self.config.steps)
        for step in bar:
            log.append(self.step(step))
            if (step + 1) % self.config.checkpoint_every == 0:
                bar.set_postfix(loss=f"{log[-1]:.3g}")
                average = (step + 1, 0.0, self.averaged.module.state_dict())
                save_checkpoint(checkpoint, self, log, average, step + 1, 0.0)
        self.model.load_state_dict(self.averaged.module.state_dict())
        self.model.eval()
        return log

    def step(self, step):
        """One step of the optimizer; its loss."""
        loss = self.loss(step)
        check_finite({type(self).__name__: loss.item()}, step)
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.scheduler.step()
        self.averaged.update_parameters(self.model)
        return loss.item()


def last_tenth(log):
    """Mean of the last tenth of the losses."""
    last = log[-max(1, len(log) // 10) :]
    return sum(last) / len(last)
