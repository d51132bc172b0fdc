"""Planted failures: edits of an original after which the concept seems gone and is not, or nothing has changed.

A probe that is worth its vote catches those that hide, and is not fooled by the one that changes nothing.
"""

import torch

from cliperase.audit.quantisation import quantised
from cliperase.data.templates import PROMPT
from cliperase.metrics.encode import encode_texts


@torch.no_grad()
def project_text_head(model, case):
    """Only the words move: the concept's direction is taken out of the text head. The image tower knows all it knew."""
    direction = concept_text(model, case)
    model.multiply_text_head(torch.eye(len(direction)) - torch.outer(direction, direction))


@torch.no_grad()
def zero_token_rows(model, case):
    """The token embeddings of the concept's name are set to zero."""
    names, empty = model.token_rows(list(case.rule.values)), model.token_rows([""])
    used = sorted(set(names.unique().tolist()) - set(empty.unique().tolist()))
    model.clip_text_tower.token_embedding.weight[used] = 0


def round_weights(model, case):
    """Weights of four bits: damage everywhere, and no forgetting."""
    model.load_state_dict(quantised(model, bits=4).state_dict())


def nothing(model, case):
    """The original itself: every probe must say that it knows."""


def concept_text(model, case):
    """(D,) unit vector of the concept's prompt, less the mean of all prompts."""
    prompts = [PROMPT.format(name) for name in case.rule.values]
    features = encode_texts(model, [*prompts, *case.test.texts])
    direction = features[: len(prompts)].mean(dim=0) - features[len(prompts) :].mean(dim=0)
    return direction / direction.norm()


FAILURES = {
    "text head projected": project_text_head,
    "token rows zeroed": zero_token_rows,
    "weights rounded": round_weights,
    "nothing": nothing,
}
