"""Unlearn, evaluate and audit, in one call each. The command line is a thin layer over these."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cliperase.checkpoints import remove_checkpoint
from cliperase.data.leakage import pictures_on_two_sides, told
from cliperase.data.limits import BROKEN_PERCENT, checked_percent, log
from cliperase.data.pairs import PairSet
from cliperase.data.rules import Rule
from cliperase.data.source import Data, load_run, load_split, name_of
from cliperase.data.templates import Templates, read_templates, said_of
from cliperase.errors import CliperaseError
from cliperase.files import check_outside, check_writable, only_writer, write_json
from cliperase.loop import History
from cliperase.manifest import CHECKPOINT, REPORT, output_folder, write_result
from cliperase.metrics.tasks import task_of
from cliperase.models import load_model
from cliperase.models.base import ImageTextModel, pick_device
from cliperase.parallel import is_first, join_processes, wait_for_all
from cliperase.unlearning import Recipe, Run, check_streamable


def unlearn(model: str | Path, data: Data, rule: Mapping[str, Any], method: str = "CLIPErase",
            settings: Mapping[str, Any] | None = None, seed: int = 0, output: str | Path | None = None,
            callback: Callable[[dict[str, Any]], None] | None = None,
            templates: Templates | None = None) -> dict[str, Any]:  # fmt: skip
    """Make a model forget the rows of `data` that `rule` matches, and keep the rest.

    `model`: folder, or open_clip name and weights. `data`: a folder, file or hub name, a data set of torch or
    `datasets`, or an iterable of (PIL image, caption or captions) or of mappings; docs/data.md has the layouts. `rule`:
    see `cliperase.data.rules.forget_mask`. `settings`: those of the method and of the loop
    (`cliperase.settings.TrainSettings`) in one mapping; a method that trains needs `learning_rate`, and `steps` or
    `epochs` over the forget set. CLIPErase without a learning rate takes `defaults`. The weights are selected on
    validation data, by the task that `tasks.task_of` finds. `callback`, for a logger of one's own, gets after each
    evaluation what the report's `log` says of it: step, loss terms, validation metrics. `templates`: as in `evaluate`;
    in training, a class in each of them is one caption of its rows.

    Written to `output`: the model as a folder, `report.json`, `manifest.json` with their hashes, a model card
    `README.md`, and while it runs a checkpoint to resume from. Under `torchrun` the processes share every step
    (`parallel.py`). Returns the report: rule, rows, settings, validation metrics before and after, loss terms. Raises
    `CliperaseError` for bad input, before any training.
    """
    from cliperase.card import write_card  # it imports the hub's client

    join_processes()
    asked = read_templates(templates)
    Rule.of(rule)  # what is wrong with it and with the settings is said before anything is read
    Recipe.completed(method, settings, seed)
    student = load_model(model, pick_device())
    recipe, settings, defaults = Recipe.completed(method, settings, seed, student)
    if defaults:
        warn("no learning rate was given: the settings are defaults, %s", defaults)
    rule, settings = dict(rule), {**settings, "seed": recipe.training.seed}
    run = {"method": method, "rule": rule, "settings": settings, **said_of(asked)}
    validation, forgotten, training = load_run(data, rule, student.framing, recipe.training, asked)
    check_streamable(recipe, training.retain)
    tell_cut(student, training.forget)
    twice = pictures_on_two_sides(validation, training)
    for line in told(twice):
        warn("%s", line)
    with output_folder(output, data, model, run, recipe.method.takes_steps) as folder:
        before = task_of(validation).measure(student, validation, forgotten)
        history = Run(
            student, recipe, training.forget, training.retain, validation, forgotten, before=before,
            checkpoint=folder and folder / CHECKPOINT, callback=callback,
        ).carry_out()  # fmt: skip
        if history.ran_out:
            warn("the last checkpoint was the best: more epochs, or a higher learning rate, may forget better")
        report = {"model": str(model), "data": name_of(data), "method": method, "rule": rule, "rows": training.rows,
                  "on_two_sides": {sides: len(pictures) for sides, pictures in twice.items()},
                  "settings": settings, **said_of(asked), "defaults": defaults,
                  **told_of(history, before)}  # fmt: skip
        if folder and is_first():
            write_result(folder, student, report)
            write_card(folder)
            remove_checkpoint(folder / CHECKPOINT)
        wait_for_all()
    return report


def warn(text: str, *values: Any) -> None:
    """Of several processes the first one warns."""
    if is_first():
        log.warning(text, *values)


def tell_cut(model: ImageTextModel, forget: PairSet) -> None:
    """Say how many captions to forget fill all that a model reads: with more behind them, it reads the same."""
    texts = forget.texts_used()
    own, longer = model.token_rows([*texts, *(f"{text} more" for text in texts)]).split(len(texts))
    full = [text for text, cut in zip(texts, (own == longer).all(dim=1).tolist(), strict=True) if cut]
    if full:
        said = "%d of %d captions to forget are cut where the model stops to read, the first is %r…"
        warn(said, len(full), len(texts), full[0][:80])


def several(values: Any) -> list[Any]:
    """A list of what may be given as one: the letters of a text are none."""
    return [values] if isinstance(values, str | Path) else list(values)


def told_of(history: History, before: Mapping[str, float]) -> dict[str, Any]:
    """What the report says of a run's `History`. `before`: the validation metrics of the original."""
    return {
        "validation_before": before,
        "validation_after": {name: history.validation[name] for name in before},
        "log": history.log,
        "selected_step": history.best_step,
        "budget_ran_out": history.ran_out,
        "seconds": round(history.seconds, 2),
    }


