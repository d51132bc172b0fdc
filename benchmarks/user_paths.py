"""From pictures and a word to an audited model, as a new user would go: four kinds of data and models, timed.

    python -m benchmarks.user_paths --cifar100 data/cifar100 --output artifacts/user_paths

Each path is a few commands, and each command a process of its own. The packed CLIP of the photographs and CIFAR-100 are
real; the other models have random weights, because none can be fetched here, so that only their time means something.
"""

import argparse
import csv
import io
import json
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import datasets
import numpy as np
import transformers
from PIL import Image

from cliperase.errors import end_in_one_line
from cliperase.files import whole_file
from cliperase.metrics.tasks import MATCHING, RETRIEVAL, ZERO_SHOT
from cliperase.models.openclip import create_model
from cliperase.models.text_encoder import clip_tokenizer

CLASSES, EACH = 20, {"train": 100, "validation": 20, "test": 30}  # of CIFAR-100, and pictures of each
COLOURS = {"apple": "crimson", "lemon": "gold", "leaf": "green", "plum": "purple", "stone": "gray"}
TOWER = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
PACKED = "metrics/cifar/original.safetensors"
RATE = ["--set", "learning_rate=1e-4", "epochs=3"]  # nothing was searched for models of random weights


def photographs(folder, cifar):
    """JPEG files in folders of classes: `train/apple/0.jpg`."""
    for split, source in (("train", "train"), ("validation", "train"), ("test", "test")):
        rows = datasets.load_dataset("parquet", data_files=f"{cifar}/{source}-*.parquet", split="train")
        names, labels = rows.features["fine_label"].names, np.array(rows["fine_label"])
        for label in range(CLASSES):
            chosen = np.flatnonzero(labels == label)
            chosen = chosen[-EACH[split] :] if split == "validation" else chosen[: EACH[split]]
            place = folder / split / names[label]
            place.mkdir(parents=True)
            for row in chosen.tolist():
                rows[row]["img"].save(place / f"{row}.jpg", quality=95)


def drawings(count=400):
    """(picture, caption) of plain colours with noise."""
    rng = np.random.default_rng(0)
    for number in range(count):
        name, colour = list(COLOURS.items())[number % len(COLOURS)]
        noise = rng.normal(0, 20, (48, 48, 3)) + np.asarray(Image.new("RGB", (48, 48), colour))
        yield Image.fromarray(noise.clip(0, 255).astype(np.uint8)), f"a {name}, number {number}"


