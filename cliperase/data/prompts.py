"""Data with classes, asked with templates of the user's own."""

from dataclasses import replace

from cliperase.data.pairs import number_texts
from cliperase.data.templates import PROMPT, USUAL
from cliperase.errors import CliperaseError


def asked_with(pairs, templates, said):
    """The rows of a `PairSet` with these `templates`, in which their captions are written, too. `said`: what messages
    call the data."""
    if templates == USUAL:
        return pairs
    if not pairs.class_names:
        raise CliperaseError(f"{said} have no classes, so templates have no meaning; leave them out")
    captions = [
        reworded([pairs.texts[i] for i in ids], pairs.class_names[label], templates)
        for ids, label in zip(pairs.text_ids.tolist(), pairs.class_numbers.tolist(), strict=True)
    ]
    texts, text_ids = number_texts(captions)
    return replace(pairs, texts=texts, text_ids=text_ids, templates=templates)


def reworded(captions, name, templates):
    """The captions of a row of the class `name`: its prompt in each template in place of the usual one, then the row's
    own."""
    own = [caption for caption in captions if caption != PROMPT.format(name)]
    return list(dict.fromkeys([template.format(name) for template in templates] + own))
