"""What a file of weights is where it is of no network here: recognized by the names and shapes of its tensors."""

import re
from collections.abc import Mapping

from mixaug_jax.models import efficientnet_lite, mobile, transformers

# A piece of a tensor's name, and whose it is; the first that is found counts. Names are torchvision's and timm's.
_SIGNS = (
    (r"\.zero_point$", "a quantized one; save it before it is quantized"),
    (
        r"\.parametrizations\.",
        "one with parametrized weights, which torch.nn.utils.parametrize.remove_parametrizations makes plain ones before they "
        "are saved",
    ),
    (
        r"\.weight_u$",
        "one with spectral norm, which torch.nn.utils.remove_spectral_norm takes off before it is saved",
    ),
    (
        r"(?<!last_layer)\.weight_g$",  # DINO's heads have one, and are no last layers
        "one with weight norm, which torch.nn.utils.remove_weight_norm takes off before it is saved",
    ),
    (
        r"\.weight_orig$",
        "one with pruned weights, which torch.nn.utils.prune.remove makes plain ones before they are saved",
    ),
    (r"features\.\d+\.squeeze\.", "SqueezeNet"),
    (r"inception3a\.(?!branch[1-4]\.)|inception_3a", "GoogLeNet of another kind"),
    (r"Conv2d_1a_3x3\.", "Inception v3"),
    (r"features\.0\.conv\.weight", "Inception v4"),
    (r"repeat_1\.\d+\.branch", "Inception-ResNet v2"),
    (r"layers\.MBconv\.|\.attn_(block|grid)\.", "MaxViT"),
    (r"stages\.0\.blocks\.0\.conv2_kxk\.", "CoAtNet"),
    (r"\.attn\.(logit_scale$|cpb_mlp\.)", "Swin Transformer v2"),
    (r"layers?[._]?\d.*relative_position_bias_table", "Swin Transformer"),
    (r"features\.\d+\.\d+\.attn\.relative_position_bias_table", "Swin Transformer"),
    (r"transformer\.resblocks\.|(^|\.)attnpool\.|^head\.[qkv]\.weight", "CLIP"),
    (
        r"vision_model\.(encoder|embeddings)\.",
        "CLIP or SigLIP under the names of Hugging Face's transformers",
    ),
    (r"embedder\.embedder\.convolution\.", "ResNet under the names of Hugging Face's transformers"),
    (r"mlp_tokens\.|linear_tokens\.", "MLP-Mixer or ResMLP"),
    (r"(^|\.)grn\.", "ConvNeXt v2"),
    (r"^stages\.\d\.blocks\.\d+\.fc2\.", "MambaOut"),
    (r"^head\.pre_logits\.fc\.", "ConvNeXt with a head of two dense layers"),
    (r"stages\.\d\.blocks\.\d+\.xca\.", "EdgeNeXt"),
    (r"^features\.conv2\.weight", "DenseNet with a stem of three convolutions"),
    (r"\.mlp\.(dwconv|conv_dw)\.", "PVT v2"),
    (r"\.layer_scale1\.scale$", "PoolFormer or another MetaFormer"),
    (r"\.rnn_tokens\.", "Sequencer"),
    (r"^stages\..*\.attn\.rel_pos_h$", "MViT v2"),
    (r"stages\.0\.blocks\.0\.norm3\.", "ResNet v2 (of timm, with norms before its convolutions)"),
    (r"features\.1\.block\.0\.0\.", "MobileNet v3"),
    (r"stage2\.0\.branch1\.", "ShuffleNet v2"),
    (r"layers\.8\.0\.layers\.", "MNASNet"),
    (r"(^|\.)s1\.b1\.|trunk_output\.block1", "RegNet"),
    (r"stage2\.0\.branches\.", "HRNet"),
    (r"conv\d\.paths\.", "SK-ResNet"),
    (r"layer1\.0\.convs\.", "Res2Net"),
    (r"layer1\.0\.(eca|se_module)\.", "ECA-ResNet or SENet"),
    (r"layer1\.0\.conv2\.conv", "ResNet with attention or split convolutions"),
    (r"\.gain$", "NFNet, NF-ResNet or NF-RegNet"),
    (r"\.conv_concat\.conv\.", "VoVNet"),
    (r"^stages\.\d\.conv_(exp|down)\.", "CSPNet or DarkNet"),
    (r"features\.conv\d_\d\.c1x1", "dual path network (DPN)"),
    (r"level3\.tree\d\.", "DLA"),
    (r"^cell_0\.comb_iter", "NASNet or PNASNet"),
    (r"blocks\.\d+\.stack\.conv1\.", "Xception"),
    (r"features\.\d+\.conv_dw\.", "ReXNet"),
    (r"features\.\d+\.conv2\.0\.weight", "SelecSLS"),
    (r"^stages\.\d\.\d+\.conv_scale\.", "MobileOne"),
    (r"^stages\.\d\.\d+\.conv_fusion\.", "MobileViT"),
    (r"^stages\.0\.0\.conv_1x1\.", "RepVGG"),
    (
        r"^stages\.\d\.\d+\.conv[123]_(1x1|kxk)\.",
        "ResNet of timm's ByobNet, with attention or another stem",
    ),
    (r"blocks_token_only\.", "CaiT"),
    (r"\.local_mp\.", "XCiT"),
    (r"^transformers\.\d\.", "PiT"),
    (r"\.attn\.pos_proj\.", "ConViT"),
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
    """Of timm's names of inverted bottlenecks."""
    stem = next((n for n in shapes if re.search(r"(^|\.)conv_stem\.weight$", n)), "")
    if not stem:
        return ""
    prefix = stem.removesuffix("conv_stem.weight")
    names = [name.removeprefix(prefix) for name in shapes]
    stages = tuple(len(_numbers(names, rf"blocks\.{i}\.(\d+)\.")) for i in range(7))
    gated = {n.split(".se.")[0] for n in names if ".se." in n}
    own = next((kind for sign, kind in _BOTTLENECKS if any(re.search(sign, n) for n in names)), "")
    if own:
        return own
    if any(".conv_exp." in name for name in names):
        return "EfficientNet v2" if gated else "EfficientNet-EdgeTPU"
    if not any(".conv_pwl." in name for name in names):
        return "LCNet" if gated else "MobileNet v1"
    if gated:
        return (
            "MNASNet or another with gates in some blocks"
            if "bn2.weight" in names
            else "MobileNet v3"
        )
    # The numbers of blocks alone tell these apart, since timm gives all the same names.
    if stages == tuple(g.blocks for g in mobile.MOBILE):
        return "MobileNet v2 of another kind"
    sizes = [efficientnet_lite.scaled(*row[:2])[1] for row in efficientnet_lite.COEFFICIENTS]
    if stages in sizes:
        return "EfficientNet-Lite under timm's names (those of efficientnet_lite_pytorch are read)"
    return "MNASNet or another of inverted bottlenecks"


# Parts that one kind alone has.
_BOTTLENECKS = (
    (r"\.ghost1\.", "GhostNet"),
    (r"\.conv_(dw|pw|pwl)\.0\.", "MixNet"),
    (r"\.pw_(exp|proj)\.", "MobileNet v4"),
)


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
        grouped = bottleneck and 0 < first[1] < first[0]
        kind = kind.replace("Net", "NeXt") if grouped else kind
        return _deep(shapes, f"{kind}-{depth}", kind == "ResNet")
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


def _deep(shapes, name, read):
    """Of a stem of three convolutions; `read`, of the one kind that is read here."""
    averaged = len(shapes.get("layer2.0.downsample.1.weight", ())) == 4
    tiered = shapes["conv1.0.weight"][:1] != shapes.get("conv1.3.weight", ())[:1]
    if averaged and not tiered:
        return "" if read else f"{name}-D"
    return f"{name} with a stem of three convolutions (ResNet-{'T' if tiered else 'C or S'})"


def _numbers(shapes, pattern):
    return {match[1] for name in shapes if (match := re.match(pattern, name))}
