"""`python -m paper …`: the commands of the pipeline. `paper/commands` has a file for each."""

import argparse
import ast
import sys
from importlib import import_module
from pathlib import Path

from cliperase.program import carry_out
from paper.environment import prepare_environment

COMMANDS = {  # only the module of the command that is asked for is imported
    "fetch": "paper.commands.fetch:run",
    "manifest": "paper.commands.manifest:run",
    "pretrain": "paper.commands.pretrain:run",
    "generator": "paper.commands.generator:run",
    "pretrain_blip": "paper.commands.pretrain_blip:run",
    "experiment": "paper.commands.experiment:run",
    "tune": "paper.commands.tune:run",
    "collect": "paper.commands.collect:run",
    "power": "paper.commands.power:run",
    "audit_pages": "paper.commands.audit_pages:run",
    "benchmark": "paper.commands.benchmark:run",
    "doctor": "paper.commands.doctor:run",
}


def main(arguments=None):
    """The command line of the pipeline; its exit code."""
    prepare_environment()
    return carry_out(parse(arguments), "paper")


def parse(arguments=None):
    """The parsed arguments, with the command's function as `run`."""
    given = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(
        prog="python -m paper",
        description="The paper's experiments, step by step. `python -m paper COMMAND --help` says more.",
        epilog="\n".join(f"{name:14} {purpose(name)}" for name in COMMANDS),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND")
    name = parser.parse_args(given[:1]).command
    module = import_module(COMMANDS[name].partition(":")[0])
    parser = argparse.ArgumentParser(prog=f"python -m paper {name}", description=purpose(name))
    module.add_arguments(parser)
    parsed = parser.parse_args(given[1:])
    parsed.run = module.run
    return parsed


def purpose(name):
    """The first line of a command's docstring, without importing it."""
    module = COMMANDS[name].partition(":")[0].rpartition(".")[2]
    source = (Path(__file__).parent / "commands" / f"{module}.py").read_text(encoding="utf-8")
    return ast.get_docstring(ast.parse(source)).splitlines()[0]


if __name__ == "__main__":
    sys.exit(main())
