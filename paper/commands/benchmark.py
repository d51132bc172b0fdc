"""Enter a method, or models that other code unlearned, into the benchmark."""

from pathlib import Path

from paper.commands import add_options


def add_arguments(parser):
    parser.add_argument("name", help="of the entry in the leaderboard")
    parser.add_argument("--method", type=Path, help="Python file with one subclass of cliperase.methods.base.Method")
    parser.add_argument("--settings", type=Path, help="YAML with the settings of method and loop")
    parser.add_argument("--unlearned", type=Path, help="folder with a model <concept>-<seed> for each run")
    parser.add_argument("--small", action="store_true", help="one concept and one seed, to try it out")
    parser.add_argument("--models", required=True, help="folder of the originals of seed 0; the others lie beside it")
    parser.add_argument(
        "--power", type=Path, default=Path("metrics/icons/power"), help="folder of the power study, with the thresholds"
    )
    add_options(parser, "data", "profile", "output")


def run(arguments):
    from cliperase.files import check_writable
    from cliperase.settings import read_params
    from paper.benchmark import enter, write_entry
    from paper.params import read_profile
    from paper.power import PowerStudy

    check_writable(arguments.output / "entry.json")
    rows, header = enter(
        read_profile(arguments.profile), arguments.name, arguments.data, arguments.models, file=arguments.method or "",
        settings=read_params(arguments.settings) if arguments.settings else None, folder=arguments.unlearned or "",
        small=arguments.small,
    )  # fmt: skip
    for run in write_entry(arguments.output, rows, header, PowerStudy.read(arguments.power)).itertuples():
        print(f"{run.concept}, seed {run.seed}: {run.verdict}")
    enters = "too few runs for the leaderboard" if arguments.small else "commit the folder to enter it"
    print(f"{arguments.output}: {len(rows)} figures with their intervals; {enters}")
