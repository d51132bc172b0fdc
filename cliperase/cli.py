"""The command line `cliperase`: a thin layer over `cliperase.api`."""

import argparse
import json
import sys
from pathlib import Path

from cliperase import __version__
from cliperase.conversion import TARGETS
from cliperase.errors import CliperaseError
from cliperase.program import carry_out
from cliperase.settings import parse_yaml, read_params, section


def main(arguments=None):
    """The command line of the library; its exit code."""
    return carry_out(parse(arguments), "cliperase")


def parse(arguments):
    return options().parse_args(arguments)


def options():
    """The parser of the command line; `shtab` makes a shell's completion of it."""
    parser = argparse.ArgumentParser(prog="cliperase", description="Make a CLIP forget, and measure that it did.")
    parser.add_argument("--version", action="version", version=f"cliperase {__version__}")
    commands = parser.add_subparsers(required=True, metavar="command")
    add_forgetting(commands)
    add_evidence(commands)
    add_formats(commands)
    return parser


def add_forgetting(commands):
    """The commands that lead to a model that forgot."""
    unlearn = add_command(commands, "unlearn", run_unlearn, "Make one model forget; writes the model and a report.")
    add_options(unlearn, "model", "data", "forget", "rule", "method", "set", "seed", "output")
    doctor = add_command(
        commands, "doctor", run_doctor, "List problems, fixes and the estimated time of `unlearn` with these arguments."
    )
    add_options(doctor, "model", "data", "forget", "rule", "method", "set", "output")
    unlearn.add_argument(
        "--dry-run", action="store_true", help="train nothing: what would be forgotten, what is near it, and the cost"
    )
    unlearn.add_argument(
        "--audit", action=argparse.BooleanOptionalAction, default=True, help="audit the result, up to three minutes"
    )
    for sub in (unlearn, doctor):
        sub.add_argument("--params", type=Path, help="take settings of the loop and the method from this file")
    proposal = add_command(
        commands, "propose", run_propose, "From a sentence or examples to a rule of rows to forget, and a page of them."
    )
    add_options(proposal, "model", "data", "output")
    proposal.add_argument("--query", help="a word or a sentence")
    proposal.add_argument("--examples", nargs="+", default=[], metavar="PATH", help="pictures, or folders of them")


def add_evidence(commands):
    """The commands that measure models."""
    measure = add_command(
        commands, "evaluate", run_evaluate, "Measure a model on one split, with or without a forget rule."
    )
    add_options(measure, "model", "data", "forget", "rule", "split")
    measure.add_argument("--templates", help="prompts of the classes: a file with one a line, or `simple`, or `openai`")
    measure.add_argument("--output", type=Path, help="write the metrics to this file, too")
    audit = add_command(commands, "audit", run_audit, "Is it really gone? Probe an unlearned model; writes a page.")
    audit.add_argument("before", help="the original model, as --model of the other commands")
    audit.add_argument("after", help="the unlearned model")
    add_options(audit, "data", "forget", "rule", "split", "set", "seed", "output")
    audit.add_argument("--reference", nargs="+", default=[], metavar="MODEL", help="models trained without the concept")
    audit.add_argument(
        "--shadow", nargs="+", default=[], metavar="MODEL", help="models trained with the concept, from other seeds"
    )
    audit.add_argument("--probes", nargs="+", metavar="PROBE", help="some of the probes; all of them if left out")
    audit.add_argument(
        "--other", nargs="+", metavar="DATA", help="other splits of the data, or other data; heldout if left out"
    )
    audit.add_argument(
        "--thresholds", type=Path, help="YAML or JSON: {probe.measure: {threshold: …, auc: …, source: …}}"
    )
    compare = add_command(commands, "compare", run_compare, "Two models side by side on one split; writes a page.")
    compare.add_argument("before", help="the original model, as --model of the other commands")
    compare.add_argument("after", help="the unlearned model")
    add_options(compare, "data", "forget", "rule", "split", "output")
    compare.add_argument("--query", nargs="+", action="extend", default=[], help="texts to ask, beside those chosen")


