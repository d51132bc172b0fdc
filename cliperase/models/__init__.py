"""Models of several families behind one interface, `base.ImageTextModel`. One line below adds a family.

Nothing is imported before a model is loaded: open_clip and transformers take seconds.
"""

from collections.abc import Iterator
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING

from cliperase.errors import CliperaseError
from cliperase.finite import check_finite
from cliperase.manifest import check_result, paths_in

if TYPE_CHECKING:
    import torch

    from cliperase.models.base import ImageTextModel

FAMILIES = {  # the adapter of each family; the last line is asked first
    "blip": "cliperase.models.blip:BLIP",
    "transformers CLIP": "cliperase.models.transformers_clip:TransformersCLIP",
    "pipeline": "cliperase.models.pipeline:PipelineCLIP",
    "open_clip": "cliperase.models.openclip:OpenCLIP",
}


def register(name: str, adapter: str) -> None:
    """Add the family `name`: `adapter` is "module:class" of an `ImageTextModel`. It is asked before the others."""
    FAMILIES.pop(name, None)
    FAMILIES[name] = adapter


def load_model(source: str | Path, device: "str | torch.device" = "cpu") -> "ImageTextModel":
    """The model of `source`, in evaluation mode on `device`.

    `source`: a saved model folder, an open_clip name with a weights tag or file such as `ViT-B-32/openai`, `hf-hub:…`,
    `pipeline:<folder>@<CLIP>`, `blip:<hub name>`, or what a registered family recognises. CliperaseError where no
    family does, where the family cannot load it, or where a weight is not finite.
    """
    if not isinstance(source, str | Path):
        raise CliperaseError(
            f"model is {type(source).__name__}; give the name of one, or its folder: `save` writes one"
        )
    if (Path(source) / "adapter_config.json").is_file():  # of peft; beside a whole model it would be passed over
        raise CliperaseError(
            f"model {str(source)!r} is an adapter, such as LoRA; merge it into its model first (merge_and_unload)"
        )
    for adapter in adapters():
        if adapter.recognises(source):
            for path in paths_in(source):
                check_result(path)
            model = adapter.load(source, device)
            check_finite(model.state_dict(), f"model {str(source)!r}", "copy or train the model again")
            return model
    kind = "a folder of no known family" if Path(source).is_dir() else "neither a folder nor a name of a known family"
    known = "; ".join(line for adapter in adapters() for line in adapter.sources)
    raise CliperaseError(f"model {str(source)!r} is {kind}; give one of: {known}")


def adapters() -> "Iterator[type[ImageTextModel]]":
    """The adapters in the order in which they are asked, each imported when its turn comes."""
    return (resolve_name(adapter) for adapter in reversed(FAMILIES.values()))
