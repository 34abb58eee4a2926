"""What a file of weights is where it is of no network here: recognized by the names and shapes of its tensors."""

import re
from collections.abc import Mapping

from mixaug_jax.models import transformers

# A piece of a tensor's name, and whose it is; the first that is found counts. Names are torchvision's and timm's.
_SIGNS = (
    (r"features\.\d+\.squeeze\.", "SqueezeNet"),
    (r"inception3a\.(?!branch[1-4]\.)", "GoogLeNet of another kind"),
    (r"Conv2d_1a_3x3\.", "Inception v3"),
    (r"features\.0\.conv\.weight", "Inception v4"),
    (r"layers\.MBconv\.", "MaxViT"),
    (r"layers?[._]?\d.*relative_position_bias_table", "Swin Transformer"),
    (r"features\.\d+\.\d+\.attn\.relative_position_bias_table", "Swin Transformer"),
    (r"mlp_tokens\.", "MLP-Mixer"),
    (r"stages\.\d+\.blocks\.\d+\.grn\.", "ConvNeXt v2"),
    (r"stages\.0\.blocks\.0\.norm1\.", "ResNet v2 (of timm, with norms before its convolutions)"),
    (r"features\.1\.block\.0\.0\.", "MobileNet v3"),
    (r"stage2\.0\.branch1\.", "ShuffleNet v2"),
    (r"layers\.8\.0\.layers\.", "MNASNet"),
    (r"(^|\.)s1\.b1\.|trunk_output\.block1", "RegNet"),
    (r"stage2\.0\.branches\.", "HRNet"),
    (r"conv1\.paths\.", "SK-ResNet"),
    (r"layer1\.0\.convs\.", "Res2Net"),
    (r"layer1\.0\.(eca|se_module)\.", "ECA-ResNet or SENet"),
    (r"layer1\.0\.conv2\.conv", "ResNet with attention or split convolutions"),
)
_BOTTLENECK, _BASIC = 3, 2  # convolutions in a block
_GROUPED_50, _GROUPED_101 = (3, 4, 6, 3), (3, 4, 23, 3)  # blocks of what is read in groups, or wide


def name_of(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """The name of an architecture that is not among the networks here, as "VGG-11 with batch norm"; "" for none.

    Args:
      shapes: of tensors, by name.
    """
    for sign, name in _SIGNS:
        if any(re.search(sign, tensor) for tensor in shapes):
            return name
    return (
        transformers.other(shapes)
        or _efficient(shapes)
        or _mobile(shapes)
        or _vgg(shapes)
        or _resnet(shapes)
    )


def _mobile(shapes):
    stem = next((n for n in shapes if re.search(r"(^|\.)conv_stem\.weight$", n)), "")
    if not stem:
        return ""
    prefix = stem.removesuffix("conv_stem.weight")
    shapes = {name.removeprefix(prefix): shape for name, shape in shapes.items()}
    stages = [len(_numbers(shapes, rf"blocks\.{i}\.(\d+)\.")) for i in range(7)]
    if any(".se." in name for name in shapes):
        return "EfficientNet of another kind" if "bn2.weight" in shapes else "MobileNet v3"
    if stages == [1, 2, 3, 4, 3, 3, 1]:
        return "MobileNet v2 of another kind"
    return "EfficientNet-Lite under timm's names (those of efficientnet_lite_pytorch are read)"


def _efficient(shapes):
    blocks = any(re.search(r"features\.1\.0\.block\.", name) for name in shapes)
    gated = any(re.search(r"features\.1\.0\.block\.1\.fc1\.", name) for name in shapes)
    return "EfficientNet v2" if blocks and not gated else ""


def _vgg(shapes):
    first = shapes.get("features.0.weight", ())
    kernels = [s for n, s in shapes.items() if n.startswith("features.") and n.endswith(".weight")]
    layers = sum(len(shape) == 4 for shape in kernels)
    if len(first) != 4 or first[2:] == (11, 11) or layers in (8, 10, 13, 16):
        return ""
    name = f"chain of {layers} convolutions"
    return f"{name} with batch norm" if any(len(shape) == 1 for shape in kernels) else name


def _resnet(shapes):
    blocks = [len(_numbers(shapes, rf"layer{i}\.(\d+)\.")) for i in range(1, 5)]
    first = shapes.get("layer1.0.conv2.weight", ())
    # Known by its shapes alone: names of files and of architectures are often wrong or missing.
    if len(first) != 4 or not all(blocks):
        return ""
    bottleneck, gates = "layer1.0.conv3.weight" in shapes, "layer1.0.se.fc1.weight" in shapes
    depth = 2 + (_BOTTLENECK if bottleneck else _BASIC) * sum(blocks)
    kind = "SE-ResNet" if gates else "ResNet"
    if "conv1.0.weight" in shapes:
        averaged = len(shapes.get("layer2.0.downsample.1.weight", ())) == 4
        tiered = shapes["conv1.0.weight"][:1] != shapes.get("conv1.3.weight", ())[:1]
        plain = averaged and not tiered and not gates
        said = f"{kind}-{depth} with a stem of three convolutions"
        return "" if plain else said if gates else f"{said} (ResNet-{'T' if tiered else 'C or S'})"
    stem = shapes.get("conv1.weight", ())
    # A 3x3 kernel has fewer inputs than outputs only where channels go in groups.
    grouped = bottleneck and 0 < first[1] < first[0]
    wide = bottleneck and stem and first[0] > stem[0] > 0
    known = {(16, 32, 2): _GROUPED_50, (33, 32, 4): _GROUPED_101}
    if grouped:
        ratio = first[0] / stem[0] if stem and stem[0] else 0
        read = known.get((sum(blocks), first[0] // first[1], ratio)) == tuple(blocks) and not gates
        return (
            ""
            if read
            else f"{kind.replace('Net', 'NeXt')}-{depth} ({first[0] // first[1]}x{first[1]}d)"
        )
    if wide and (tuple(blocks) != _GROUPED_50 or first[0] != 2 * stem[0] or gates):
        return f"Wide {kind}-{depth}-{first[0] / stem[0]:g}"
    if bottleneck and tuple(blocks) == (2, 2, 2, 2):
        return f"{kind}-26"
    return ""


def _numbers(shapes, pattern):
    return {match[1] for name in shapes if (match := re.match(pattern, name))}
