"""One short file for each method, and the registry of their names. A file is imported when its method is asked for."""

from collections.abc import Mapping
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from cliperase.errors import CliperaseError
from cliperase.settings import checked

if TYPE_CHECKING:
    from cliperase.methods.base import Method

METHODS = {
    "fine-tune": "cliperase.methods.fine_tune:FineTune",
    "GA": "cliperase.methods.gradient_ascent:GradientAscent",
    "GradDiff": "cliperase.methods.gradient_difference:GradientDifference",
    "KL-min": "cliperase.methods.kl_minimisation:KLMinimisation",
    "ENMN": "cliperase.methods.enmn:ENMN",
    "MultiDelete": "cliperase.methods.multidelete:MultiDelete",
    "random labels": "cliperase.methods.random_labels:RandomLabels",
    "SalUn": "cliperase.methods.salun:SalUn",
    "SSD": "cliperase.methods.ssd:SSD",
    "SCRUB": "cliperase.methods.scrub:SCRUB",
    "SLUG": "cliperase.methods.slug:SLUG",
    "null space": "cliperase.methods.null_space:NullSpace",
    "query arithmetic": "cliperase.methods.query_arithmetic:QueryArithmetic",
    "task negation": "cliperase.methods.task_negation:TaskNegation",
    "LEACE": "cliperase.methods.leace:LEACE",
    "CLIPErase/SALMU": "cliperase.methods.cliperase_salmu:SALMU",
    "CLIPErase/FMUClip": "cliperase.methods.cliperase_fmuclip:FMUClip",
    "unseen": "cliperase.methods.unseen:Unseen",
    "CLIPErase": "cliperase.methods.cliperase:CLIPErase",
}


def method_class(name: str) -> "type[Method]":
    """The `Method` that is called `name`."""
    if name not in METHODS:
        raise CliperaseError(f"method {name!r} unknown; choose one of {', '.join(METHODS)}")
    return resolve_name(METHODS[name])


def create_method(name: str, settings: Mapping[str, Any]) -> "Method":
    """The method called `name` with its `settings`. What is wrong with one is named."""
    return checked(method_class(name), settings, name)
