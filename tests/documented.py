"""Carry out the commands and the code of a page, in order, as its reader does: `python documented.py PAGE`.

Without a page it writes what a reader has into the current folder: models, stand-ins under their real names, and data.
"""

import re
import shlex
import shutil
import sys
import textwrap
from pathlib import Path

import numpy as np
from PIL import Image

from cliperase.errors import CliperaseError
from paper.rehearsal import CONFIGURATIONS, DATA, VALIDATION, carry_out

CONVERT = f"python {Path(__file__).parent.parent / 'data_prep'}"
STABLE_DIFFUSION = "stable-diffusion-v1-5/stable-diffusion-v1-5"
RUN = ("cliperase", "python data_prep/from_karpathy.py", "python data_prep/from_shards.py")
SHORT = "steps=2 forget_batch=4 retain_batch=8"
SHORTER = {  # by the language of a block, "" being the shell's
    "": {r"(?<![.\w])steps=\d+": SHORT, r"relearning\.steps=\d+": "relearning.steps=2"},
    "python": {r"steps\b(\"?[:=] ?)\d+": r"steps\g<1>2", r"images=\d+": "images=1"},
}
SAMPLE = Path("photos/apple/0.jpg")
KNOWN = {  # what the pages say in words
    "Image": Image,
    "listed": [(f"many/{n}.png", f"an apple, {n}" if n % 3 else f"a dog, {n}") for n in range(520)],
    "settings": {"steps": 2, "learning_rate": 1e-6},
}


def prepare():
    """What the pages take for granted."""
    from huggingface_hub.constants import HF_HUB_CACHE

    from paper.stand_ins import picture as picture_of_noise
    from paper.stand_ins import snapshot, write_data, write_hub

    write_hub(Path(HF_HUB_CACHE), Path(CONFIGURATIONS))
    write_data(Path(DATA))
    flickr = Path(DATA, "flickr30k")
    carry_out(f"{CONVERT}/from_hub.py --local {DATA} --source uoft-cs/cifar100 --label fine_label "
              f"--validation {VALIDATION} --output data/cifar100")  # fmt: skip
    carry_out(f"{CONVERT}/from_karpathy.py --captions {flickr}/dataset_flickr30k.json --images {flickr}/images "
              "--output data/flickr8k")  # fmt: skip
    for name in ("dataset_flickr30k.json", "images"):
        shutil.move(flickr / name, name)
    shutil.move(Path(DATA, "cc12m"), "cc12m")
    shutil.copytree(snapshot(Path(HF_HUB_CACHE), STABLE_DIFFUSION), "path/to/pipeline")
    pictures = sorted(Path("images").iterdir())
    for name, start in (("photos/apple", 0), ("photos/dog", 24), ("photos/snow", 48), ("photos_of_dogs", 72)):
        Path(name).mkdir(parents=True)
        for number, picture in enumerate(pictures[start : start + 24]):
            shutil.copy(picture, Path(name, f"{number}.jpg"))
    Path("many").mkdir()
    draw = np.random.default_rng(0)
    for path, _ in KNOWN["listed"]:
        Path(path).write_bytes(picture_of_noise(draw, 32, 32, "PNG"))
    names = [path.relative_to("photos").as_posix() for path in sorted(Path("photos").glob("*/*.jpg"))]
    lines = [f"{name},a {Path(name).parent} in picture {number}" for number, name in enumerate(names)]
    Path("photos/captions.csv").write_text("\n".join(["file_name,caption", *lines]))


def blocks_of(text):
    """[(language, code)] of a page, in order, dedented."""
    found = re.findall(r"^( *)```(\w*)\n(.*?)^\1```$", text, re.MULTILINE | re.DOTALL)
    return [(language, textwrap.dedent(code)) for _, language, code in found]


def shortened(code, language):
    """The same with two steps for each run; nothing else differs from the page."""
    for pattern, short in SHORTER[language].items():
        code = re.sub(pattern, short, code)
    return code


def run_command(line, audited):
    command = shlex.join(shlex.split(line, comments=True))
    if command.startswith("cliperase unlearn"):
        command += "" if audited else " --no-audit"
        command += "" if "--set" in command else f" --set {SHORT}"
    carry_out(command.replace("python data_prep", CONVERT))


def run_page(path, folder_of_shards):
    """All that the page says to run. Only the README's results are audited, which takes the longest."""
    known = {**KNOWN, "picture": Image.open(SAMPLE).convert("RGB")}
    for language, code in blocks_of(path.read_text()):
        if language == "python":
            print(code, flush=True)
            exec(compile(shortened(code, language), path.name, "exec"), known)
        elif not language:
            for line in shortened(code, language).replace("<folder>", folder_of_shards).splitlines():
                if line.startswith(RUN):
                    run_command(line, audited=path.name == "README.md")


def main(page=None, folder_of_shards=""):
    if page is None:
        prepare()
    else:
        from paper.stand_ins import add_clips

        add_clips(Path(CONFIGURATIONS))
        run_page(Path(page), folder_of_shards)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except CliperaseError as error:
        sys.exit(f"error: {error}")
