"""One short file per row of the results table, and the registry that names them.

A method that trains has `loss(batch) -> {term: scalar tensor}`; the loop adds the terms, logs each and steps.
It may also have `prepare(model, forget, retain, seed) -> (forget, retain)` to replace the data (ENMN), and
`restrict(model, batch) -> {parameter: mask}` to hold the other weights (SalUn). A method that takes no steps has
`apply(model, batch, validate)` instead: it edits weights by name, from `batch(i)`, batches with gradients.
Methods see embeddings (`Batch`) and named weights, never a tower's kind or a data set's name.
"""

import math

from cliperase.errors import CliperaseError
from cliperase.methods.cliperase import CLIPErase
from cliperase.methods.enmn import ENMN
from cliperase.methods.fine_tune import FineTune
from cliperase.methods.gradient_ascent import GradientAscent
from cliperase.methods.gradient_difference import GradientDifference
from cliperase.methods.kl_minimisation import KLMinimisation
from cliperase.methods.multidelete import MultiDelete
from cliperase.methods.null_space import NullSpace
from cliperase.methods.random_labels import RandomLabels
from cliperase.methods.salun import SalUn
from cliperase.methods.scrub import SCRUB
from cliperase.methods.slug import SLUG
from cliperase.methods.ssd import SSD

METHODS = {
    "fine-tune": FineTune,
    "GA": GradientAscent,
    "GradDiff": GradientDifference,
    "KL-min": KLMinimisation,
    "ENMN": ENMN,
    "MultiDelete": MultiDelete,
    "random labels": RandomLabels,
    "SalUn": SalUn,
    "SSD": SSD,
    "SCRUB": SCRUB,
    "SLUG": SLUG,
    "null space": NullSpace,
    "CLIPErase": CLIPErase,
}
REFERENCES = ("original", "retrain")  # rows that are models of their own, not made by unlearning


def takes_steps(name):
    """True for a method of the loop, false for one that edits the weights once."""
    return not hasattr(METHODS.get(name), "apply")


def create_method(name, settings):
    """The method called `name` with its `settings` (a mapping of hyperparameters, all numbers or options)."""
    if name not in METHODS:
        raise CliperaseError(f"method {name!r} unknown; choose one of {', '.join(METHODS)}")
    allowed = METHODS[name].__dataclass_fields__
    for key, value in settings.items():
        if key not in allowed:
            raise CliperaseError(f"{name} has no setting {key!r}; it has {', '.join(allowed) or 'none'}")
        expected = type(allowed[key].default)
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not (expected is float and whole) and type(value) is not expected:
            raise CliperaseError(f"{name}: {key} is {value!r}; give a {expected.__name__}, for example 1.0e-4")
        if expected is int and value < 1:
            raise CliperaseError(f"{name}: {key} is {value!r}; give a whole number of at least 1")
        if expected is float and not (math.isfinite(value) and value >= 0):
            raise CliperaseError(f"{name}: {key} is {value!r}; give a finite number of at least zero")
    return METHODS[name](**settings)
