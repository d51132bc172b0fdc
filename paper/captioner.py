"""Unlearning in a captioner, which the paper does not cover. Does it still name the forgotten concept?

The paper lists generative models among its limits. Its three losses, carried over to a captioner p(caption | image):

- forgetting, on Df: -log(1 - p(name | image, the caption up to it)), the unlikelihood of the concept's name (Welleck
  et al. 2020). As L_FM it wants the pair apart; unlike -log-likelihood turned around it has an end, at p = 0.
- retention, on Dr: the cross-entropy of the true caption.
- consistency, on Dr: KL(original ‖ student) of the distributions over the next token, mean over tokens.

Gradient ascent is the cross-entropy on Df with its sign turned; GradDiff adds retention to it.
"""

import copy
import re
import shutil
from itertools import count
from pathlib import Path

import pandas as pd
import torch
from pydantic import Field

from cliperase.data.pairs import load_pairs
from cliperase.data.rules import split_pairs
from cliperase.data.sampling import EpochSampler
from cliperase.data.templates import PROMPT
from cliperase.errors import CliperaseError
from cliperase.features import fingerprint
from cliperase.loop import run_loop
from cliperase.losses import kl_divergence
from cliperase.memory import reset_peak
from cliperase.metrics.tasks import Task
from cliperase.models.base import pick_device
from cliperase.settings import LoopSettings, checked
from paper.hybrid_blip import caption_logits, caption_loss, load_captioner, token_loss
from paper.pretraining import LossTraining, fix_threads
from paper.results import COLUMNS, rows_of
from paper.store import RUNS

ROWS = {  # which terms make up a row; each has a weight in the settings, 1 where they give none
    "GA": ("ascent",),
    "GradDiff": ("ascent", "retention"),
    "CLIPErase": ("forgetting", "retention", "consistency"),
}


class CaptionSettings(LoopSettings):
    """Settings of one row of the captioner's table."""

    forget_batch: int = Field(default=16, ge=1)
    retain_batch: int = Field(default=64, ge=1)
    ascent: float = Field(default=1.0, ge=0)
    forgetting: float = Field(default=1.0, ge=0)
    retention: float = Field(default=1.0, ge=0)
    consistency: float = Field(default=1.0, ge=0)


def name_probability(captioner, states, name):
    """(N,) probability of the tokens of `name` where the caption `a photo of a <name>` has them."""
    logits, tokens, _ = caption_logits(captioner, states, [PROMPT.format(name)] * len(states))
    start = len(captioner.words.tokenize(PROMPT.format("")))  # the caption's words before the name
    end = start + len(captioner.words.tokenize(name))
    each = logits.log_softmax(dim=-1).gather(2, tokens[..., None])[..., 0]
    return each[:, start:end].sum(dim=1).exp()


def loss_terms(student, original, name, forget, retain, captions, wanted):
    """{term: scalar} of one step: `forget`, `retain` are images, `captions` those of the retain images.

    `student`, `original`: adapters of captioners; the original is only asked for consistency.
    """
    terms = {}
    if "ascent" in wanted:
        terms["ascent"] = -caption_loss(student, student.look(forget), [PROMPT.format(name)] * len(forget)).mean()
    if "forgetting" in wanted:
        p = name_probability(student, student.look(forget), name)
        terms["forgetting"] = -torch.log1p(-p.clamp(max=1 - 1e-6)).mean()
    if "retention" in wanted or "consistency" in wanted:
        logits, tokens, mask = caption_logits(student, student.look(retain), captions)
        if "retention" in wanted:
            terms["retention"] = token_loss(logits, tokens, mask).mean()
        if "consistency" in wanted:
            with torch.no_grad():
                known, _, _ = caption_logits(original, original.look(retain), captions)
            terms["consistency"] = kl_divergence(known[mask.bool()], logits[mask.bool()])
    return terms


