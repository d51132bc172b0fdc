"""Say what would stop the runs of the main table, and what they would cost."""

from paper.commands import add_options


def add_arguments(parser):
    from cliperase.cli import add_options as add_library_options

    add_library_options(parser, "forget", "rule", "method", "set")
    add_options(parser, "model", "data", "profile", "output")


def run(arguments):
    from cliperase.cli import override, rule_of, tell
    from cliperase.data.source import is_sharded
    from cliperase.doctor import examine
    from paper.experiments import experiment_of
    from paper.params import read_profile

    profile = read_profile(arguments.profile)
    main = experiment_of(profile, "main")
    known = arguments.method in main.methods
    usual = main.configured(profile, arguments.method)["settings"] if known else profile.unlearn
    settings = override(usual, arguments.set)
    runs = 1 if is_sharded(arguments.data) else runs_of(main, profile)  # the main table is not of shards
    where = (arguments.model, arguments.data)
    tell(examine(*where, rule_of(arguments), arguments.method, settings, arguments.output, runs))


def runs_of(main, profile):
    """How many runs with steps the main table has."""
    from cliperase.methods import method_class
    from paper.results import REFERENCES

    methods = [run.method for run in main.plan(profile, None)]
    return sum(method_class(name).takes_steps for name in methods if name not in REFERENCES) or 1
