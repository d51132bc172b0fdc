"""A text-to-image model reads with the unlearned text encoder: what does it still draw?"""

from pydantic import Field, field_validator

from paper.diffusion import run_diffusion
from paper.plans.base import Experiment


class Diffusion(Experiment):
    concepts: list[str] = Field(min_length=1)  # that are drawn
    forgotten: list[str] = Field(min_length=1)  # of these, one at a time
    pipeline: str  # a Stable Diffusion pipeline: folder or hub name
    detector: str  # see `paper.diffusion.create_detector`
    measured_on: list[str] = Field(default=[])  # data sets whose test split measures the detector
    prompt: str
    images: int = Field(ge=1)  # of each concept, for each row and seed
    steps: int = Field(ge=1)
    guidance: float
    batch: int = Field(ge=1)  # pictures at a time
    threshold: float  # confidence that counts as seen, for an object detector
    shown: int = Field(ge=1)  # pictures of each concept that are kept for the notebook
    generator_training: dict = Field(default={})
    detector_training: dict = Field(default={})

    @field_validator("prompt")
    @classmethod
    def has_one_place(cls, prompt):
        if prompt.count("{}") != 1:
            raise ValueError(f"prompt is {prompt!r}; write {{}} where the concept goes")
        return prompt

    def run(self, profile, data, model):
        return run_diffusion(self, profile, data, model)
