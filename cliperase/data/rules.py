"""Forget rules: which rows of a data set should be forgotten."""

import difflib
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import regex
import torch
from torch import Tensor

from cliperase.data.pairs import PairSet
from cliperase.data.words import find_word, plurals, searchable
from cliperase.errors import CliperaseError

LISTS, TEXTS = ("concepts", "classes", "rows"), ("concept", "caption_pattern")  # kinds of rules, by their value
OPTIONS = ("plural", "case")  # of rules on words
MOST_SAID = 5  # words in a message
MOST_SHOWN = 60  # letters of a caption in a message
MOST_SECONDS = 1.0  # that an expression may take on one caption: nested repeats can take years


@dataclass(frozen=True)
class Rule:
    """What is to be forgotten, one of these kinds with its `values`:

    `concept`, `concepts`: class names, or where there are no classes words of any caption; `classes`: class names;
    `caption_pattern`: a regular expression searched in all captions; `rows`: row hashes. An image is forgotten if any
    of its captions matches. Of words `plural` takes English plurals along, and `case` minds upper and lower case.
    """

    kind: str
    values: tuple[str, ...]
    plural: bool = False
    case: bool = False

    @classmethod
    def of(cls, rule: Mapping[str, Any]) -> Self:
        """From a mapping such as {"concept": "apple", "plural": True}."""
        kinds = [kind for kind in (*TEXTS, *LISTS) if isinstance(rule, Mapping) and kind in rule]
        if len(kinds) != 1 or set(rule) - {*kinds, *OPTIONS}:
            raise CliperaseError(
                f"forget rule {rule!r}: give one of {', '.join((*TEXTS, *LISTS))} with its value, "
                f"and where you like {' and '.join(OPTIONS)} for words"
            )
        kind, value = kinds[0], rule[kinds[0]]
        expected = list if kind in LISTS else str
        if not isinstance(value, expected) or (expected is list and not all(isinstance(one, str) for one in value)):
            wanted = "a list of strings, in quotes where they are digits" if expected is list else "text"
            raise CliperaseError(f"forget rule {kind}: {value!r}; give {wanted}")
        options = {name: rule[name] for name in OPTIONS if name in rule}
        if options and kind not in ("concept", "concepts"):
            raise CliperaseError(f"forget rule {rule!r}: {' and '.join(options)} go with concept or concepts only")
        if not all(isinstance(option, bool) for option in options.values()):
            raise CliperaseError(f"forget rule {rule!r}: give true or false for {' and '.join(options)}")
        values = value if kind in LISTS else [value]
        if any(not one.strip() for one in values):
            raise CliperaseError(f"forget rule {rule!r} holds a blank text; take it out")
        return cls(kind, tuple(values), **options)

    def __str__(self) -> str:
        values = f"[{said_in_short(map(repr, self.values))}]" if self.kind in LISTS else repr(self.values[0])
        return f"forget rule {self.kind}: {values}"


def forget_mask(pairs: PairSet, rule: Rule | Mapping[str, Any], required: bool = True) -> Tensor:
    """(N,) bool, true where `rule` says forget.

    The rule must leave some rows, and if `required` match some.
    """
    rule = rule if isinstance(rule, Rule) else Rule.of(rule)
    if rule.kind == "rows":
        wanted = set(rule.values)
        mask = torch.tensor([row in wanted for row in pairs.row_hashes])
    elif rule.kind == "classes" or (rule.kind != "caption_pattern" and pairs.class_names):
        mask = class_mask(pairs, rule.values)
    else:
        search = caption_pattern(rule).search
        mask = torch.tensor([search(text) for text in pairs.texts])[pairs.text_ids].any(dim=1)
    if required and not mask.any():
        said = "".join(f"; {note}" for note in near_misses(pairs, rule))
        raise CliperaseError(f"{rule} matches no row of {len(pairs)}; correct it, or add such rows{said}")
    if mask.all():
        raise CliperaseError(f"{rule} matches all {len(pairs)} rows; nothing to retain")
    return mask


def split_pairs(pairs: PairSet, rule: Rule | Mapping[str, Any]) -> tuple[PairSet, PairSet]:
    """(forget set, retain set) of one split."""
    mask = forget_mask(pairs, rule)
    return pairs.select(mask), pairs.select(~mask)


