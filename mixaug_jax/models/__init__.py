"""Networks: `MODELS[name](num_classes, width=, stem=)` makes one, `Net` holds one with its variables.

A new network is a function like those below and a line in `MODELS`.
"""

from mixaug_jax.core import checks
from mixaug_jax.models.assume import Assume
from mixaug_jax.models.efficientnet_lite import COEFFICIENTS, HEAD, STEM, EfficientNetLite, scaled
from mixaug_jax.models.layers import STEMS
from mixaug_jax.models.marker_decoder import Decoder
from mixaug_jax.models.net import Net, Preprocess
from mixaug_jax.models.preact import PreActResNet, WideResNet
from mixaug_jax.models.resnet import ResNet
from mixaug_jax.models.tiny_net import Tiny
from mixaug_jax.models.vgg import VGG
from mixaug_jax.models.vit import VisionTransformer

__all__ = ["MODELS", "Assume", "Net", "Preprocess"]


def _check_stem(stem: str) -> None:
    checks.choice("model.stem", stem, ("imagenet", "cifar"))


def _filters(width: float, base: int) -> int:
    if width <= 0:
        raise ValueError(
            f"model.width must be a positive factor, 1.0 for the published network; got {width}"
        )
    return max(1, round(base * width))


def _resnet(num_classes, width, stem, last_stride, blocks, bottleneck) -> ResNet:
    checks.choice("model.stem", stem, STEMS)
    checks.choice("model.last_stride", last_stride, (1, 2))
    filters = _filters(width, 64)
    return ResNet(num_classes, blocks, bottleneck, filters, stem, last_stride=last_stride)


def resnet18(
    num_classes: int, *, width: float = 1.0, stem: str = "imagenet", last_stride: int = 2
) -> ResNet:
    """ResNet-18, 64 * width filters in the first layer; stem "imagenet" or "cifar"; layer4 halves the side, or not (1)."""
    return _resnet(num_classes, width, stem, last_stride, (2, 2, 2, 2), False)


def resnet34(
    num_classes: int, *, width: float = 1.0, stem: str = "imagenet", last_stride: int = 2
) -> ResNet:
    """ResNet-34, as `resnet18`."""
    return _resnet(num_classes, width, stem, last_stride, (3, 4, 6, 3), False)


def resnet50(
    num_classes: int, *, width: float = 1.0, stem: str = "imagenet", last_stride: int = 2
) -> ResNet:
    """ResNet-50 (v1.5), as `resnet18`."""
    return _resnet(num_classes, width, stem, last_stride, (3, 4, 6, 3), True)


def resnet101(
    num_classes: int, *, width: float = 1.0, stem: str = "imagenet", last_stride: int = 2
) -> ResNet:
    """ResNet-101 (v1.5), as `resnet18`."""
    return _resnet(num_classes, width, stem, last_stride, (3, 4, 23, 3), True)


def resnet152(
    num_classes: int, *, width: float = 1.0, stem: str = "imagenet", last_stride: int = 2
) -> ResNet:
    """ResNet-152 (v1.5), as `resnet18`."""
    return _resnet(num_classes, width, stem, last_stride, (3, 8, 36, 3), True)


def preact_resnet18(
    num_classes: int, *, width: float = 1.0, stem: str = "imagenet"
) -> PreActResNet:
    """PreAct-ResNet-18, 64 * width filters in the first layer; published with stem "cifar"."""
    _check_stem(stem)
    return PreActResNet(num_classes, _filters(width, 64), stem)


def wide_resnet28_10(num_classes: int, *, width: float = 1.0, stem: str = "imagenet") -> WideResNet:
    """WideResNet-28-10, 160 * width filters in the first group, dropout 0.3; published with stem "cifar"."""
    _check_stem(stem)
    return WideResNet(num_classes, 4, _filters(width, 160), _filters(width, 16), 0.3, stem)


