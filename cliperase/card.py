"""The model card of a result, in the format of the Hugging Face hub: `README.md` in its folder.

It is made from `report.json` and, where the result was audited, `audit/audit.json`. The manifest does not hold its
hash: whoever publishes the model may add to it.
"""

import json
import shlex
from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData

from cliperase.files import read_json, whole_file
from cliperase.manifest import REPORT
from cliperase.pages import FOLDER

AUDIT, CARD = Path("audit") / "audit.json", "README.md"
LIBRARIES = {"open_clip_config.json": "open_clip", "config.json": "transformers"}  # by a file of the model


def write_card(folder):
    """Write the card of the result in `folder`."""
    folder = Path(folder)
    report, audit = read_json(folder / REPORT), folder / AUDIT
    base = report["model"]
    about = ModelCardData(
        base_model=base if "/" in base and not Path(base).exists() else None,  # a name of the hub, not of this machine
        license=license_of(base),
        library_name=next((name for file, name in LIBRARIES.items() if (folder / file).is_file()), None),
        tags=["machine-unlearning", "clip", "cliperase"],
    )
    card = ModelCard.from_template(
        about, template_path=str(FOLDER / "card.md"), report=report, rule=plain(report["rule"]),
        command=command_of(report), audited=read_json(audit) if audit.is_file() else None,
    )  # fmt: skip
    with whole_file(folder / CARD) as partial:
        partial.write_text(f"{card}\n", encoding="utf-8")


def license_of(model):
    """The licence that a folder's own card names, else None: it is that of the original, and not ours to guess."""
    path = Path(model) / CARD
    return ModelCard.load(path).data.get("license") if path.is_file() else None


def command_of(report):
    """The command that makes the same model again."""
    settings = {name: value for name, value in report["settings"].items() if name != "seed"}
    assigned = [f"{name}={plain(value)}" for name, value in settings.items()]
    return shlex.join(
        ["cliperase", "unlearn", "--model", report["model"], "--data", report["data"], "--rule", plain(report["rule"]),
         "--method", report["method"], "--seed", str(report["settings"]["seed"]),
         *(["--set", *assigned] if assigned else []), "--output", "forgotten"]
    )  # fmt: skip


def plain(value):
    """A value as JSON, which the command line reads as YAML."""
    return json.dumps(value, ensure_ascii=False)
