"""Say what would stop the runs of the main table, and what they would cost."""

from paper.commands import add_options


def add_arguments(parser):
    from cliperase.options import add_options as add_library_options

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
    settings = override(usual_settings(main, profile, arguments.method), arguments.set)
    runs = 1 if is_sharded(arguments.data) else runs_of(main, profile)  # the main table is not of shards
    where = (arguments.model, arguments.data)
    tell(examine(*where, rule_of(arguments), arguments.method, settings, arguments.output, runs))


def usual_settings(main, profile, row):
    """Those of a row of the main table; those of the loop, where it has none or a search has not chosen them yet."""
    if row in main.methods and (not main.tuned or main.tuned in profile.chosen):
        return main.configured(profile, row)["settings"]
    return {**profile.unlearn, **main.unlearn}


def runs_of(main, profile):
    """How many runs with steps the main table has."""
    from cliperase.methods import method_class

    methods = [settings.get("method", row) for row, settings in main.methods.items()]
    rows = sum(method_class(name).takes_steps for name in methods)
    return rows * len(main.concepts) * len(main.repeats or profile.seeds) or 1
