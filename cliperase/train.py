"""The only training loop: pretraining, unlearning, every method. It knows no data set and no method by name."""

import time
from dataclasses import asdict, dataclass

import torch
from tqdm import tqdm

from cliperase.checkpoints import load_checkpoint, save_checkpoint
from cliperase.datasets import EpochSampler
from cliperase.errors import CliperaseError
from cliperase.evaluate import encode_images, encode_texts
from cliperase.methods.batch import Batch, Pairs

SCHEDULES = ("constant", "one-cycle")
CAPTIONS = ("first", "random")


@dataclass(frozen=True)
class TrainConfig:
    """Settings of the loop, the same for all methods; the losses' settings are the method's own."""

    steps: int
    learning_rate: float
    forget_batch: int = 16
    retain_batch: int = 64
    weight_decay: float = 0.0
    schedule: str = "constant"
    captions: str = "first"  # which of an image's captions a step uses; "random" draws one column per step
    update_norm_statistics: bool = False  # BatchNorm in training mode: right for pretraining, not for unlearning
    evaluate_every: int = 20
    micro_batch: int = 0  # encode this many images at a time, same gradient; 0 is all at once
    seed: int = 0

    def __post_init__(self):
        for name, options in (("schedule", SCHEDULES), ("captions", CAPTIONS)):
            if getattr(self, name) not in options:
                raise CliperaseError(f"{name} {getattr(self, name)!r} unknown; choose one of {options}")
        for name in ("steps", "learning_rate", "retain_batch", "evaluate_every"):
            value = getattr(self, name)
            if isinstance(value, str) or not value > 0:
                raise CliperaseError(f"{name} is {value!r}; give a number above zero, for example 1.0e-4")


def train_config(settings, seed):
    """`TrainConfig` from a mapping; unknown keys are named."""
    unknown = set(settings) - set(TrainConfig.__dataclass_fields__)
    if unknown:
        raise CliperaseError(f"training has no setting {sorted(unknown)[0]!r}")
    return TrainConfig(**{**settings, "seed": seed})


@dataclass
class Features:
    """One model's embeddings of a `PairSet`: `image` (N, D), `text` (T, D) of its distinct `texts`."""

    image: torch.Tensor
    text: torch.Tensor

    @classmethod
    def of(cls, model, pairs):
        return cls(encode_images(model, pairs.images), encode_texts(model, pairs.texts))

    def select(self, mask):
        return Features(self.image[mask], self.text)


@dataclass
class Original:
    """What the losses need of the original model; computed once, so that it need not run every step."""

    forget: Features
    retain: Features
    logit_scale: float


@dataclass
class History:
    """`log`: one dict per evaluation (step, mean of each loss term since the last, validation metrics).
    `seconds`: training time without evaluation. `best_step`: the checkpoint that was kept."""

    log: list
    seconds: float
    best_step: int


def train(model, method, retain, config, forget=None, original=None, validate=None, checkpoint=None, progress=True):
    """Train `model` in place with `method.loss` and leave it at its best validated weights.

    `forget` and `retain` are `PairSet`s, drawn by two samplers; pretraining has only `retain`. `original`
    is `Original.of(...)` where the method uses it. `validate(model)` returns metrics with a `score`, higher
    is better; without it the last weights stay. `checkpoint`, a path, makes a killed run resume from its
    last evaluation to the same result. Returns `History`.
    """
    loop = Loop(model, method, retain, config, forget, original)
    state = load_checkpoint(checkpoint, loop) if checkpoint else None
    log, best, start, seconds = state or ([], None, 0, 0.0)
    since, clock = {}, time.perf_counter()
    bar = tqdm(range(start, config.steps), initial=start, total=config.steps, disable=not progress, leave=False)
    for step in bar:
        for name, value in loop.step(step).items():
            since.setdefault(name, []).append(value)
        if (step + 1) % config.evaluate_every and step + 1 < config.steps:
            continue
        means = {name: torch.stack(values).mean().item() for name, values in since.items()}
        check_finite(means, step)
        since, seconds = {}, seconds + time.perf_counter() - clock
        model.eval()
        metrics = validate(model) if validate else {}
        log.append({"step": step + 1, **means, **metrics})
        bar.set_postfix({name: f"{value:.3g}" for name, value in (means | metrics).items()})
        if validate and (best is None or metrics["score"] > best[1]):
            best = (
                step + 1,
                metrics["score"],
                {k: v.detach().clone() for k, v in model.state_dict().items()},
            )
        if checkpoint:
            save_checkpoint(checkpoint, loop, log, best, step + 1, seconds)
        clock = time.perf_counter()
    model.eval()
    if best:
        model.load_state_dict(best[2])
    return History(log, seconds, best[0] if best else config.steps)


def check_finite(means, step):
    broken = [name for name, value in means.items() if value != value or abs(value) == float("inf")]
    if broken:
        raise CliperaseError(f"loss {broken[0]} is {means[broken[0]]} at step {step}; lower the learning rate")


