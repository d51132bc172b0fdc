"""The loop of image-text models: pretraining, unlearning, every method. It knows no data set and no method by name."""

import time
from dataclasses import dataclass

import torch
from tqdm import tqdm

from cliperase.batch import Batch, Pairs
from cliperase.checkpoints import load_checkpoint, save_checkpoint
from cliperase.data.pairs import PairSet
from cliperase.data.sampling import Drawn, Rows, mirror_and_shift
from cliperase.errors import CliperaseError
from cliperase.features import fingerprint
from cliperase.parallel import gather, gather_objects, is_first, processes, share, sum_gradients, wait_for_all
from cliperase.settings import FREE


def one_cycle(optimizer, config, rising):
    """The schedule that rises for a share of the steps, then falls to nothing."""
    rising = rising if rising * config.steps != 1 else 1.01 * rising  # torch divides by the rising steps less one
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.learning_rate, total_steps=config.steps, pct_start=rising
    )


@dataclass
class History:
    """`log`: one dict per evaluation: step, mean of each loss term since the last, `validation` metrics.
    `seconds`: training time without evaluation. `best_step`: the checkpoint that was kept."""

    log: list
    seconds: float
    best_step: int

    @property
    def validation(self):
        """The metrics of the checkpoint that was kept."""
        return next(entry["validation"] for entry in self.log if entry["step"] == self.best_step)


def train(model, method, retain, config, forget=None, original=None, validate=None, checkpoint=None, progress=True):
    """Train `model` in place with `method.loss` and leave it at its best validated weights.

    `forget` and `retain` are `PairSet`s, drawn by two samplers; pretraining has only `retain`, which may be a
    `stream.Stream`. `original` is the `Original` where the method uses it. `validate(model)` returns metrics with
    a `score`, higher is better; without it the last weights stay; the model it sees has its vocabulary narrowed.
    `checkpoint`, a path, makes a killed run resume from its last evaluation to the same result. An
    `EditMethod` takes no steps: it edits the model once. Returns `History`.
    """
    if isinstance(retain, PairSet):  # of a stream the words are not known
        model.narrow_vocabulary([*retain.texts, *(forget.texts if forget is not None else [])])
    try:
        return run_loop(model, method, retain, config, forget, original, validate, checkpoint, progress)
    finally:
        model.widen_vocabulary()


def run_loop(model, method, retain, config, forget, original, validate, checkpoint, progress):
    """`train` with the parameters that take part."""
    if processes() > 1 and config.update_norm_statistics:
        raise CliperaseError("update_norm_statistics needs the whole batch in one process; run it without torchrun")
    loop = Loop(model, method, retain, config, forget, original)
    if not method.takes_steps:
        return apply_once(loop, validate)
    if checkpoint:
        loop.start = [fingerprint(model, pairs) for pairs in (retain, forget) if pairs is not None]
    state = load_checkpoint(checkpoint, loop) if checkpoint else None
    loop.sources["retain"].seek(loop.position)
    wait_for_all()  # before the first of them writes another
    log, best, start, seconds = state or ([], None, 0, 0.0)
    since, clock = {}, time.perf_counter()
    bar = tqdm(
        range(start, config.steps),
        initial=start,
        total=config.steps,
        disable=not (progress and is_first()),
        leave=False,
    )
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
        log.append({"step": step + 1, **means, "validation": metrics})
        bar.set_postfix({name: f"{value:.3g}" for name, value in (means | metrics).items()})
        if validate and (best is None or metrics["score"] > best[1]):
            best = (
                step + 1,
                metrics["score"],
                {k: v.detach().clone() for k, v in model.state_dict().items()},
            )
        loop.position = loop.sources["retain"].tell()
        if checkpoint and is_first():
            save_checkpoint(checkpoint, loop, log, best, step + 1, seconds)
        clock = time.perf_counter()
    model.eval()
    if best:
        model.load_state_dict(best[2])
    return History(log, seconds, best[0] if best else config.steps)


def apply_once(loop, validate):
    """A method that takes no steps: it sees batches with gradients, and the validation it may search on."""
    loop.model.eval()
    start = time.perf_counter()
    loop.method.apply(loop.model, loop.batch, validate)
    seconds = time.perf_counter() - start
    loop.model.eval()
    return History([{"step": 0, "validation": validate(loop.model) if validate else {}}], seconds, 0)


def check_finite(means, step):
    broken = [name for name, value in means.items() if value != value or abs(value) == float("inf")]
    if broken:
        raise CliperaseError(f"loss {broken[0]} is {means[broken[0]]} at step {step}; lower the learning rate")


