"""Embeddings and relevance maps before and after forgetting, with their numbers."""

from pydantic import Field

from paper.embedding_space import run_embedding_space
from paper.plans.base import Experiment


class Embedding(Experiment):
    concept: str
    images_per_class: int = Field(ge=1)
    forgotten_images: int = Field(ge=1)
    heatmaps: list[str]  # classes, beside the concept
    images_per_heatmap: int = Field(ge=1)

    def run(self, profile, data, model):
        return run_embedding_space(self, profile, data, model)