def add_formats(commands):
    """The commands that write a model in another form."""
    convert = add_command(commands, "convert", run_convert, "Write a model in another format, and compare the two.")
    add_options(convert, "model", "output")
    convert.add_argument("--to", required=True, choices=TARGETS)
    convert.add_argument("--into", type=Path, help="the pipeline whose copy gets the text tower, with --to pipeline")
    pack = add_command(commands, "pack", run_pack, "Write a small model as one file of a few megabytes.")
    add_options(pack, "model", "data", "output")
    unpack = add_command(commands, "unpack", run_unpack, "Write a packed model as an open_clip folder.")
    unpack.add_argument("packed", type=Path, help="file that `cliperase pack` wrote")
    add_options(unpack, "output")


def add_command(commands, name, run, description):
    sub = commands.add_parser(name, help=description, description=description)
    sub.set_defaults(run=run)
    return sub


def add_options(sub, *names):
    for name in names:
        sub.add_argument(f"--{name}", **OPTIONS[name])


OPTIONS = {
    "model": {
        "required": True,
        "help": "folder of open_clip or transformers, a name such as ViT-B-32/openai, hf-hub:…, blip:… or pipeline:…",
    },
    "data": {
        "required": True,
        "help": "folder of pictures, tables, parquet files or shards; a CSV or JSONL file; or a hub name: docs/data.md",
    },
    "forget": {"help": "concept: a class name, or a word of the captions"},
    "rule": {"help": "any other forget rule as YAML, such as '{classes: [apple, lemon]}', or a file that holds one"},
    "method": {"default": "CLIPErase", "help": "an algorithm: CLIPErase, MultiDelete, …"},
    "set": {
        "nargs": "+",
        "action": "extend",
        "default": [],
        "metavar": "NAME=VALUE",
        "help": "settings of method or training, values as YAML; may be given several times",
    },
    "seed": {"type": int, "default": 0},
    "split": {"default": "test"},
    "output": {"required": True, "type": Path},
}


def rule_of(arguments):
    if arguments.rule:
        if arguments.rule.endswith((".yaml", ".yml")):
            return read_params(arguments.rule)
        return parse_yaml(arguments.rule, f"--rule {arguments.rule!r}")
    if arguments.forget:
        return {"concept": arguments.forget}
    raise CliperaseError("nothing to forget: give --forget CONCEPT or --rule '{…}'")


def override(settings, assignments):
    """`["lambda_fm=2", …]` on top of `settings`; values are read as YAML."""
    settings = dict(settings)
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not name or not equals:
            raise CliperaseError(f"--set {assignment!r}: write NAME=VALUE")
        settings[name] = parse_yaml(value, f"--set {assignment!r}")
    return settings


def settings_of(arguments):
    """Settings of loop and method in one mapping: those of `--params`, overridden by those of `--set`."""
    usual = {}
    if arguments.params:
        params = read_params(arguments.params)
        given = {name: section(params, name) for name in ("unlearn", "methods") if name in params}
        usual = {**given.get("unlearn", {}), **given.get("methods", {}).get(arguments.method, {})}
    return override(usual, arguments.set)


def run_doctor(arguments):
    from cliperase.doctor import examine

    what = (rule_of(arguments), arguments.method, settings_of(arguments))
    tell(examine(arguments.model, arguments.data, *what, arguments.output))


def tell(findings):
    """Print the doctor's findings; an error counts those that are missing."""
    missing = 0
    for finding in findings:
        missing += finding.missing
        print(f"{'MISSING' if finding.missing else 'ok':8}{finding.subject:9}{finding.said}", flush=True)
    if missing:
        raise CliperaseError(f"{missing} problems must be fixed before the run; see the lines marked MISSING")


