"""What a file of weights is where it is of no network here: recognized by the names and shapes of its tensors."""

import re
from collections.abc import Mapping

from mixaug_jax.models import transformers

# A piece of a tensor's name, and whose it is; the first that is found counts. Names are torchvision's and timm's.
_SIGNS = (
    (r"features\.\d+\.squeeze\.", "SqueezeNet"),
    (r"denselayer1\.", "DenseNet"),
    (r"inception3a\.", "GoogLeNet"),
    (r"Conv2d_1a_3x3\.", "Inception v3"),
    (r"features\.0\.conv\.weight", "Inception v4"),
    (r"layers\.MBconv\.", "MaxViT"),
    (r"layers?[._]?\d.*relative_position_bias_table", "Swin Transformer"),
    (r"features\.\d+\.\d+\.attn\.relative_position_bias_table", "Swin Transformer"),
    (r"mlp_tokens\.", "MLP-Mixer"),
    (r"stages\.\d+\.blocks\.\d+\.conv_dw\.", "ConvNeXt"),
    (r"features\.\d+\.\d+\.layer_scale", "ConvNeXt"),
    (r"stages\.0\.blocks\.0\.norm1\.", "ResNet v2 (of timm, with norms before its convolutions)"),
    (r"features\.1\.conv\.0\.0\.", "MobileNet v2"),
    (r"features\.1\.block\.0\.0\.", "MobileNet v3"),
    (r"features\.1\.0\.block\.", "EfficientNet"),
    (r"stage2\.0\.branch1\.", "ShuffleNet v2"),
    (r"layers\.8\.0\.layers\.", "MNASNet"),
    (r"(^|\.)s1\.b1\.|trunk_output\.block1", "RegNet"),
    (r"stage2\.0\.branches\.", "HRNet"),
    (r"conv1\.paths\.", "SK-ResNet"),
    (r"layer1\.0\.convs\.", "Res2Net"),
    (r"layer1\.0\.(se|eca)\.", "SE-ResNet or ECA-ResNet"),
    (r"layer1\.0\.conv2\.conv", "ResNet with attention or split convolutions"),
)
_BOTTLENECK, _BASIC = 3, 2  # convolutions in a block


def name_of(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """The name of an architecture that is not among the networks here, as "VGG-11 with batch norm"; "" for none.

    Args:
      shapes: of tensors, by name.
    """
    for sign, name in _SIGNS:
        if any(re.search(sign, tensor) for tensor in shapes):
            return name
    return transformers.other(shapes) or _mobile(shapes) or _vgg(shapes) or _resnet(shapes)


def _mobile(shapes):
    stem = next((n for n in shapes if re.search(r"(^|\.)conv_stem\.weight$", n)), "")
    if not stem:
        return ""
    prefix = stem.removesuffix("conv_stem.weight")
    shapes = {name.removeprefix(prefix): shape for name, shape in shapes.items()}
    stages = [len(_numbers(shapes, rf"blocks\.{i}\.(\d+)\.")) for i in range(7)]
    if any(".se." in name for name in shapes):
        return "EfficientNet" if "bn2.weight" in shapes else "MobileNet v3"
    if stages == [1, 2, 3, 4, 3, 3, 1]:
        return "MobileNet v2"
    return "EfficientNet-Lite under timm's names (those of efficientnet_lite_pytorch are read)"


def _vgg(shapes):
    first = shapes.get("features.0.weight", ())
    if first[2:] == (11, 11):
        return "AlexNet"
    kernels = [s for n, s in shapes.items() if n.startswith("features.") and n.endswith(".weight")]
    layers = sum(len(shape) == 4 for shape in kernels)
    if not first or layers == 13:
        return ""
    known = {8: "VGG-11", 10: "VGG-13", 16: "VGG-19"}
    name = known.get(layers, f"chain of {layers} convolutions")
    return f"{name} with batch norm" if any(len(shape) == 1 for shape in kernels) else name


def _resnet(shapes):
    blocks = [len(_numbers(shapes, rf"layer{i}\.(\d+)\.")) for i in range(1, 5)]
    first = shapes.get("layer1.0.conv2.weight", ())
    if len(first) != 4 or not all(blocks):
        return ""
    bottleneck = "layer1.0.conv3.weight" in shapes
    depth = 2 + (_BOTTLENECK if bottleneck else _BASIC) * sum(blocks)
    if "conv1.0.weight" in shapes:
        return f"ResNet-{depth} with a stem of three convolutions (ResNet-C, D, S or T)"
    stem = shapes.get("conv1.weight", ())
    if bottleneck and 0 < first[1] < first[0]:
        return f"ResNeXt-{depth} ({first[0] // first[1]}x{first[1]}d)"
    if bottleneck and stem and first[0] > stem[0] > 0:
        return f"Wide ResNet-{depth}-{first[0] / stem[0]:g}"
    if bottleneck and tuple(blocks) == (2, 2, 2, 2):
        return "ResNet-26"
    return ""


def _numbers(shapes, pattern):
    return {match[1] for name in shapes if (match := re.match(pattern, name))}
