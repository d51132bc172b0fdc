"""Other words for the same: templates in which a class or a caption stands, plurals, typing errors."""

import numpy as np

from cliperase.data.words import PLURALS, as_read

TEMPLATES = (  # of Radford et al. 2021, those that fit photographs, drawings and pictograms alike
    "a photo of a {}",
    "a {}",
    "{}",
    "a picture of a {}",
    "a photo of the {}",
    "a drawing of a {}",
    "a close-up photo of a {}",
    "a cropped photo of the {}",
    "a bright photo of a {}",
    "a dark photo of the {}",
    "a photo of one {}",
    "a rendition of a {}",
    "a good photo of a {}",
    "a photo of a large {}",
    "a photo of a small {}",
    "there is a {} in the picture",
)
AROUND_CAPTIONS = ("{}", "a photo of {}", "{} in a photo", "in this picture: {}", "an image that shows {}")


def plural_of(word):
    """The usual English plural of the last word of a name."""
    start, last = word[: word.rfind(" ") + 1], word.split(" ")[-1]
    if last in PLURALS:
        return start + PLURALS[last]
    if last.endswith("y") and last[-2:-1] not in "aeiou":
        return f"{start}{last[:-1]}ies"
    return f"{word}es" if last.endswith(("s", "x", "z", "ch", "sh")) else f"{word}s"


def misspellings(word, most, taken=()):
    """At most `most` forms of a word with a typing error each. To a model all differ from each other, from the word and
    from what is `taken`.

    A letter is left out, doubled, or changed with the next one, by turns. A short word has few such forms.
    """
    places = max(1, len(word) - 1)
    drawn = [(int(np.random.default_rng([number, len(word)]).integers(places)), number % 3) for number in range(most)]
    every = [(place, kind) for place in range(places) for kind in range(3)]
    used, found = {"", *map(as_read, (word, *taken))}, {}
    for one in (mistyped(word, *error) for error in [*drawn, *every]):
        if as_read(one) not in used:
            found.setdefault(as_read(one), one)
    return list(found.values())[:most]


def mistyped(word, place, kind):
    """The word with the letter at a place left out (kind 0), doubled (1), or changed with the next one (2)."""
    left, letter, right = word[:place], word[place : place + 1], word[place + 1 :]
    return (left + right, left + letter + letter + right, left + right[:1] + letter + right[1:])[kind]
