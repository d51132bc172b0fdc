"""An audit from its models and data to its result: probes one by one, each kept when it has finished."""

import dataclasses
import hashlib
import json
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from tqdm import tqdm

from cliperase import __version__
from cliperase.audit import PROBES, create_probe, probe_class
from cliperase.audit.base import Measurement, NotApplicable, Probe
from cliperase.audit.case import Case, Split, Subject, unlike
from cliperase.audit.verdict import Threshold, finding, of_other_architecture, verdict_of, vote
from cliperase.data.limits import BROKEN_PERCENT, log
from cliperase.data.pairs import PairSet
from cliperase.data.rules import Rule
from cliperase.data.source import Data, Shards, Tables, name_of, open_source
from cliperase.data.templates import USUAL, said_of
from cliperase.errors import CliperaseError
from cliperase.files import hash_of, read_json, write_json
from cliperase.models import load_model
from cliperase.models.base import pick_device
from cliperase.models.framing import Framing
from cliperase.settings import Settings, checked

SCHEMA = 1  # of the result
FIGURES = ("before", "after", "reference", "never")  # of a measurement
DIGITS = 6  # behind the point
OF_WORDS = ("page.py", "report.py", "verdict.py")  # which no figure follows from
TRAINING = "train"
HELD_OUT = "heldout"  # the split of other sources that is looked for unasked


class AuditSettings(Settings):
    """How much is looked at; `seed` decides what is drawn."""

    images: int = Field(default=2000, ge=10)  # of the split
    training_images: int = Field(default=8000, ge=10)
    broken_percent: float = Field(default=BROKEN_PERCENT, ge=0, le=100)  # as in training
    seed: int = Field(default=0, ge=0, lt=2**32)


def plan(names: Iterable[str] | None, settings: Mapping[str, Any], seed: int) -> tuple[AuditSettings, dict[str, Probe]]:
    """The settings and probes of flat settings such as {"images": 500, "linear-probe.draws": 5}."""
    of_audit, of_probes = {}, {name: {} for name in names or PROBES if probe_class(name)}
    for name, value in settings.items():
        probe, dot, setting = str(name).partition(".")
        if dot and probe_class(probe) and probe not in of_probes:
            raise CliperaseError(f"setting {name!r} is of a probe that does not run; name it among the probes")
        (of_probes[probe] if dot else of_audit)[setting or probe] = value
    if "seed" in of_audit:
        raise CliperaseError("seed is not a setting; give --seed, in Python the argument seed")
    probes = {name: create_probe(name, given) for name, given in of_probes.items()}
    return checked(AuditSettings, {**of_audit, "seed": seed}, "audit"), probes


def open_case(
    models: Sequence[str | Path],
    data: Data,
    rule: Mapping[str, Any],
    split: str,
    others: Sequence[str | Path] | None,
    settings: AuditSettings,
    shadows: Sequence[str | Path] = (),
    templates: tuple[str, ...] = USUAL,
) -> Case:
    """The case of `models`, sources in the order original, unlearned, references, on `data`. `split` holds images that
    no model was trained on.

    `shadows`: sources of models that saw the concept; the references are those that never did. `templates`: what
    classes are asked with.
    """
    if split == TRAINING:
        raise CliperaseError(
            f"split {split!r} holds images that the models were trained on; name another, such as test"
        )
    names = ["original", "unlearned", *(f"reference {i}" for i in range(1, len(models) - 1))]
    device = pick_device()
    subjects = [Subject(load_model(source, device), name) for source, name in zip(models, names, strict=True)]
    check_references(subjects)
    framing = subjects[0].model.framing
    source = open_source(data, templates=templates, framing=framing)
    test = source.load_split(split, rule, framing, settings.broken_percent)
    case = Case(
        subjects[0], subjects[1], subjects[2:], Rule.of(rule),
        test=Split.of(*test).sampled(settings.images, settings.seed),
        training=training_of(source, rule, framing, settings, test[0].class_names),
        others=dict(others_of(source, rule, framing, others, settings)), seed=settings.seed,
        saw=[Subject(load_model(shadow, device), f"shadow {i}") for i, shadow in enumerate(shadows, 1)],
        never=subjects[2:],
    )  # fmt: skip
    case.check()
    return case


