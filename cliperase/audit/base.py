"""What a probe is: settings that are checked once, texts for the reader, and measurements of the models."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from tqdm import tqdm

from cliperase.audit.intervals import Estimate, envelope
from cliperase.errors import CliperaseError
from cliperase.settings import Settings

if TYPE_CHECKING:
    from cliperase.audit.case import Case, Subject

Known = Literal["above", "below", None]


class NotApplicable(CliperaseError):
    """This probe cannot say anything here, and why: a line of the report, no failure of the audit."""


@dataclass(frozen=True)
class Measurement:
    """One figure of the original (`before`), of the unlearned model (`after`) and of the `reference`s.

    `reference` is None where there is none, or where the figure means nothing for a model with a space of its own.
    `never`: the same figure of words that no model here was taught, where it has one.
    `known`: on which side of a threshold a model stands that still knows the concept; None: the figure is of damage,
    or explains another one, and has no vote.
    """

    name: str
    unit: str
    before: Estimate
    after: Estimate
    reference: Estimate | None = None
    never: Estimate | None = None
    known: Known = "above"


class Probe(Settings):
    """Base of all probes. The fields of a probe are its settings; `create_probe` checks them.

    Texts of the page: what is `asked`, what the `figures` are, what one `means`, what it does not show (`limits`), the
    `source`, a paper.
    """

    asked: ClassVar[str]
    figures: ClassVar[str]
    means: ClassVar[str]
    limits: ClassVar[str]
    source: ClassVar[str]

    @abstractmethod
    def run(self, case: "Case") -> list[Measurement]:
        """The measurements of a case; `NotApplicable` where there can be none."""


def compared(
    case: "Case",
    name: str,
    unit: str,
    estimate: "Callable[[Subject], Estimate]",
    known: Known = "above",
    references: bool = True,
    never: "Callable[[Subject], Estimate] | None" = None,
) -> Measurement:
    """What `estimate(subject)` gives for each model of the case.

    `references`: whether the figure means anything for a model with a space of its own. `never(subject)`: the figure of
    words that no model was taught. Progress is shown where it takes seconds.
    """
    subjects = case.subjects if references else [case.before, case.after]
    bar = tqdm(subjects, desc=name, position=1, leave=False, delay=2, disable=not case.progress)
    for subject in bar:
        if (name, subject.hash) not in case.estimates:
            case.estimates[name, subject.hash] = estimate(subject)
    before, after, *found = [case.estimates[name, subject.hash] for subject in subjects]
    return Measurement(name, unit, before, after, envelope(found), never(case.after) if never else None, known)