def vgg16(
    num_classes: int, *, width: float = 1.0, stem: str = "imagenet", single_layers: bool = False
) -> VGG:
    """VGG-16 without batch norm, 64 * width filters in the first block; stem "imagenet" or "cifar" chooses the head.

    `single_layers` names every convolution and ReLU (conv4_1, relu4_1) in place of the blocks.
    """
    _check_stem(stem)
    return VGG(num_classes, _filters(width, 64), False, stem, single_layers)


def vgg16_bn(
    num_classes: int, *, width: float = 1.0, stem: str = "imagenet", single_layers: bool = False
) -> VGG:
    """VGG-16 with batch norm, as `vgg16`."""
    _check_stem(stem)
    return VGG(num_classes, _filters(width, 64), True, stem, single_layers)


def _efficientnet_lite(num_classes, width, stem, variant) -> EfficientNetLite:
    _check_stem(stem)
    wide, deep, dropout = COEFFICIENTS[variant]
    groups, blocks = scaled(wide, deep)
    filters = tuple(_filters(width, base) for base in groups)
    ends = (_filters(width, STEM), _filters(width, HEAD))
    return EfficientNetLite(num_classes, filters, blocks, *ends, dropout, stem)


def efficientnet_lite0(
    num_classes: int, *, width: float = 1.0, stem: str = "imagenet"
) -> EfficientNetLite:
    """EfficientNet-Lite0, 32 * width filters in the first layer, published for 224 px; stem "imagenet" or "cifar"."""
    return _efficientnet_lite(num_classes, width, stem, 0)


def efficientnet_lite1(
    num_classes: int, *, width: float = 1.0, stem: str = "imagenet"
) -> EfficientNetLite:
    """EfficientNet-Lite1, as `efficientnet_lite0`, for 240 px."""
    return _efficientnet_lite(num_classes, width, stem, 1)


def efficientnet_lite2(
    num_classes: int, *, width: float = 1.0, stem: str = "imagenet"
) -> EfficientNetLite:
    """EfficientNet-Lite2, as `efficientnet_lite0`, for 260 px."""
    return _efficientnet_lite(num_classes, width, stem, 2)


def efficientnet_lite3(
    num_classes: int, *, width: float = 1.0, stem: str = "imagenet"
) -> EfficientNetLite:
    """EfficientNet-Lite3, as `efficientnet_lite0`, for 280 px."""
    return _efficientnet_lite(num_classes, width, stem, 3)


def efficientnet_lite4(
    num_classes: int, *, width: float = 1.0, stem: str = "imagenet"
) -> EfficientNetLite:
    """EfficientNet-Lite4, as `efficientnet_lite0`, for 300 px."""
    return _efficientnet_lite(num_classes, width, stem, 4)


def tiny(num_classes: int, *, width: float = 1.0, stem: str = "imagenet") -> Tiny:
    """Four convolutions with 8 * width filters for images of about 32 px; its one stem serves for both."""
    _check_stem(stem)
    return Tiny(num_classes, _filters(width, 8))


def _decoder(num_classes, width, stem, blocks) -> Decoder:
    _check_stem(stem)
    return Decoder(num_classes, _filters(width, 16), blocks, 256, 0.5, stem)


def decoder(num_classes: int, *, width: float = 1.0, stem: str = "imagenet") -> Decoder:
    """A small decoder of marker bits for about 32 px, 16 * width filters in the first layer; stem "imagenet" or "cifar"."""
    return _decoder(num_classes, width, stem, (1, 2, 2))


def decoder34(num_classes: int, *, width: float = 1.0, stem: str = "imagenet") -> Decoder:
    """The published decoder of marker bits, as `decoder`, for 64 px."""
    return _decoder(num_classes, width, stem, (3, 6, 4, 3))