@torch.no_grad()
def captions_of(captioner, images, batch_size=200):
    """The caption of each image, greedily decoded."""
    captioner.eval()
    found = []
    for some in images.split(batch_size):
        tokens = captioner.model.generate(captioner.pixels(some), max_new_tokens=10, do_sample=False, num_beams=1)
        found += captioner.words.batch_decode(tokens, skip_special_tokens=True)
    return found


def names_in(captions, names):
    """Which of the class `names` each caption says, in the singular or with -s or -es; the longest one where several
    stand in it, "" for none."""
    ordered = [(name, re.compile(rf"\b{re.escape(name)}(s|es)?\b", re.IGNORECASE))
               for name in sorted(names, key=len, reverse=True)]  # fmt: skip
    return [next((name for name, pattern in ordered if pattern.search(caption)), "") for caption in captions]


def caption_metrics(said, pairs, concept):
    """What the captions say of a split, in percent.

    `naming_rate`: forget images whose caption names the concept; `naming_rate@<name>`: those called `name`, the five
    most frequent. `caption_accuracy`: retain images whose caption names their class; `false_naming_rate`: retain
    images that are called by the concept's name.
    """
    true = [pairs.class_names[label] for label in pairs.labels.tolist()]
    forget = pd.Series([name for name, is_of in zip(said, true, strict=True) if is_of == concept])
    retain = pd.DataFrame([(name, is_of) for name, is_of in zip(said, true, strict=True) if is_of != concept])
    shares = 100 * forget.value_counts(normalize=True, sort=False)
    most = sorted(shares.items(), key=lambda item: (-item[1], item[0]))[:5]
    return {
        "naming_rate": 100 * (forget == concept).mean(),
        "caption_accuracy": 100 * (retain[0] == retain[1]).mean(),
        "false_naming_rate": 100 * (retain[0] == concept).mean(),
        **{f"naming_rate@{name or 'no class'}": share for name, share in most},
    }


NAMING = Task(caption_metrics, "naming_rate", "caption_accuracy")


class CaptionTraining(LossTraining):
    """Unlearning in a captioner: the terms of a row, each with its weight, on a forget and a retain batch."""

    learns_statistics = False

    def __init__(self, student, original, row, settings, concept, forget, retain):
        super().__init__(
            student, settings, [row, concept, fingerprint(original, forget), fingerprint(original, retain)]
        )
        self.original, self.row, self.concept, self.forget, self.retain = original, row, concept, forget, retain
        self.of_retain = EpochSampler(len(retain), settings.retain_batch, 2 * settings.seed)
        self.of_forget = EpochSampler(len(forget), settings.forget_batch, 2 * settings.seed + 1)

    def loss(self, step):
        rows = self.of_retain.batch(step)
        captions = [self.retain.texts[i] for i in self.retain.text_ids[rows, 0].tolist()]
        images = (self.forget.images[self.of_forget.batch(step)], self.retain.images[rows])
        terms = loss_terms(self.model, self.original, self.concept, *images, captions, ROWS[self.row])
        return {name: getattr(self.settings, name) * value for name, value in terms.items()}


def unlearn_captioner(captioner, training, validation, concept, row, settings, checkpoint=None):
    """A copy of `captioner` that has unlearned `concept`, at its best step on `validation`: (model, `History`).

    `checkpoint`, a path, makes a killed run resume; that of a finished run gives its result again.
    """
    settings, original = checked(CaptionSettings, settings, "captioning"), captioner.eval()
    student = copy.deepcopy(captioner)
    sets = split_pairs(training, {"concept": concept})

    def measured(model):
        said = names_in(captions_of(model, validation.images), validation.class_names)
        return caption_metrics(said, validation, concept)

    def validate(model):
        found = measured(model)
        return {"score": NAMING.score(found, before)}

    before = measured(captioner)
    history = run_loop(CaptionTraining(student, original, row, settings, concept, *sets), validate, checkpoint)
    return student, history


