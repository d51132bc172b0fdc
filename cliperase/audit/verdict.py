"""From figures to words: what a measurement shows beside its reference, whether it has a vote, and the verdict.

A figure votes only where its power was measured: on models that saw the concept and on models that never did, it has to
tell the two apart. What it says then hangs on a threshold that came from there, with its source.
"""

from pydantic import Field
from scipy.stats import binom

from cliperase.audit import PROBES
from cliperase.errors import CliperaseError
from cliperase.settings import Settings, checked

FALSE_ALARMS = 0.05  # of models that never knew a concept, the share that passes a threshold
LEAST_AUC = 0.8  # by which a figure must tell models that saw a concept from those that did not
NOT_MEASURED, NONE = "no vote: power not measured", "no vote: describes damage, or explains another figure"
KNOWN, NEVER_KNOWN, UNDECIDED = "still known", "as never known", "undecided"
PUSHED = "pushed away: further from knowing than models that never knew"
MORE, LESS = "more than the reference: something is left", "less than the reference: over-forgetting"


class Threshold(Settings):
    """From where on a model counts as knowing the concept; `auc`: how well that tells models apart; `source`: of it.

    `far_end`: beyond it, on the side away from knowing, lie as few of the models that never knew as beyond `threshold`.
    `spread`: how far below and above others of their concept they lie, as few of them beyond each end. Where there is a
    reference, both limits lie so far from it, because concepts differ more than models of one concept do.
    """

    threshold: float
    far_end: float | None = None
    spread: list[float] | None = Field(default=None, min_length=2, max_length=2)
    auc: float = Field(ge=0, le=1)
    source: str = Field(min_length=1)

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


def vote(measure, threshold):
    """What a measure says of the unlearned model by its `Threshold`, or why it says nothing.

    The limits were set on values, so the value decides whether one is passed. Whether it is passed for certain, the
    interval says.
    """
    if measure["known"] is None:
        return NONE
    if threshold is None:
        return NOT_MEASURED
    if threshold.auc < LEAST_AUC:
        return f"no vote: its area under the ROC curve is {threshold.auc:.2f}, below {LEAST_AUC}"
    after, sign = measure["after"], 1 if measure["known"] == "above" else -1
    value = sign * after["value"]
    ends = [value if after[end] is None else sign * after[end] for end in ("low", "high")]
    limit, far_end = threshold.limits(measure)
    if value > sign * limit:
        return KNOWN if min(ends) > sign * limit else UNDECIDED
    return PUSHED if far_end is not None and max(ends) < sign * far_end else NEVER_KNOWN


def by_chance(count):
    """How many of `count` figures pass a limit in 19 of 20 models that never knew, if the figures were independent."""
    return int(binom.ppf(0.95, count, FALSE_ALARMS))


def verdict_of(measures, has_references):
    """{"verdict", "reasons"} of all measures, {"probe.measure": measure}.

    Every threshold lets 5 % of the models that never knew pass for knowing, and as many pass for pushed away. So the
    concept counts as known where more figures say so than chance lets do in 19 of 20 such models, as if the figures
    were independent; the same holds for pushed away.
    """
    votes = {name: one["vote"] for name, one in measures.items() if not one["vote"].startswith("no vote")}
    known, pushed = ([name for name, said in votes.items() if said == kind] for kind in (KNOWN, PUSHED))
    count, of = len(votes), f"of {len(votes)} figures with a vote"
    said_so = f"{len(known)} {of} say that the concept is still known"
    if not votes:
        said = "No verdict: no figure here has a vote, because the power of none was measured."
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


def reasons(measures, has_references):
    """Sentences on what the figures show, votes aside."""
    if not has_references:
        return [
            "There is no reference, a model trained without the concept. Beside the original, the figures tell what "
            "changed and not whether it is enough. Beside invented words they tell how a text stands that nobody "
            "taught, and nothing of the images, which the model has seen."
        ]
    names = {kind: [name for name, one in measures.items() if one["finding"] == kind] for kind in (MORE, LESS)}
    return [
        f"Above what the reference knows: {', '.join(names[MORE]) or 'no figure'}.",
        f"Pushed below the reference: {', '.join(names[LESS]) or 'no figure'}.",
    ]
