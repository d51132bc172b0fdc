"""Write the pages of three audits: of the original against itself, of CLIPErase, and of the method `unseen`."""

from paper.commands import add_options

ROWS = ("original", "CLIPErase", "unseen")
CONCEPT, SEED = "bicycle", 0


def add_arguments(parser):
    parser.add_argument("--models", required=True, help="folder of the models of seed 0; the others lie beside it")
    parser.add_argument("--power", required=True, help="folder of the power study, for its thresholds")
    add_options(parser, "data", "profile", "output")


def run(arguments):
    import shutil
    from pathlib import Path

    from cliperase.api import AuditOptions, audit
    from cliperase.files import read_json, whole_file
    from paper.experiments import experiment_of
    from paper.params import read_profile
    from paper.runs import Run, of_seed, open_bench

    profile, models = read_profile(arguments.profile), Path(arguments.models)
    experiment = experiment_of(profile, "audit")
    bench = open_bench(experiment.place(profile, arguments.data, models, experiment.splits))
    references = [of_seed(models, seed) / f"retrain-{CONCEPT}" for seed in experiment.originals]
    thresholds = read_json(Path(arguments.power) / "thresholds.json")
    options = AuditOptions(settings=profile.power["settings"], thresholds=thresholds)
    kept = Path("artifacts") / profile.profile / "audits"
    for row in ROWS:
        after = models / "original"
        if row != "original":
            run = Run(experiment.name, row, CONCEPT, {"concept": CONCEPT}, SEED, row)
            after = kept / row / "model"
            bench.unlearn(experiment.planned(profile, run))[0].save(after)
        where = (models / "original", after, arguments.data, {"concept": CONCEPT})
        audit(*where, references, options=options, output=kept / row)
        with whole_file(arguments.output / f"{row.lower()}.html") as partial:
            shutil.copy(kept / row / "page.html", partial)
