"""The model card of a result, in the format of the Hugging Face hub: `README.md` in its folder.

It is made from `report.json` and, where this very model was audited, `audit/audit.json`. The manifest does not hold its
hash: whoever publishes the model may add to it.
"""

import json
import re
import shlex
from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData, metadata_load
from open_clip import get_pretrained_cfg

from cliperase.audit.case import Subject
from cliperase.data.naming import IN_MEMORY
from cliperase.errors import CliperaseError
from cliperase.files import read_json, whole_file
from cliperase.manifest import CARD, REPORT
from cliperase.models import load_model
from cliperase.pages import FOLDER

AUDIT = Path("audit") / "audit.json"
NAMED = re.compile(r"[\w.-]+/[\w.-]+")
LIBRARIES = {"open_clip_config.json": "open_clip", "config.json": "transformers"}  # by a file of the model


def write_card(folder, weights=None):
    """Write the card of the result in `folder`. `weights`: the hash of its model, as `Subject` has it, where known."""
    folder = Path(folder)
    report = read_json(folder / REPORT)
    about = ModelCardData(
        base_model=hub_name(report["model"]),
        license=license_of(report["model"]),
        library_name=next((name for file, name in LIBRARIES.items() if (folder / file).is_file()), None),
        tags=["machine-unlearning", "clip", "cliperase"],
    )
    card = ModelCard.from_template(
        about, template_path=str(FOLDER / "card.md"), report=report, rule=plain(report["rule"]),
        command=command_of(report), audited=audit_of(folder, weights), in_memory=IN_MEMORY,
    )  # fmt: skip
    with whole_file(folder / CARD) as partial:
        partial.write_text(f"{card}\n", encoding="utf-8")


def audit_of(folder, weights=None):
    """The audit beside the model in `folder`, None where there is none, or one of weights that were there before."""
    try:
        audit = read_json(folder / AUDIT)
        unlearned = audit["models"][1]["sha256"]
    except (CliperaseError, LookupError, TypeError):
        return None
    weights = weights or Subject(load_model(folder), "unlearned").hash
    return audit if weights == unlearned else None


def hub_name(model):
    """The name on the hub of a model that the library takes by `model`, else None: a folder is of this machine."""
    _, prefixed, name = model.partition(":")
    name = name.partition("@")[0] if prefixed else model
    if Path(name).exists() or not NAMED.fullmatch(name):
        return None
    if prefixed:
        return name
    entry = get_pretrained_cfg(*model.split("/"))  # open_clip's names of architecture and weights
    return str(entry.get("hf_hub", "")).strip("/") or None


def license_of(model):
    """The licence that a folder's own card names, else None: it is that of the original, and not ours to guess."""
    try:
        return (metadata_load(Path(model) / CARD) or {}).get("license")
    except Exception:  # no card, or none that can be read: as many errors as there are ways to break one
        return None


def command_of(report):
    """The command that makes the same model again."""
    settings = {name: value for name, value in report["settings"].items() if name != "seed"}
    assigned = [f"{name}={plain(value)}" for name, value in settings.items()]
    return shlex.join(
        ["cliperase", "unlearn", "--model", report["model"], "--data", report["data"], "--rule", plain(report["rule"]),
         "--method", report["method"], "--seed", str(report["settings"]["seed"]),
         *(["--set", *assigned] if assigned else []),
         *(["--templates", "templates.txt"] if "templates" in report else []), "--output", "forgotten"]
    )  # fmt: skip


def plain(value):
    """A value as JSON, which the command line reads as YAML."""
    return json.dumps(value, ensure_ascii=False)