class Loop:
    """Model, optimizer, samplers and generator of one run: what a step needs and a checkpoint keeps."""

    def __init__(self, model, method, retain, config, forget, original):
        self.model, self.method, self.config, self.original = model, method, config, original
        self.retain, self.forget = retain, forget
        self.retain_sampler = EpochSampler(len(retain), config.retain_batch, 2 * config.seed)
        if forget is not None:
            self.forget_sampler = EpochSampler(len(forget), config.forget_batch, 2 * config.seed + 1)
        self.generator = torch.Generator().manual_seed(config.seed)
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        self.scheduler = (
            torch.optim.lr_scheduler.OneCycleLR(
                self.optimizer, config.learning_rate, total_steps=config.steps, pct_start=0.2
            )
            if config.schedule == "one-cycle"
            else torch.optim.lr_scheduler.ConstantLR(self.optimizer, factor=1.0)
        )

    @property
    def settings(self):
        """What must agree between a checkpoint and the run that resumes it."""
        method = {"method": type(self.method).__name__, **getattr(self.method, "__dict__", {})}
        return {**method, **asdict(self.config), "rows": [len(self.retain), len(self.forget or [])]}

    def step(self, step):
        """One optimizer step. Returns the detached loss terms."""
        self.model.train(self.config.update_norm_statistics)
        rows = self.draw(step)
        texts = sorted({text for _, _, row_texts in rows for text in row_texts})
        images = torch.cat([pairs.images[index] for pairs, index, _ in rows])
        self.optimizer.zero_grad()
        terms = self.backward(images, texts, rows, step)
        self.optimizer.step()
        self.scheduler.step()
        return terms

    def draw(self, step):
        """[(pair set, row numbers, captions)] for the forget batch, where there is one, and the retain batch."""
        chosen = [(self.retain, self.retain_sampler.batch(step))]
        if self.forget is not None:
            chosen.insert(0, (self.forget, self.forget_sampler.batch(step)))
        draw = torch.randint(1 << 30, (), generator=self.generator).item()
        column = 0 if self.config.captions == "first" else draw
        return [
            (p, index, [p.texts[i] for i in p.text_ids[index, column % p.text_ids.shape[1]].tolist()])
            for p, index in chosen
        ]

    def backward(self, images, texts, rows, step):
        """Loss and gradients. With `micro_batch` the images are encoded twice, in pieces: first without a
        graph, then piece by piece against the gradient of the loss by their features (GradCache, Gao et
        al. 2021). The gradient is the whole batch's, which plain accumulation of a contrastive loss is not."""
        size = self.config.micro_batch or len(images)
        text_features = self.model.encode_text(texts)
        if size >= len(images):
            terms = self.loss(self.model.encode_image(images), text_features, texts, rows, step)
            sum(terms.values()).backward()
        else:
            pieces = images.split(size)
            with torch.no_grad():
                features = torch.cat([self.model.encode_image(piece) for piece in pieces])
            features.requires_grad_()
            terms = self.loss(features, text_features, texts, rows, step)
            sum(terms.values()).backward()
            for piece, gradient in zip(pieces, features.grad.split(size), strict=True):
                self.model.encode_image(piece).backward(gradient)
        return {name: value.detach() for name, value in terms.items()}

    def loss(self, image_features, text_features, texts, rows, step):
        """Named loss terms of one step, from one encoding of its images and of its distinct texts."""
        number = {text: i for i, text in enumerate(texts)}
        ids = [torch.tensor([number[t] for t in captions], device=text_features.device) for _, _, captions in rows]
        sizes = [len(i) for i in ids]
        student = [Pairs(image, text_features[i], i) for image, i in zip(image_features.split(sizes), ids, strict=True)]
        names = ["forget", "retain"] if self.forget is not None else ["retain"]
        before = self.original_pairs(rows, ids, names) if self.original else [None] * len(names)
        scale = self.model.logit_scale
        batch = Batch(
            **{"forget": None, "original_forget": None}
            | dict(zip(names, student, strict=True))
            | {f"original_{name}": pairs for name, pairs in zip(names, before, strict=True)},
            logit_scale=scale,
            original_logit_scale=scale.new_tensor(self.original.logit_scale) if self.original else scale.detach(),
            step=step,
            steps=self.config.steps,
            generator=self.generator,
        )
        return self.method.loss(batch)

    def original_pairs(self, rows, ids, names):
        """The original model's embeddings of the same rows and captions, looked up, not computed."""
        found = []
        for (pairs, index, captions), i, name in zip(rows, ids, names, strict=True):
            features = getattr(self.original, name)
            text_rows = torch.tensor([pairs.texts.index(text) for text in captions])
            image, text = features.image[index], features.text[text_rows]
            found.append(Pairs(image.to(i.device), text.to(i.device), i))
        return found
