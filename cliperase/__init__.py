"""Machine unlearning for image-text models: CLIPErase, its baselines, and measures of what is really forgotten."""

from cliperase.errors import CliperaseError

__all__ = ["CliperaseError"]
__version__ = "0.1.0"
