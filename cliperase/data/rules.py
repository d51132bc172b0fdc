"""Forget rules: which rows of a data set are to be forgotten."""

import re
from collections.abc import Mapping

import torch

from cliperase.errors import CliperaseError

RULES = ("concept", "classes", "caption_pattern", "rows")


def forget_mask(pairs, rule, required=True):
    """(N,) bool, true where `rule` says forget. A rule is a mapping with one key:

    `concept`: a class name, or where there are no classes a word of any caption; `classes`: class names;
    `caption_pattern`: a regular expression searched in all captions (an image is forgotten if any
    matches); `rows`: row hashes. The rule must leave some rows, and if `required` match some.
    """
    if not isinstance(rule, Mapping) or len(rule) != 1 or next(iter(rule)) not in RULES:
        raise CliperaseError(f"forget rule {rule!r}: give one of {', '.join(RULES)} with its value")
    ((kind, value),) = rule.items()
    expected = list if kind in ("rows", "classes") else str
    if not isinstance(value, expected) or (expected is list and not all(isinstance(one, str) for one in value)):
        wanted = "a list of strings, in quotes where they are digits" if expected is list else "text"
        raise CliperaseError(f"forget rule {kind}: {value!r}; give {wanted}")
    if kind == "rows":
        wanted = set(value)
        mask = torch.tensor([row in wanted for row in pairs.row_hashes])
    elif kind == "classes" or (kind == "concept" and pairs.class_names):
        mask = class_mask(pairs, [value] if kind == "concept" else value)
    else:
        mask = match_captions(pairs, rule)
    if required and not mask.any():
        raise CliperaseError(f"forget rule {kind}: {value!r} matches no row of {len(pairs)}; nothing to forget")
    if mask.all():
        raise CliperaseError(f"forget rule {kind}: {value!r} matches all {len(pairs)} rows; nothing to retain")
    return mask


def class_mask(pairs, names):
    """(N,) bool, true for rows of the named classes."""
    unknown = [name for name in names if name not in pairs.class_names]
    if unknown:
        known = ", ".join(pairs.class_names[:6])
        raise CliperaseError(f"concept {unknown[0]!r} matches no row; classes are {known}, … by exact name")
    wanted = torch.tensor([pairs.class_names.index(name) for name in names])
    return torch.isin(pairs.labels, wanted)


def caption_pattern(rule):
    """The regular expression of a rule on captions: `caption_pattern`, or `concept`, a word."""
    kind, pattern = next(iter(rule.items())) if isinstance(rule, Mapping) and len(rule) == 1 else (None, None)
    if kind not in ("concept", "caption_pattern") or not isinstance(pattern, str):
        raise CliperaseError(f"forget rule {rule!r}: captions alone take concept, a word, or caption_pattern")
    try:
        return re.compile(rf"\b{re.escape(pattern)}\b" if kind == "concept" else pattern, re.IGNORECASE)
    except re.error as error:
        raise CliperaseError(f"caption_pattern {pattern!r} is no regular expression ({error})") from None


def match_captions(pairs, rule):
    compiled = caption_pattern(rule)
    hits = torch.tensor([bool(compiled.search(text)) for text in pairs.texts])
    return hits[pairs.text_ids].any(dim=1)


def split_pairs(pairs, rule):
    """(forget set, retain set) of one split."""
    mask = forget_mask(pairs, rule)
    return pairs.select(mask), pairs.select(~mask)
