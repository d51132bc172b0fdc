"""The experiments of the pipeline: what to run, on which split, and the rows that come of it."""

import copy
import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import yaml
from tqdm import tqdm

from cliperase.api import forget_in_place
from cliperase.checkpoints import remove_checkpoint
from cliperase.datasets import PairSet, forget_mask, load_pairs, split_pairs
from cliperase.encoders import COMPACT, ImageTextModel, create_model, load_model, pick_device
from cliperase.errors import CliperaseError
from cliperase.evaluate import (
    PROMPT,
    encode_images,
    encode_texts,
    forgetting_metrics,
    selection_score,
    zero_shot_accuracy,
)
from cliperase.methods import METHODS, REFERENCES, create_method
from cliperase.methods.fine_tune import FineTune
from cliperase.results import COLUMNS, rows_of
from cliperase.train import Features, train, train_config

REPORTED_SPLITS = ("validation", "test", "heldout")


def read_params(path="params.yaml"):
    """The parameters of the pipeline, a dict."""
    try:
        params = yaml.safe_load(Path(path).read_text())
    except (OSError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())  # YAML's messages draw over several lines
        raise CliperaseError(f"parameters {path} cannot be read ({reason})") from None
    if not isinstance(params, dict):
        raise CliperaseError(f"parameters {path} hold {type(params).__name__}, not a mapping")
    return params


def pretrain(data, output, settings, without=None):
    """Train a compact CLIP from scratch and save it as an open_clip folder, with its training features.

    `without` leaves a concept out of training: the retrained reference. Resumes when killed. Returns the
    validation accuracy of the classes it was trained on, in percent.
    """
    output = Path(output)
    seed = settings["seed"]
    config = train_config({key: value for key, value in settings.items() if key != "seed"}, seed)
    training, validation = load_pairs(data, "train"), load_pairs(data, "validation")
    retain, seen = training, validation
    if without:
        retain, seen = split_pairs(training, {"concept": without})[1], split_pairs(validation, {"concept": without})[1]
    model = create_model(COMPACT, seed).to(pick_device())

    def validate(model):
        classes = encode_texts(model, [PROMPT.format(name) for name in seen.class_names])
        return {"score": zero_shot_accuracy(encode_images(model, seen.images), classes, seen.labels)}

    checkpoint = output.with_name(f"{output.name}.checkpoint.safetensors")  # outside `output`, which dvc clears
    history = train(model, FineTune(), retain, config, validate=validate, checkpoint=checkpoint)
    model.save(output)
    remove_checkpoint(checkpoint)
    return max(entry["score"] for entry in history.log)


@dataclass
class Bench:
    """Data, original model and its training features, loaded once and shared by all runs of a process."""

    params: dict
    model: ImageTextModel
    splits: dict[str, PairSet]
    training_features: Features

    @classmethod
    def load(cls, params, data, model_folder, splits=REPORTED_SPLITS):
        model = load_model(model_folder, pick_device())
        loaded = {split: load_pairs(data, split) for split in ("train", *splits)}
        return cls(params, model, loaded, Features.of(model, loaded["train"]))

    def unlearn(self, method, config, concept):
        """One run: a copy of the original, unlearned and selected on validation data. (model, history)"""
        training, validation = self.splits["train"], self.splits["validation"]
        mask, forgotten = (forget_mask(pairs, {"concept": concept}) for pairs in (training, validation))
        model = copy.deepcopy(self.model)
        history = forget_in_place(
            model, method, config, training, mask, validation, forgotten,
            features=self.training_features, progress=False,
        )  # fmt: skip
        return model, history

    def measure(self, model, about, concept, splits, seconds=0.0, extra=None):
        """Rows for one model on the named splits."""
        rows = []
        for split in splits:
            pairs = self.splits[split]
            forgotten = pairs.labels == pairs.class_names.index(concept)
            metrics = forgetting_metrics(model, pairs, forgotten)
            if split == "validation":
                metrics |= {"selection_score": selection_score(metrics), **(extra or {})}
            rows += rows_of({**about, "split": split}, metrics, seconds)
        return rows

    def about(self, experiment, method, concept, seed):
        params = self.params
        names = {key: params[key] for key in ("profile", "dataset", "model", "provenance")}
        return {**names, "experiment": experiment, "method": method, "concept": concept, "seed": str(seed)}


