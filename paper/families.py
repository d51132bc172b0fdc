"""Model families of the paper beside those of the library; `paper/__init__.py` registers them."""

from pathlib import Path

from cliperase.files import read_json
from cliperase.models.blip import BLIP


class SmallBLIP(BLIP):
    """A folder that `paper.small_blip` wrote: a BLIP whose image tower begins with convolutions."""

    sources = ()  # those of BLIP

    @classmethod
    def recognises(cls, source):
        config = Path(str(source).removeprefix("blip:")) / "config.json"
        return config.is_file() and bool((read_json(config).get("vision_config") or {}).get("convolutional"))

    @classmethod
    def load(cls, source, device="cpu"):
        from paper.hybrid_blip import Matching  # which imports transformers; a CLIP needs none

        return super().load(source, device, Matching)
