"""Other words: the concept asked for in other templates, in the plural, misspelt, by synonyms.

A method that moves one prompt forgets that prompt. Each kind of wording has two figures: the mean over the wordings,
and the worst case, the one by which the model recognises most forgotten images. The wordings of the other texts change
with the template and stay otherwise. In captions the words of the forget rule are replaced; a rule that is a pattern or
a list of rows has no words, so only the sentence around a caption changes.

Misspelt forms differ from each other and from every plural, synonym and name of a class. A short word has few of them;
then there are fewer wordings for all words, and a note says so.

`synonyms`: {class or word of the rule: [other names]}, in any language that the tokenizer reads.

What it does not show: knowledge that no wording reaches. The worst case is the largest of several figures and so leans
upwards; in the original and in the reference it does so as well.
"""

import re
from itertools import chain

from pydantic import Field, NonNegativeInt

from cliperase.audit.base import Probe, compared
from cliperase.audit.case import recognised
from cliperase.audit.intervals import mean_of_table, share_of
from cliperase.audit.wording import AROUND_CAPTIONS, TEMPLATES, misspellings, plural_of
from cliperase.errors import CliperaseError
from cliperase.metrics.tasks import prompt_of


class OtherWords(Probe):
    asked = "Does the model know the concept by other words than those that were forgotten?"
    figures = (
        "Percent of the forgotten images that are recognised by other templates, by the plural, by typing errors, "
        "by synonyms: the mean over the wordings of a kind, and the worst, by which most are recognised."
    )
    means = (
        "A worst case above the reference's: some wording still reaches the concept. "
        "Where the usual prompt fails and others work, one text was moved and not the concept."
    )
    limits = "It tries some wordings, not all. What no wording reaches may still be in the model."
    source = "templates of CLIP (Radford et al., ICML 2021); synonyms are the user's"

    typos: NonNegativeInt = 4
    synonyms: dict[str, list[str]] = Field(default={})

    def run(self, case):
        usual = case.test.pairs.templates if case.test.has_classes else AROUND_CAPTIONS[:1]
        templates = TEMPLATES if case.test.has_classes else AROUND_CAPTIONS
        wordings = {"template": [worded(case, (template,), lambda name: name) for template in templates]}
        if words_of(case):
            wordings["plural"] = [worded(case, usual, plural_of)]
            wordings["typo"] = [worded(case, usual, form) for form in self.typing_errors(case)]
            wordings["synonym"] = [worded(case, usual, form) for form in self.forms(words_of(case))]
        return [one for kind, lists in wordings.items() if lists for one in measured(case, kind, lists)]

    def forms(self, words):
        """Functions that give a word's n-th synonym; a word that has fewer keeps its own."""
        unknown = set(self.synonyms) - set(words)
        if unknown:
            raise CliperaseError(
                f"synonyms of {min(unknown)!r}, which is not forgotten; give those of {', '.join(words)}"
            )
        return by_turns(self.synonyms, max(map(len, self.synonyms.values()), default=0))

    def typing_errors(self, case):
        """Functions that give a word's n-th misspelt form, as many as the word with the fewest has."""
        words, listed = words_of(case), {}
        taken = [*case.test.pairs.class_names, *words, *map(plural_of, words), *chain(*self.synonyms.values())]
        for word in words:
            listed[word] = misspellings(word, self.typos, [*taken, *chain(*listed.values())])
        shortest = min(words, key=lambda word: len(listed[word]))
        count = len(listed[shortest])
        if count < self.typos:
            case.notes.append(f"typo_… is of {count} forms instead of {self.typos}: {shortest!r} has no more.")
        return by_turns(listed, count)


def by_turns(listed, count):
    """`count` functions that give a word's n-th form of `listed` {word: forms}; a word that has fewer keeps its own."""
    known = {word.lower(): forms for word, forms in listed.items()}
    return [lambda name, n=n: [*known.get(name.lower(), []), *[name] * count][n] for n in range(count)]


def words_of(case):
    """The names that are forgotten: classes, or the words that the rule looks for; none where it has no words."""
    if case.test.has_classes:
        return [case.test.pairs.class_names[number] for number in case.test.forget_texts.tolist()]
    return list(case.rule.values) if case.rule.kind in ("concept", "concepts") else []


def worded(case, templates, form):
    """All texts of the test split in the `templates`, the forgotten names in another `form`."""
    split, forget, words = case.test, set(case.test.forget_texts.tolist()), words_of(case)
    pattern = re.compile(rf"\b({'|'.join(map(re.escape, words))})\b", re.IGNORECASE) if words else None

    def reworded(number, text):
        if split.has_classes:
            name = split.pairs.class_names[number]
            return form(name) if number in forget else name
        return pattern.sub(lambda found: form(found[0].lower()), text) if pattern and number in forget else text

    return [prompt_of(reworded(number, text), templates) for number, text in enumerate(split.texts)]


def measured(case, kind, wordings):
    """The mean over the wordings of a kind, and where there are several the worst case."""
    split, rows = case.test, case.test.forgotten

    def hits(subject):
        images = subject.images(split)[rows]
        return [recognised(images, subject.texts(texts), split.own[rows]).numpy() for texts in wordings]

    yield compared(case, f"{kind}_mean", "%", lambda s: mean_of_table([100.0 * one for one in hits(s)]))
    if len(wordings) > 1:
        yield compared(case, f"{kind}_worst", "%", lambda s: share_of(max(hits(s), key=lambda one: one.sum())))
