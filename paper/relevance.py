"""Where in an image a model sees a text: Grad-CAM for convolutional towers, attention rollout for ViTs.

Grad-CAM: Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
Localization", ICCV 2017. Rollout: Abnar & Zuidema, "Quantifying Attention Flow in Transformers", ACL 2020.
Gradients in it: Chefer, Gur & Wolf, "Generic Attention-model Explainability for Interpreting Bi-Modal and
Encoder-Decoder Transformers", ICCV 2021.
"""

from contextlib import contextmanager

import torch
import torch.nn.functional as F

from cliperase.errors import CliperaseError

ATTENTION = ("gradient", "rollout")


def relevance_map(model, images, texts, attention="gradient"):
    """What in image i supports its cosine with text i: (N, H, W) in 0…1, each map divided by its own maximum.

    `images`: (N, 3, H, W) uint8 in 0…255 or float in 0…1; `texts`: N strings. Where nothing supports the text
    the map is zero. Its own maximum hides how *much* support there is: compare two models with `relevance`.
    """
    return to_unit(relevance(model, images, texts, attention))


def relevance(model, images, texts, attention="gradient", batch_size=100):
    """The maps before scaling, (N, H, W) >= 0, bilinear from the tower's last grid to the image's size.

    Convolutional tower (timm trunk in open_clip): Grad-CAM on the last feature map. open_clip's
    VisionTransformer: `attention="gradient"` is rollout weighted by gradients (Chefer et al.), which depends on
    the text; `"rollout"` is the plain one (Abnar & Zuidema), which does not. The model is as it was afterwards.
    """
    if len(images) != len(texts) or not len(texts):
        raise CliperaseError(f"{len(images)} images and {len(texts)} texts; give one text for each image")
    explain = explainer(model, attention)
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        starts = range(0, len(images), batch_size)
        grids = [explain(model, images[i : i + batch_size], texts[i : i + batch_size]) for i in starts]
    finally:
        for module, mode in modes:
            module.training = mode
    maps = F.interpolate(torch.cat(grids)[:, None], images.shape[-2:], mode="bilinear", align_corners=False)
    return maps[:, 0].cpu()


def to_unit(maps, peak=None):
    """Maps (N, H, W) >= 0 divided by `peak` (N,), by default each one's maximum, and cut at 1."""
    peak = maps.amax(dim=(1, 2)) if peak is None else peak
    return (maps / peak.clamp(min=torch.finfo(maps.dtype).tiny)[:, None, None]).clamp(max=1)


def explainer(model, attention):
    """The function (model, images, texts) -> (N, h, w) for this model's image tower."""
    if attention not in ATTENTION:
        raise CliperaseError(f"attention {attention!r} unknown; choose one of {ATTENTION}")
    if model.image_trunk is not None:
        if attention == "rollout":
            raise CliperaseError("attention 'rollout' needs a ViT; leave it out for a convolutional tower")
        return grad_cam
    if model.image_attention is not None:
        return gradient_rollout if attention == "gradient" else plain_rollout
    raise CliperaseError(
        f"image tower {type(model.image_tower).__name__} has no relevance map; use a convolutional timm trunk "
        "or an open_clip VisionTransformer without attentional pooling"
    )


def grad_cam(model, images, texts):
    """ReLU(sum_k alpha_k A_k), alpha_k the mean gradient of channel k (eq. 1 and 2) -> (N, h, w)."""
    (features,), (gradients,) = cosine_gradients(model, images, texts, recorded_features(model.image_trunk))
    if features.ndim != 4:
        raise CliperaseError(
            f"trunk {type(model.image_trunk).__name__} gives features of shape {tuple(features.shape)}; "
            "Grad-CAM needs a map (N, C, h, w)"
        )
    alpha = gradients.mean(dim=(2, 3), keepdim=True)
    return (alpha * features).sum(dim=1).relu()


def gradient_rollout(model, images, texts):
    """R <- R + A R from the first layer to the last, A = mean over heads of (gradient × attention)⁺."""
    attention = model.image_attention
    weights, gradients = cosine_gradients(model, images, texts, recorded_attention(attention.layers))
    return patch_grid(attention, weighted_rollout(weights, gradients))


