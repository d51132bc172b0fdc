"""What was tried on the way to a method that passes, also ways to take a step that only paper/tried.py has."""

from paper.plans.audit import Leads
from paper.tried import TriedPlace, TriedRun, register


class TriedLeads(Leads):
    """A row of `unseen` that has a setting of `Tried` is a row of `Tried`."""

    def plan(self, profile, pairs):
        return [TriedRun.of(run) for run in super().plan(profile, pairs)]

    def place(self, profile, data, model, splits):
        register()  # here, where settings are checked
        return TriedPlace(**vars(super().place(profile, data, model, splits)))
