"""For one's own model and data: unlearn and evaluate in one call each. The CLI is a thin layer over these."""

import json
from pathlib import Path

from cliperase.checkpoints import remove_checkpoint
from cliperase.data.pairs import load_pairs
from cliperase.data.rules import forget_mask
from cliperase.data.shards import is_sharded
from cliperase.files import check_writable, whole_file
from cliperase.metrics.tasks import task_of
from cliperase.models import load_model
from cliperase.models.base import pick_device
from cliperase.parallel import is_first, join_processes, wait_for_all
from cliperase.unlearning import check_streamable, configure, forget_in_place, forget_in_stream, load_split


def unlearn(model, data, rule, method="CLIPErase", settings=None, seed=0, output=None):
    """Make a model forget the rows of `data` that `rule` matches, and keep the rest.

    `model`: folder or open_clip name/weights. `data`: folder or hub name with splits train and validation, or a
    folder of shards (`stream.py`).
    `settings`: the method's and the loop's, mixed; a method that trains needs `steps` and `learning_rate`.
    The checkpoint is selected on validation data, by the task that `tasks.task_of` finds. Written to
    `output`: the model as an open_clip folder, `report.json`, and while it runs a checkpoint to resume
    from. Under `torchrun` the processes share every step (`parallel.py`). Returns the report: rule, rows, settings,
    validation metrics before and after, loss terms.
    """

    join_processes()
    settings = dict(settings or {})
    algorithm, config = configure(method, settings, seed)
    student = load_model(model, pick_device())
    validation, forgotten = load_split(data, "validation", rule, student.image_size, config.broken_percent)
    sharded = is_sharded(data)
    if sharded:  # what may be wrong is looked for before the work, not after it
        check_streamable(algorithm)
    else:
        training_set = load_pairs(data, "train")
        mask = forget_mask(training_set, rule)
    if output:
        check_writable(Path(output) / "report.json")
    before = task_of(validation).measure(student, validation, forgotten)
    checkpoint = Path(output) / "checkpoint.safetensors" if output else None
    about = (student, algorithm, config)
    if sharded:
        history, rows = forget_in_stream(*about, data, rule, validation, forgotten, checkpoint)
    else:
        history = forget_in_place(*about, training_set, mask, validation, forgotten, checkpoint)
        rows = {"forget": int(mask.sum()), "retain": int((~mask).sum())}
    report = {
        "method": method,
        "rule": rule,
        "rows": rows,
        "settings": {**settings, "seed": seed},
        "validation_before": before,
        "log": history.log,
        "selected_step": history.best_step,
        "seconds": round(history.seconds, 2),
    }
    if output and is_first():
        student.save(output)
        with whole_file(Path(output) / "report.json") as partial:
            partial.write_text(json.dumps(report, indent=2) + "\n")
        remove_checkpoint(checkpoint)
    wait_for_all()
    return report


def evaluate(model, data, rule=None, split="test"):
    """The metrics of a model on one split of a data set, by the task that its columns say.

    Without a `rule`, which shards need, nothing counts as forgotten: what is measured is how all rows are retained.
    """
    loaded = load_model(model, pick_device())
    pairs, forgotten = load_split(data, split, rule, loaded.image_size)
    return task_of(pairs).measure(loaded, pairs, forgotten)
