"""`python -m paper …`: the commands of the pipeline."""

import argparse
import multiprocessing.forkserver
import os
import sys
from pathlib import Path

from cliperase.cli import OPTIONS as LIBRARY_OPTIONS
from cliperase.cli import add_command, add_options, carry_out, rule_of, settings_of, tell
from cliperase.errors import CliperaseError

# kernels that nearly every x86 processor of ten years has: wider ones, where there are any, sum in another order, and
# every number of the pipeline would depend on the machine; torch and its libraries read this at their first step
COMMON_KERNELS = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}


EXPERIMENTS = ("ablation", "blip", "efficiency", "main", "pairs", "polysemy", "ratios", "retention", "retrieval")


def main(arguments=None):
    """The command line of the pipeline; its exit code."""
    os.environ.update(COMMON_KERNELS | os.environ)
    return carry_out(parse(arguments), "paper")


def parse(arguments):
    parser = argparse.ArgumentParser(prog="python -m paper", description="The paper's experiments, step by step.")
    commands = parser.add_subparsers(required=True, metavar="command")

    def command(name, run, description):
        return add_command(commands, name, run, description)

    def options(sub, *names):
        add_options(sub, *names, options=OPTIONS)

    doctor = command("doctor", run_doctor, "Say what would stop the runs of the main table, and what they would cost.")
    options(doctor, "model", "data", "forget", "rule", "method", "set", "params", "output")
    pretrain = command("pretrain", run_pretrain, "Train the compact CLIP from scratch, or on from another model.")
    options(pretrain, "data", "without", "start", "section", "params", "output")
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


OPTIONS = LIBRARY_OPTIONS | {
    "row": {"required": True, "help": "the row whose candidates are tried"},
    "rows": {"nargs": "+", "help": "only these rows of the main table"},
    "without": {"help": "concept to leave out: the retrained reference"},
    "start": {"help": "model folder whose weights training starts from"},
    "section": {"default": "pretrain", "help": "section of the parameters with the settings"},
    "search": {"required": True, "type": Path, "help": "YAML of candidates"},
    "params": {"default": "params.yaml", "type": Path},
}


def runs_of(arguments):
    """How many runs with steps the main table of `--params` has, 1 where it is no whole profile."""
    from cliperase.methods import method_class
    from cliperase.settings import read_params
    from paper.experiments import check_params, plan_main
    from paper.results import REFERENCES

    params = read_params(arguments.params) if arguments.params else {}
    if not {"concepts", "seeds", "methods", "pretrain", "unlearn"} <= set(params):
        return 1
    check_params(params)
    methods = [run.method for run in plan_main(params, None) if run.method not in REFERENCES]
    return sum(method_class(name).takes_steps for name in methods) or 1


def run_doctor(arguments):
    from cliperase.data.shards import is_sharded
    from cliperase.doctor import examine

    runs = 1 if is_sharded(arguments.data) else runs_of(arguments)  # the main table is not of shards
    about = (rule_of(arguments), arguments.method, settings_of(arguments), arguments.output, runs)
    tell(examine(arguments.model, arguments.data, *about))


def run_pretrain(arguments):
    from cliperase.files import check_writable
    from cliperase.settings import read_params, section
    from paper.pretraining import pretrain

    check_writable(arguments.output / "open_clip_config.json")
    params = read_params(arguments.params)
    settings = section(params, arguments.section)
    if "steps" not in settings:
        raise CliperaseError(
            f"section {arguments.section!r} of {arguments.params} names no steps; is it the right one?"
        )
    quality = pretrain(arguments.data, arguments.output, settings, arguments.without, arguments.start)
    print(f"{arguments.output}: {quality:.1f} % on validation images of what it was trained on")


def run_manifest(arguments):
    from cliperase.data.pairs import load_pairs
    from cliperase.settings import read_params, section
    from paper.experiments import splits_of
    from paper.manifest import manifest
    from paper.results import write_table

    params = read_params(arguments.params)
    if arguments.experiment:
        rules = section(params, f"experiments.{arguments.experiment}.rules")
    else:
        rules = {name: {"concept": name} for name in params.get("concepts", [])}
    splits = {split: load_pairs(arguments.data, split) for split in splits_of(params, arguments.data)}
    write_table(manifest(splits, rules), arguments.output)


def start_workers():
    """Start the server that the workers of an experiment are forked from: it imports while this process does."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(["paper.workers"])
    multiprocessing.forkserver.ensure_running()


def run_experiment(arguments):
    start_workers()
    from cliperase.files import check_writable
    from cliperase.settings import read_params
    from paper.experiments import run_experiment
    from paper.results import write_table

    check_writable(arguments.output)
    params = read_params(arguments.params)
    table = run_experiment(arguments.name, params, arguments.data, arguments.model, arguments.rows)
    output = str(arguments.output)
    parts = table.groupby("method", sort=False) if "{row}" in output else [("", table)]
    for row, part in parts:
        write_table(part, output.replace("{row}", row))


def run_embedding_space(arguments):
    from cliperase.files import check_writable
    from cliperase.settings import read_params
    from paper import embedding_space
    from paper.results import write_table

    for path in (arguments.output, arguments.table):
        check_writable(path)
    arrays, table = embedding_space.run_embedding_space(read_params(arguments.params), arguments.data, arguments.model)
    embedding_space.write_arrays(arrays, arguments.output)
    write_table(table, arguments.table)


def run_generator(arguments):
    from paper.generator import train_generator

    train_beside(arguments, train_generator, "diffusion.generator")


def train_beside(arguments, train, path):
    """Train one of the models beside CLIP, with the section `path` of the parameters."""
    from cliperase.files import check_writable
    from cliperase.settings import read_params, section

    check_writable(arguments.output / "config.json")
    settings = section(read_params(arguments.params), path)
    loss = train(arguments.data, arguments.model, arguments.output, settings)
    print(f"{arguments.output}: loss {loss:.3f} over the last tenth of the steps")


def run_diffusion(arguments):
    from cliperase.files import check_writable
    from cliperase.settings import read_params
    from paper.diffusion import run_diffusion
    from paper.embedding_space import write_arrays
    from paper.results import write_table

    for path in (arguments.output, arguments.table):
        check_writable(path)
    models = (arguments.model, arguments.pipeline, arguments.detector)
    grids, table = run_diffusion(read_params(arguments.params), arguments.data, *models, arguments.pictures)
    write_arrays(grids, arguments.output)
    write_table(table, arguments.table)


def run_pretrain_blip(arguments):
    from paper.small_blip import pretrain_blip

    train_beside(arguments, pretrain_blip, "blip.pretrain")


def run_captioning(arguments):
    from cliperase.files import check_writable
    from cliperase.settings import read_params
    from paper.captioner import run_captioning
    from paper.results import write_table

    check_writable(arguments.output)
    write_table(run_captioning(read_params(arguments.params), arguments.data, arguments.model), arguments.output)


def run_tune(arguments):
    start_workers()
    from cliperase.files import check_writable
    from cliperase.settings import read_params
    from paper.experiments import run_tuning
    from paper.results import write_table

    check_writable(arguments.output)
    params, search = read_params(arguments.params), read_params(arguments.search)
    about = (arguments.data, arguments.model, search, arguments.row, arguments.experiment)
    write_table(run_tuning(params, *about), arguments.output)


def run_collect(arguments):
    from cliperase.settings import read_params
    from paper.experiments import part_names
    from paper.results import collect

    params = read_params(arguments.params)
    collect(arguments.parts, part_names(params), arguments.output, params.get("not_run", ()))


if __name__ == "__main__":
    sys.exit(main())
