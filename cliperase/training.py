"""Training on image-text pairs: how a step draws rows, encodes them, and lets a method turn embeddings into a loss."""

from typing import Any

import torch
from torch import Tensor

from cliperase.batch import Batch, Pairs
from cliperase.data.pairs import PairSet
from cliperase.data.sampling import Drawn, Rows, mirror_and_shift
from cliperase.devices import send
from cliperase.errors import CliperaseError
from cliperase.features import encoding_precision, fingerprint
from cliperase.loop import Training
from cliperase.metrics.encode import number_texts
from cliperase.parallel import gather, gather_objects, is_first, processes, share, sum_gradients


class PairTraining(Training):
    """A model, a `LossMethod`, the rows to retain, and where there are any, the rows to forget and the `Original`.

    `retain` is a `PairSet` or a `Stream`, `forget` a `PairSet` or None (pretraining). `selected_on`: a text that is
    equal for equal validation rows.
    """

    def __init__(self, model, method, settings, retain, forget=None, original=None, selected_on=None):
        super().__init__(model, settings)
        if settings.augment and original:
            raise CliperaseError(
                "augment changes the images, and the original's features are of unchanged ones; switch it off"
            )
        if settings.update_norm_statistics and (processes() > 1 or settings.micro_batch):
            raise CliperaseError("update_norm_statistics needs the whole batch; leave out torchrun and micro_batch")
        self.method, self.original, self.selected_on = method, original, selected_on
        self.original_scale = model.logit_scale.new_tensor(original.logit_scale) if original else None
        self.sets = [pairs for pairs in (retain, forget) if pairs is not None]
        self.sources = self.open_sources(retain, forget)
        self.forget_share = share_of(forget, retain)
        self.forget_steps = self.sources["forget"].steps_to_all_classes() if forget is not None else 0
        self.started_from = None
        if settings.channels_last:
            model.to(memory_format=torch.channels_last)
        self.image_tower = torch.compile(model.encode_image) if settings.compile else model.encode_image
        # names of weights that may move, and what the others are put back to after every step
        self.movable = method.restrict(model.eval(), self.batch)
        self.held = {name: p.detach().clone() for name, p in model.named_parameters() if name in self.movable}

    def open_sources(self, retain, forget):
        """What the rows of a step are drawn from: {"forget", where there is one, and "retain"}."""
        settings, device = self.settings, self.model.device if self.settings.resident else None
        sources = {}
        if forget is not None:
            sources["forget"] = Drawn(forget, settings.forget_batch, 2 * settings.seed + 1, device)
        if isinstance(retain, PairSet):
            retain = Drawn(retain, settings.retain_batch, 2 * settings.seed, device)
        elif settings.augment:
            raise CliperaseError("augment is for sets in memory, not for a stream of shards; switch it off")
        return {**sources, "retain": retain}

    def identity(self):
        if self.started_from is None:  # asked first before any step
            self.started_from = [fingerprint(self.model, pairs) for pairs in self.sets]
        about = {"method": type(self.method).__name__, **self.method.model_dump(), "model and data": self.started_from}
        return about | {"validation rows": self.selected_on} | super().identity()

    def tell(self):
        return self.sources["retain"].tell()

    def seek(self, position):
        self.sources["retain"].seek(position)

    def after_step(self):
        """Weights outside a method's mask return to where they were, because weight decay and momentum move them."""
        with torch.no_grad():
            for name, movable in self.movable.items():
                parameter = self.model.get_parameter(name)
                parameter.copy_(torch.where(movable, parameter, self.held[name]))

    def draw(self, step):
        """The step's forget rows, where there is a forget set, and retain rows: a list of `Rows`."""
        column = 0
        if self.settings.captions == "random":
            column = torch.randint(1 << 30, (), generator=self.generator).item()
        # pyrefly: ignore[bad-argument-type] – `rows` of a source gives the fields in their order
        return [Rows(name, *source.rows(step, column, self.augmented)) for name, source in self.sources.items()]

    def augmented(self, images):
        return mirror_and_shift(images, self.generator) if self.settings.augment else images

    def batch(self, step):
        """The method's view of a step, a `Batch` with gradients: images and distinct texts are encoded once."""
        rows = self.draw(step)
        texts = distinct_texts(rows)
        images = self.together(part for r in rows for part in gather_objects(r.images))
        return self.assemble(self.encode_image(images), self.encode_text(texts), texts, rows, step)

    def together(self, images):
        """Images of several sources, which may lie on several devices, as one batch."""
        return torch.cat([send(one, self.model.device) for one in images])

    def encode_image(self, images):
        with self.precision():
            return in_full(self.image_tower(images))

    def encode_text(self, texts):
        with self.precision():
            return in_full(self.model.encode_text(texts))

    def precision(self):
        return encoding_precision(self.model, self.settings.autocast)

    def backward(self, step):
        self.model.train(self.settings.update_norm_statistics)
        if self.settings.micro_batch or processes() > 1:
            return self.backward_in_pieces(step)
        terms = self.method.loss(self.batch(step))
        total(terms).backward()
        return {name: value.detach() for name, value in terms.items()}

    def backward_in_pieces(self, step):
        """The images are encoded twice, in pieces: first without a graph, then against the gradient of the loss by
        their features (GradCache, Gao et al. 2021).

        The gradient is that of the whole batch, which plain accumulation of a contrastive loss is not. With several
        processes each does so with its share of the images, see `parallel.py`.
        """
        rows = self.draw(step)
        texts, counts = distinct_texts(rows), [len(r.captions) for r in rows]
        pieces = self.placement.image_pieces(self.together(r.images for r in rows), self.settings.micro_batch, counts)
        with torch.no_grad():
            mine = torch.cat([self.encode_image(piece) for piece in pieces]).split([len(r.images) for r in rows])
        features = torch.cat([gather(part, count) for part, count in zip(mine, counts, strict=True)]).requires_grad_()
        encoded = self.encode_text(texts)
        of_texts = encoded.detach().requires_grad_()
        terms = self.method.loss(self.assemble(features, of_texts, texts, rows, step))
        total(terms).backward()
        if not is_first():  # the loss is the same in all processes; what it says of texts and of the scale counts once
            self.model.zero_grad()
            of_texts.grad = None if of_texts.grad is None else torch.zeros_like(of_texts)
        if of_texts.grad is not None and encoded.requires_grad:
            encoded.backward(of_texts.grad)
        if features.grad is not None:  # a loss may take the images as constants
            gradients = torch.cat([part[share(len(part))] for part in features.grad.split(counts)])
            for piece, gradient in zip(pieces, gradients.split([len(piece) for piece in pieces]), strict=True):
                again = self.encode_image(piece)
                if again.requires_grad:  # no image tower that is frozen
                    again.backward(gradient)
        sum_gradients(self.placement.replicated(self.model.parameters()))
        return {name: value.detach() for name, value in terms.items()}

    def assemble(self, image_features, text_features, texts, rows, step):
        """Embeddings of the step's images and distinct texts -> `Batch`. Texts that the model reads as one are one."""
        number, same = {text: i for i, text in enumerate(texts)}, number_texts(self.model, texts)
        pairs: dict[str, Any] = {"forget": None, "original_forget": None, "original_retain": None}
        start = 0
        for r in rows:
            rows_of_texts = torch.tensor([number[text] for text in r.captions])
            own = send(rows_of_texts, text_features.device)
            ids = send(same[rows_of_texts], text_features.device)
            pairs[r.name] = Pairs(image_features[start : start + len(ids)], text_features[own], ids)
            if self.original:  # looked up, not computed
                with self.precision():
                    image, text = map(in_full, self.original.of(r.name).lookup(r))
                pairs[f"original_{r.name}"] = Pairs(send(image, ids.device), send(text, ids.device), ids)
            start += len(ids)
        scale = self.model.logit_scale
        return Batch(
            **pairs,
            logit_scale=scale,
            original_logit_scale=scale.detach() if self.original_scale is None else self.original_scale,
            step=step,
            steps=self.settings.steps,
            generator=self.generator,
            forget_share=self.forget_share,
            logit_bias=self.model.logit_bias,
            forget_steps=self.forget_steps,
        )


def share_of(forget, retain):
    """The share of the forget rows in all, in 0…1; None where nobody counts the others."""
    if forget is None or not isinstance(retain, PairSet):
        return None
    return len(forget) / (len(forget) + len(retain))


def in_full(features):
    """Features of an encoder that ran in half precision, in float32."""
    return features.float() if features.dtype == torch.bfloat16 else features


def total(terms: dict[str, Tensor]) -> Tensor:
    if not terms:
        raise CliperaseError("every loss term is switched off; give at least one a weight above zero")
    return sum(terms.values())  # pyrefly: ignore[bad-return] – of one at least, so it is no 0


def distinct_texts(rows):
    return sorted({text for r in rows for text in r.captions})
