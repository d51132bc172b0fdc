"""An audit from its models and data to its result: probes one by one, each kept when it has finished."""

import dataclasses
import hashlib
import json
import math
import time
from pathlib import Path

from pydantic import Field
from tqdm import tqdm

from cliperase import __version__
from cliperase.audit import PROBES, create_probe, probe_class
from cliperase.audit.base import NotApplicable
from cliperase.audit.case import Case, Split, Subject
from cliperase.audit.verdict import finding, verdict_of, vote
from cliperase.data.rules import Rule, forget_mask
from cliperase.data.source import is_sharded, load_split
from cliperase.data.tables import splits_of
from cliperase.errors import CliperaseError
from cliperase.files import hash_of, read_json, write_json
from cliperase.models import load_model
from cliperase.settings import Settings, checked

SCHEMA = 1  # of the result
FIGURES = ("before", "after", "reference", "never")  # of a measurement
DIGITS = 6  # behind the point
OF_WORDS = ("page.py", "report.py", "verdict.py")  # which no figure follows from
HELD_OUT = "heldout"  # the split of other sources that is looked for unasked


class AuditSettings(Settings):
    """How much is looked at; `seed` decides what is drawn."""

    images: int = Field(default=2000, ge=10)  # of the split
    training_images: int = Field(default=8000, ge=10)
    seed: int = Field(default=0, ge=0, lt=2**32)


def plan(names, settings, seed):
    """(`AuditSettings`, {name: `Probe`}) of flat settings such as {"images": 500, "linear-probe.draws": 5}."""
    of_audit, of_probes = {}, {name: {} for name in names or PROBES if probe_class(name)}
    for name, value in settings.items():
        probe, dot, setting = str(name).partition(".")
        if dot and probe_class(probe) and probe not in of_probes:
            raise CliperaseError(f"setting {name!r} is of a probe that does not run; name it among the probes")
        (of_probes[probe] if dot else of_audit)[setting or probe] = value
    if "seed" in of_audit:
        raise CliperaseError("the seed is an argument of its own (--seed), not a setting")
    probes = {name: create_probe(name, given) for name, given in of_probes.items()}
    return checked(AuditSettings, {**of_audit, "seed": seed}, "audit"), probes


def open_case(models, data, rule, split, others, settings, device, shadows=()):
    """The `Case` of `models`, sources in the order original, unlearned, references, on `data`.

    `shadows`: sources of models that saw the concept; the references are those that never did.
    """
    names = ["original", "unlearned", *(f"reference {i}" for i in range(1, len(models) - 1))]
    subjects = [Subject(load_model(source, device), name) for source, name in zip(models, names, strict=True)]
    framing = subjects[0].model.framing
    case = Case(
        *subjects[:2], subjects[2:], Rule.of(rule),
        test=Split.of(*load_split(data, split, rule, framing)).sampled(settings.images, settings.seed),
        training=training_of(data, rule, framing, settings),
        others=dict(others_of(data, rule, framing, others, settings)), seed=settings.seed,
        saw=[Subject(load_model(source, device), f"shadow {i}") for i, source in enumerate(shadows, 1)],
        never=subjects[2:],
    )  # fmt: skip
    case.check()
    return case


def training_of(data, rule, framing, settings):
    """The `Split` of training rows, None where they are streamed or not there."""
    if is_sharded(data) or "train" not in splits_of(data):
        return None
    return Split.of(*rows_of(data, "train", rule, framing)).sampled(settings.training_images, settings.seed)


def others_of(data, rule, framing, others, settings):
    """(name, `Split`) of each other source: a split of `data`, or the split "test" of other data.

    Unasked, that is the split `heldout` where there is one.
    """
    known = [] if is_sharded(data) else splits_of(data)
    labels = [Path(name).name for name in others or []]
    if len(set(labels)) < len(labels):
        raise CliperaseError(f"two other sources have one name among {', '.join(labels)}; rename a folder")
    for name in [HELD_OUT] if others is None and HELD_OUT in known else others or []:
        source, split = (data, name) if name in known else (name, "test")
        found = Split.of(*rows_of(source, split, rule, framing))
        yield Path(name).name, found.sampled(settings.images, settings.seed)


def rows_of(source, split, rule, framing):
    """(`PairSet`, (N,) bool) as of `load_split`; of tables also where the rule matches no row."""
    if is_sharded(source):
        return load_split(source, split, rule, framing)
    pairs, _ = load_split(source, split, None, framing)
    return pairs, forget_mask(pairs, rule, required=False)


