"""Is it really gone? One short file for each probe, and the registry of their names.

A probe is imported when it is asked for, because scikit-learn takes a second. `auditing.carry_out` runs them, `page`
writes what they found.
"""

from collections.abc import Mapping
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from cliperase.errors import CliperaseError
from cliperase.settings import checked

if TYPE_CHECKING:
    from cliperase.audit.base import Probe

PROBES = {
    "reference-gap": "cliperase.audit.reference_gap:ReferenceGap",
    "linear-probe": "cliperase.audit.linear_probe:LinearProbe",
    "encoder-swap": "cliperase.audit.encoder_swap:EncoderSwap",
    "neighbours": "cliperase.audit.neighbours:Neighbours",
    "other-sources": "cliperase.audit.other_sources:OtherSources",
    "other-words": "cliperase.audit.other_words:OtherWords",
    "relearning": "cliperase.audit.relearning:Relearning",
    "membership": "cliperase.audit.membership:Membership",
    "lira": "cliperase.audit.lira:LiRA",
    "image-attack": "cliperase.audit.image_attack:ImageAttack",
    "text-attack": "cliperase.audit.text_attack:TextAttack",
    "token-states": "cliperase.audit.token_states:TokenStates",
    "matching-head": "cliperase.audit.matching_head:MatchingHead",
    "quantisation": "cliperase.audit.quantisation:Quantisation",
    "salmu": "cliperase.audit.salmu:SALMU",
}


def probe_class(name: str) -> "type[Probe]":
    """The `Probe` that is called `name`."""
    if name not in PROBES:
        raise CliperaseError(f"probe {name!r} unknown; choose one of {', '.join(PROBES)}")
    return resolve_name(PROBES[name])


def create_probe(name: str, settings: Mapping[str, Any]) -> "Probe":
    """The probe called `name` with its `settings`. What is wrong with one is named."""
    return checked(probe_class(name), settings, f"probe {name}")
