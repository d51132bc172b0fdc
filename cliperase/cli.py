"""The command line `cliperase`: a thin layer over `cliperase.api`."""

import json
import sys
from os.path import isfile

from cliperase.errors import CliperaseError
from cliperase.options import options
from cliperase.program import carry_out
from cliperase.settings import parse_yaml, read_params, section


def main(arguments=None):
    """The command line of the library; its exit code."""
    return carry_out(parse(arguments), "cliperase")


def parse(arguments):
    parsed = options().parse_args(arguments)
    parsed.run = RUNS[parsed.command]
    return parsed


def rule_of(arguments, required=True):
    """The forget rule of `--forget` or `--rule`; None where there is neither and it is not `required`."""
    concepts, rules = arguments.forget or [], arguments.rule or []
    if len(rules) > 1 or (rules and concepts):
        raise CliperaseError(
            f"{len(concepts)} × --forget and {len(rules)} × --rule were given; give one --rule, or --forget for each "
            "concept"
        )
    if concepts:
        return {"concept": concepts[0]} if len(concepts) == 1 else {"concepts": concepts}
    if not rules:
        if required:
            raise CliperaseError("nothing to forget: give --forget CONCEPT or --rule '{…}'")
        return None
    (rule,) = rules
    is_file = rule.endswith((".yaml", ".yml")) or isfile(rule)
    return read_params(rule) if is_file else parse_yaml(rule, f"--rule {rule!r}")


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
        methods = part(params, "methods")
        if "unlearn" not in params and arguments.method not in methods:
            raise CliperaseError(
                f"parameters {arguments.params} have neither a section unlearn nor methods.{arguments.method}, and "
                "nothing else of them is read; write the settings below one of these"
            )
        usual = {**part(params, "unlearn"), **part(methods, arguments.method)}
    return override(usual, arguments.set)


def part(params, name):
    """The section `name`, which may be left out or empty."""
    return {} if params.get(name) is None else section(params, name)


def run_doctor(arguments):
    from cliperase.doctor import examine

    what = (rule_of(arguments), arguments.method, settings_of(arguments))
    tell(examine(arguments.model, arguments.data, *what, arguments.output, templates=arguments.templates))


def tell(findings):
    """Print the doctor's findings; an error counts those that are missing."""
    missing = 0
    for finding in findings:
        missing += finding.missing
        kind = "MISSING" if finding.missing else "WARNING" if finding.warning else "ok"
        print(f"{kind:8}{finding.subject:9}{finding.said}", flush=True)
    if missing:
        raise CliperaseError(f"{missing} problems must be fixed before the run; see the lines marked MISSING")


def run_unlearn(arguments):
    from cliperase.api import unlearn
    from cliperase.parallel import is_first, leave_processes

    settings, rule, thresholds = settings_of(arguments), rule_of(arguments), thresholds_of(arguments)
    if not arguments.audit and (thresholds or arguments.reference):
        raise CliperaseError("--reference and --thresholds are for the audit; leave out --no-audit")
    if arguments.dry_run:
        return show_what_would_be_forgotten(arguments, settings, rule)
    report = unlearn(
        arguments.model, arguments.data, rule, arguments.method, settings, arguments.seed, arguments.output,
        templates=arguments.templates,
    )  # fmt: skip
    first = is_first()
    leave_processes()
    if first:
        if arguments.audit:
            add_audit(arguments, rule, thresholds, report["settings"])
        else:
            tell_old_audit(arguments.output)
        print(json.dumps(report, indent=2, allow_nan=False))
    return None


def show_what_would_be_forgotten(arguments, settings, rule):
    """The dry run: the doctor's findings, and the rows."""
    from cliperase.dry_run import DryRun
    from cliperase.preview import sentences, write_preview

    what = (rule, arguments.method, settings)
    run = DryRun(arguments.model, arguments.data, *what, arguments.output, arguments.templates)
    tell(run.findings())
    write_preview(arguments.output / "preview.html", run.preview, run.defaults)
    print("\n".join(sentences(run.preview)))
    print(f"Read {arguments.output / 'preview.html'}")


