"""Image attack: does a change of the picture that nobody sees bring the concept back? PGD (Madry et al. 2018).

Every forgotten test image may move by `budget` / 255 in each channel of each pixel, for `steps` signed steps of a
quarter of that, towards its own text among all texts. Success is that the own text is then the nearest. The start is
the image itself, so the same attack gives the same answer.

What it does not show: much, without a reference. A CLIP is not robust: with a large budget any model, also one that
never knew the concept, answers what the attacker wants. So the budget is small, and the gap to the reference counts, or
to the same attack towards a word that means nothing.
"""

import torch
from pydantic import Field, PositiveInt

from cliperase.audit.base import Probe, compared
from cliperase.audit.case import INVENTED, recognised
from cliperase.audit.intervals import share_of
from cliperase.metrics.tasks import prompt_of


class ImageAttack(Probe):
    asked = "Does a small change of the picture, within a stated budget, bring the concept back?"
    figures = "success: percent of forgotten test images whose own text is the nearest after the attack."
    means = "More success than on the reference, or towards an invented word: the concept is close by."
    limits = "Every CLIP can be fooled; success alone, without a reference's, says nothing."
    source = "PGD (Madry et al., ICLR 2018)"

    budget: float = Field(default=1.0, gt=0, le=255)  # in 1/255, largest change of a channel
    steps: PositiveInt = 10
    images: PositiveInt = 100
    batch: PositiveInt = 50

    def run(self, case):
        split = case.test
        rows = case.spread(split, self.images)

        def success(subject, texts=split.texts, own=split.own):
            texts, hits = subject.texts(texts), []
            for some in rows.split(self.batch):
                attacked = self.attacked(subject.model, split.pairs.images[some], texts, own[some])
                with torch.no_grad():
                    features = subject.model.encode_image(attacked).float().cpu()
                hits.append(recognised(features, texts, own[some]))
            return share_of(torch.cat(hits))

        def invented(subject):
            """Success towards the first invented word, which stands beside all texts but the images' own."""
            kept = [split.texts[number] for number in split.retain_texts.tolist()]
            word = prompt_of(INVENTED[0], split.pairs.templates)
            return success(subject, [*kept, word], torch.full((len(split.own), 1), len(kept)))

        return [compared(case, "success", "%", success, never=invented)]

    def attacked(self, model, images, texts, own):
        """(N, 3, H, W) uint8 -> floats in 0…1 within the budget, on the model's device."""
        start = images.to(model.device).float() / 255
        budget, now, texts = self.budget / 255, start, texts.to(model.device)
        for _ in range(self.steps):
            now = now.detach().requires_grad_()
            logits = model.logit_scale.detach() * model.encode_image(now).float() @ texts.T
            gain = logits.log_softmax(dim=1).gather(1, own.to(model.device)).logsumexp(dim=1).sum()
            (gradient,) = torch.autograd.grad(gain, now)
            moved = now.detach() + budget / 4 * gradient.sign()
            now = torch.clamp(moved, start - budget, start + budget).clamp(0, 1)
        return now.detach()
