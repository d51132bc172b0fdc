"""The experiments by name. To add one: a file in `plans/`, a line here, a section in a profile and in stages.yaml."""

from pkgutil import resolve_name

from cliperase.errors import CliperaseError
from cliperase.settings import checked

EXPERIMENTS = {  # name -> its class, imported when it is asked for
    "main": "paper.plans.main:Main",
    "published": "paper.plans.main:Main",
    "ablation": "paper.plans.ablation:Ablation",
    "sensitivity": "paper.plans.sensitivity:Sensitivity",
    "ratios": "paper.plans.ratios:Ratios",
    "polysemy": "paper.plans.polysemy:Polysemy",
    "retention": "paper.plans.retention:Retention",
    "pairs": "paper.plans.rules:Rules",
    "retrieval": "paper.plans.rules:Rules",
    "blip": "paper.plans.rules:Rules",
    "captioning": "paper.plans.captioning:Captioning",
    "diffusion": "paper.plans.diffusion:Diffusion",
    "embedding": "paper.plans.embedding:Embedding",
    "proposal": "paper.plans.proposal:Proposals",
    "audit": "paper.plans.audit:Audit",
    "leads": "paper.plans.tried:TriedLeads",
    "efficiency": "paper.plans.efficiency:Efficiency",
}


def experiment_of(profile, name, **changes):
    """The experiment `name` with the settings of a profile, some of them replaced by `changes`."""
    if name not in EXPERIMENTS:
        raise CliperaseError(f"experiment {name!r} unknown; choose one of {', '.join(EXPERIMENTS)}")
    settings = {**profile.section(f"experiments.{name}"), **changes, "name": name}
    return checked(resolve_name(EXPERIMENTS[name]), settings, f"experiments.{name} of profile {profile.profile}")
