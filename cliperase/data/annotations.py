"""Captions in one JSON beside folders of pictures: COCO's own layout, and Karpathy's (Flickr8k, Flickr30K, COCO)."""

import json
import re
from collections import defaultdict
from pathlib import Path

from cliperase.data.folders import (
    PICTURES,
    Listed,
    below,
    joined,
    local_file,
    named_alike,
    of_kind,
    pass_over,
    split_named,
    text_of,
    the_one,
)
from cliperase.errors import CliperaseError, reason_of

NAMES = r"(captions|dataset_(coco|flickr)).*\.json"  # captions_train2017.json, dataset_flickr30k.json
OBJECTS = r"instances_.*\.json"  # of COCO: boxes and classes of the objects in a picture
ALSO_TRAINING = "restval"  # Karpathy's name for COCO's images that are in neither of his other splits


def of_captions(files):
    """Those of the `files`, paths, that are named as such a JSON is."""
    return named_as(NAMES, files)


def named_as(pattern, files):
    return [file for file in files if re.fullmatch(pattern, file.name.lower())]


def check_objects(folder, files):
    """Raise CliperaseError for COCO's objects without its captions: a picture has several, its folder is no class."""
    for file in named_as(OBJECTS, files):
        raise CliperaseError(
            f"data {str(folder)!r}: {file.as_posix()} names the objects of a picture, which are several, and there is "
            "no captions_….json beside it; fetch that, or sort the pictures into folders of classes and take the JSON "
            "away"
        )


def read_annotation_file(path):
    """{split: `Listed`} of one JSON. Its pictures lie below its folder, or below the one that holds `annotations/`."""
    root = path.parent.parent if path.parent.name.lower() == "annotations" else path.parent
    return read_annotations(root, [path.relative_to(root)], of_kind(below(root)[0], PICTURES))


def read_annotations(folder, files, pictures):
    """{split: `Listed`} of the JSON `files` in a folder; they and the `pictures` are paths relative to it."""
    by_name = named_alike(pictures)
    found = joined(folder, files, [listed(folder, file, by_name) for file in files])
    named = {file for rows in found.values() for file in rows.files}
    pass_over(folder, "pictures that no JSON names", [file for file in pictures if folder / file not in named])
    return found


def listed(folder, file, by_name):
    """{split: `Listed`} of one JSON. `by_name`: the pictures of each file name."""
    found, said = {}, f"data {str(folder)!r}, {file.as_posix()}"
    for split, name, captions in rows_of(folder / file):
        picture = local_file(folder, the_one(by_name, Path(name), said).as_posix(), said)
        found.setdefault(split, Listed()).add(picture, {"captions": captions}, f"{file.name}, {name}")
    return found


def rows_of(path):
    """(split, path or name of the picture, captions) of each image of a JSON."""
    said = f"data {str(path)!r}"
    try:
        told = json.loads(text_of(path))
        images = told["images"]
        if "annotations" in told:
            return list(of_coco(path, images, told["annotations"]))
        return list(of_karpathy(images))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CliperaseError(
            f"{said} has captions neither in COCO's layout nor in Karpathy's ({reason_of(error)}); give images with "
            "sentences, or images and annotations with a caption"
        ) from None


def of_coco(path, images, annotations):
    """COCO: images have a number, and each annotation names one. The file's name says the split."""
    split = split_named(re.sub(r"(.*captions_?|[\d_]+$)", "", path.stem.lower())) or "train"
    captions = defaultdict(list)
    for one in annotations:
        captions[one["image_id"]].append(one["caption"])
    for image in images:
        yield split, str(image["file_name"]), captions[image["id"]]


def of_karpathy(images):
    """Karpathy: each image has its sentences and its split, and of COCO the folder of its year."""
    for image in images:
        said = str(image["split"])
        split = "train" if said == ALSO_TRAINING else split_named(said)
        if split is None:
            raise ValueError(f"split {said!r} is none of train, restval, val and test")
        name = (Path(image.get("filepath") or "") / image["filename"]).as_posix()
        yield split, name, [one["raw"] for one in image["sentences"]]
