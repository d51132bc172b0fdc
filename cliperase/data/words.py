"""What makes two texts the same, and whether a text holds a word."""

import html
import re
import unicodedata
from functools import cache

from cliperase.errors import CliperaseError

JOINER, FLAGS = "\u200d", {*map(chr, range(0x1F1E6, 0x1F200))}  # emoji: what makes one of two; two letters a flag
TONES = {*map(chr, range(0x1F3FB, 0x1F400))}  # of an emoji's skin
SPELLINGS = str.maketrans({"\u2019": "'", "\u2010": "-", "\ufe0e": "", "\ufe0f": ""})  # the last two choose a font
WITHOUT_BLANKS = ("CJK", "HIRAGANA", "KATAKANA", "IDEOGRAPHIC", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")  # scripts
# what follows a Korean noun without a blank
PARTICLES = {
    *("이", "가", "을", "를", "은", "는", "의", "에", "와", "과", "도", "로", "으로", "에서", "에게",
      "만", "나", "이나"),
    *("랑", "이랑", "하고", "까지", "부터", "들", "들이", "들을", "들은"),
}  # fmt: skip
PLURALS = {"man": "men", "woman": "women", "child": "children", "person": "people", "foot": "feet", "tooth": "teeth",
           "goose": "geese", "mouse": "mice"}  # fmt: skip


def as_read(text):
    """A text as the tokenizers of CLIP read it: composed, HTML's signs undone, single blanks, lower case."""
    plain = html.unescape(html.unescape(unicodedata.normalize("NFC", text)))
    return " ".join(plain.split()).lower()


def check_classes(names, said):
    """Every class has a name, and a prompt that a model can tell from those of the others."""
    numbers = {}
    for number, name in enumerate(names):
        other = numbers.setdefault(as_read(name), number)
        if not as_read(name):
            raise CliperaseError(f"{said}: class {number} has the name {name!r}; give it one")
        if other != number:
            raise CliperaseError(
                f"{said}: classes {other} and {number}, {names[other]!r} and {name!r}, are the same prompt to a model, "
                "which reads lower case and single blanks; merge them or rename one"
            )


def searchable(text, case=False):
    """A text in the one spelling in which words are looked for: composed letters, single blanks, no `case`."""
    text = unicodedata.normalize("NFKC", text)
    if not case:
        text = unicodedata.normalize("NFKC", text.casefold())
    return " ".join(text.translate(SPELLINGS).split())


def find_word(text, word):
    """(whether `text` holds `word` by itself, the words of `text` that hold it as a part). Both are `searchable`."""
    start, within = text.find(word), []
    while start >= 0:
        end = start + len(word)
        if not goes_on_before(text[:start], word) and not goes_on_after(text[end:], word):
            return True, []
        first, last = text.rfind(" ", 0, start) + 1, text.find(" ", end)
        within.append(text[first : last if last >= 0 else len(text)].strip(".,;:!?\"'()"))
        start = text.find(word, start + 1)
    return False, within


def goes_on_before(before, word):
    """Whether the word whose end is `word` begins in the text `before` it, by the characters at the edge."""
    outside, inside = before[-1:], word[0]
    if inside in FLAGS:
        return (len(before) - len(before.rstrip("".join(FLAGS)))) % 2 == 1
    if inside.isdigit() and outside in (".", ","):
        return before[-2:-1].isdigit()  # 50 in 1.50
    return outside == JOINER or joined(inside, outside)


def goes_on_after(after, word):
    """Whether the word whose start is `word` goes on in the text `after` it, by the characters at the edge."""
    outside, inside = after[:1], word[-1]
    if outside in (JOINER, *TONES) or kind_of(outside)[:1] == "M":  # they change the character before them
        return True
    if inside.isdigit() and outside in (".", ","):
        return after[1:2].isdigit()
    if outside in ("+", "#"):
        return not is_letter(after[1:2])  # C in C++ and C#, but salt in salt+pepper
    if script(inside) == script(outside) == "HANGUL":
        # pyrefly: ignore[unsupported-operation] – `after` begins with a letter
        return re.match(r"\w+", after)[0] not in PARTICLES
    return joined(inside, outside)


def joined(inside, outside):
    """Whether a letter `outside` belongs to the word that ends `inside`, in a letter or in a sign ("U.S." in "U.S.A.").

    Nothing joins where a script has no blanks, and emoji stand alone.
    """
    alone = kind_of(inside) == "So" or not {script(inside), script(outside)}.isdisjoint(WITHOUT_BLANKS)
    return is_letter(outside) and not alone


@cache
def script(character):
    """The first word of a character's name, such as LATIN or THAI; of a sign, something else."""
    return re.split("[ -]", unicodedata.name(character, ""))[0] if character else ""


def kind_of(character):
    """Unicode's category; "" beyond the end of a text."""
    return unicodedata.category(character) if character else ""


def is_letter(character):
    """Letters, digits, marks, and signs that join, such as _."""
    return kind_of(character)[:1] in ("L", "N", "M") or kind_of(character) == "Pc"


def plurals(word):
    """The English plurals that a word may have, itself first; some are of no word and match nothing."""
    start, last = word[: word.rfind(" ") + 1], word.split(" ")[-1]
    found = [word, f"{word}s", f"{word}es"]
    if last in PLURALS:
        found.append(start + PLURALS[last])
    for ending, plural in (("y", "ies"), ("f", "ves"), ("fe", "ves")):
        if last.endswith(ending):
            found.append(word[: -len(ending)] + plural)
    return found
