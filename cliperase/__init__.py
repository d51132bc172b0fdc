"""Machine unlearning for image-text models: CLIPErase, its baselines, and measures of what is really forgotten."""

from cliperase import towers  # importing registers the compact image tower with timm, hence with open_clip
from cliperase.errors import CliperaseError

__all__ = ["CliperaseError", "towers"]
__version__ = "0.1.0"