def class_mask(pairs: PairSet, names: Iterable[str]) -> Tensor:
    """(N,) bool, true for rows of the named classes."""
    wanted = torch.tensor(class_numbers(names, pairs.class_names), dtype=torch.long)
    return torch.isin(pairs.class_numbers, wanted)


def class_numbers(names: Iterable[str], class_names: list[str]) -> list[int]:
    """The numbers of the named classes among `class_names`."""
    if not class_names:
        raise CliperaseError(f"classes {list(names)}: the data have none; give a concept, a word of the captions")
    known = {searchable(name, case=True): number for number, name in enumerate(class_names)}
    known |= {name: number for number, name in enumerate(class_names)}  # m² is not m2, where both are there
    found = []
    for name in names:
        number = known.get(name, known.get(searchable(name, case=True)))
        if number is None:
            near = nearest(name, class_names)
            classes = f"the nearest are {near}" if near else f"classes are {said_in_short(class_names)}"
            raise CliperaseError(f"concept {name!r} matches no row; {classes}, by exact name")
        found.append(number)
    return found


class Words:
    """Words that are looked for in captions."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        words = [searchable(word, rule.case) for word in rule.values]
        self.words = [form for word in words for form in (plurals(word) if rule.plural else [word])]

    def __repr__(self) -> str:
        return f"{self.rule}{' with plurals' * self.rule.plural}{' in this case' * self.rule.case}"

    def search(self, caption: str) -> bool:
        """Whether a caption holds one of them."""
        text = searchable(caption, self.rule.case)
        return any(find_word(text, word)[0] for word in self.words)

    def in_none(self, captions: Sequence[str]) -> list[str]:
        """Those of the words that none of the captions holds."""
        each = {word: Words(replace(self.rule, values=(word,))) for word in self.rule.values}
        return [word for word, alone in each.items() if not any(map(alone.search, captions))]

    def near(self, caption: str) -> set[str]:
        """The words of a caption that hold one of them as a part, or in another case."""
        text = searchable(caption)
        parts = {part for word in self.words for part in find_word(text, searchable(word))[1]}
        same = {word for word in self.words if self.rule.case and find_word(text, searchable(word))[0]}
        return parts | same


class Expression:
    """A regular expression that is searched in captions, whatever their case."""

    def __init__(self, rule: Rule) -> None:
        try:
            self.compiled = regex.compile(unicodedata.normalize("NFC", rule.values[0]), regex.IGNORECASE)
        except regex.error as error:
            raise CliperaseError(
                f"caption_pattern {rule.values[0]!r} is no regular expression ({error}); correct it"
            ) from None

    def __repr__(self) -> str:
        return f"forget rule caption_pattern: {self.compiled.pattern!r}"

    def search(self, caption: str) -> bool:
        try:
            return bool(self.compiled.search(unicodedata.normalize("NFC", caption), timeout=MOST_SECONDS))
        except TimeoutError:
            raise CliperaseError(
                f"caption_pattern {self.compiled.pattern!r} takes more than {MOST_SECONDS:g} s on the caption "
                f"{caption[:MOST_SHOWN]!r}; write it without repeats within repeats"
            ) from None

    def near(self, caption: str) -> set[str]:
        return set()


def caption_pattern(rule: Rule | Mapping[str, Any]) -> Words | Expression:
    """What a rule on captions looks for."""
    rule = rule if isinstance(rule, Rule) else Rule.of(rule)
    if rule.kind == "caption_pattern":
        return Expression(rule)
    if rule.kind in ("concept", "concepts"):
        return Words(rule)
    raise CliperaseError(f"{rule}: what is streamed has captions only; give concept, concepts or caption_pattern")


class Wanted:
    """Which rows of a stream a rule forgets, seen one by one: by their class where there are classes, as `forget_mask`
    does, else by their captions."""

    def __init__(self, rule: Rule | Mapping[str, Any], class_names: list[str] | None = None) -> None:
        self.rule, self.class_names = rule if isinstance(rule, Rule) else Rule.of(rule), class_names or []
        by_class = self.class_names and self.rule.kind in ("concept", "concepts", "classes")
        self.numbers = class_numbers(self.rule.values, self.class_names) if by_class else []
        self.pattern = None if by_class else caption_pattern(self.rule)

    def __repr__(self) -> str:
        return repr(self.pattern) if self.pattern else str(self.rule)

    def search(self, captions: Iterable[str], label: int | None = None) -> bool:
        """Whether a row with these captions, and of this class, is to be forgotten."""
        return label in self.numbers if self.pattern is None else any(map(self.pattern.search, captions))

    def near(self, captions: Iterable[str]) -> set[str]:
        """The words that came near in the captions of a row that does not match."""
        return set().union(*map(self.pattern.near, captions)) if self.pattern else set()

    def in_none(self, captions: Sequence[str]) -> list[str]:
        """The words of the rule that none of the captions to forget holds, as sentences."""
        return held_by_none(self.pattern.in_none(captions)) if isinstance(self.pattern, Words) else []

    def near_classes(self) -> list[str]:
        """As `near_misses` of the classes."""
        return [] if self.pattern else near_classes(self.rule, self.class_names)


def near_misses(pairs: PairSet, rule: Rule | Mapping[str, Any]) -> list[str]:
    """What a rule nearly matched and did not, as sentences: captions or classes that hold its word as a part,
    of several words or classes those of no row, and if it matches nothing the nearest words there are."""
    rule = rule if isinstance(rule, Rule) else Rule.of(rule)
    if rule.kind in ("rows", "caption_pattern"):
        return []
    lost = of_no_row(pairs, rule)
    some = len(lost) < len(set(rule.values))
    if pairs.class_names:
        listed = said_in_short(map(repr, lost))
        said = [f"no row is of the class {listed}; take it out, or add such rows"] if lost and some else []
        return near_classes(rule, pairs.class_names) + said
    texts = pairs.texts_used()
    counts = count_near(Words(rule), texts)
    notes = [told(counts, len(texts))] if counts else []
    if some:
        return notes + held_by_none(lost)
    if notes:
        return notes
    words = sorted({word for text in texts for word in searchable(text).split()})
    near = [nearest(word, words) for word in rule.values]
    return [f"the nearest words of the captions are {', '.join(near)}"] if any(near) else []


def of_no_row(pairs: PairSet, rule: Rule) -> list[str]:
    """Those of a rule's words or classes that no row has; of other rules none."""
    if rule.kind in ("rows", "caption_pattern"):
        return []
    if not pairs.class_names:
        return Words(rule).in_none(pairs.texts_used())
    there = set(pairs.class_numbers.tolist())
    numbers = class_numbers(rule.values, pairs.class_names)
    return [name for name, number in zip(rule.values, numbers, strict=True) if number not in there]


