"""From figures to words: what a measurement shows beside its reference, whether it has a vote, and the verdict.

A figure votes only where its power was measured: on models that saw the concept and on models that never did, it has to
tell the two apart. What it says then hangs on a threshold that came from there, with its source. It abstains where it
could not have said anything else: the original, which knows the concept, does not pass the limit, or the cases are too
few to tell the unlearned model from it.
"""

from typing import Any

from pydantic import Field
from scipy.stats import binom

from cliperase.audit import PROBES
from cliperase.errors import CliperaseError
from cliperase.settings import Settings, checked

FALSE_ALARMS = 0.05  # of models that never knew a concept, the share that passes a threshold
LEAST_AUC = 0.8  # by which a figure must tell models that saw a concept from those that did not
SIGNS = {"above": 1, "below": -1}  # of a measure's `known`
TURNED = {"value": "value", "low": "high", "high": "low"}
NO_VOTE, FEW = "no vote: ", "too few cases to tell it from the original"
ABSTAIN = {  # figures, or whole probes, that have no vote of their own
    "salmu.IntraIdSim": "reference-gap.forget_cosine says the same",
    "salmu.AssocStr": "reference-gap.forget_cosine says the same",
    "salmu.leakage_gone": "salmu.leakage_rate says the same",
    "quantisation.forget_accuracy_8_bits": "reference-gap.forget_accuracy says the same",
    "encoder-swap": "a model with a space of its own is low here, whatever it knows",
}
KNOWN, NEVER_KNOWN, UNDECIDED = "still known", "as never known", "undecided"
PUSHED = "pushed away: further from knowing than models that never knew"
MORE, LESS = "more than the reference: something is left", "less than the reference: over-forgetting"


class Threshold(Settings):
    """From where on a model counts as knowing the concept; `auc`: how well that tells models apart; `source`: of it.

    `far_end`: beyond it, on the side away from knowing, lie as few of the models that never knew as beyond `threshold`.
    `spread`: how far below and above others of their concept they lie, as few of them beyond each end. Where there is a
    reference, both limits lie so far from it, because concepts differ more than models of one concept do. `settings`:
    those of the probe with which this was measured.
    """

    threshold: float
    far_end: float | None = None
    spread: list[float] | None = Field(default=None, min_length=2, max_length=2)
    auc: float = Field(ge=0, le=1)
    source: str = Field(min_length=1)
    settings: dict[str, Any] = Field(default={})

    def limits(self, measure):
        """(threshold, far end or None) for a measure as in the JSON."""
        if self.spread is None or measure["reference"] is None:
            return self.threshold, self.far_end
        low, high = (measure["reference"]["value"] + one for one in self.spread)
        return (high, low) if measure["known"] == "above" else (low, high)

    def told(self, measure):
        """As a mapping for the result, with the `limit` and the `far_limit` that this measure is held to."""
        limit, far_limit = self.limits(measure)
        return {**self.model_dump(), "limit": limit, "far_limit": far_limit}


def read_thresholds(thresholds):
    """{"probe.measure": mapping} -> {"probe.measure": `Threshold`}."""
    for name in thresholds:
        if str(name).partition(".")[0] not in PROBES:
            raise CliperaseError(
                f"threshold {name!r} is of no probe; write <probe>.<measure>, such as {next(iter(PROBES))}.…"
            )
    return {name: checked(Threshold, values, f"threshold {name}") for name, values in thresholds.items()}


def finding(measure):
    """What a measure, as in the JSON, shows beside the reference, or where there is none beside the original."""
    after, other = measure["after"], measure["reference"] or measure["before"]
    if after["low"] is None or other["low"] is None:
        return "too few to tell"
    above, below = after["low"] > other["high"], after["high"] < other["low"]
    if measure["reference"] is None:
        said = f"{'higher' if above else 'lower'} than the original" if above or below else "as the original"
        return said + beside_invented(after, measure["never"])
    if not above and not below:
        return "not told apart from the reference"
    if measure["known"] is None:
        return f"{'higher' if above else 'lower'} than the reference"
    return MORE if above == (measure["known"] == "above") else LESS


def beside_invented(after, never):
    """Where a figure stands beside that of words that nobody taught."""
    if never is None or never["low"] is None:
        return ""
    above, below = after["low"] > never["high"], after["high"] < never["low"]
    return f", {'above' if above else 'below'} an invented word" if above or below else ", as an invented word"


def vote(name, measure, threshold, settings=None):
    """What the measure `<probe>.<measure>` says of the unlearned model by its `Threshold`, or why it says nothing.

    `settings`: those of its probe. The limits were set on values, so the value decides whether one is passed. Whether
    it is passed for certain, the interval says.
    """
    reason = silent(name, measure["known"], threshold, settings)
    if reason:
        return NO_VOTE + reason
    sign = SIGNS[measure["known"]]
    before, after = (measure[one] and turned(measure[one], sign) for one in ("before", "after"))
    limit, far_end = (None if one is None else sign * one for one in threshold.limits(measure))
    if after["low"] is None:
        return NO_VOTE + FEW
    if before and before["value"] <= limit:
        return f"{NO_VOTE}the original does not pass the limit either"
    if after["value"] > limit:
        return KNOWN if after["low"] > limit else UNDECIDED
    if before and before["low"] is not None and after["high"] >= before["low"]:
        return NO_VOTE + FEW
    return PUSHED if far_end is not None and after["high"] < far_end else NEVER_KNOWN