def preview(
    model: str | Path,
    data: Data,
    rule: Mapping[str, Any],
    method: str = "CLIPErase",
    settings: Mapping[str, Any] | None = None,
    output: str | Path | None = None,
    templates: Templates | None = None,
) -> dict[str, Any]:
    """What `unlearn` with these arguments would forget, and what stands near it, as `cliperase.preview` describes it.

    Nothing is trained. With `output`, `preview.html` in that folder shows it, with a contact sheet.
    """
    from cliperase.preview import preview, write_preview

    Recipe.completed(method, settings)
    loaded = load_model(model, pick_device())
    recipe, _, defaults = Recipe.completed(method, settings, model=loaded)
    found = preview(loaded, data, rule, recipe.training, read_templates(templates))
    if output:
        check_writable(Path(output) / "preview.html")
        write_preview(Path(output) / "preview.html", found, defaults)
    return found


def propose(
    model: str | Path,
    data: Data,
    query: str | None = None,
    examples: Iterable[str | Path] = (),
    output: str | Path | None = None,
    broken_percent: float = BROKEN_PERCENT,
) -> dict[str, Any]:
    """A forget rule for who has only a sentence, or a few example pictures: see `cliperase.proposal`.

    `model`, `data` as in `unlearn`, `broken_percent` as in `evaluate`; `examples`: picture files, or folders of them.
    Written to `output`: `rule.yaml`, to be looked through, and `proposal.html`. Returns {"rule", "cut", "scores"}: the
    rule takes the rows whose score is above the cut-off, `scores` are theirs.
    """
    from cliperase.proposal import pictures_of, propose, write_proposal

    if output:
        check_writable(Path(output) / "rule.yaml")
        check_outside(output, data)
    examples, allowed = pictures_of([Path(one) for one in several(examples)]), checked_percent(broken_percent)
    found = propose(load_model(model, pick_device()), data, query, examples, allowed)
    if output:
        asked = [f"“{query}”"] * bool(query) + [f"{len(examples)} example{'s' * (len(examples) > 1)}"] * bool(examples)
        write_proposal(Path(output), found, " and ".join(asked))
    rows, scores = found.proposed, found.scores.tolist()
    return {"rule": {"rows": [found.pairs.row_hashes[row] for row in rows]}, "cut": found.cut,
            "scores": [scores[row] for row in rows]}  # fmt: skip


def compare(
    before: str | Path,
    after: str | Path,
    data: Data,
    rule: Mapping[str, Any] | None = None,
    split: str = "test",
    queries: Iterable[str] = (),
    output: str | Path | None = None,
    broken_percent: float = BROKEN_PERCENT,
) -> dict[str, Any]:
    """Two models side by side on one split of a data set, as `cliperase.comparison` describes it.

    `before`, `after`: sources as in `unlearn`. `rule` marks what is to be forgotten. `queries`: texts to ask beside
    those that are chosen. `broken_percent`: as in `evaluate`. `output` gets `comparison.json` and `comparison.html`.
    """
    from cliperase.comparison import compare, write_comparison

    if output:
        check_writable(Path(output) / "comparison.json")
        check_outside(output, data)
    allowed = checked_percent(broken_percent)
    models = [load_model(source, pick_device()) for source in (before, after)]
    found, pairs = compare(models[0], models[1], data, rule, split, several(queries), allowed)
    if output:
        write_json(Path(output) / "comparison.json", found)
        names = {"before": str(before), "after": str(after)}
        write_comparison(Path(output) / "comparison.html", found, pairs, names)
    return found


