"""A CLIP of open_clip as a `CLIPModel` of transformers, and back: vision transformers only, and the weights exactly."""

import torch
from open_clip.transformer import QuickGELU, VisionTransformer

from cliperase.conversion.parity import embeddings_of, parity
from cliperase.errors import CliperaseError
from cliperase.models.base import import_transformers
from cliperase.models.openclip import OpenCLIP, create_model, whole_preprocessing
from cliperase.models.text_encoder import (
    VOCABULARY,
    blocks_of,
    clip_tokenizer,
    from_transformers,
    to_transformers,
    translated,
    write_back,
)
from cliperase.models.transformers_clip import TransformersCLIP, colours_of


def write_transformers(model, folder, into=None):
    """The `OpenCLIP` as a folder of transformers; returns the parity of its embeddings."""
    return save(model, folder, OpenCLIP, as_transformers)


def write_open_clip(model, folder, into=None):
    """The `TransformersCLIP` as a folder of open_clip; returns the parity of its embeddings."""
    return save(model, folder, TransformersCLIP, as_open_clip)


def save(model, folder, kind, make):
    """Write `make(model)` to the folder. CliperaseError where the model is none of `kind`, or where the two differ."""
    if not isinstance(model, kind):
        to = make.__name__.removeprefix("as_")
        raise CliperaseError(f"a model of type {type(model).__name__} is not converted to {to}; give a {kind.__name__}")
    made = make(model).to(model.device).eval()
    found = parity(embeddings_of(model), embeddings_of(made))
    made.save(folder)
    return found


def image_names(layers):
    """[(open_clip name, transformers name, part)] of the image tower, as `text_encoder.names_of`."""
    names = [
        ("class_embedding", "embeddings.class_embedding", None),
        ("conv1.weight", "embeddings.patch_embedding.weight", None),
        ("positional_embedding", "embeddings.position_embedding.weight", None),
    ]
    for ours, theirs in (("ln_pre", "pre_layrnorm"), ("ln_post", "post_layernorm")):  # so spelled there
        names += [(f"{ours}.{kind}", f"{theirs}.{kind}", None) for kind in ("weight", "bias")]
    return names + blocks_of(layers)


def as_transformers(model):
    """The `TransformersCLIP` of an `OpenCLIP`."""
    transformers, visual, tower = import_transformers(), model.model.visual, model.clip_text_tower
    plain = isinstance(visual, VisionTransformer) and tower is not None and model.logit_bias is None
    if (
        not plain
        or not isinstance(visual.proj, torch.nn.Parameter)
        or tower.token_embedding.num_embeddings != VOCABULARY
    ):
        raise CliperaseError("only a CLIP of two transformers, with CLIP's own tokens, becomes a CLIPModel")
    text, block = to_transformers(model), visual.transformer.resblocks[0]
    config = transformers.CLIPConfig(
        text_config=text.config.to_dict(),
        vision_config={
            "hidden_size": visual.class_embedding.shape[0],
            "intermediate_size": block.mlp.c_fc.out_features,  # pyrefly: ignore[missing-attribute] – as `plain` says
            "num_hidden_layers": len(visual.transformer.resblocks),
            "num_attention_heads": block.attn.num_heads,  # pyrefly: ignore[missing-attribute] – likewise
            # pyrefly: ignore[bad-index] – a pair, though open_clip calls it an iterable
            "image_size": visual.image_size[0] if len(set(visual.image_size)) == 1 else list(visual.image_size),
            "patch_size": visual.conv1.kernel_size[0],
            "layer_norm_eps": visual.ln_post.eps,
            # pyrefly: ignore[missing-attribute] – as `plain` says
            "hidden_act": "quick_gelu" if isinstance(block.mlp.gelu, QuickGELU) else "gelu",
        },
        projection_dim=visual.proj.shape[1],
    )
    made = transformers.CLIPModel(config)
    try:
        image = translated(image_names(config.vision_config.num_hidden_layers), visual.state_dict())
        made.vision_model.load_state_dict(image)
        made.text_model.load_state_dict(text.state_dict())
        made.visual_projection.load_state_dict({"weight": visual.proj.detach().T.contiguous()})
        made.text_projection.load_state_dict({"weight": tower.text_projection.detach().T.contiguous()})
    except (KeyError, RuntimeError, AttributeError) as error:
        raise CliperaseError(f"the weights are not those of a CLIPModel ({error!r:.100})") from None
    made.logit_scale.data.copy_(model.model.logit_scale.detach().squeeze())
    return TransformersCLIP(made, clip_tokenizer(len(tower.positional_embedding)), processor_of(model, transformers))


