"""Networks: `MODELS[name](num_classes, width=, stem=)` makes one, `Net` holds one with its variables.

A new network is a function like those below and a line in `MODELS`; those of further families stand in `convnets` and
`vit_entries`.
"""

from mixaug_jax.core import checks
from mixaug_jax.models import convnets, vit_entries
from mixaug_jax.models.assume import Assume
from mixaug_jax.models.binary import BinaryResNet
from mixaug_jax.models.efficientnet_lite import COEFFICIENTS, HEAD, STEM, EfficientNetLite, scaled
from mixaug_jax.models.layers import STEMS
from mixaug_jax.models.marker_decoder import Decoder
from mixaug_jax.models.net import Net, Preprocess
from mixaug_jax.models.preact import PreActResNet, WideResNet
from mixaug_jax.models.resnet import ResNet
from mixaug_jax.models.sizes import check_stem, filters
from mixaug_jax.models.tiny_net import Tiny

__all__ = ["MODELS", "Assume", "Net", "Preprocess"]


def _resnet(num_classes, width, stem, last_stride, blocks, bottleneck) -> ResNet:
    checks.choice("model.stem", stem, STEMS)
    checks.choice("model.last_stride", last_stride, (1, 2))
    first = filters(width, 64)
    return ResNet(num_classes, blocks, bottleneck, first, stem, last_stride=last_stride)


def resnet18(
    num_classes: int, *, width: float = 1.0, stem: str = "imagenet", last_stride: int = 2
) -> ResNet:
    """ResNet-18, 64 * width filters in the first layer; stem "imagenet" or "cifar"; layer4 halves the side, or not (1)."""
    return _resnet(num_classes, width, stem, last_stride, (2, 2, 2, 2), False)


def binary_resnet18(
    num_classes: int, *, width: float = 1.0, stem: str = "imagenet", last_stride: int = 2
) -> BinaryResNet:
    """ResNet-18 with binary inputs and kernels of its 3x3 convolutions, as `resnet18`."""
    plain = resnet18(num_classes, width=width, stem=stem, last_stride=last_stride)
    return BinaryResNet(
        num_classes, plain.blocks, False, plain.filters, stem, last_stride=last_stride
    )


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
    check_stem(stem)
    return PreActResNet(num_classes, filters(width, 64), stem)


def wide_resnet28_10(num_classes: int, *, width: float = 1.0, stem: str = "imagenet") -> WideResNet:
    """WideResNet-28-10, 160 * width filters in the first group, dropout 0.3; published with stem "cifar"."""
    check_stem(stem)
    return WideResNet(num_classes, 4, filters(width, 160), filters(width, 16), 0.3, stem)


def _efficientnet_lite(num_classes, width, stem, variant) -> EfficientNetLite:
    check_stem(stem)
    *factors, dropout = COEFFICIENTS[variant]
    groups, blocks = scaled(*factors)
    wide = tuple(filters(width, base) for base in groups)
    ends = (filters(width, STEM), filters(width, HEAD))
    return EfficientNetLite(num_classes, wide, blocks, *ends, dropout, stem)


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
    check_stem(stem)
    return Tiny(num_classes, filters(width, 8))


def _decoder(num_classes, width, stem, blocks) -> Decoder:
    check_stem(stem)
    return Decoder(num_classes, filters(width, 16), blocks, 256, 0.5, stem)


def decoder(num_classes: int, *, width: float = 1.0, stem: str = "imagenet") -> Decoder:
    """A small decoder of marker bits for about 32 px, 16 * width filters in the first layer; stem "imagenet" or "cifar"."""
    return _decoder(num_classes, width, stem, (1, 2, 2))


def decoder34(num_classes: int, *, width: float = 1.0, stem: str = "imagenet") -> Decoder:
    """The published decoder of marker bits, as `decoder`, for 64 px."""
    return _decoder(num_classes, width, stem, (3, 6, 4, 3))


MODELS = {
    "resnet18": resnet18,
    "binary_resnet18": binary_resnet18,
    "resnet34": resnet34,
    "resnet50": resnet50,
    "resnet101": resnet101,
    "resnet152": resnet152,
    "preact_resnet18": preact_resnet18,
    "wide_resnet28_10": wide_resnet28_10,
    **convnets.VGGS,
    "efficientnet_lite0": efficientnet_lite0,
    "efficientnet_lite1": efficientnet_lite1,
    "efficientnet_lite2": efficientnet_lite2,
    "efficientnet_lite3": efficientnet_lite3,
    "efficientnet_lite4": efficientnet_lite4,
    "tiny": tiny,
    "decoder": decoder,
    "decoder34": decoder34,
    **convnets.OTHERS,
    **vit_entries.ENTRIES,
}
