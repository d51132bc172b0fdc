"""Measure the power of the audit's probes: a table of figures, one of powers, and the thresholds."""

from paper.commands import add_options


def add_arguments(parser):
    parser.add_argument("--models", required=True, help="folder of the models of seed 0; the others lie beside it")
    add_options(parser, "data", "profile", "output")


def run(arguments):
    import json
    from pathlib import Path

    from cliperase.audit.auditing import plan
    from cliperase.files import check_writable, whole_file
    from cliperase.settings import checked
    from paper.params import read_profile
    from paper.power import Study, measure_power, powers, thresholds
    from paper.results import write_table

    check_writable(arguments.output / "power.csv")
    profile = read_profile(arguments.profile)
    study = checked(Study, profile.power, f"power of profile {profile.profile}")
    finished = Path("artifacts") / profile.profile / "power"  # may be deleted at any time
    table = measure_power(study, arguments.data, arguments.models, finished)
    found = powers(table)
    write_table(table, arguments.output / "figures.csv")
    write_table(found.assign(provenance=profile.provenance), arguments.output / "power.csv")
    with whole_file(arguments.output / "thresholds.json") as partial:
        source, probes = f"power study of profile {profile.profile}", plan(study.probes, study.settings, 0)[1]
        partial.write_text(json.dumps(thresholds(found, source, probes), indent=2) + "\n")