def processor_of(model, transformers):
    """The image processor that prepares pictures as `model` does, an `OpenCLIP`."""
    framing, (height, width) = model.framing, model.framing.size
    both = {"height": height, "width": width}
    sizes = {"squash": {"size": both, "do_center_crop": False, "crop_size": both}}
    if height == width:
        sizes["shortest"] = {"size": {"shortest_edge": height}, "crop_size": both}
    if framing.mode not in sizes:
        raise CliperaseError(f"the image processor of CLIPModel cannot resize as {framing}; only squash, or shortest")
    colours = whole_preprocessing(model.config, framing.size)
    return transformers.CLIPImageProcessor(
        **sizes[framing.mode],
        image_mean=colours["mean"],
        image_std=colours["std"],
        resample=2 if framing.interpolation == "bilinear" else 3,  # Pillow's numbers
    )


def as_open_clip(model):
    """The `OpenCLIP` of a `TransformersCLIP`."""
    config, theirs = model.model.config, model.model
    if model.siglip or config.text_config.vocab_size != VOCABULARY:
        raise CliperaseError("only a CLIPModel with CLIP's own tokens is converted to open_clip")
    acts = {tower.hidden_act for tower in (config.text_config, config.vision_config)}
    if len(acts) > 1 or not acts <= {"gelu", "quick_gelu"}:
        raise CliperaseError(f"open_clip has no CLIP with the activations {', '.join(sorted(acts))}")
    made = create_model({"model_cfg": model_config(config, acts == {"quick_gelu"}), "preprocess_cfg": prepared(model)})
    from_transformers(made, theirs.text_model)
    visual = made.model.visual
    write_back(
        image_names(config.vision_config.num_hidden_layers), visual, theirs.vision_model.state_dict(), "image tower"
    )
    with torch.no_grad():
        visual.proj.copy_(theirs.visual_projection.weight.T)
        made.model.text_projection.copy_(theirs.text_projection.weight.T)
        made.model.logit_scale.copy_(theirs.logit_scale)
    return made


def model_config(config, quick_gelu):
    """The `model_cfg` of open_clip for a `CLIPConfig`."""
    image, text = config.vision_config, config.text_config

    def shared(tower):
        ratio, norm = tower.intermediate_size / tower.hidden_size, {"norm_kwargs": {"eps": tower.layer_norm_eps}}
        return {"width": tower.hidden_size, "layers": tower.num_hidden_layers, "mlp_ratio": ratio, **norm}

    made = {
        "embed_dim": config.projection_dim,
        "vision_cfg": {
            **shared(image), "image_size": image.image_size, "patch_size": image.patch_size,
            "head_width": image.hidden_size // image.num_attention_heads,
        },
        "text_cfg": {
            **shared(text), "context_length": text.max_position_embeddings, "vocab_size": text.vocab_size,
            "heads": text.num_attention_heads,
        },
    }  # fmt: skip
    return made | ({"quick_gelu": True} if quick_gelu else {})


def prepared(model):
    """The `preprocess_cfg` of open_clip that prepares pictures as the image processor of `model` does."""
    processor, size = model.processor, model.framing.size
    edge, squashed = processor.size.shortest_edge, (processor.size.height, processor.size.width) == size
    names = {2: "bilinear", 3: "bicubic"}
    if not processor.do_resize or processor.resample not in names or not (squashed or (edge,) * 2 == size):
        said = " ".join(repr(model.framing).split())[:300]
        raise CliperaseError(
            f"open_clip cannot prepare pictures as this image processor does ({said}); give one that resizes to the "
            "model's size, bilinear or bicubic"
        )
    mean, std = colours_of(processor)
    return {
        "size": list(size), "mean": mean, "std": std,
        "interpolation": names[processor.resample], "resize_mode": "squash" if squashed else "shortest",
    }  # fmt: skip
