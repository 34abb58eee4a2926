"""What names and shapes of a vision transformer's weights tell: its spelling, its size, and whether it is of another kind."""

import math
import re
from collections.abc import Mapping
from typing import Any

from mixaug_jax.models.pickles import Tensor

# torchvision's names (of old files, too) in the order in which they are replaced; timm's are the names here.
_TORCHVISION = (
    (r"^class_token$", "cls_token"),
    (r"^conv_proj\.", "patch_embed.proj."),
    (r"^encoder\.pos_embedding$", "pos_embed"),
    (r"^encoder\.layers\.encoder_layer_(\d+)\.", r"blocks.\1."),
    (r"\.ln_([12])\.", r".norm\1."),
    (r"\.self_attention\.in_proj_(weight|bias)$", r".attn.qkv.\1"),
    (r"\.self_attention\.out_proj\.", ".attn.proj."),
    (r"\.mlp\.(0|linear_1)\.", ".mlp.fc1."),
    (r"\.mlp\.(3|linear_2)\.", ".mlp.fc2."),
    (r"^encoder\.ln\.", "norm."),
    (r"^heads\.head\.", "head."),
)
# A piece of a name, and what it makes of a transformer; the first that is found counts.
_OTHERS = (
    (r"(^|\.)reg_token$", "with register tokens"),
    (r"\.attn\.q_norm\.", "with normalized queries"),
    (r"\.attn\.q_proj\.|\.mlp\.fc1_g\.", "of EVA's kind"),
    (r"(^|\.)patch_embed\.backbone\.", "with a convolutional network in front"),
    (r"\.attn\.rel_pos_h$", "of Segment Anything (SAM)"),
    (r"\.ls1\.gamma$|\.gamma_1$", "with layer scale, as DeiT III, DINOv2 or BEiT"),
    (r"\.attn\.q_bias$|relative_position", "with relative positions, as BEiT"),
    (r"(^|\.)rope", "with rotary positions"),
    (r"(^|\.)norm_pre\.|(^|\.)ln_pre\.", "with a norm before its blocks, as CLIP's"),
    (r"(^|\.)fc_norm\.", "that averages over its patches"),
    (r"(^|\.)attn_pool\.", "that pools by attention"),
    (r"(^|\.)pre_logits\.", "with a head of two dense layers"),
    (
        r"\.layer\.\d+\.attention\.attention\.query\.",
        "under other names than timm's or torchvision's",
    ),
)
_TRAINED = {(192, 12, 16): "tiny", (384, 12, 16): "small", (768, 12, 16): "base"}
_PER_HEAD = 64  # numbers of a token in each head, of every published size but the huge one
_HEADS = {1280: 16}


def is_transformer(names: Mapping[str, Any]) -> bool:
    """Whether names, whatever stands in front of them, are of a vision transformer of this or a similar kind."""
    sign = re.compile(
        r"(^|\.)blocks\.\d+\.attn\.(qkv|q_proj|proj)\.|self_attention\.in_proj_weight$"
        r"|\.layer\.\d+\.attention\.attention\.query\."
    )
    return any(sign.search(name) for name in names)


def translated(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors with torchvision's names under timm's; others stay."""
    if "class_token" not in tensors:
        return dict(tensors)
    named = {}
    for name, tensor in tensors.items():
        for old, new in _TORCHVISION:
            name = re.sub(old, new, name)
        named[name] = tensor
    return named


def other(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """What is not read of a transformer here, "vision transformer with register tokens"; "" where it is read, or none."""
    if not is_transformer(shapes):
        return ""
    kind = next((said for sign, said in _OTHERS if any(re.search(sign, n) for n in shapes)), "")
    last = {name.rpartition(".")[2] for name in shapes}
    if not kind and not last & {"cls_token", "class_token"}:
        kind = "without a class token"
    if not kind and not last & {"pos_embed", "pos_embedding"}:
        kind = "without a table of positions"
    kind = kind or _other_blocks(shapes)
    return f"vision transformer (ViT) {kind}" if kind else ""


def _other_blocks(shapes):
    for name, shape in shapes.items():
        if name.endswith(".attn.qkv.weight") and f"{name.removesuffix('weight')}bias" not in shapes:
            return "without biases in its attention"
        if name.endswith(".mlp.fc1.weight") and len(shape) == 2 and shape[0] != 4 * shape[1]:
            return f"whose hidden layers are {shape[0] / max(shape[1], 1):.3g} times as wide as its tokens, not 4 times"
    return ""


def name_of(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """The name in MODELS; a distilled one is a DeiT, others may be either."""
    found = _sizes(shapes)
    size = _TRAINED.get((found["dim"], found["depth"], found["patch"]), "")
    if size:
        return f"deit_{size}" if found["distilled"] else f"vit_{size}"
    micro = found["dim"], found["depth"], found["patch"], found["distilled"]
    return "vit_micro" if micro == (96, 6, 8, False) else "vit_of_size"


def options(
    name: str, shapes: Mapping[str, tuple[int, ...]], heads: int
) -> tuple[tuple[str, Any], ...]:
    """What the entry `name` of MODELS takes besides the number of classes, as pairs.

    Args:
      name: of a transformer.
      shapes: of its tensors, under timm's names.
      heads: of its attention, where somebody told; 0: nobody did. Only vit_of_size takes it: of the others it is a field, which
        `Assume.applied` sets.

    Raises:
      ValueError: positions that are no square, heads that must be told, or that do not divide a token.
    """
    found = _sizes(shapes)
    rows = shapes.get("pos_embed", (1, 0, 0))[1] - 1 - found["distilled"]
    grid = math.isqrt(max(rows, 0))
    if grid**2 != rows or not rows:
        raise ValueError(f"it has positions for {rows} patches, which are no square")
    dim = found["dim"]
    if heads and dim % heads:
        raise ValueError(f"assume.heads must divide the {dim} numbers of a token; got {heads}")
    if name.startswith("deit"):
        return (("grid", grid), ("distilled", found["distilled"]))
    if name != "vit_of_size":
        return (("grid", grid),)
    # How many heads there are leaves no trace in the weights: known sizes have known numbers.
    heads = heads or _HEADS.get(dim, 0 if dim % _PER_HEAD else dim // _PER_HEAD)
    if not heads:
        raise ValueError(
            f"its tokens have {dim} numbers, and its weights do not tell in how many heads; assume.heads says it"
        )
    return tuple({**found, "heads": heads, "grid": grid}.items())


def _sizes(shapes):
    depth = {match[1] for name in shapes if (match := re.match(r"blocks\.(\d+)\.", name))}
    patch = shapes.get("patch_embed.proj.weight", (0, 0, 0, 0))[-1]
    sizes = {"dim": shapes.get("cls_token", (0,))[-1], "depth": len(depth), "patch": patch}
    return sizes | {"distilled": "dist_token" in shapes}