def carry_out(case, probes, output=None):
    """The results of the probes, a list of mappings as in the JSON. Those in `output` of the same case are taken."""
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


def description(case):
    """Everything that figures follow from, as hashes; of the code, that of the audit."""
    return {
        "schema": SCHEMA, "cliperase": __version__, "seed": case.seed, "rule": dataclasses.asdict(case.rule),
        "code": [hash_of(path) for path in sorted(Path(__file__).parent.glob("*.py")) if path.name not in OF_WORDS],
        "before": case.before.hash, "after": case.after.hash, "references": [one.hash for one in case.references],
        "shadows": [[one.hash for one in models] for models in (case.saw, case.never)],
        "test": split_hash(case.test), "training": case.training and split_hash(case.training),
        "others": {name: split_hash(split) for name, split in case.others.items()},
    }  # fmt: skip


def split_hash(split):
    return hashlib.sha256(split.pairs.fingerprint().encode() + split.forgotten.numpy().tobytes()).hexdigest()


def digest_of(plain):
    return hashlib.sha256(json.dumps(plain, sort_keys=True, default=list).encode()).hexdigest()


def kept(path, key):
    """A finished probe's result in a file, if it is of the same models, data and settings."""
    if path is None or not path.is_file():
        return None
    try:
        found = read_json(path)
    except CliperaseError:  # half a disk, an editor: measured again
        return None
    return found if found.get("key") == key else None


def measured(case, name, probe):
    """One probe's result: its texts, settings and seconds, and its measures or why there are none."""
    start, reason, measures = time.perf_counter(), None, []
    try:
        own = dataclasses.replace(case, estimates=case.estimates.setdefault(name, {}))
        measures = [plain(measure) for measure in probe.run(own)]
    except NotApplicable as error:
        reason = str(error)
    texts = {field: getattr(probe, field) for field in ("asked", "figures", "means", "limits", "source")}
    seconds = round(time.perf_counter() - start, 2)
    said = {"settings": probe.model_dump(), "reason": reason, "measures": measures, "seconds": seconds}
    return {"probe": name, **texts, **said}


def plain(measure):
    """A `Measurement` as a mapping of plain values, each of them finite."""
    found = dataclasses.asdict(measure)
    for name in FIGURES:
        for key, value in (found[name] or {}).items():
            if value is not None and not math.isfinite(value):
                raise CliperaseError(f"{measure.name} of the model {name} is {value}; look at its weights")
            found[name][key] = round(value, DIGITS) if isinstance(value, float) else value
    return found


def result_of(case, sources, data, split, settings, results, thresholds):
    """The whole result as plain values: schema, hashes, verdict, every probe with findings and votes.

    `sources`: of the models of the case, then of its shadow models that saw the concept.
    """
    every = {f"{result['probe']}.{one['name']}": one for result in results for one in result["measures"]}
    for name, measure in every.items():
        threshold = thresholds.get(name)
        measure |= {"finding": finding(measure), "vote": vote(measure, threshold)}
        measure["threshold"] = threshold and measure["known"] and threshold.told(measure)
    models = [
        {"is": s.name, "source": str(source), "sha256": s.hash}
        for s, source in zip([*case.subjects, *case.saw], sources, strict=True)
    ]
    rows = {"forget": int(case.test.forgotten.sum()), "retain": int((~case.test.forgotten).sum())}
    return {
        "schema": SCHEMA, "cliperase": __version__, **verdict_of(every, bool(case.references)),
        "rule": str(case.rule), "models": models,
        "data": {"source": str(data), "split": split, "rows": rows, "sha256": split_hash(case.test),
                 "training_sha256": case.training and split_hash(case.training),
                 "others": {name: split_hash(one) for name, one in case.others.items()}},
        "settings": settings.model_dump(), "probes": results,
        "seconds": round(sum(result["seconds"] for result in results), 2),
    }  # fmt: skip


def tidy(result):
    """(name, value, unit) of every figure, <probe>.<measure>.<model>; with _low and _high, of its interval's ends."""
    for probe in result["probes"]:
        for measure in probe["measures"]:
            for subject in FIGURES:
                for end in ("value", "low", "high") if measure[subject] else ():
                    if measure[subject][end] is not None:
                        name = f"{probe['probe']}.{measure['name']}.{subject}{'' if end == 'value' else f'_{end}'}"
                        yield name, measure[subject][end], measure["unit"]
