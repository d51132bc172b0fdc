"""What the command line `cliperase` takes: its commands and their options."""

import argparse
from pathlib import Path

from cliperase import __version__
from cliperase.conversion import TARGETS
from cliperase.data.limits import BROKEN_PERCENT


def options():
    """The parser of the command line; `shtab` makes a shell's completion of it."""
    parser = argparse.ArgumentParser(prog="cliperase", description="Make a CLIP forget, and measure that it did.")
    parser.add_argument("--version", action="version", version=f"cliperase {__version__}")
    commands = parser.add_subparsers(required=True, metavar="command", dest="command")
    add_forgetting(commands)
    add_evidence(commands)
    add_formats(commands)
    return parser


def add_forgetting(commands):
    """The commands that lead to a model that forgot."""
    unlearn = add_command(commands, "unlearn", "Make one model forget; writes the model and a report.")
    add_options(unlearn, "model", "data", "forget", "rule", "method", "set", "seed", "templates", "output")
    doctor = add_command(
        commands, "doctor", "List problems, fixes and the estimated time of `unlearn` with these arguments."
    )
    add_options(doctor, "model", "data", "forget", "rule", "method", "set", "templates", "output")
    unlearn.add_argument(
        "--dry-run", action="store_true", help="train nothing: what would be forgotten, what is near it, and the cost"
    )
    unlearn.add_argument(
        "--audit", action=argparse.BooleanOptionalAction, default=True, help="audit the result, up to three minutes"
    )
    add_standards(unlearn)
    for sub in (unlearn, doctor):
        sub.add_argument("--params", type=Path, help="take settings of the loop and the method from this file")
    proposal = add_command(
        commands, "propose", "From a sentence or examples to a rule of rows to forget, and a page of them."
    )
    add_options(proposal, "model", "data", "output")
    proposal.add_argument("--query", help="a word or a sentence")
    add_options(proposal, "broken-percent")
    add_list(proposal, "examples", "PATH", "pictures, or folders of them")


def add_evidence(commands):
    """The commands that measure models."""
    measure = add_command(commands, "evaluate", "Measure a model on one split, with or without a forget rule.")
    add_options(measure, "model", "data", "forget", "rule", "split", "templates", "broken-percent")
    measure.add_argument("--output", type=Path, help="write the metrics to this file, too")
    audit = add_command(commands, "audit", "Is it really gone? Probe an unlearned model; writes a page.")
    audit.add_argument("before", help="the original model, as --model of the other commands")
    audit.add_argument("after", help="the unlearned model")
    add_options(audit, "data", "forget", "rule", "split", "set", "seed", "templates", "output")
    add_standards(audit)
    add_list(audit, "shadow", "MODEL", "models trained with the concept, from other seeds")
    add_list(audit, "probes", "PROBE", "some of the probes; all of them if left out")
    add_list(audit, "other", "DATA", "other splits of the data, or other data; heldout if left out")
    compare = add_command(commands, "compare", "Two models side by side on one split; writes a page.")
    compare.add_argument("before", help="the original model, as --model of the other commands")
    compare.add_argument("after", help="the unlearned model")
    add_options(compare, "data", "forget", "rule", "split", "output", "broken-percent")
    add_list(compare, "query", "TEXT", "texts to ask, beside those chosen")


def add_formats(commands):
    """The commands that write a model in another form."""
    convert = add_command(commands, "convert", "Write a model in another format, and compare the two.")
    add_options(convert, "model", "output")
    convert.add_argument("--to", required=True, choices=TARGETS)
    convert.add_argument("--into", type=Path, help="the pipeline whose copy gets the text tower, with --to pipeline")
    pack = add_command(commands, "pack", "Write a small model as one file of a few megabytes.")
    add_options(pack, "model", "data", "output")
    unpack = add_command(commands, "unpack", "Write a packed model as an open_clip folder.")
    unpack.add_argument("packed", type=Path, help="file that `cliperase pack` wrote")
    add_options(unpack, "output")


def add_command(commands, name, description):
    return commands.add_parser(name, help=description, description=description)


def add_options(sub, *names):
    for name in names:
        sub.add_argument(f"--{name}", **OPTIONS[name])


def add_list(sub, name, metavar, help):
    """An option with one value or more, which may be given several times; [] where it is left out."""
    sub.add_argument(f"--{name}", nargs="+", action="extend", default=[], metavar=metavar, help=help)


def add_standards(sub):
    """What an audit holds its figures against."""
    add_list(sub, "reference", "MODEL", "models trained without the concept, for the audit")
    sub.add_argument(
        "--thresholds", type=Path, help="of the audit, YAML or JSON: {probe.measure: {threshold: …, auc: …, source: …}}"
    )


OPTIONS = {
    "model": {
        "required": True,
        "help": "folder of open_clip or transformers, a name such as ViT-B-32/openai, hf-hub:…, blip:… or pipeline:…",
    },
    "data": {
        "required": True,
        "help": "folder of pictures, tables, parquet files or shards; a CSV or JSONL file; or a hub name: docs/data.md",
    },
    "forget": {
        "action": "append",
        "metavar": "CONCEPT",
        "help": "concept: a class name, or a word of the captions; give it several times for several concepts",
    },
    "rule": {
        "action": "append",
        "help": "any other forget rule as YAML, such as '{classes: [apple, lemon]}', or a file that holds one",
    },
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
    "templates": {"help": "prompts of the classes: a file with one a line, or `simple`, or `openai`"},
    "output": {"required": True, "type": Path},
    "broken-percent": {
        "type": float,
        "default": BROKEN_PERCENT,
        "metavar": "N",
        "help": "percent of the rows that may be unreadable",
    },
}