def run_captioning(settings, profile, data, source):
    """The table of the captioner `source`, a folder or `blip:<hub name>`.

    `settings`: the experiment, a `paper.plans.captioning.Captioning`.

    Every row has the same number of candidates; the one with the best score on validation images of the search
    concepts is run on the reported ones, with every seed.
    """
    unknown = [row for row in settings.candidates if row not in ROWS]
    if unknown:
        raise CliperaseError(f"captioning has no row {unknown[0]!r}; it has {', '.join(ROWS)}")
    if set(settings.concepts) & set(settings.search_concepts):
        raise CliperaseError(f"search concepts {settings.search_concepts} overlap the reported; choose others")
    fix_threads()
    bench = CaptionBench(settings, profile, data, source)
    bench.measure_original()
    for row in settings.candidates:
        chosen = bench.search(row)
        for concept in settings.concepts:
            for seed in profile.seeds:
                bench.measure(row, concept, chosen | {"seed": seed})
    shutil.rmtree(bench.unfinished)
    return pd.DataFrame(bench.rows)[COLUMNS]


class CaptionBench:
    """The captioner and its data, loaded once; `rows` grows by what is measured."""

    def __init__(self, settings, profile, data, source):
        self.settings, self.profile = settings, profile
        self.captioner = load_captioner(source, pick_device())
        self.training, self.test = load_pairs(data, "train"), load_pairs(data, "test")
        if not self.training.class_names:
            raise CliperaseError(f"data {str(data)!r} has no classes; captions are judged by the class they name")
        self.validation = thinned(load_pairs(data, "validation"), settings.validation_images)
        self.about = {"profile": profile.profile, "provenance": profile.provenance, "experiment": "captioning"}
        self.about |= {"dataset": Path(data).name, "model": settings.model_name or profile.model}
        self.unfinished = RUNS / profile.profile / "captioner_runs"  # checkpoints, kept until the table is whole
        self.rows, self.number_of_run = [], count()

    def unlearned(self, row, concept, own):
        """(model, `History`) of a row with its `own` settings beside those of the loop."""
        checkpoint = self.unfinished / f"{next(self.number_of_run)}.pt"
        return unlearn_captioner(
            self.captioner, self.training, self.validation, concept, row, self.settings.loop | own, checkpoint
        )

    def names(self, model):
        """The class that each caption of a test image names."""
        return names_in(captions_of(model, self.test.images), self.test.class_names)

    def record(self, method, concept, seed, split, metrics, seconds=0.0):
        which = {"method": method, "concept": concept, "seed": str(seed), "split": split}
        self.rows += rows_of({**self.about, **which}, metrics, seconds)

    def measure_original(self):
        said, seed = self.names(self.captioner), self.profile.pretrain["seed"]
        for concept in self.settings.concepts:
            self.record("original", concept, seed, "test", caption_metrics(said, self.test, concept))

    def search(self, row):
        """The candidate of a row with the best mean score on validation images of the search concepts."""
        scores, candidates, seed = [], self.settings.candidates[row], self.settings.search_seed
        for number, candidate in enumerate(candidates):
            found = [
                self.unlearned(row, concept, candidate | {"seed": seed})[1].validation["score"]
                for concept in self.settings.search_concepts
            ]
            scores.append(sum(found) / len(found))
            self.record(f"{row} {number}", "search", seed, "validation", {"selection_score": scores[-1]})
        return candidates[scores.index(max(scores))]

    def measure(self, row, concept, own):
        """Unlearn a reported concept, and record the captions of test images and the checkpoint's selection."""
        reset_peak()
        model, history = self.unlearned(row, concept, own)
        seconds, metrics = round(history.seconds, 2), caption_metrics(self.names(model), self.test, concept)
        selected = {"selection_score": history.validation["score"], "selected_step": history.best_step}
        self.record(row, concept, own["seed"], "test", metrics, seconds)
        self.record(row, concept, own["seed"], "validation", selected, seconds)


def thinned(pairs, per_class):
    """The first `per_class` images of each class."""
    keep = torch.zeros(len(pairs), dtype=torch.bool)
    for label in pairs.labels.unique():
        keep[(pairs.labels == label).nonzero()[:per_class, 0]] = True
    return pairs.select(keep)