def run_unlearn(arguments):
    from cliperase.api import unlearn
    from cliperase.parallel import is_first

    settings, rule = settings_of(arguments), rule_of(arguments)
    if arguments.dry_run:
        return show_what_would_be_forgotten(arguments, settings, rule)
    report = unlearn(
        arguments.model, arguments.data, rule, arguments.method, settings, arguments.seed, arguments.output
    )
    if is_first():
        if arguments.audit:
            add_audit(arguments, rule)
        print(json.dumps(report, indent=2, allow_nan=False))
    return None


def show_what_would_be_forgotten(arguments, settings, rule):
    """The dry run: the doctor's findings, and the rows."""
    from cliperase.dry_run import DryRun
    from cliperase.preview import sentences, write_preview

    run = DryRun(arguments.model, arguments.data, rule, arguments.method, settings, arguments.output)
    tell(run.findings())
    write_preview(arguments.output / "preview.html", run.preview, run.defaults)
    print("\n".join(sentences(run.preview)))
    print(f"Read {arguments.output / 'preview.html'}")


def add_audit(arguments, rule):
    """Audit the result that was just written, and name the verdict in its card. One that cannot be audited stays."""
    from cliperase.api import audit
    from cliperase.card import AUDIT, write_card
    from cliperase.data.limits import log
    from cliperase.data.source import measured_split

    folder = arguments.output / AUDIT.parent
    try:
        split = measured_split(arguments.data)
        found = audit(arguments.model, arguments.output, arguments.data, rule, split=split, output=folder)
    except CliperaseError as error:
        log.warning("the result is not audited: %s", error)
        return
    write_card(arguments.output)
    log.warning("%s Read %s", found["verdict"], folder / "page.html")


def run_evaluate(arguments):
    from cliperase.api import evaluate
    from cliperase.files import check_writable, write_json

    rule = rule_of(arguments) if arguments.rule is not None or arguments.forget is not None else None
    if arguments.output:
        check_writable(arguments.output)
    metrics = evaluate(arguments.model, arguments.data, rule, arguments.split, arguments.templates)
    if arguments.output:
        write_json(arguments.output, metrics)
    print(json.dumps(metrics, indent=2, allow_nan=False))


def run_convert(arguments):
    from cliperase.api import convert

    print(json.dumps(convert(arguments.model, arguments.to, arguments.output, arguments.into), indent=2))


def run_audit(arguments):
    from cliperase.api import AuditOptions, audit

    thresholds = read_params(arguments.thresholds) if arguments.thresholds else {}
    options = AuditOptions(
        probes=arguments.probes, settings=override({}, arguments.set), seed=arguments.seed, thresholds=thresholds,
        others=arguments.other, shadows=arguments.shadow,
    )  # fmt: skip
    where = (arguments.before, arguments.after, arguments.data)
    result = audit(*where, rule_of(arguments), arguments.reference, arguments.split, options, arguments.output)
    print("\n".join([result["verdict"], *result["reasons"], f"Read {arguments.output / 'page.html'}"]))


def run_propose(arguments):
    from cliperase.api import propose

    found = propose(arguments.model, arguments.data, arguments.query, arguments.examples, arguments.output)
    print(
        f"{len(found['rule']['rows'])} rows score above {found['cut']:.2f}. Read {arguments.output / 'proposal.html'}"
    )
    print(f"Strike rows in {arguments.output / 'rule.yaml'}, then `cliperase unlearn --rule` that file")


def run_compare(arguments):
    from cliperase.api import compare

    rule = rule_of(arguments) if arguments.rule is not None or arguments.forget is not None else None
    compare(arguments.before, arguments.after, arguments.data, rule, arguments.split, arguments.query, arguments.output)
    print(f"Read {arguments.output / 'comparison.html'}")


def run_pack(arguments):
    from cliperase.data.source import load_split
    from cliperase.models.framing import Resized
    from cliperase.models.packing import pack

    pairs, _ = load_split(arguments.data, "train", None, Resized((32, 32)))  # any size: only the texts are used
    pack(arguments.model, pairs.texts, arguments.output)


def run_unpack(arguments):
    from cliperase.models.packing import unpack

    unpack(arguments.packed, arguments.output)


if __name__ == "__main__":
    sys.exit(main())
