"""How well a forget set is found from a sentence, from example pictures, or from both: precision and recall.

What belongs to it, the labels or a rule on the captions say. Examples are validation images, drawn by the seed.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from pydantic import Field

from cliperase.data.pairs import load_pairs
from cliperase.data.rules import forget_mask
from cliperase.features import Features
from cliperase.models import load_model
from cliperase.models.base import pick_device
from cliperase.proposal import proposal_of
from paper.plans.base import Experiment
from paper.results import COLUMNS, rows_of

WAYS = {"sentence": (True, False), "examples": (False, True), "sentence and examples": (True, True)}


class Proposals(Experiment):
    rules: dict[str, dict]  # what is looked for, as a word or a sentence -> what belongs to it
    examples: int = Field(default=5, ge=1)

    def run(self, profile, data, model):
        loaded = load_model(self.model_in(model), pick_device())
        training = load_pairs(data, "train", framing=loaded.framing)
        known = Features.of(loaded, training)
        validation = load_pairs(data, "validation", framing=loaded.framing)
        place = self.place(profile, data, model, ["train"])
        about = {"profile": place.profile, "model": place.model_name, "provenance": place.provenance,
                 "dataset": Path(data).name, "experiment": self.name, "split": "train"}  # fmt: skip
        rows = []
        for query, rule in self.rules.items():
            belongs, shown = forget_mask(training, rule).numpy(), forget_mask(validation, rule).nonzero()[:, 0]
            for seed in profile.seeds:
                drawn = torch.from_numpy(np.random.default_rng(seed).permutation(shown.numpy())[: self.examples])
                for way, (by_query, by_examples) in WAYS.items():
                    given = query if by_query else None, validation.images[drawn] if by_examples else None
                    found = proposal_of(loaded, training, known, *given)
                    run = about | {"method": way, "concept": query, "seed": str(seed)}
                    rows += rows_of(run, quality(found, belongs))
        return pd.DataFrame(rows)[COLUMNS], {}


def quality(found, belongs):
    """Precision and recall of a proposal, in percent, and how many rows it has; `belongs` (N,) bool."""
    proposed = found.scores > found.cut
    hits = (proposed & belongs).sum()
    return {
        "precision_rate": 100 * hits / max(1, proposed.sum()),
        "recall_rate": 100 * hits / belongs.sum(),
        "proposed_images": int(proposed.sum()),
        "forget_images": int(belongs.sum()),
    }