def check_references(subjects: Sequence[Subject]) -> None:
    """A reference never saw the concept, so it is neither the original nor the unlearned model."""
    for reference in subjects[2:]:
        for other in subjects[:2]:
            if reference.hash == other.hash:
                raise CliperaseError(
                    f"{reference.name} has the weights of the {other.name} model; give one that was trained without "
                    "the concept, or leave it out"
                )


def training_of(
    source: Shards | Tables, rule: Mapping[str, Any], framing: Framing, settings: AuditSettings, class_names: list[str]
) -> Split | None:
    """The training rows, their classes in the order of `class_names`; None where they are streamed or not there."""
    if isinstance(source, Shards) or "train" not in source.splits():
        return None
    pairs, forgotten = rows_of(source, "train", rule, framing, settings)
    return Split.of(pairs.with_classes(class_names), forgotten).sampled(settings.training_images, settings.seed)


def others_of(
    source: Shards | Tables,
    rule: Mapping[str, Any],
    framing: Framing,
    others: Sequence[str | Path] | None,
    settings: AuditSettings,
) -> Iterator[tuple[str, Split]]:
    """The name and the rows of each other source: a split of `source`, or the split "test" of other data.

    Unasked, that is the split `heldout` where there is one.
    """
    known = [] if isinstance(source, Shards) else source.splits()
    labels = [Path(name).name for name in others or []]
    if len(set(labels)) < len(labels):
        raise CliperaseError(f"two other sources have one name among {', '.join(labels)}; rename a folder")
    for name in [HELD_OUT] if others is None and HELD_OUT in known else others or []:
        other, split = (
            (source, str(name))
            if name in known
            else (open_source(name, templates=source.templates, split="test", framing=framing), "test")
        )
        found = Split.of(*rows_of(other, split, rule, framing, settings))
        yield Path(name).name, found.sampled(settings.images, settings.seed)


def rows_of(
    source: Shards | Tables, split: str, rule: Mapping[str, Any], framing: Framing, settings: AuditSettings
) -> tuple[PairSet, torch.Tensor]:
    """As of `load_split`; of tables also where the rule matches no row."""
    if isinstance(source, Shards):
        return source.load_split(split, rule, framing, settings.broken_percent)
    return source.load_split(split, rule, framing, settings.broken_percent, required=False)


def carry_out(case: Case, probes: Mapping[str, Probe], output: str | Path | None = None) -> list[dict[str, Any]]:
    """The results of the probes, as in the JSON. Those in `output` of the same case are taken."""
    described, results = description(case), []
    bar = tqdm(probes.items(), disable=not case.progress, leave=False)
    for name, probe in bar:
        bar.set_description(name)
        key = digest_of({"probe": name, "settings": probe.model_dump(), **described})
        path = Path(output) / "probes" / f"{name}.json" if output else None
        found = kept(path, key)
        if found is None:
            found = {"key": key, **measured(case, name, probe)}
            if path:
                write_json(path, found)
        results.append({field: value for field, value in found.items() if field != "key"})
    return results


def description(case: Case) -> dict[str, Any]:
    """Everything that figures follow from, as hashes; of the code, that of the audit."""
    return {
        "schema": SCHEMA, "cliperase": __version__, "seed": case.seed, "rule": dataclasses.asdict(case.rule),
        "code": [hash_of(path) for path in sorted(Path(__file__).parent.glob("*.py")) if path.name not in OF_WORDS],
        "before": case.before.hash, "after": case.after.hash, "references": [one.hash for one in case.references],
        "shadows": [[one.hash for one in models] for models in (case.saw, case.never)],
        "framings": [repr(one.model.framing) for one in [*case.subjects, *case.saw]],
        "test": split_hash(case.test), "training": case.training and split_hash(case.training),
        "others": {name: split_hash(split) for name, split in case.others.items()},
    }  # fmt: skip


def split_hash(split: Split) -> str:
    return hashlib.sha256(split.pairs.fingerprint().encode() + split.forgotten.numpy().tobytes()).hexdigest()


def digest_of(plain: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(plain, sort_keys=True, default=list).encode()).hexdigest()


def kept(path: Path | None, key: str) -> dict[str, Any] | None:
    """A finished probe's result in a file, if it is of the same models, data and settings."""
    if path is None or not path.is_file():
        return None
    try:
        found = read_json(path)
    except CliperaseError:  # half a disk, an editor: measured again
        return None
    return found if found.get("key") == key else None


