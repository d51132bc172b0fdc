"""Error-maximising and error-minimising noise (ENMN; EMMN of Chundawat et al. 2023), without real images.

1. Learn noise images x for each text t: argmin of ∓CE(x, t) + ω·mean((x - ½)²). The sign is minus for the forget
texts, so that the original's error becomes as large as it can, and plus for the retain texts. CE is over the texts of
both sets, ω is `norm_penalty`. 2. Fine-tune on (noise, text) with InfoNCE.

Settings: the noise comes from UNSIR (Tarun et al. 2023), of the same group. Its published code takes 40 steps of Adam
at 0.1 with a penalty of 0.1, and so do we. But there the penalty is on the sum of squares over an image, here on the
mean, which holds the noise far less; and there a class has 256 images, here a text has `images_per_text`. The learning
rate and ω are searched (paper/profiles).

Known failure: the noise is off the data manifold, and fine-tuning on it ruins retention.
"""

from dataclasses import replace

import torch
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor

from cliperase.batch import Batch
from cliperase.data.pairs import PairSet
from cliperase.losses import info_nce
from cliperase.methods.base import LossMethod
from cliperase.models.base import ImageTextModel


class ENMN(LossMethod):
    replaces_data = True

    images_per_text: PositiveInt = 4
    noise_steps: PositiveInt = 40
    noise_learning_rate: PositiveFloat = 0.1
    norm_penalty: NonNegativeFloat = 0.1  # on the mean squared distance from mid-grey

    def prepare(self, model: ImageTextModel, forget: PairSet, retain: PairSet, seed: int) -> tuple[PairSet, PairSet]:
        """The same two sets with learnt noise in place of their images."""
        generator = torch.Generator().manual_seed(seed)
        noise_forget = self.learn_noise(model, forget, retain, maximise=True, generator=generator)
        noise_retain = self.learn_noise(model, retain, forget, maximise=False, generator=generator)
        return noise_forget, noise_retain

    def learn_noise(
        self, model: ImageTextModel, pairs: PairSet, others: PairSet, maximise: bool, generator: torch.Generator
    ) -> PairSet:
        texts = pairs.texts_used(0)
        candidates = texts + [text for text in others.texts_used(0) if text not in texts]
        with torch.no_grad():
            text_features = model.encode_text(candidates)
        labels = torch.arange(len(texts)).repeat_interleave(self.images_per_text)
        shape = (len(labels), *pairs.images.shape[1:])
        noise = torch.randn(shape, generator=generator).to(text_features.device).requires_grad_()
        optimizer = torch.optim.Adam([noise], lr=self.noise_learning_rate)
        device_labels = labels.to(noise.device)
        for _ in range(self.noise_steps):
            image_features = model.encode_image(noise.sigmoid())
            logits = model.logit_scale.detach() * image_features @ text_features.T
            error = torch.nn.functional.cross_entropy(logits, device_labels)
            penalty = self.norm_penalty * (noise.sigmoid() - 0.5).square().mean()
            (noise.grad,) = torch.autograd.grad((-error if maximise else error) + penalty, noise)
            optimizer.step()
        images = (noise.detach().sigmoid() * 255).round().to(torch.uint8).cpu()
        return replace(pairs.with_texts(texts, labels), images=images)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        f, r = batch.forget, batch.retain
        image, text = torch.cat([f.image, r.image]), torch.cat([f.text, r.text])
        return {"noise": info_nce(image, text, batch.logit_scale, torch.cat([f.text_ids, r.text_ids]))}
