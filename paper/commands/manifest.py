"""Write which rows each forget rule forgets, by hash."""

from paper.commands import add_options


def add_arguments(parser):
    parser.add_argument(
        "--rules", default="concepts", help="section of the profile with forget rules; else its concepts"
    )
    add_options(parser, "data", "profile", "output")


def run(arguments):
    from cliperase.data.pairs import load_pairs
    from paper.manifest import manifest
    from paper.params import read_profile
    from paper.results import write_table

    profile = read_profile(arguments.profile)
    if arguments.rules == "concepts":
        rules = {name: {"concept": name} for name in profile.concepts}
    else:
        rules = profile.section(arguments.rules)
    splits = {split: load_pairs(arguments.data, split) for split in profile.splits_of(arguments.data)}
    write_table(manifest(splits, rules), arguments.output)