def silent(name, known, threshold, settings=None):
    """Why a figure never votes, whatever a model does; an empty text if it may vote.

    `known`: as in its measure. `settings`: those of its probe.
    """
    if known is None:
        return "describes damage, or explains another figure"
    for one, why in ABSTAIN.items():
        if name == one or name.startswith(f"{one}."):
            return why
    if threshold is None:
        return "power not measured"
    if threshold.auc < LEAST_AUC:
        return f"its area under the ROC curve is {threshold.auc:.2f}, below {LEAST_AUC}"
    for setting, value in threshold.settings.items():
        here = (settings or {}).get(setting, value)
        if here != value:
            return f"its power was measured with {setting} {value}, and here it is {here}"
    return ""


def turned(found, sign) -> dict[str, Any]:
    """An estimate as it is, or for the sign -1 turned, so that more is on the side of models that know the concept."""
    if sign > 0:
        return found
    return {name: None if found[end] is None else -found[end] for name, end in TURNED.items()}


def by_chance(count):
    """How many of `count` figures pass a limit in 19 of 20 models that never knew, if the figures were independent."""
    return int(binom.ppf(0.95, count, FALSE_ALARMS))


def verdict_of(measures, has_references):
    """{"verdict", "reasons"} of all measures, {"probe.measure": measure}.

    Every threshold lets 5 % of the models that never knew pass for knowing, and as many pass for pushed away. So the
    concept counts as known where more figures say so than chance lets do in 19 of 20 such models, as if the figures
    were independent; the same holds for pushed away.
    """
    votes = {name: one["vote"] for name, one in measures.items() if not one["vote"].startswith(NO_VOTE)}
    known, pushed = ([name for name, said in votes.items() if said == kind] for kind in (KNOWN, PUSHED))
    count, of = len(votes), f"of {len(votes)} figures with a vote{asked_by(votes)}"
    said_so = f"{len(known)} {of} say that the concept is still known"
    if not votes:
        said = "No verdict: no figure here has a vote."
    elif len(known) > by_chance(count):
        said = f"Not gone: {said_so}."
    elif len(pushed) > by_chance(count):
        said = f"Pushed away: {len(pushed)} {of} lie further from knowing than in models that never knew the concept."
    elif known or UNDECIDED in votes.values():
        said = f"Undecided: {said_so}; so many may be chance, or other figures are unsure."
    else:
        said = f"No trace: none {of} says that the concept is still known."
    by = [f"Still known by {', '.join(known)}."] if known else []
    by += [f"Pushed away by {', '.join(pushed)}."] if pushed else []
    return {"verdict": said, "reasons": [*by, *reasons(measures, has_references)]}


def asked_by(votes):
    """A word on few probes: what they do not ask may still be known."""
    probes = sorted({name.partition(".")[0] for name in votes})
    return f", of {' and '.join(probes)} alone," if len(probes) in (1, 2) else ""


def suspects(measures):
    """The figures by which the reference itself lies beyond the limit that holds without one."""
    found = []
    for name, one in measures.items():
        threshold = one.get("threshold")
        if threshold and one["reference"] and not one["vote"].startswith(NO_VOTE):
            apart = one["reference"]["value"] - threshold["threshold"]
            found += [name] if SIGNS[one["known"]] * apart > 0 else []
    return found


def of_other_architecture(models):
    """A sentence for each reference whose space is of another kind. `models`: as in the result."""
    return [
        f"{one['is'].capitalize()} has another architecture than the unlearned model ({one['unlike']}). Cosines, "
        "margins and distances have another scale there, so that they say less beside it."
        for one in models
        if one["is"].startswith("reference") and one["unlike"]
    ]


def reasons(measures, has_references):
    """Sentences on what the figures show, votes aside."""
    if not has_references:
        return [
            "There is no reference, a model trained without the concept. Beside the original, the figures tell what "
            "changed and not whether it is enough. Beside invented words they tell how a text stands that nobody "
            "taught, and nothing of the images, which the model has seen."
        ]
    beyond = suspects(measures)
    doubt = f"The reference itself lies beyond the usual limit by {', '.join(beyond)}: it may know the concept."
    names = {kind: [name for name, one in measures.items() if one["finding"] == kind] for kind in (MORE, LESS)}
    return [
        f"Above what the reference knows: {', '.join(names[MORE]) or 'no figure'}.",
        f"Pushed below the reference: {', '.join(names[LESS]) or 'no figure'}.",
        *([doubt] if beyond else []),
    ]