def weighted_rollout(attentions, gradients):
    """R <- R + A R from R = I, A as above: (N, heads, L, L) each of both, first layer first -> (N, L, L)."""
    joint = torch.eye(attentions[0].shape[-1], device=attentions[0].device)
    for attention, gradient in zip(attentions, gradients, strict=True):
        joint = joint + (attention * gradient).relu().mean(dim=1) @ joint
    return joint


def plain_rollout(model, images, texts):
    """`rollout` of the attentions averaged over heads; the same for every text."""
    attention = model.image_attention
    with torch.no_grad(), recorded_attention(attention.layers) as weights:
        model.encode_image(images)
    return patch_grid(attention, rollout([layer.mean(dim=1) for layer in weights]))


def rollout(attentions):
    """Product of (A + I) / 2 over layers, first to last: (N, L, L) each, rows sum to 1 -> (N, L, L), likewise."""
    identity = torch.eye(attentions[0].shape[-1], device=attentions[0].device)
    joint = identity
    for layer in attentions:
        joint = (layer + identity) / 2 @ joint
    return joint


def patch_grid(attention, joint):
    """What reaches the pooled output from each patch: (N, L, L), class token first -> (N, h, w)."""
    rows = joint[:, 0, 1:] if attention.class_token else joint[:, 1:, 1:].mean(dim=1)
    return rows.reshape(-1, *attention.grid)


def cosine_gradients(model, images, texts, recording):
    """(recorded tensors, gradients of each image's cosine in them), two lists.

    `recording`: one of the two contexts below, which give the list.

    The embedding's norm is held constant. Cosine ignores length, so its full gradient is orthogonal to the
    embedding: it vanishes for a perfect pair, and contributions sum to zero. With the norm constant they sum,
    over a linear projection, to the cosine itself: much support for a good pair, none for an opposite one.
    """
    outputs = []
    with torch.no_grad():
        text_features = model.encode_text(texts)
    pixels = images.float() / 255 if images.dtype == torch.uint8 else images
    pixels = pixels.detach().to(model.device).requires_grad_()  # gradients flow through frozen weights too
    handle = model.image_tower.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    try:
        with torch.enable_grad(), recording as recorded:
            model.encode_image(pixels)
            features = outputs[0]  # before normalisation
            cosines = (features * text_features).sum(dim=1) / features.norm(dim=1).detach()
            gradients = torch.autograd.grad(cosines.sum(), recorded)
    finally:
        handle.remove()
    return [tensor.detach() for tensor in recorded], gradients


@contextmanager
def recorded_features(trunk):
    """A list that takes the trunk's feature map, (N, C, h, w), while the block runs."""
    recorded = []
    original = trunk.forward_features

    def forward_features(*inputs, **options):
        recorded.append(original(*inputs, **options))
        return recorded[-1]

    trunk.forward_features = forward_features  # not a module of its own: there is nothing to hook
    try:
        yield recorded
    finally:
        del trunk.forward_features


@contextmanager
def recorded_attention(layers):
    """A list that takes each layer's attention, (N, heads, L, L), first to last, while the block runs."""
    recorded = []

    def attend(module, inputs, output):
        result, weights = self_attention(module, inputs[0])
        recorded.append(weights)
        return result, None

    handles = [layer.register_forward_hook(attend) for layer in layers]
    try:
        yield recorded
    finally:
        for handle in handles:
            handle.remove()


def self_attention(module, x):
    """`nn.MultiheadAttention` written out: x (N, L, D) -> output (N, L, D), weights (N, heads, L, L).

    The module's own `need_weights=True` returns a view made after the weights were used: it has no gradient.
    """
    if not module.batch_first:
        raise CliperaseError("attention is not batch_first; build the open_clip model with its defaults")
    projected = F.linear(x, module.in_proj_weight, module.in_proj_bias)
    query, key, value = projected.unflatten(-1, (3, module.num_heads, -1)).permute(2, 0, 3, 1, 4)
    weights = (query @ key.transpose(-2, -1) / module.head_dim**0.5).softmax(dim=-1)
    return module.out_proj((weights @ value).transpose(1, 2).flatten(2)), weights
