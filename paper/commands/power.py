"""Measure the power of the audit's probes: a table of figures, one of powers, and the thresholds."""

from paper.commands import add_options


def add_arguments(parser):
    add_options(parser, "data", "model", "profile", "output")
    parser.epilog = "--model is the folder of the originals and retrained models, --output a folder."


def run(arguments):
    import json
    from pathlib import Path

    from cliperase.files import check_writable, whole_file
    from cliperase.settings import checked
    from paper.params import read_profile
    from paper.power import Study, measure_power, powers, thresholds
    from paper.results import write_table

    check_writable(arguments.output / "power.csv")
    profile = read_profile(arguments.profile)
    study = checked(Study, profile.power, f"power of profile {profile.profile}")
    finished = Path("artifacts") / profile.profile / "power"  # may be deleted at any time
    table = measure_power(study, arguments.data, arguments.model, finished)
    found = powers(table)
    write_table(table, arguments.output / "figures.csv")
    write_table(found.assign(provenance=profile.provenance), arguments.output / "power.csv")
    with whole_file(arguments.output / "thresholds.json") as partial:
        partial.write_text(json.dumps(thresholds(found, f"power study of profile {profile.profile}"), indent=2) + "\n")