class Loop:
    """Model, optimizer, samplers and generator of one run: what a step needs and a checkpoint keeps."""

    def __init__(self, model, method, retain, config, forget, original):
        self.model, self.method, self.config, self.original = model, method, config, original
        if config.augment and original:
            raise CliperaseError("augment: the original's features are those of images as they are; switch it off")
        self.sources = self.open_sources(retain, forget)
        self.position = None  # of a stream, where a checkpoint finds it again
        if config.channels_last:
            model.to(memory_format=torch.channels_last)
        self.image_tower = torch.compile(model.encode_image) if config.compile else model.encode_image
        self.generator = torch.Generator().manual_seed(config.seed)
        self.start = None  # what the run starts from, where a checkpoint must know it
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        self.scheduler = (
            one_cycle(self.optimizer, config, rising=0.2)
            if config.schedule == "one-cycle"
            else torch.optim.lr_scheduler.ConstantLR(self.optimizer, factor=1.0)
        )

        # names of weights that may move, and what the others are put back to after every step
        self.movable = method.restrict(model.eval(), self.batch) if method.takes_steps else {}
        self.held = {name: p.detach().clone() for name, p in model.named_parameters() if name in self.movable}

    def open_sources(self, retain, forget):
        """What the rows of a step are drawn from: {"forget", where there is one, and "retain"}."""
        config, device = self.config, self.model.device if self.config.resident else None
        sources = {}
        if forget is not None:
            sources["forget"] = Drawn(forget, config.forget_batch, 2 * config.seed + 1, device)
        if isinstance(retain, PairSet):
            retain = Drawn(retain, config.retain_batch, 2 * config.seed, device)
        elif config.augment:
            raise CliperaseError("augment is for sets in memory, not for a stream of shards; switch it off")
        return {**sources, "retain": retain}

    @property
    def settings(self):
        """What must agree between a checkpoint and the run that resumes it."""
        method = {"method": type(self.method).__name__, **self.method.model_dump()}
        config = self.config.model_dump(exclude=FREE)
        return {**method, **config, "model and data": self.start}

    def step(self, step):
        """One optimizer step. Returns the detached loss terms."""
        self.model.train(self.config.update_norm_statistics)
        self.optimizer.zero_grad()
        terms = self.backward(step)
        self.optimizer.step()
        self.scheduler.step()
        self.put_back()
        return terms

    @torch.no_grad()
    def put_back(self):
        """Weights outside a method's mask return to where they were: weight decay and momentum move them."""
        for name, movable in self.movable.items():
            parameter = self.model.get_parameter(name)
            parameter.copy_(torch.where(movable, parameter, self.held[name]))

    def draw(self, step):
        """The step's forget rows, where there is a forget set, and retain rows: a list of `Rows`."""
        column = 0
        if self.config.captions == "random":
            column = torch.randint(1 << 30, (), generator=self.generator).item()
        return [Rows(name, *source.rows(step, column, self.seen)) for name, source in self.sources.items()]

    def seen(self, images):
        return mirror_and_shift(images, self.generator) if self.config.augment else images

    def batch(self, step):
        """The method's view of a step: one encoding of its images and of its distinct texts, with gradients."""
        rows = self.draw(step)
        texts = distinct_texts(rows)
        images = self.together(part for r in rows for part in gather_objects(r.images))
        return self.assemble(self.encode_image(images), self.encode_text(texts), texts, rows, step)

    def together(self, images):
        """Images of several sources, which may lie on several devices, as one batch."""
        return torch.cat([one.to(self.model.device) for one in images])

    def encode_image(self, images):
        with self.precision():
            return in_full(self.image_tower(images))

    def encode_text(self, texts):
        with self.precision():
            return in_full(self.model.encode_text(texts))

    def precision(self):
        return torch.autocast(self.model.device.type, torch.bfloat16, enabled=self.config.autocast)

    def backward(self, step):
        """Loss and gradients. With `micro_batch` the images are encoded twice, in pieces: first without a
        graph, then piece by piece against the gradient of the loss by their features (GradCache, Gao et
        al. 2021). The gradient is the whole batch's, which plain accumulation of a contrastive loss is not.
        With several processes each does so with its share of the images, see `parallel.py`."""
        size = self.config.micro_batch
        if not size and processes() == 1:
            terms = self.method.loss(self.batch(step))
            total(terms).backward()
            return {name: value.detach() for name, value in terms.items()}
        rows = self.draw(step)
        texts = distinct_texts(rows)
        pieces = self.together(r.images for r in rows).split(size or sum(len(r.images) for r in rows))
        with torch.no_grad():
            mine = torch.cat([self.encode_image(piece) for piece in pieces]).split([len(r.images) for r in rows])
        features = torch.cat([gather(part, len(r.captions)) for part, r in zip(mine, rows, strict=True)])
        features.requires_grad_()
        terms = self.method.loss(self.assemble(features, self.encode_text(texts), texts, rows, step))
        total(terms).backward()
        if not is_first():  # the loss is the same in all processes; what it says of the texts counts once
            self.optimizer.zero_grad()
        gradients = features.grad.split([len(r.captions) for r in rows])
        gradients = torch.cat([gradient[share(len(gradient))] for gradient in gradients])
        for piece, gradient in zip(pieces, gradients.split([len(piece) for piece in pieces]), strict=True):
            self.encode_image(piece).backward(gradient)
        sum_gradients(self.model.parameters())
        return {name: value.detach() for name, value in terms.items()}

    def assemble(self, image_features, text_features, texts, rows, step):
        """Embeddings of the step's images and distinct texts -> `Batch`."""
        number = {text: i for i, text in enumerate(texts)}
        pairs, start = {"forget": None, "original_forget": None, "original_retain": None}, 0
        for r in rows:
            ids = torch.tensor([number[text] for text in r.captions], device=text_features.device)
            images = image_features[start : start + len(ids)]
            pairs[r.name] = Pairs(images, text_features[ids], ids)
            if self.original:  # looked up, not computed
                with self.precision():
                    image, text = map(in_full, getattr(self.original, r.name).lookup(r))
                pairs[f"original_{r.name}"] = Pairs(image.to(ids.device), text.to(ids.device), ids)
            start += len(ids)
        scale = self.model.logit_scale
        return Batch(
            **pairs,
            logit_scale=scale,
            original_logit_scale=scale.new_tensor(self.original.logit_scale) if self.original else scale.detach(),
            step=step,
            steps=self.config.steps,
            generator=self.generator,
        )


def in_full(features):
    """Features of an encoder that ran in half precision, in float32."""
    return features.float() if features.dtype == torch.bfloat16 else features


def total(terms):
    if not terms:
        raise CliperaseError("every loss term is switched off; give at least one a weight above zero")
    return sum(terms.values())


def distinct_texts(rows):
    return sorted({text for r in rows for text in r.captions})
