"""Search the settings of each row of an experiment, on validation data."""

from paper.commands import add_options


def add_arguments(parser):
    parser.add_argument("--experiment", default="main", help="whose rows are searched; main, if left out")
    parser.add_argument("--ranges", help="YAML of the rows' ranges; paper/profiles/search/ranges.yaml, if left out")
    add_options(parser, "data", "model", "profile", "output")


def run(arguments):
    from cliperase.files import check_writable
    from paper.params import read_profile
    from paper.results import write_table
    from paper.search import RANGES, read_search, run_search

    check_writable(arguments.output)
    profile = read_profile(arguments.profile)
    search = read_search(profile, arguments.experiment, arguments.ranges or RANGES)
    table = run_search(profile, search, arguments.experiment, arguments.data, arguments.model)
    write_table(table, arguments.output)