def vit_of_size(
    num_classes: int,
    *,
    width: float = 1.0,
    stem: str = "imagenet",
    dim: int = 192,
    depth: int = 12,
    heads: int = 3,
    patch: int = 16,
    grid: int = 0,
    distilled: bool = False,
) -> VisionTransformer:
    """A vision transformer of any size, tokens of `dim` * width numbers; its one stem, patches, serves for both."""
    _check_stem(stem)
    wide = heads * _filters(width, dim // heads)
    return VisionTransformer(num_classes, wide, depth, heads, patch, grid, distilled)


def vit_tiny(
    num_classes: int, *, width: float = 1.0, stem: str = "imagenet", grid: int = 0
) -> VisionTransformer:
    """ViT-Ti/16: 12 blocks, tokens of 192 * width numbers, patches of 16 pixels; positions as `grid` of VisionTransformer."""
    return vit_of_size(num_classes, width=width, stem=stem, grid=grid)


def vit_small(
    num_classes: int, *, width: float = 1.0, stem: str = "imagenet", grid: int = 0
) -> VisionTransformer:
    """ViT-S/16: as `vit_tiny`, tokens of 384 * width numbers."""
    return vit_of_size(num_classes, width=width, stem=stem, dim=384, heads=6, grid=grid)


def vit_base(
    num_classes: int, *, width: float = 1.0, stem: str = "imagenet", grid: int = 0
) -> VisionTransformer:
    """ViT-B/16, torchvision's vit_b_16: as `vit_tiny`, tokens of 768 * width numbers."""
    return vit_of_size(num_classes, width=width, stem=stem, dim=768, heads=12, grid=grid)


def vit_micro(
    num_classes: int, *, width: float = 1.0, stem: str = "imagenet", grid: int = 0
) -> VisionTransformer:
    """A small one for 64 px: 6 blocks, tokens of 96 * width numbers, 3 heads, patches of 8 pixels."""
    return vit_of_size(num_classes, width=width, stem=stem, dim=96, depth=6, patch=8, grid=grid)


def _deit(num_classes, width, stem, grid, distilled, dim) -> VisionTransformer:
    sizes = {"dim": dim, "heads": dim // 64, "grid": grid, "distilled": distilled}
    # As DeiT was trained.
    return vit_of_size(num_classes, width=width, stem=stem, **sizes).clone(drop_path_rate=0.1)


def deit_tiny(
    num_classes: int,
    *,
    width: float = 1.0,
    stem: str = "imagenet",
    grid: int = 0,
    distilled: bool = False,
) -> VisionTransformer:
    """DeiT-Ti: `vit_tiny` with stochastic depth, and where `distilled` a second token and head."""
    return _deit(num_classes, width, stem, grid, distilled, 192)


def deit_small(
    num_classes: int,
    *,
    width: float = 1.0,
    stem: str = "imagenet",
    grid: int = 0,
    distilled: bool = False,
) -> VisionTransformer:
    """DeiT-S: `vit_small`, as `deit_tiny`."""
    return _deit(num_classes, width, stem, grid, distilled, 384)


def deit_base(
    num_classes: int,
    *,
    width: float = 1.0,
    stem: str = "imagenet",
    grid: int = 0,
    distilled: bool = False,
) -> VisionTransformer:
    """DeiT-B: `vit_base`, as `deit_tiny`."""
    return _deit(num_classes, width, stem, grid, distilled, 768)


MODELS = {
    "resnet18": resnet18,
    "resnet34": resnet34,
    "resnet50": resnet50,
    "resnet101": resnet101,
    "resnet152": resnet152,
    "preact_resnet18": preact_resnet18,
    "wide_resnet28_10": wide_resnet28_10,
    "vgg16": vgg16,
    "vgg16_bn": vgg16_bn,
    "efficientnet_lite0": efficientnet_lite0,
    "efficientnet_lite1": efficientnet_lite1,
    "efficientnet_lite2": efficientnet_lite2,
    "efficientnet_lite3": efficientnet_lite3,
    "efficientnet_lite4": efficientnet_lite4,
    "tiny": tiny,
    "decoder": decoder,
    "decoder34": decoder34,
    "vit_tiny": vit_tiny,
    "vit_small": vit_small,
    "vit_base": vit_base,
    "vit_micro": vit_micro,
    "deit_tiny": deit_tiny,
    "deit_small": deit_small,
    "deit_base": deit_base,
    "vit_of_size": vit_of_size,
}