def evaluate(
    model: str | Path,
    data: Data,
    rule: Mapping[str, Any] | None = None,
    split: str = "test",
    templates: Templates | None = None,
    broken_percent: float = BROKEN_PERCENT,
) -> dict[str, float]:
    """The metrics of a model on one split of a data set, by the task that its columns say.

    Without a `rule`, which shards need, nothing counts as forgotten: how well all rows are retained is measured.
    `templates`: of data with classes, what they are asked with instead of `a photo of a …`; the embeddings of a class
    in several templates are averaged; see `read_templates`. `broken_percent` of the rows may be unreadable.
    """
    asked, allowed = read_templates(templates), checked_percent(broken_percent)
    loaded = load_model(model, pick_device())
    pairs, forgotten = load_split(data, split, rule, loaded.framing, broken_percent=allowed, templates=asked)
    return task_of(pairs).measure(loaded, pairs, forgotten)


def convert(model: str | Path, to: str, output: str | Path, into: str | Path | None = None) -> dict[str, Any]:
    """Write a model in another format: `to` is one of `cliperase.conversion.TARGETS`.

    "open_clip" and "transformers" write a CLIP of the one as a CLIP of the other, "onnx" both encoders of a CLIP or
    SigLIP, "pipeline" a copy of the diffusers pipeline in the folder `into`, with the text tower in the place of the
    encoder that fits. The folder `output` must be new or empty, so that it holds one format only. Returns what its
    `report.json` holds: the lowest cosines to the model's own embeddings, which are 1 but for rounding, and the largest
    differences.
    """
    from cliperase.conversion import check_target
    from cliperase.conversion import convert as converted

    check_target(to, into)
    if Path(output).is_dir() and any(Path(output).iterdir()):
        raise CliperaseError(f"output {output} is not empty; name a new folder")
    check_writable(Path(output) / REPORT)
    return converted(load_model(model, pick_device()), model, to, Path(output), into)


@dataclass(frozen=True)
class AuditOptions:
    """How `audit` asks, where it is not to ask in the usual way.

    `probes`: the names of some, by default all. `settings`: of the audit (`auditing.AuditSettings`) and of probes, as
    "probe.setting". `seed` decides what is drawn. `thresholds`: {"probe.measure": {"threshold", "auc", "source"}},
    measured on models that saw a concept and on models that did not; a figure without one has no vote. `others`: other
    splits of the data, or other data whose split "test" is taken; by default the split `heldout` where there is one.
    `shadows`: models that were trained with the concept, as the original was, from other seeds; only `lira` asks them.
    `templates`: as in `evaluate`.
    """

    probes: Iterable[str] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    thresholds: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    others: Sequence[str | Path] | None = None
    shadows: Sequence[str | Path] = ()
    templates: Templates | None = None


def audit(
    before: str | Path,
    after: str | Path,
    data: Data,
    rule: Mapping[str, Any],
    references: Sequence[str | Path] = (),
    split: str = "test",
    options: AuditOptions | None = None,
    output: str | Path | None = None,
) -> dict[str, Any]:
    """Is it really gone? Put the probes of `cliperase.audit` to an unlearned model.

    `before`: the original; `after`: the unlearned one; `references`: models that were trained without the concept. Each
    is a source as in `unlearn`, as are `data` and `rule`; `split` is the one that is asked about.

    Written to `output`: `audit.json`, `page.html`, `rows.csv` (name, value, unit), and each finished probe, so that an
    audit that was killed goes on. Returns what `audit.json` holds: docs/audit.md explains it. Raises `CliperaseError`
    for bad input, before any probe.
    """
    from cliperase.audit.auditing import carry_out, open_case, plan, result_of, tell_unused
    from cliperase.audit.report import write_report
    from cliperase.audit.verdict import read_thresholds

    asked, sources = options or AuditOptions(), [before, after, *several(references)]
    own, chosen = plan(asked.probes and several(asked.probes), asked.settings, asked.seed)
    limits, templates = read_thresholds(asked.thresholds), read_templates(asked.templates)
    with ExitStack() as stack:
        if output:
            check_writable(Path(output) / "audit.json")
            check_outside(output, data)
            stack.enter_context(only_writer(output))
        others, shadows = asked.others and several(asked.others), several(asked.shadows)
        case = open_case(sources, data, rule, split, others, own, shadows, templates)
        results = carry_out(case, chosen, output)
        tell_unused(limits, results)
        result = result_of(case, [*sources, *shadows], data, split, own, results, limits)
        if output:
            write_report(Path(output), result)
    return result
