"""Adding a method, a data set, a model family, an experiment: one file and one line each."""

import subprocess
import sys

import numpy as np
from conftest import CLASSES
from PIL import Image

from cliperase.api import evaluate

DATA_SET = '''
"""Pictures in folders, <split>/<class>/…, become the schema: python folders.py SOURCE OUTPUT"""
import sys
from pathlib import Path
from datasets import Dataset
from cliperase.data.pairs import features_schema, write_split
from cliperase.data.pictures import as_png, read_picture

source, output = map(Path, sys.argv[1:])
names = sorted(folder.name for folder in (source / "train").iterdir())

def row(path):
    picture, name = as_png(read_picture(path, 32)), path.parent.name
    return {"image": picture, "captions": [f"a photo of a {name}"], "label": names.index(name), "source": "folders"}

for split in ("train", "validation", "test"):
    rows = [row(path) for path in sorted((source / split).glob("*/*"))]
    write_split(Dataset.from_list(rows, features=features_schema(names)), output, split)
'''


def test_a_data_set(model_folder, tmp_path):
    """Pictures of another size and format, by split and class; a script of a few lines; the call that measures."""
    for split in ("train", "validation", "test"):
        for name, colour in CLASSES.items():
            (tmp_path / "pictures" / split / name).mkdir(parents=True)
            for number in range(2):
                pixels = np.full((40, 48, 3), colour, np.uint8) + np.uint8(number)
                Image.fromarray(pixels).save(tmp_path / "pictures" / split / name / f"{number}.jpg")
    script, output = tmp_path / "folders.py", tmp_path / "data"
    script.write_text(DATA_SET)
    subprocess.run([sys.executable, script, tmp_path / "pictures", output], check=True)
    assert set(evaluate(model_folder, output, {"concept": "apple"})) >= {"forget_accuracy", "retain_accuracy"}
