"""Pictures and captions, from wherever they come, as rows to forget and rows to retain."""

from cliperase.data.source import TrainingData, load_split, load_training

__all__ = ["TrainingData", "load_split", "load_training"]