def table(folder):
    """A CSV of paths and captions."""
    folder.mkdir(parents=True)
    rows = []
    for number, (picture, caption) in enumerate(drawings()):
        picture.save(folder / f"{number}.jpg")
        rows.append((f"{number}.jpg", caption, ("train", "train", "train", "validation", "test")[number // 5 % 5]))
    with open(folder / "captions.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("image", "caption", "split"), *rows])


def shards(folder):
    """Ten tar files, as img2dataset writes them."""
    folder.mkdir(parents=True)
    listed = list(drawings())
    for shard in range(10):
        with tarfile.open(folder / f"{shard:05d}.tar", "w") as tar:
            for number, (picture, caption) in enumerate(listed[40 * shard : 40 * shard + 40]):
                file = io.BytesIO()
                picture.save(file, "JPEG")
                for suffix, content in (("jpg", file.getvalue()), ("txt", caption.encode())):
                    about = tarfile.TarInfo(f"{number:06d}.{suffix}")
                    about.size = len(content)
                    tar.addfile(about, io.BytesIO(content))


def clip(folder):
    """A small CLIP of transformers."""
    config = transformers.CLIPConfig(
        text_config={**TOWER, "max_position_embeddings": 32}, projection_dim=32,
        vision_config={**TOWER, "image_size": 48, "patch_size": 8},
    )  # fmt: skip
    processor = transformers.CLIPImageProcessor(size={"shortest_edge": 48}, crop_size={"height": 48, "width": 48})
    for part in (transformers.CLIPModel(config), clip_tokenizer(32), processor):
        part.save_pretrained(folder)


def siglip(folder):
    """A small SigLIP of transformers, with CLIP's tokenizer."""
    words = clip_tokenizer(32)
    config = transformers.SiglipConfig(
        text_config={**TOWER, "max_position_embeddings": 32, "vocab_size": len(words), "projection_size": 64},
        vision_config={**TOWER, "image_size": 48, "patch_size": 8},
    )
    for part in (
        transformers.SiglipModel(config),
        words,
        transformers.SiglipImageProcessor(size={"height": 48, "width": 48}),
    ):
        part.save_pretrained(folder)


def compact(folder):
    from cliperase.models.compact import COMPACT

    create_model(COMPACT, seed=0).save(folder)


def paths(folder, cifar):
    """{path: (what makes its data and its model, the commands)}."""
    data, model, output = "data", "model", "forgotten"

    def unlearn(data, *more):
        return ["unlearn", "--model", model, "--data", data, "--forget", "apple", "--output", output, *more]

    return {
        "folder of JPEGs by class, the photographs' CLIP": (
            lambda here: photographs(here / data, cifar),
            [["unpack", str(Path(PACKED).absolute()), "--output", model], [*unlearn(data), "--dry-run"], unlearn(data)],
        ),
        "CSV of captions, a CLIP of transformers": (
            lambda here: (table(here / data), clip(here / model)),
            [[*unlearn(f"{data}/captions.csv", *RATE), "--dry-run"], unlearn(f"{data}/captions.csv", *RATE)],
        ),
        "CSV of captions, a SigLIP of transformers": (
            lambda here: (table(here / data), siglip(here / model)),
            [[*unlearn(f"{data}/captions.csv", *RATE), "--dry-run"], unlearn(f"{data}/captions.csv", *RATE)],
        ),
        "shards, a compact CLIP of open_clip": (
            lambda here: (shards(here / data), compact(here / model)),
            [[*unlearn(data, *RATE, "retain_batch=16"), "--dry-run"], unlearn(data, *RATE, "retain_batch=16")],
        ),
    }


def carry_out(here, commands):
    """Seconds of each command, run in the folder `here`."""
    found = []
    for command in commands:
        begun = time.perf_counter()
        done = subprocess.run([sys.executable, "-m", "cliperase", *command], cwd=here, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"cliperase {' '.join(command)}: {done.stderr.strip().splitlines()[-1]}")
        found.append(time.perf_counter() - begun)
    return found


def line_of(name, here, seconds):
    """What a path leaves: seconds, what must fall and what must stay, before and after, the audit's verdict."""
    report = json.loads((here / "forgotten" / "report.json").read_text())
    audit = here / "forgotten" / "audit" / "audit.json"
    verdict = json.loads(audit.read_text())["verdict"].split(":")[0].rstrip(".") if audit.is_file() else "none"
    before, after = report["validation_before"], report["validation_after"]
    task = next(one for one in (ZERO_SHOT, MATCHING, RETRIEVAL) if one.forget in before)
    told = [f"{before[key]:.1f} → {after[key]:.1f}" for key in (task.forget, task.retain)]
    return [name, f"{len(seconds)}", f"{sum(seconds):.0f}", task.forget.removeprefix("forget_"), *told, verdict]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cifar100", required=True, help="folder of CIFAR-100's parquet files, as on the hub")
    parser.add_argument("--output", type=Path, required=True, help="a new folder")
    arguments = parser.parse_args()
    head = ["path", "commands", "seconds", "metric, % (validation)", "forgotten", "retained", "audit"]
    lines = [head, ["---"] * len(head)]
    for number, (name, (prepare, commands)) in enumerate(paths(arguments.output, arguments.cifar100).items()):
        here = arguments.output / str(number)
        here.mkdir(parents=True)
        prepare(here)
        lines.append(line_of(name, here, carry_out(here, commands)))
        print(f"| {' | '.join(lines[-1])} |", flush=True)
    with whole_file(arguments.output / "user_paths.md") as partial:
        partial.write_text("".join(f"| {' | '.join(line)} |\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    end_in_one_line(main)
