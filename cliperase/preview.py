"""What a run of unlearning would forget, and what stands near it: to look at before anything is trained."""

import torch
import torch.nn.functional as F

from cliperase import pages
from cliperase.audit.case import Split
from cliperase.data.rules import Rule, near_misses
from cliperase.data.source import name_of, open_source
from cliperase.metrics.encode import encode_images, encode_texts, wordings

SHOWN = 60  # pictures on the contact sheet
NEAREST = 8  # texts at risk


def preview(model, data, rule, settings, templates):
    """`preview_of` what `rule` matches in `data`. `model`: an `ImageTextModel`; `settings`: `TrainSettings`."""
    source = open_source(data, templates=templates, split="train", framing=model.framing, stream=settings.stream)
    split = Split.of(*source.load_split("validation", rule, model.framing, settings.broken_percent))
    return preview_of(model, data, rule, split, source.load_training(rule, model.framing, settings, SHOWN))


def preview_of(model, data, rule, split, training):
    """What `rule` matches, as plain values, of a validation `Split` and of `TrainingRows`. `data`: their source.

    `rows`: how many of each split are forgotten and kept. `notes`: what the rule nearly matched. `pictures`: up to
    `SHOWN` forgotten training rows, evenly spaced. `at_risk`: texts that are kept and stand nearest to what is
    forgotten, on validation images.
    """
    rows = {"train": training.rows, "validation": {"forget": int(split.forgotten.sum()),
                                                   "retain": int((~split.forgotten).sum())}}  # fmt: skip
    pictures = [pages.row_of(training.forget, i) for i in pages.evenly(range(len(training.forget)), SHOWN)]
    notes = [] if training.pairs is None else near_misses(training.pairs, rule)
    return {"rule": str(Rule.of(rule)), "data": name_of(data), "rows": rows, "notes": notes,
            "pictures": pictures, "at_risk": at_risk(model, split)}  # fmt: skip


def at_risk(model, split):
    """The kept texts that stand nearest to the forgotten ones: {"text", "cosine", "taken for"}.

    `cosine`: to the mean of the forgotten texts. `taken_for`: percent of the text's own images that the model takes for
    a forgotten text, or would take for one next: those are the first to be lost.
    """
    if not split.forgotten.any() or not len(split.retain_texts):
        return []
    texts, images = encode_texts(model, split.texts), encode_images(model, split.pairs.images)
    cosines = texts @ F.normalize(texts[split.forget_texts].mean(dim=0), dim=0)
    kept = ~split.forgotten
    second = torch.isin((images[kept] @ texts.T).topk(2, dim=1).indices, split.forget_texts).any(dim=1)
    found: list[dict] = []
    for text in split.retain_texts.tolist():
        own = (split.own[kept] == text).any(dim=1)
        taken = 100 * second[own].double().mean().item() if own.any() else 0.0
        found.append({"text": wordings(split.texts[text])[0], "cosine": cosines[text].item(), "taken_for": taken})
    return sorted(found, key=lambda one: (-one["taken_for"], -one["cosine"]))[:NEAREST]


def sentences(found):
    """A `preview` as lines of text."""
    train, validation = found["rows"]["train"], found["rows"]["validation"]
    yield f"{found['rule']}: of the training rows {train['forget']} are forgotten and {train['retain']} kept"
    yield f"of the validation rows {validation['forget']} are forgotten and {validation['retain']} kept"
    yield from found["notes"]
    for one in found["at_risk"]:
        yield (
            f"near it: {one['text']!r}, cosine {one['cosine']:.2f}; {one['taken_for']:.0f} % of its images are, or "
            "would next be, taken for what is forgotten"
        )


def write_preview(path, found, defaults=None):
    """The `preview` as a page. `defaults`: where settings that nobody gave come from."""
    said = [f"No learning rate was given: the settings are defaults, {defaults}."] if defaults else []
    pages.write_page(path, "preview.html", found=found, said=said)
