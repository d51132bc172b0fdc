"""A text encoder of a diffusers pipeline, such as Stable Diffusion's, as the text tower of the CLIP that it was."""

from pathlib import Path

import torch

from cliperase.errors import CliperaseError, reason_of
from cliperase.files import read_json
from cliperase.manifest import check_result
from cliperase.models import load_model
from cliperase.models.base import import_transformers, refuse_code
from cliperase.models.openclip import OpenCLIP
from cliperase.models.text_encoder import names_of, text_tower, to_transformers, write_back

PREFIX, INDEX = "pipeline:", "model_index.json"
PROJECTED = "CLIPTextModelWithProjection"
KINDS = ("CLIPTextModel", PROJECTED)  # transformers' classes of an encoder that is a CLIP's text tower
SHAPE = (
    "hidden_size", "intermediate_size", "num_attention_heads", "max_position_embeddings", "vocab_size", "hidden_act",
)  # fmt: skip


class PipelineCLIP(OpenCLIP):
    """A CLIP of open_clip that reads with the text encoder of a pipeline. What is loaded is an `OpenCLIP`."""

    sources = (f"{PREFIX}<folder of a diffusers pipeline>@<the open_clip CLIP that it was built on>",)

    @classmethod
    def recognises(cls, source):
        return str(source).startswith(PREFIX)

    @classmethod
    def load(cls, source, device="cpu"):  # pyrefly: ignore[bad-override] – it saves as the OpenCLIP that it returns
        """The image tower is the CLIP's, as is what the encoder lacks: the projection, or the last layer."""
        folder, _, clip = str(source).removeprefix(PREFIX).rpartition("@")
        if not folder or not clip:
            raise CliperaseError(f"model {str(source)!r} names no CLIP; write {cls.sources[0]}")
        model, folder = load_model(clip, device), Path(folder)
        name, kind, _ = fitting(folder, to_transformers(model).config)
        text, projection = parts_of(read_encoder(folder / name, kind))
        write_back(names_of(text.config.num_hidden_layers), text_tower(model), text.state_dict(), name)
        if projection is not None:
            with torch.no_grad():
                head_of(model).copy_(projection.weight.T)
        return model


def fitting(folder, wanted):
    """(name, class, configuration) of the only text encoder in the pipeline `folder` that has the shapes of a CLIP's.

    `wanted`: the `CLIPTextConfig` of the CLIP. The encoder may lack its last layer, as Stable Diffusion 2's does.
    CliperaseError where none fits, or more than one.
    """
    encoders = encoders_of(folder)
    said = {name: misfit(kind, config, wanted) for name, (kind, config) in encoders.items()}
    names = [name for name, difference in said.items() if difference is None]
    if len(names) > 1:
        raise CliperaseError(
            f"{' and '.join(names)} of pipeline {folder} both have the shapes of this model; name a pipeline with one"
        )
    if not names:
        listed = "; ".join(f"{name} has {difference}" for name, difference in said.items()) or "it has none of CLIP"
        raise CliperaseError(
            f"no text encoder of pipeline {folder} has the shapes of this model ({listed}); take the CLIP that the "
            "pipeline was built on"
        )
    return names[0], *encoders[names[0]]


def encoders_of(folder):
    """{name: (class, `CLIPTextConfig`)} of the text encoders in the pipeline `folder` that are those of a CLIP."""
    folder = Path(folder)
    if not (folder / INDEX).is_file():
        raise CliperaseError(f"pipeline {folder} holds no {INDEX}; give the folder of a diffusers pipeline")
    check_result(folder)
    transformers, index, found = import_transformers(), read_json(folder / INDEX), {}
    for part in sorted(folder.iterdir()):
        about = index.get(part.name)  # library and class
        if part.is_dir() and isinstance(about, list) and about[-1] in KINDS:
            config = read_json(part / "config.json")
            refuse_code(config, folder)
            found[part.name] = about[-1], transformers.CLIPTextConfig.from_dict(config)
    return found


def misfit(kind, config, wanted):
    """What is other in an encoder of this class and configuration than in the `wanted` one; None where it fits."""
    names = [*SHAPE, "projection_dim"] if kind == PROJECTED else SHAPE
    for name in names:
        if getattr(config, name) != getattr(wanted, name):
            return f"{name} {getattr(config, name)}, not {getattr(wanted, name)}"
    layers = wanted.num_hidden_layers
    return None if 0 <= layers - config.num_hidden_layers <= 1 else f"{config.num_hidden_layers} layers, not {layers}"


def read_encoder(folder, kind):
    """The encoder of the class `kind` in a folder of transformers, in float32. One without all weights is an error."""
    try:
        encoder, report = getattr(import_transformers(), kind).from_pretrained(
            folder, output_loading_info=True, weights_only=True, dtype=torch.float32, local_files_only=True
        )
    except Exception as error:  # transformers and safetensors each raise their own
        raise CliperaseError(f"text encoder {folder} cannot be loaded ({reason_of(error)}); is it whole?") from None
    absent = sorted(report["missing_keys"])
    if absent:
        raise CliperaseError(f"text encoder {folder} has no weight {absent[0]!r}; copy the pipeline again")
    return encoder.eval()


def parts_of(encoder):
    """(the `CLIPTextModel`, the projection or None) of an encoder of one of the `KINDS`."""
    projected = type(encoder).__name__ == PROJECTED
    return (encoder.text_model, encoder.text_projection) if projected else (encoder, None)


def head_of(model):
    """The projection of a CLIP's text tower, (width, D), which an encoder of transformers has without a bias."""
    head = text_tower(model).text_projection
    if not isinstance(head, torch.nn.Parameter):
        raise CliperaseError("the text tower has another projection than the encoder of a pipeline; take another CLIP")
    return head
