"""`cliperase …`: the commands of the pipeline, and unlearning of one's own model."""

import argparse
import atexit
import gc
import json
import multiprocessing.forkserver
import os
import sys
from pathlib import Path

import yaml

from cliperase.errors import CliperaseError

# kernels that nearly every x86 processor of ten years has: wider ones, where there are any, sum in another order, and
# every number of the pipeline would depend on the machine; torch and its libraries read this at their first step
COMMON_KERNELS = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
EXPERIMENTS = ("ablation", "blip", "efficiency", "main", "pairs", "polysemy", "ratios", "retention", "retrieval")


def main(arguments=None):
    parsed = parse(arguments)
    if not parsed.own_model:
        os.environ.update(COMMON_KERNELS | os.environ)
    spare_the_collector()
    quiet_libraries()
    try:
        parsed.run(parsed)
    except CliperaseError as error:
        print(f"cliperase: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:  # of an extra: BLIP, diffusion
        print(f"cliperase: package {error.name} is not installed; run `pip install {error.name}`", file=sys.stderr)
        return 2
    return 0


def spare_the_collector():
    """Libraries make a million objects that live to the end: to look through them takes seconds, at exit once more."""
    gc.set_threshold(100_000)
    atexit.register(gc.freeze)


def quiet_libraries():
    """An error is one line of ours, not that line below a library's log of the same; workers inherit it."""
    os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"
    import datasets

    datasets.disable_progress_bars()
    datasets.utils.logging.set_verbosity(datasets.utils.logging.CRITICAL)


def parse(arguments):
    parser = argparse.ArgumentParser(prog="cliperase", description="Make a CLIP forget, and measure that it did.")
    commands = parser.add_subparsers(required=True, metavar="command")

    def command(name, run, description, own_model=False):  # one's own runs as fast as the machine can
        sub = commands.add_parser(name, help=description, description=description)
        sub.set_defaults(run=run, own_model=own_model)
        return sub

    def options(sub, *names):
        for name in names:
            sub.add_argument(f"--{name}", **OPTIONS[name])
        return sub

    unlearn = command("unlearn", run_unlearn, "Make one model forget; writes an open_clip folder and a report.", True)
    options(unlearn, "model", "data", "forget", "rule", "method", "set", "seed", "output")
    doctor = command(
        "doctor", run_doctor, "Say what would stop `unlearn` with these arguments, and what it would cost.", True
    )
    options(doctor, "model", "data", "forget", "rule", "method", "set", "output")
    for sub in (unlearn, doctor):
        sub.add_argument("--params", type=Path, help="take settings of the loop and the method from this file")
    measure = command(
        "evaluate", run_evaluate, "Forget and retain accuracy of a model on one split, or its accuracy.", True
    )
    options(measure, "model", "data", "forget", "rule", "split")
    measure.add_argument("--output", type=Path, help="write the metrics to this file, too")
    pretrain = command("pretrain", run_pretrain, "Train the compact CLIP from scratch, or on from another model.")
    options(pretrain, "data", "without", "start", "section", "params", "output")
    pack = command("pack", run_pack, "Write a small model as one file of a few megabytes.")
    options(pack, "model", "data", "output")
    unpack = command("unpack", run_unpack, "Write a packed model as an open_clip folder.")
    unpack.add_argument("packed", type=Path, help="file that `cliperase pack` wrote")
    options(unpack, "output")
    manifest = command("manifest", run_manifest, "Write which rows each forget rule forgets, by hash.")
    manifest.add_argument("--experiment", help="take the forget rules of this experiment, not the concepts")
    options(manifest, "data", "params", "output")
    experiment = command("experiment", run_experiment, "Run one experiment: a table of results.")
    experiment.add_argument("name", choices=EXPERIMENTS)
    experiment.epilog = "Where --output has {row} in its name, each row has a table of its own."
    options(experiment, "data", "model", "rows", "params", "output")
    space = command("embedding-space", run_embedding_space, "Embeddings and relevance maps before and after.")
    space.add_argument("--table", required=True, type=Path, help="part table of the numbers beside the pictures")
    options(space, "data", "model", "params", "output")
    generator = command("generator", run_generator, "Train a small text-to-image model on the pictures of a data set.")
    options(generator, "data", "model", "params", "output")
    diffusion = command("diffusion", run_diffusion, "Generate with unlearned text encoders, and count the concepts.")
    diffusion.add_argument("--pipeline", required=True, help="Stable Diffusion pipeline: folder or hub name")
    diffusion.add_argument(
        "--detector", required=True, help="a model as in --model, coco:<object detector>, or open:<detector by name>"
    )
    diffusion.add_argument("--pictures", nargs="*", default=[], help="data sets whose test split measures the detector")
    diffusion.add_argument("--table", required=True, type=Path, help="part table of the detection rates")
    options(diffusion, "data", "model", "params", "output")
    blip = command("pretrain-blip", run_pretrain_blip, "Train a small BLIP, and a captioner beside it.")
    options(blip, "data", "model", "params", "output")
    captioning = command("captioning", run_captioning, "Unlearn in the captioner: a table of results.")
    options(captioning, "data", "model", "params", "output")
    tune = command("tune", run_tune, "Search one row's settings on validation data.")
    tune.add_argument("--experiment", help="take the loop's settings of this experiment, not the main table's")
    options(tune, "data", "model", "row", "search", "params", "output")
    collect = command("collect", run_collect, "Join part tables into one results table.")
    collect.add_argument("parts", type=Path, help="folder of part tables")
    options(collect, "params", "output")
    return parser.parse_args(arguments)


OPTIONS = {
    "model": {
        "required": True,
        "help": "model folder, open_clip name/weights such as ViT-B-32/openai, hf-hub:… or blip:…",
    },
    "data": {
        "required": True,
        "help": "folder or hub name of a data set in the schema of cliperase.datasets, or a folder of shards",
    },
    "forget": {"help": "concept: a class name, or a word of the captions"},
    "rule": {"help": "any other forget rule as YAML, such as '{classes: [apple, lemon]}'"},
    "method": {"default": "CLIPErase", "help": "an algorithm: CLIPErase, MultiDelete, …"},
    "set": {"nargs": "+", "default": [], "metavar": "NAME=VALUE", "help": "settings of method or training"},
    "seed": {"type": int, "default": 0},
    "row": {"required": True, "help": "the row whose candidates are tried"},
    "rows": {"nargs": "+", "help": "only these rows of the main table"},
    "split": {"default": "test"},
    "without": {"help": "concept to leave out: the retrained reference"},
    "start": {"help": "model folder whose weights training starts from"},
    "section": {"default": "pretrain", "help": "section of the parameters with the settings"},
    "search": {"required": True, "type": Path, "help": "YAML of candidates"},
    "params": {"default": "params.yaml", "type": Path},
    "output": {"required": True, "type": Path},
}


def rule_of(arguments):
    if arguments.rule:
        return read_yaml(arguments.rule, "--rule")
    if arguments.forget:
        return {"concept": arguments.forget}
    raise CliperaseError("nothing to forget: give --forget CONCEPT or --rule '{…}'")


def override(settings, assignments):
    """`["lambda_fm=2", …]` on top of `settings`; values are read as YAML."""
    settings = dict(settings)
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals:
            raise CliperaseError(f"--set {assignment!r}: write NAME=VALUE")
        settings[name] = read_yaml(value, f"--set {name}")
    return settings


def read_yaml(text, option):
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise CliperaseError(f"{option} {text!r} is not YAML; check its brackets and quotes") from None


def settings_of(arguments):
    """Settings of loop and method, mixed: those of `--params`, if given, under those of `--set`."""
    from cliperase.experiments import read_params, section

    usual = {}
    if arguments.params:
        params = read_params(arguments.params)
        given = {name: section(params, name) for name in ("unlearn", "methods") if name in params}
        usual = {**given.get("unlearn", {}), **given.get("methods", {}).get(arguments.method, {})}
    return override(usual, arguments.set)


def runs_of(arguments):
    """How many runs with steps the main table of `--params` has, 1 where it is no whole profile."""
    from cliperase.experiments import check_params, plan_main, read_params
    from cliperase.methods import METHODS, takes_steps

    params = read_params(arguments.params) if arguments.params else {}
    if not {"concepts", "seeds", "methods", "pretrain", "unlearn"} <= set(params):
        return 1
    check_params(params)
    return sum(run.method in METHODS and takes_steps(run.method) for run in plan_main(params, None)) or 1


def run_doctor(arguments):
    from cliperase.doctor import examine
    from cliperase.stream import is_sharded

    missing, runs = 0, 1 if is_sharded(arguments.data) else runs_of(arguments)  # the main table is not of shards
    about = (rule_of(arguments), arguments.method, settings_of(arguments), arguments.output, runs)
    for finding in examine(arguments.model, arguments.data, *about):
        missing += finding.missing
        print(f"{'MISSING' if finding.missing else 'ok':8}{finding.subject:9}{finding.said}", flush=True)
    if missing:
        raise CliperaseError(f"{missing} of what the run needs is missing; see the lines above")


def run_unlearn(arguments):
    from cliperase.api import unlearn
    from cliperase.parallel import is_first

    settings, rule = settings_of(arguments), rule_of(arguments)
    report = unlearn(
        arguments.model, arguments.data, rule, arguments.method, settings, arguments.seed, arguments.output
    )
    if is_first():
        print(json.dumps(report, indent=2))


def run_evaluate(arguments):
    from cliperase.api import evaluate
    from cliperase.files import check_writable, whole_file

    asked = arguments.rule is not None or arguments.forget is not None
    rule = rule_of(arguments) if asked else None
    if arguments.output:
        check_writable(arguments.output)
    metrics = json.dumps(evaluate(arguments.model, arguments.data, rule, arguments.split), indent=2)
    if arguments.output:
        with whole_file(arguments.output) as partial:
            partial.write_text(metrics + "\n")
    print(metrics)


def run_pretrain(arguments):
    from cliperase.experiments import read_params, section
    from cliperase.files import check_writable
    from cliperase.pretraining import pretrain

    check_writable(arguments.output / "open_clip_config.json")
    params = read_params(arguments.params)
    settings = section(params, arguments.section)
    if "steps" not in settings:
        raise CliperaseError(
            f"section {arguments.section!r} of {arguments.params} names no steps; is it the right one?"
        )
    quality = pretrain(arguments.data, arguments.output, settings, arguments.without, arguments.start)
    print(f"{arguments.output}: {quality:.1f} % on validation images of what it was trained on")


def run_pack(arguments):
    from cliperase.datasets import load_pairs
    from cliperase.packing import pack

    pack(arguments.model, load_pairs(arguments.data, "train").texts, arguments.output)


def run_unpack(arguments):
    from cliperase.packing import unpack

    unpack(arguments.packed, arguments.output)


def run_manifest(arguments):
    from cliperase.datasets import load_pairs, manifest
    from cliperase.experiments import read_params, section, splits_of
    from cliperase.results import write_table

    params = read_params(arguments.params)
    if arguments.experiment:
        rules = section(params, f"experiments.{arguments.experiment}.rules")
    else:
        rules = {name: {"concept": name} for name in params.get("concepts", [])}
    splits = {split: load_pairs(arguments.data, split) for split in splits_of(params, arguments.data)}
    write_table(manifest(splits, rules), arguments.output)


def start_workers():
    """Start the server that the workers of an experiment are forked from: it imports while this process does."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(["cliperase.workers"])
    multiprocessing.forkserver.ensure_running()


def run_experiment(arguments):
    start_workers()
    from cliperase.experiments import read_params, run_experiment
    from cliperase.files import check_writable
    from cliperase.results import write_table

    check_writable(arguments.output)
    params = read_params(arguments.params)
    table = run_experiment(arguments.name, params, arguments.data, arguments.model, arguments.rows)
    output = str(arguments.output)
    parts = table.groupby("method", sort=False) if "{row}" in output else [("", table)]
    for row, part in parts:
        write_table(part, output.replace("{row}", row))


def run_embedding_space(arguments):
    from cliperase import embedding_space
    from cliperase.experiments import read_params
    from cliperase.files import check_writable
    from cliperase.results import write_table

    for path in (arguments.output, arguments.table):
        check_writable(path)
    arrays, table = embedding_space.run_embedding_space(read_params(arguments.params), arguments.data, arguments.model)
    embedding_space.write_arrays(arrays, arguments.output)
    write_table(table, arguments.table)


def run_generator(arguments):
    from cliperase.generator import train_generator

    train_beside(arguments, train_generator, "diffusion.generator")


def train_beside(arguments, train, path):
    """Train one of the models beside CLIP, with the section `path` of the parameters."""
    from cliperase.experiments import read_params, section
    from cliperase.files import check_writable

    check_writable(arguments.output / "config.json")
    settings = section(read_params(arguments.params), path)
    loss = train(arguments.data, arguments.model, arguments.output, settings)
    print(f"{arguments.output}: loss {loss:.3f} over the last tenth of the steps")


def run_diffusion(arguments):
    from cliperase.diffusion import run_diffusion
    from cliperase.embedding_space import write_arrays
    from cliperase.experiments import read_params
    from cliperase.files import check_writable
    from cliperase.results import write_table

    for path in (arguments.output, arguments.table):
        check_writable(path)
    models = (arguments.model, arguments.pipeline, arguments.detector)
    grids, table = run_diffusion(read_params(arguments.params), arguments.data, *models, arguments.pictures)
    write_arrays(grids, arguments.output)
    write_table(table, arguments.table)


def run_pretrain_blip(arguments):
    from cliperase.blip import pretrain_blip

    train_beside(arguments, pretrain_blip, "blip.pretrain")


def run_captioning(arguments):
    from cliperase.captioning import run_captioning
    from cliperase.experiments import read_params
    from cliperase.files import check_writable
    from cliperase.results import write_table

    check_writable(arguments.output)
    write_table(run_captioning(read_params(arguments.params), arguments.data, arguments.model), arguments.output)


def run_tune(arguments):
    start_workers()
    from cliperase.experiments import read_params, run_tuning
    from cliperase.files import check_writable
    from cliperase.results import write_table

    check_writable(arguments.output)
    params, search = read_params(arguments.params), read_params(arguments.search)
    about = (arguments.data, arguments.model, search, arguments.row, arguments.experiment)
    write_table(run_tuning(params, *about), arguments.output)


def run_collect(arguments):
    from cliperase.experiments import part_names, read_params
    from cliperase.results import collect

    params = read_params(arguments.params)
    collect(arguments.parts, part_names(params), arguments.output, params.get("not_run", ()))


if __name__ == "__main__":
    sys.exit(main())
