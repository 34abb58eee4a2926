"""Other spellings of convolutional networks' tensors, and the names in MODELS that they have by their sizes."""

import itertools
import re
from collections.abc import Mapping
from typing import Any

from mixaug_jax.models import mobile
from mixaug_jax.models.pickles import Tensor

_DENSENETS = {
    (6, 12, 24, 16): "densenet121",
    (6, 12, 36, 24): "densenet161",
    (6, 12, 32, 32): "densenet169",
}
# torchvision's ConvNeXt, and that of the authors, under timm's names.
_CONVNEXT = (
    (r"^features\.0\.([01])\.", r"stem.\1."),
    (r"^features\.([246])\.([01])\.", lambda m: f"stages.{int(m[1]) // 2}.downsample.{m[2]}."),
    (r"^features\.([1357])\.(\d+)\.", lambda m: f"stages.{int(m[1]) // 2}.blocks.{m[2]}."),
    (r"\.block\.0\.", ".conv_dw."),
    (r"\.block\.2\.", ".norm."),
    (r"\.block\.3\.", ".mlp.fc1."),
    (r"\.block\.5\.", ".mlp.fc2."),
    (r"\.layer_scale$", ".gamma"),
    (r"^classifier\.0\.", "head.norm."),
    (r"^classifier\.2\.", "head.fc."),
    (r"^downsample_layers\.0\.", "stem."),
    (r"^downsample_layers\.([123])\.", r"stages.\1.downsample."),
    (r"^stages\.(\d)\.(\d+)\.", r"stages.\1.blocks.\2."),
    (r"\.dwconv\.", ".conv_dw."),
    (r"\.pwconv([12])\.", r".mlp.fc\1."),
    (r"^norm\.", "head.norm."),
    (r"^head\.(weight|bias)$", r"head.fc.\1"),
)
_ROWS = re.compile(r"blocks\.(\d+)\.(\d+)\.(.*)\.(\w+)")


