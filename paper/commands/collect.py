"""Join the tables of all experiments into one results table."""

from pathlib import Path

from paper.commands import add_options


def add_arguments(parser):
    parser.add_argument("parts", type=Path, help="folder with a table of each experiment")
    add_options(parser, "profile", "output")


def run(arguments):
    from paper.params import read_profile
    from paper.results import collect

    collect(arguments.parts, read_profile(arguments.profile).experiments, arguments.output)