def thresholds_of(arguments):
    """The mapping of `--thresholds`, looked at before anything slow starts."""
    from cliperase.audit.verdict import read_thresholds

    thresholds = read_params(arguments.thresholds) if arguments.thresholds else {}
    read_thresholds(thresholds)
    return thresholds


def tell_old_audit(output):
    """Say that an audit in this folder is not of the result that was just written, where that is so."""
    from cliperase.card import AUDIT, audit_of
    from cliperase.data.limits import log

    if (output / AUDIT).is_file() and audit_of(output) is None:
        said = "%s is not of this result: it is of weights that were here before; audit again, or delete it"
        log.warning(said, output / AUDIT.parent)


def add_audit(arguments, rule, thresholds, settings):
    """Audit the result that was just written, and name the verdict in its card. One that cannot be audited stays.

    `settings`: those of the run, whose limit on broken rows is the audit's, too.
    """
    from cliperase.api import AuditOptions, audit
    from cliperase.card import AUDIT, write_card
    from cliperase.data.limits import log
    from cliperase.data.source import measured_split

    folder = arguments.output / AUDIT.parent
    try:
        split = measured_split(arguments.data)
        own = {name: value for name, value in settings.items() if name == "broken_percent"}
        options = AuditOptions(settings=own, thresholds=thresholds, templates=arguments.templates)
        where = (arguments.model, arguments.output, arguments.data, rule)
        found = audit(*where, arguments.reference, split, options, folder)
    except CliperaseError as error:
        log.warning("the result is not audited: %s", error)
        return
    write_card(arguments.output, found["models"][1]["sha256"])
    log.warning("%s Read %s", found["verdict"], folder / "page.html")


def run_evaluate(arguments):
    from cliperase.api import evaluate
    from cliperase.files import check_writable, write_json

    rule = rule_of(arguments, required=False)
    if arguments.output:
        check_writable(arguments.output)
    metrics = evaluate(
        arguments.model, arguments.data, rule, arguments.split, arguments.templates, arguments.broken_percent
    )
    if arguments.output:
        write_json(arguments.output, metrics)
    print(json.dumps(metrics, indent=2, allow_nan=False))


def run_convert(arguments):
    from cliperase.api import convert

    print(json.dumps(convert(arguments.model, arguments.to, arguments.output, arguments.into), indent=2))


def run_audit(arguments):
    from cliperase.api import AuditOptions, audit

    options = AuditOptions(
        probes=arguments.probes or None, settings=override({}, arguments.set), seed=arguments.seed,
        thresholds=thresholds_of(arguments), others=arguments.other or None, shadows=arguments.shadow,
        templates=arguments.templates,
    )  # fmt: skip
    where = (arguments.before, arguments.after, arguments.data)
    result = audit(*where, rule_of(arguments), arguments.reference, arguments.split, options, arguments.output)
    print("\n".join([result["verdict"], *result["reasons"], f"Read {arguments.output / 'page.html'}"]))


def run_propose(arguments):
    from cliperase.api import propose

    found = propose(
        arguments.model, arguments.data, arguments.query, arguments.examples, arguments.output, arguments.broken_percent
    )
    print(
        f"{len(found['rule']['rows'])} rows score above {found['cut']:.2f}. Read {arguments.output / 'proposal.html'}"
    )
    print(f"Strike rows in {arguments.output / 'rule.yaml'}, then `cliperase unlearn --rule` that file")


def run_compare(arguments):
    from cliperase.api import compare

    rule = rule_of(arguments, required=False)
    compare(
        arguments.before, arguments.after, arguments.data, rule, arguments.split, arguments.query, arguments.output,
        arguments.broken_percent,
    )  # fmt: skip
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


RUNS = {
    "unlearn": run_unlearn, "doctor": run_doctor, "propose": run_propose, "evaluate": run_evaluate, "audit": run_audit,
    "compare": run_compare, "convert": run_convert, "pack": run_pack, "unpack": run_unpack,
}  # fmt: skip

if __name__ == "__main__":
    sys.exit(main())