def measured(case: Case, name: str, probe: Probe) -> dict[str, Any]:
    """One probe's result: its texts, settings and seconds, its measures or why there are none, and its notes."""
    start, reason, measures = time.perf_counter(), None, []
    own = dataclasses.replace(case, estimates=case.estimates.setdefault(name, {}), notes=[])
    try:
        measures = [plain(measure) for measure in probe.run(own)]
    except NotApplicable as error:
        reason = str(error)
    texts = {field: getattr(probe, field) for field in ("asked", "figures", "means", "limits", "source")}
    seconds = round(time.perf_counter() - start, 2)
    said = {"settings": probe.model_dump(), "reason": reason, "notes": own.notes, "measures": measures}
    return {"probe": name, **texts, **said, "seconds": seconds}


def plain(measure: Measurement) -> dict[str, Any]:
    """A measurement as plain values, each of them finite."""
    found: dict[str, Any] = dataclasses.asdict(measure)
    for name in FIGURES:
        for key, value in (found[name] or {}).items():
            if value is not None and not math.isfinite(value):
                raise CliperaseError(f"{measure.name} of the model {name} is {value}; look at its weights")
            found[name][key] = round(value, DIGITS) if isinstance(value, float) else value
    return found


def tell_unused(thresholds: Mapping[str, Threshold], results: Sequence[Mapping[str, Any]]) -> None:
    """Say which thresholds have no effect: their probe measured figures, and not that one."""
    figures = {result["probe"]: {measure["name"] for measure in result["measures"]} for result in results}
    named = ((name, *name.split(".", 1)) for name in thresholds if "." in name)
    for name, probe, figure in named:
        if figures.get(probe) and figure not in figures[probe]:
            log.warning("threshold %s is of no figure that its probe measured here; it has no effect", name)


def result_of(
    case: Case,
    sources: Sequence[str | Path],
    data: Data,
    split: str,
    settings: AuditSettings,
    results: list[dict[str, Any]],
    thresholds: Mapping[str, Threshold],
) -> dict[str, Any]:
    """The whole result as plain values: schema, hashes, verdict, every probe with findings and votes.

    `sources`: of the models of the case, then of its shadow models that saw the concept.
    """
    every = {}
    for result in results:
        for measure in result["measures"]:
            name = f"{result['probe']}.{measure['name']}"
            every[name], threshold = measure, thresholds.get(name)
            said = vote(name, measure, threshold, result["settings"])
            measure |= {"finding": finding(measure), "vote": said}
            measure["threshold"] = threshold and measure["known"] and threshold.told(measure)
    models = [
        {"is": s.name, "source": str(source), "sha256": s.hash, "unlike": unlike(s, case.after, case.test)}
        for s, source in zip([*case.subjects, *case.saw], sources, strict=True)
    ]
    rows = {"forget": int(case.test.forgotten.sum()), "retain": int((~case.test.forgotten).sum())}
    said = verdict_of(every, bool(case.references))
    return {
        "schema": SCHEMA, "cliperase": __version__,
        "verdict": said["verdict"], "reasons": [*said["reasons"], *of_other_architecture(models)],
        "rule": str(case.rule), "models": models,
        "data": {"source": name_of(data), "split": split, "rows": rows, "sha256": split_hash(case.test),
                 "training_sha256": case.training and split_hash(case.training),
                 "others": {name: split_hash(one) for name, one in case.others.items()},
                 **said_of(case.test.pairs.templates)},
        "settings": settings.model_dump(), "probes": results,
        "seconds": round(sum(result["seconds"] for result in results), 2),
    }  # fmt: skip


def tidy(result: Mapping[str, Any]) -> Iterator[tuple[str, float, str]]:
    """(name, value, unit) of every figure, <probe>.<measure>.<model>, and of its interval's ends, `… low`, `… high`."""
    for probe in result["probes"]:
        for measure in probe["measures"]:
            for subject in FIGURES:
                for end in ("value", "low", "high") if measure[subject] else ():
                    if measure[subject][end] is not None:
                        name = f"{probe['probe']}.{measure['name']}.{subject}{'' if end == 'value' else f' {end}'}"
                        yield name, measure[subject][end], measure["unit"]
