"""`cliperase unlearn --dry-run`: the doctor's findings, and a preview, of a model and data that are loaded once."""

from cliperase.audit.case import Split
from cliperase.doctor import Examination
from cliperase.preview import SHOWN, preview_of


class DryRun(Examination):
    """An examination that also has the `preview` of its run, where nothing is missing for it."""

    fewest = SHOWN
    preview: dict

    def findings(self, runs=1):
        yield from self.looks()
        if self.complete:  # before the costs, because their steps train the model
            # pyrefly: ignore[bad-argument-type] – they are there
            split, training = Split.of(self.validation, self.forgotten), self.rows(self.model, self.recipe)
            self.preview = preview_of(self.model, self.data, self.rule, split, training)
        yield from self.costs(runs)
