"""The captioner unlearns: what does it say instead?"""

from pydantic import Field

from paper.captioner import run_captioning
from paper.plans.base import Experiment


class Captioning(Experiment):
    part: str = "captioner"
    concepts: list[str] = Field(min_length=1)
    search_concepts: list[str] = Field(min_length=1)
    search_seed: int
    validation_images: int = Field(ge=1)  # of each class
    loop: dict
    candidates: dict[str, list[dict]]  # row -> settings that are tried

    def run(self, profile, data, model):
        return run_captioning(self, profile, data, self.model_in(model)), {}