def held_by_none(words: Sequence[str]) -> list[str]:
    """That no caption to forget holds these words of a rule, of which it holds another, as sentences."""
    listed = said_in_short(map(repr, words))
    return [f"no caption to forget holds {listed}; correct it, or take it out"] if words else []


def near_classes(rule: Rule, class_names: Sequence[str]) -> list[str]:
    """What a rule on classes nearly matched, as sentences."""
    looked_for = Words(rule)
    numbers = class_numbers(rule.values, list(class_names)) if class_names else []
    kept = [name for number, name in enumerate(class_names) if number not in numbers]
    held = [name for name in kept if looked_for.search(name) or looked_for.near(name)]
    return [f"classes that hold the word and are kept: {said_in_short(held)}"] if held else []


def count_near(looked_for: Words | Expression, texts: Iterable[str]) -> Counter[str]:
    """How many of the texts that do not match hold each word that comes near."""
    return Counter(word for text in texts if not looked_for.search(text) for word in looked_for.near(text))


def told(counts: Counter[str], total: int) -> str:
    words = said_in_short([f"{word} ({count})" for word, count in counts.most_common()])
    return (
        f"{counts.total()} of {total} captions hold the word only within another or in another case, and are kept: "
        f"{words}"
    )


def nearest(word: str, words: Sequence[str]) -> str:
    """The words that look most like one, said in short."""
    folded = {searchable(one): one for one in words}
    found = difflib.get_close_matches(searchable(word), list(folded), MOST_SAID)
    holding = [one for one in folded if searchable(word) in one]
    return said_in_short([repr(folded[one]) for one in dict.fromkeys([*found, *holding])])


def said_in_short(words: Iterable[str]) -> str:
    words = list(words)
    return ", ".join(map(str, words[:MOST_SAID])) + (", …" if len(words) > MOST_SAID else "")
