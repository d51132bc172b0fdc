"""The experiments: which runs make up each table or figure. `bench.py` carries them out.

A plan is `plan(params, pairs) -> [Run]`: from the parameters, and one split of the data for its class names.
"""

from pathlib import Path

import numpy as np

from cliperase.data.pairs import load_pairs
from cliperase.errors import CliperaseError
from cliperase.methods import method_class
from cliperase.settings import TrainSettings, section
from paper.results import REFERENCES
from paper.runs import Run, run_all


def configured(params, row, overrides=None, unlearn=None):
    """{method, settings, training} of a row of params.yaml, some settings replaced by `overrides` and `unlearn`.

    A row is an algorithm with settings; `method` names the algorithm where the row's name does not.
    """
    if row in REFERENCES:
        return {"method": row}
    if row not in params["methods"]:
        known = ", ".join([*REFERENCES, *params["methods"]])
        raise CliperaseError(f"row {row!r} is not in the parameters; choose one of {known}")
    settings = {**params["methods"][row], **(overrides or {})}
    method, training = settings.pop("method", row), {**params["unlearn"], **(unlearn or {})}
    if method_class(method).takes_steps and "learning_rate" not in settings:
        raise CliperaseError(f"row {row!r} has no learning_rate in the parameters; give one, for example 1.0e-4")
    training |= {name: settings.pop(name) for name in list(settings) if name in TrainSettings.model_fields}
    return {"method": method, "settings": settings, "training": training}


def references_of(params):
    """Rows that are not made by unlearning: both, unless the parameters name fewer (who retrains OpenAI's CLIP?)."""
    return params.get("references", REFERENCES)


def seeds_of(params, row):
    """References are one model each; all other rows are run with every seed."""
    return [params["pretrain"]["seed"]] if row in REFERENCES else params["seeds"]


def section_name(experiment):
    """Where the parameters of an experiment stand; two have a section of their own."""
    return experiment if experiment in ("ablation", "blip") else f"experiments.{experiment}"


def section_of(params, experiment):
    """The parameters of one experiment, a mapping."""
    return section(params, section_name(experiment))


def plan_main(params, pairs):
    """Every row, one concept at a time."""
    return [
        Run("main", row, concept, {"concept": concept}, seed, **configured(params, row))
        for row in (*references_of(params), *params["methods"])
        for concept in params["concepts"]
        for seed in seeds_of(params, row)
    ]


def plan_ablation(params, pairs):
    """The subsets of the three losses on one concept."""
    settings = params["ablation"]
    concept = settings["concept"]
    subsets = {"original": configured(params, "original")}
    subsets |= {name: configured(params, "CLIPErase", change) for name, change in settings["subsets"].items()}
    return [
        Run("ablation", name, concept, {"concept": concept}, seed, **about)
        for name, about in subsets.items()
        for seed in seeds_of(params, name)
    ]


def plan_ratios(params, pairs):
    """Several classes forgotten together, drawn anew by each seed; smaller draws are part of the larger.

    A draw may have settings of the loop, for who forgets more needs more steps.
    """
    settings, runs = params["experiments"]["ratios"], []
    for seed in params["seeds"]:
        names = [name for name in pairs.class_names if name not in settings["never"]]
        order = np.random.default_rng([seed, len(names)]).permutation(names).tolist()
        for draw in settings["draws"]:
            percent, unlearn = draw["percent"], {key: draw[key] for key in draw if key != "percent"}
            rule = {"classes": sorted(order[: max(1, round(percent / 100 * len(pairs.class_names)))])}
            for row in ["original", *settings["rows"]]:
                about = configured(params, row, unlearn=unlearn)
                runs.append(Run("ratios", row, f"{percent} % of classes", rule, seed, **about))
    return runs


def plan_polysemy(params, pairs):
    """One sense of a word forgotten, the other watched; both ways round."""
    settings = params["experiments"]["polysemy"]
    senses = [sense for one, other in settings["senses"] for sense in ((one, other), (other, one))]
    return [
        Run(
            "polysemy", row, forgotten, {"concept": forgotten}, seed,
            watched={"kept_sense": [kept]}, **configured(params, row),
        )
        for forgotten, kept in senses
        for row in ["original", *settings["rows"]]
        for seed in seeds_of(params, row)
    ]  # fmt: skip


def plan_retention(params, pairs):
    """Drawings that pretraining has not seen; some classes take no part in unlearning, neither to forget nor to keep.

    How much `trained` classes gain over `bystander` classes is fine-tuning, not retention.
    """
    settings, runs = params["experiments"]["retention"], []
    drawn = [pairs.class_names[label] for label in pairs.labels.unique().tolist()]
    for concept in settings["concepts"]:
        others = [name for name in drawn if name != concept]
        for seed in params["seeds"]:
            order = np.random.default_rng([seed, len(others)]).permutation(others).tolist()
            absent = sorted(order[: round(settings["bystanders"] * len(order))])
            trained = sorted(set(others) - set(absent))
            watched = {"bystander": absent, "trained": trained}
            rows = {row: configured(params, row) for row in ["original", *settings["rows"]]}
            variants = {name: params["ablation"]["subsets"][name] for name in settings["subsets"]}
            variants |= settings.get("variants", {})
            rows |= {name: configured(params, "CLIPErase", change) for name, change in variants.items()}
            for row, about in rows.items():
                about = {**about, "absent": absent, "watched": watched}
                runs.append(Run("retention", row, concept, {"concept": concept}, seed, **about))
    return runs