def configured(params, name, overrides=None):
    """(method, training settings) of a row from params.yaml; `overrides` replaces settings of the method."""
    settings = {**params["methods"][name], **(overrides or {})}
    training = {**params["unlearn"], "learning_rate": settings.pop("learning_rate")}
    return create_method(name, settings), training


def run_main(params, data, models, names, concepts=None, seeds=None):
    """Rows of the named methods over concepts and seeds; the references are evaluated, not trained."""
    unknown = [name for name in names if name not in (*METHODS, *REFERENCES)]
    if unknown:
        raise CliperaseError(f"method {unknown[0]!r} unknown; choose one of {', '.join([*REFERENCES, *METHODS])}")
    concepts, seeds = concepts or params["concepts"], params["seeds"] if seeds is None else seeds
    settings = {name: configured(params, name) for name in names if name in METHODS}  # before anything slow
    bench = Bench.load(params, data, Path(models) / "original")
    rows = []
    for name in names:
        if name in REFERENCES:
            for concept in concepts:
                folder = "original" if name == "original" else f"retrain-{concept}"
                model = load_model(Path(models) / folder, pick_device())
                about = bench.about("main", name, concept, params["pretrain"]["seed"])
                rows += bench.measure(model, about, concept, REPORTED_SPLITS)
        else:
            for concept, seed in progress_over(concepts, seeds, f"main {name}"):
                rows += one_run(bench, "main", name, *settings[name], concept, seed)
    return pd.DataFrame(rows)[COLUMNS]


def part_names(params):
    """Names of the part tables that make up the results of a profile."""
    return [*(f"main-{name}" for name in (*REFERENCES, *params["methods"])), "ablation"]


def run_ablation(params, data, models, seeds=None):
    """Rows of every subset of the losses named in params.yaml, on one concept."""
    concept = params["ablation"]["concept"]
    seeds = params["seeds"] if seeds is None else seeds
    bench = Bench.load(params, data, Path(models) / "original")
    about = bench.about("ablation", "original", concept, params["pretrain"]["seed"])
    rows = bench.measure(bench.model, about, concept, REPORTED_SPLITS)
    for name, seed in progress_over(params["ablation"]["rows"], seeds, "ablation"):
        method, training = configured(params, "CLIPErase", params["ablation"]["rows"][name])
        rows += one_run(bench, "ablation", name, method, training, concept, seed)
    return pd.DataFrame(rows)[COLUMNS]


def progress_over(names, seeds, description):
    runs = [(name, seed) for name in names for seed in seeds]
    return tqdm(runs, desc=description)


def one_run(bench, experiment, row_name, method, training, concept, seed):
    start = time.perf_counter()
    model, history = bench.unlearn(method, train_config(training, seed), concept)
    seconds = round(time.perf_counter() - start, 2)
    about = bench.about(experiment, row_name, concept, seed)
    extra = {"selected_step": history.best_step}
    return bench.measure(model, about, concept, REPORTED_SPLITS, seconds, extra)


def run_tuning(params, data, models, search, method_name):
    """Every candidate of one method on the search concepts: a table with its mean validation score.

    Test images are not loaded. The search concepts are not among the reported ones.
    """
    concepts = search["concepts"]
    if set(concepts) & set(params["concepts"]):
        raise CliperaseError(f"search concepts {concepts} overlap the reported {params['concepts']}; choose others")
    bench = Bench.load(params, data, Path(models) / "original", splits=("validation",))
    rows = []
    for number, candidate in enumerate(tqdm(search["candidates"][method_name], desc=f"tune {method_name}")):
        settings = dict(candidate)
        training = {**params["unlearn"], "learning_rate": settings.pop("learning_rate")}
        method = create_method(method_name, settings)
        for concept in concepts:
            _, history = bench.unlearn(method, train_config(training, search["seed"]), concept)
            best = next(entry for entry in history.log if entry["step"] == history.best_step)
            kept = ("score", "forget_accuracy", "retain_accuracy", "forget_cosine", "unrelated_cosine", "step")
            rows.append(
                {"method": method_name, "candidate": number, "settings": yaml_line(candidate), "concept": concept}
                | {"split": "validation", "seed": search["seed"]}
                | {key: best[key] for key in kept}
            )
    return pd.DataFrame(rows)


def yaml_line(settings):
    return yaml.safe_dump(settings, default_flow_style=True, width=1000).strip()
