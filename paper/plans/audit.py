"""Every row audited, one concept at a time; and what was tried on the way to a method that passes."""

import json
from typing import ClassVar

from pydantic import Field

from cliperase.audit.auditing import plan
from paper.audits import AuditPlace
from paper.plans.main import Main


class Audit(Main):
    splits: ClassVar[tuple[str, ...]] = ("test", "heldout")  # what is looked at, and another source
    probes: list[str] = Field(default=[])  # all, where none is named
    settings: dict = Field(default={})  # of the audit and its probes

    def chosen(self, profile, row):
        """A row of the main table as it was chosen; a variant, `<row>, <change>`, likewise but for what it changes."""
        known = row if row in profile.chosen.get(self.tuned, {}) else row.split(", ")[0]
        return {**super().chosen(profile, known), **self.methods[row]}

    def place(self, profile, data, model, splits):
        asked = self.probes, self.settings, profile.seeds[0]
        plan(*asked)  # what is wrong with a setting is said before anything runs
        return AuditPlace(**vars(super().place(profile, data, model, splits)), asked=json.dumps(asked))


class Leads(Audit):
    """On concepts and images that are not reported, because something is chosen by it."""

    splits: ClassVar[tuple[str, ...]] = ("validation",)

    def seeds(self, profile, row):
        """One seed: many variants are compared."""
        return self.originals
