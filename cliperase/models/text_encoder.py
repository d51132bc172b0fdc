"""open_clip's text tower as a text encoder of `transformers`, and back; and its tokenizer."""

import torch

from cliperase.errors import CliperaseError

VOCABULARY = 49408  # tokens of CLIP's byte-pair encoding; transformers builds a tokenizer of 2 where it finds no files
BLOCK = {  # open_clip's names in one transformer block -> transformers'
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}


def names_of(layers):
    """[(open_clip name, transformers name, part)]: `part` 0, 1, 2 is q, k or v of a fused projection, else None."""
    names = [
        ("token_embedding.weight", "embeddings.token_embedding.weight", None),
        ("positional_embedding", "embeddings.position_embedding.weight", None),
    ]
    names += [(f"ln_final.{kind}", f"final_layer_norm.{kind}", None) for kind in ("weight", "bias")]
    return names + blocks_of(layers)


def blocks_of(layers):
    """As `names_of`, of the blocks of a transformer alone: those of both towers have the same names."""
    names = []
    for layer in range(layers):
        ours, theirs = f"transformer.resblocks.{layer}", f"encoder.layers.{layer}"
        for kind in ("weight", "bias"):
            names += [(f"{ours}.{a}.{kind}", f"{theirs}.{b}.{kind}", None) for a, b in BLOCK.items()]
            for part, letter in enumerate("qkv"):
                names.append((f"{ours}.attn.in_proj_{kind}", f"{theirs}.self_attn.{letter}_proj.{kind}", part))
    return names


def translated(names, weights):
    """{transformers name: tensor} of the open_clip `weights`."""
    return {
        theirs: (weights[ours] if part is None else weights[ours].chunk(3)[part]).detach().clone()
        for ours, theirs, part in names
    }


@torch.no_grad()
def write_back(names, tower, weights, whose):
    """Write the transformers `weights` into an open_clip `tower`, in place; shapes must agree. `whose`: for errors."""
    parameters = dict(tower.named_parameters())
    for ours, theirs, part in names:
        place = parameters[ours] if part is None else parameters[ours].chunk(3)[part]
        if theirs not in weights or weights[theirs].shape != place.shape:
            raise CliperaseError(
                f"{whose}: {theirs} is not of shape {tuple(place.shape)}; give one of the same architecture"
            )
        place.copy_(weights[theirs])


def to_transformers(model):
    """The text tower of an open_clip CLIP as a `transformers.CLIPTextModel`: the same hidden states, exactly."""
    from transformers import CLIPTextConfig, CLIPTextModel

    tower = text_tower(model)
    (vocabulary, width), block = tower.token_embedding.weight.shape, tower.transformer.resblocks[0]
    config = CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=block.mlp.c_fc.out_features,
        projection_dim=model.config["model_cfg"]["embed_dim"],
        num_hidden_layers=len(tower.transformer.resblocks),
        num_attention_heads=block.attn.num_heads,
        max_position_embeddings=len(tower.positional_embedding),
        layer_norm_eps=tower.ln_final.eps,
        hidden_act="quick_gelu" if model.config["model_cfg"].get("quick_gelu") else "gelu",
        bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1,  # transformers pools at the first of these; a wrong one is no error there
        pad_token_id=0,
    )
    encoder = CLIPTextModel(config)
    encoder.load_state_dict(translated(names_of(config.num_hidden_layers), tower.state_dict()))
    return encoder.to(model.device).eval()


def from_transformers(model, encoder):
    """Write the weights of a `CLIPTextModel` back into the text tower of `model`, in place; shapes must agree."""
    tower = text_tower(model)
    write_back(names_of(len(tower.transformer.resblocks)), tower, encoder.state_dict(), "text encoder")


def text_tower(model):
    if model.clip_text_tower is None:
        raise CliperaseError(f"{type(model).__name__} has no CLIP text tower to convert; give an open_clip CLIP model")
    return model.clip_text_tower


def clip_tokenizer(context_length, pad="<|endoftext|>"):
    """`transformers.CLIPTokenizer` from the byte-pair table inside open_clip: no hub, no files.

    It pads as Stable Diffusion does, with the end of the text. With `pad="!"` it pads as open_clip does, with token 0.
    transformers then reads every "!" of a prompt as that token, where open_clip reads it as a part of words: the two
    agree on prompts without one. CLIP's embedding does not depend on the padding; a denoiser attends to it.
    """
    import open_clip
    from transformers import CLIPTokenizer

    source = open_clip.SimpleTokenizer()
    renamed = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {renamed.get(token, token): number for token, number in source.encoder.items()}
    merges = [pair for pair, _ in sorted(source.bpe_ranks.items(), key=lambda item: item[1])]
    # pyrefly: ignore[bad-argument-type] – pairs are taken, too
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=merges, pad_token=pad, model_max_length=context_length)
    return check_tokenizer(tokenizer, "made from open_clip")


def check_tokenizer(tokenizer, said):
    """The same tokenizer, unless it is the empty one that transformers gives silently where files are missing."""
    if len(tokenizer) != VOCABULARY:
        raise CliperaseError(f"tokenizer {said} has {len(tokenizer)} tokens, not {VOCABULARY}; copy all its files")
    return tokenizer
