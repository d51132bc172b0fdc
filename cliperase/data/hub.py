"""A split of a data set on the Hugging Face hub."""

import re

import datasets

from cliperase.errors import CliperaseError

HUB_NAME = r"\w[\w.-]*(/[\w.-]+)*"
OF_FILES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet", ".tar", ".zip")


def read_hub(source, split):
    """A split of a data set on the hub, `owner/name`, or `owner/name/folder` where it holds several."""
    if not re.fullmatch(HUB_NAME, source) or source.lower().endswith(OF_FILES):
        raise FileNotFoundError("no such folder or file")
    parts = source.split("/")
    pattern = f"{'/'.join(parts[2:]) or '**'}/{split}-*.parquet"
    builder = datasets.load_dataset_builder("/".join(parts[:2]), data_files={split: pattern})
    files = (builder.config.data_files or {}).get(split, [])
    folders = sorted({name.rpartition("/")[0] for name in files}) if isinstance(files, list) else []
    if len(folders) > 1:
        raise CliperaseError(
            f"data {source!r} holds several data sets, in {' and '.join(folders[:2])}; write {source}/<folder>"
        )
    builder.download_and_prepare(verification_mode="no_checks")
    return builder.as_dataset(split=split)