def translated(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under the names of the layers here; those of other networks stay as they are."""
    if any(re.search(r"\.(layer_scale|dwconv\.weight)$", name) for name in tensors):
        return _replaced(tensors, _CONVNEXT)
    if any(".denselayer1.norm.1." in name for name in tensors):
        return _replaced(tensors, ((r"\.(norm|conv)\.([12])\.", r".\1\2."),))
    if "conv_stem.weight" in tensors and _kind(tensors):
        return _mobile(tensors)
    return dict(tensors)


def _replaced(tensors, rules):
    named = {}
    for name, tensor in tensors.items():
        for old, new in rules:
            name = re.sub(old, new, name)
        if name.endswith(".gamma") and len(tensor.shape) == 3:  # torchvision's [C,1,1]
            tensor = _flat(tensor)
        named[name] = tensor
    return named


def _flat(tensor):
    count = tensor.shape[0]
    return Tensor((count,), tensor.dtype, lambda: tensor.read().reshape(count))


def _kind(names) -> str:
    """Which network of inverted bottlenecks timm's names are of: "efficientnet", "mobilenet_v2" or "" for another."""
    first = [n for n in names if n.startswith("blocks.0.0.")]
    if "bn2.weight" not in names or any(".conv_exp." in n or ".bn0." in n for n in names):
        return ""
    if not any(n.endswith("conv_dw.weight") for n in first):
        return ""
    gated = {n.split(".se.")[0] for n in names if ".se." in n}
    blocks = {".".join(n.split(".")[:3]) for n in names if n.startswith("blocks.")}
    if gated:
        # MnasNet has gates in some of its blocks.
        return "efficientnet" if gated == blocks else ""
    groups = _counts(names)
    return "mobilenet_v2" if groups == tuple(g.blocks for g in mobile.MOBILE) else ""


def _counts(names):
    found = {(int(m[1]), int(m[2])) for n in names if (m := re.match(r"blocks\.(\d+)\.(\d+)\.", n))}
    last = max((group for group, _ in found), default=-1)
    return tuple(sum(group == g for group, _ in found) for g in range(last + 1))


def _mobile(tensors):
    """timm's names of MobileNet-V2 or EfficientNet -> torchvision's."""
    efficient, counts = _kind(tensors) == "efficientnet", _counts(tensors)
    starts = (0, *itertools.accumulate(counts))
    last = 1 + (len(counts) if efficient else starts[-1])
    ends = {"conv_stem": "features.0.0", "bn1": "features.0.1"}
    ends |= {"conv_head": f"features.{last}.0", "bn2": f"features.{last}.1"}
    named = {}
    for name, tensor in tensors.items():
        match = _ROWS.fullmatch(name)
        if match is None:
            layer, _, leaf = name.rpartition(".")
            named[f"{ends.get(layer, 'classifier.1' if layer == 'classifier' else layer)}.{leaf}"] = tensor  # fmt: skip
            continue
        group, i, part, leaf = int(match[1]), int(match[2]), match[3], match[4]
        # Blocks without an expansion have one convolution less, and count the others from another number.
        expands = f"blocks.{group}.{i}.conv_pwl.weight" in tensors
        if efficient:
            start, part = f"features.{group + 1}.{i}.block", _PARTS_E[expands].get(part, part)
        else:
            start, part = f"features.{1 + starts[group] + i}.conv", _PARTS_M[expands].get(part, part)  # fmt: skip
        named[f"{start}.{part}.{leaf}"] = tensor
    return named


# By whether a block begins with a 1x1 convolution.
_PARTS_E = {
    True: {"conv_pw": "0.0", "bn1": "0.1", "conv_dw": "1.0", "bn2": "1.1", "se.conv_reduce": "2.fc1",
           "se.conv_expand": "2.fc2", "conv_pwl": "3.0", "bn3": "3.1"},
    False: {"conv_dw": "0.0", "bn1": "0.1", "se.conv_reduce": "1.fc1", "se.conv_expand": "1.fc2",
            "conv_pw": "2.0", "bn2": "2.1"},
}  # fmt: skip
_PARTS_M = {
    True: {"conv_pw": "0.0", "bn1": "0.1", "conv_dw": "1.0", "bn2": "1.1", "conv_pwl": "2", "bn3": "3"},
    False: {"conv_dw": "0.0", "bn1": "0.1", "conv_pw": "1", "bn2": "2"},
}  # fmt: skip


def name_of(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """The name in MODELS of tensors under the names here; "" where they are of none of these families.

    Raises:
      ValueError: one of these families in another size.
    """
    # One name a family that no other has, as the files themselves say nothing.
    if "features.denseblock1.denselayer1.norm1.weight" in shapes:
        blocks = _numbers(shapes, r"features\.denseblock(\d)\.denselayer(\d+)\.", 1, 4)
        return _known("a DenseNet", "layers", blocks, _DENSENETS)
    if "stages.0.blocks.0.conv_dw.weight" in shapes:
        blocks = _numbers(shapes, r"stages\.(\d)\.blocks\.(\d+)\.", 0, 4)
        wide = shapes.get("stem.0.weight", (0,))[0] == 128
        known = {(3, 3, 9, 3): "convnext_tiny", (3, 3, 27, 3): "convnext_small"}
        known |= {(3, 3, 27, 3): "convnext_base"} if wide else {}
        return _known("a ConvNeXt", "blocks", blocks, known)
    if "features.1.conv.0.0.weight" in shapes:
        return "mobilenet_v2"
    if "features.1.0.block.1.fc1.weight" in shapes:
        return _efficientnet(shapes)
    if shapes.get("features.0.weight", ())[2:] == (11, 11):
        return "alexnet"
    if "inception3a.branch1.conv.weight" in shapes:
        return "googlenet"
    return ""


def _efficientnet(shapes):
    blocks = _numbers(shapes, r"features\.(\d)\.(\d+)\.block\.", 1, 7)
    stem = shapes.get("features.0.0.weight", (0,))[0]
    last = shapes.get("features.8.0.weight", (0, 0))[1]
    for variant in range(len(mobile.COEFFICIENTS)):
        groups, first = mobile.scaled(variant)
        # Ratios to the stem, so that other widths are recognized too.
        if tuple(g.blocks for g in groups) == blocks and groups[-1].filters * stem == last * first:
            return f"efficientnet_b{variant}"
    raise ValueError(
        f"it is an EfficientNet of {blocks} blocks, the last with {last} filters, but none of B0 to B4"
    )


def _numbers(shapes, pattern, start, count):
    found = {(int(m[1]), m[2]) for n in shapes if (m := re.match(pattern, n))}
    return tuple(sum(group == g for group, _ in found) for g in range(start, start + count))


def _known(kind: str, parts: str, blocks: tuple, known: Mapping[Any, str]) -> str:
    if blocks not in known:
        raise ValueError(f"it is {kind} of {blocks} {parts}; known are {', '.join(known.values())}")
    return known[blocks]
