"""Run one experiment: a table of results."""

from pathlib import Path

from paper.commands import add_options


def add_arguments(parser):
    parser.add_argument("name", help="one of `experiments` in the profile")
    parser.add_argument("--rows", nargs="+", help="only these rows")
    parser.add_argument("--arrays", type=Path, help="an npz for the pictures, where the experiment makes some")
    add_options(parser, "data", "model", "profile", "output")


def run(arguments):
    from cliperase.errors import CliperaseError
    from cliperase.files import check_writable
    from paper.experiments import experiment_of
    from paper.params import read_profile
    from paper.results import write_arrays, write_table

    for path in filter(None, (arguments.output, arguments.arrays)):
        check_writable(path)
    profile = read_profile(arguments.profile)
    experiment = experiment_of(profile, arguments.name, **({"rows": arguments.rows} if arguments.rows else {}))
    table, arrays = experiment.run(profile, arguments.data, arguments.model)
    if arguments.arrays and not arrays:
        raise CliperaseError(f"experiment {arguments.name!r} makes no arrays; leave --arrays out")
    if arguments.arrays:
        write_arrays(arrays, arguments.arrays)
    write_table(table, arguments.output)