def plan_own(experiment):
    """Data or a model that ask for settings of their own, and name their forget rules."""

    def plan(params, pairs):
        settings = section_of(params, experiment)
        own = {**params, "methods": section(params, f"{section_name(experiment)}.methods")}
        return [
            Run(experiment, row, concept, rule, seed, **configured(own, row, unlearn=settings.get("unlearn")))
            for concept, rule in settings["rules"].items()
            for row in ["original", *own["methods"]]
            for seed in seeds_of(params, row)
        ]

    return plan


def plan_efficiency(params, pairs):
    """Each row once, with the machine to itself: seconds and peak memory."""
    concept, seed = params["concepts"][0], params["seeds"][0]
    return [
        Run("efficiency", row, concept, {"concept": concept}, seed, **configured(params, row))
        for row in params["methods"]
    ]


PLANS = {
    "main": plan_main,
    "ablation": plan_ablation,
    "ratios": plan_ratios,
    "polysemy": plan_polysemy,
    "retention": plan_retention,
    "pairs": plan_own("pairs"),
    "retrieval": plan_own("retrieval"),
    "blip": plan_own("blip"),
    "efficiency": plan_efficiency,
}
HELD_OUT = ("main", "ablation")  # experiments that are also measured on the same things from another source


def run_experiment(name, params, data, model, rows=None):
    """The results table of one experiment, or of the named `rows` of it."""
    check_params(params)
    if name not in ("main", "efficiency"):
        params = {**params, "model": section_of(params, name).get("model_name", params["model"])}
    runs = only_rows(PLANS[name](params, load_pairs(data, "validation")), rows)
    if name == "efficiency":  # seconds and memory of training; what the rows are worth, `main` says
        return run_all(params, data, model, runs, ("validation",), alone=True)
    held_out = ["heldout"] if name in HELD_OUT and "heldout" in splits_of(params, data) else []
    return run_all(params, data, model, runs, ("validation", "test", *held_out))


def splits_of(params, data):
    """The splits of a data set, by the parameters that it was made with: a mapping or a list of their names."""
    settings = section(params, f"data.sets.{Path(data).name}")
    return settings["per_class"] if "per_class" in settings else settings["images"]


def check_params(params):
    """What every experiment reads is there and of the right kind."""
    kinds = {"profile": str, "model": str, "provenance": str, "concepts": list, "seeds": list}
    kinds |= dict.fromkeys(("pretrain", "unlearn", "methods"), dict)
    for needed, kind in kinds.items():
        if needed not in params:
            raise CliperaseError(f"the parameters have no {needed!r}; params.yaml of the repository has all of them")
        if not isinstance(params[needed], kind):
            raise CliperaseError(f"the parameters: {needed} is {params[needed]!r}; give a {kind.__name__}")


def only_rows(runs, rows):
    """The runs of these rows; all, if none is named."""
    known = list(dict.fromkeys(run.row for run in runs))
    for row in rows or ():
        if row not in known:
            raise CliperaseError(f"row {row!r} is not in the experiment; choose one of {', '.join(known)}")
    return [run for run in runs if not rows or run.row in rows]


def part_names(params):
    """Names of the part tables that make up the results of a profile."""
    return [
        *(f"main-{row}" for row in (*references_of(params), *section(params, "methods"))),
        *section(params, "experiments"),
        *[name for name in ("ablation", "blip", "captioning", "diffusion", "embedding") if name in params],
    ]


def run_tuning(params, data, model, search, row, experiment=None):
    """Every candidate of one row on the search concepts: a results table of validation metrics.

    `experiment`: search for this experiment, with the loop's settings that it has of its own.

    Test images are not loaded. The search concepts are not among the reported ones. A candidate is named
    `<row> <number>`; its settings stand in the search file.
    """
    for needed in ("concepts", "candidates", "seed"):
        if needed not in search:
            raise CliperaseError(f"the search has no {needed!r}; see tuning/search.yaml")
    check_params(params)
    concepts = search["concepts"]
    if set(concepts) & set(params["concepts"]):
        raise CliperaseError(f"search concepts {concepts} overlap the reported {params['concepts']}; choose others")
    if row not in search["candidates"]:
        raise CliperaseError(f"row {row!r} has no candidates; the search holds {', '.join(search['candidates'])}")
    runs, unlearn = [], section_of(params, experiment).get("unlearn") if experiment else None
    name = f"tuning {experiment}" if experiment else "tuning"
    for number, candidate in enumerate(search["candidates"][row]):
        about = configured({**params, "methods": {row: candidate}}, row, unlearn=unlearn)
        runs += [
            Run(name, f"{row} {number}", concept, {"concept": concept}, search["seed"], **about) for concept in concepts
        ]
    return run_all(params, data, model, runs, ("validation",))
