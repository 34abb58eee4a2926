"""The entries of MODELS that are further convolutional networks: those that the literature dissects, and that people bring."""

from mixaug_jax.core import checks
from mixaug_jax.models import inception, mobile
from mixaug_jax.models.alex import AlexNet
from mixaug_jax.models.convnext import ConvNeXt
from mixaug_jax.models.densenet import DenseNet
from mixaug_jax.models.layers import STEMS
from mixaug_jax.models.mobile import EfficientNet, MobileNetV2
from mixaug_jax.models.resnet import ResNet
from mixaug_jax.models.sizes import check_stem, filters
from mixaug_jax.models.vgg import CONVS, VGG


def _vgg(num_classes, width, stem, single_layers, depth, norm=False) -> VGG:
    check_stem(stem)
    first = filters(width, 64)
    return VGG(num_classes, first, norm, stem, single_layers, CONVS[depth])


def vgg11(
    num_classes: int, *, width: float = 1.0, stem: str = "imagenet", single_layers: bool = False
) -> VGG:
    """VGG-11 without batch norm, 64 * width filters in the first block; stem "imagenet" or "cifar" chooses the head.

    `single_layers` names every convolution and ReLU (conv4_1, relu4_1) in place of the blocks.
    """
    return _vgg(num_classes, width, stem, single_layers, 11)


def vgg11_bn(
    num_classes: int, *, width: float = 1.0, stem: str = "imagenet", single_layers: bool = False
) -> VGG:
    """VGG-11 with batch norm, as `vgg11`."""
    return _vgg(num_classes, width, stem, single_layers, 11, norm=True)


def vgg13(
    num_classes: int, *, width: float = 1.0, stem: str = "imagenet", single_layers: bool = False
) -> VGG:
    """VGG-13 without batch norm, as `vgg11`."""
    return _vgg(num_classes, width, stem, single_layers, 13)


def vgg13_bn(
    num_classes: int, *, width: float = 1.0, stem: str = "imagenet", single_layers: bool = False
) -> VGG:
    """VGG-13 with batch norm, as `vgg11`."""
    return _vgg(num_classes, width, stem, single_layers, 13, norm=True)


def vgg16(
    num_classes: int, *, width: float = 1.0, stem: str = "imagenet", single_layers: bool = False
) -> VGG:
    """VGG-16 without batch norm, as `vgg11`."""
    return _vgg(num_classes, width, stem, single_layers, 16)


def vgg16_bn(
    num_classes: int, *, width: float = 1.0, stem: str = "imagenet", single_layers: bool = False
) -> VGG:
    """VGG-16 with batch norm, as `vgg11`."""
    return _vgg(num_classes, width, stem, single_layers, 16, norm=True)


def vgg19(
    num_classes: int, *, width: float = 1.0, stem: str = "imagenet", single_layers: bool = False
) -> VGG:
    """VGG-19 without batch norm, as `vgg11`."""
    return _vgg(num_classes, width, stem, single_layers, 19)


def vgg19_bn(
    num_classes: int, *, width: float = 1.0, stem: str = "imagenet", single_layers: bool = False
) -> VGG:
    """VGG-19 with batch norm, as `vgg11`."""
    return _vgg(num_classes, width, stem, single_layers, 19, norm=True)


def _resnet(num_classes, width, stem, blocks, bottleneck) -> ResNet:
    checks.choice("model.stem", stem, STEMS)
    return ResNet(num_classes, blocks, bottleneck, filters(width, 64), stem)


def resnet18d(num_classes: int, *, width: float = 1.0, stem: str = "imagenet") -> ResNet:
    """ResNet-18-D: a stem of three convolutions, shortcuts that average; as `resnet18`."""
    return _resnet(num_classes, width, stem, (2, 2, 2, 2), False).clone(deep=True)


def resnet34d(num_classes: int, *, width: float = 1.0, stem: str = "imagenet") -> ResNet:
    """ResNet-34-D: a stem of three convolutions, shortcuts that average; as `resnet18`."""
    return _resnet(num_classes, width, stem, (3, 4, 6, 3), False).clone(deep=True)


def resnet50d(num_classes: int, *, width: float = 1.0, stem: str = "imagenet") -> ResNet:
    """ResNet-50-D: a stem of three convolutions, shortcuts that average; as `resnet18`."""
    return _resnet(num_classes, width, stem, (3, 4, 6, 3), True).clone(deep=True)


def resnet101d(num_classes: int, *, width: float = 1.0, stem: str = "imagenet") -> ResNet:
    """ResNet-101-D: a stem of three convolutions, shortcuts that average; as `resnet18`."""
    return _resnet(num_classes, width, stem, (3, 4, 23, 3), True).clone(deep=True)


def resnet152d(num_classes: int, *, width: float = 1.0, stem: str = "imagenet") -> ResNet:
    """ResNet-152-D: a stem of three convolutions, shortcuts that average; as `resnet18`."""
    return _resnet(num_classes, width, stem, (3, 8, 36, 3), True).clone(deep=True)


def seresnet18(num_classes: int, *, width: float = 1.0, stem: str = "imagenet") -> ResNet:
    """SE-ResNet-18: gates before each sum; as `resnet18`."""
    return _resnet(num_classes, width, stem, (2, 2, 2, 2), False).clone(gates=True)


def seresnet34(num_classes: int, *, width: float = 1.0, stem: str = "imagenet") -> ResNet:
    """SE-ResNet-34: gates before each sum; as `resnet18`."""
    return _resnet(num_classes, width, stem, (3, 4, 6, 3), False).clone(gates=True)


def seresnet50(num_classes: int, *, width: float = 1.0, stem: str = "imagenet") -> ResNet:
    """SE-ResNet-50: gates before each sum; as `resnet18`."""
    return _resnet(num_classes, width, stem, (3, 4, 6, 3), True).clone(gates=True)


def seresnet101(num_classes: int, *, width: float = 1.0, stem: str = "imagenet") -> ResNet:
    """SE-ResNet-101: gates before each sum; as `resnet18`."""
    return _resnet(num_classes, width, stem, (3, 4, 23, 3), True).clone(gates=True)


def seresnet152(num_classes: int, *, width: float = 1.0, stem: str = "imagenet") -> ResNet:
    """SE-ResNet-152: gates before each sum; as `resnet18`."""
    return _resnet(num_classes, width, stem, (3, 8, 36, 3), True).clone(gates=True)


def resnext50_32x4d(num_classes: int, *, width: float = 1.0, stem: str = "imagenet") -> ResNet:
    """ResNeXt-50: 32 groups of 4 filters in the first bottlenecks; as `resnet18`."""
    return _resnet(num_classes, width, stem, (3, 4, 6, 3), True).clone(groups=32, group_width=4)


def resnext101_32x8d(num_classes: int, *, width: float = 1.0, stem: str = "imagenet") -> ResNet:
    """ResNeXt-101: 32 groups of 8 filters in the first bottlenecks; as `resnet18`."""
    return _resnet(num_classes, width, stem, (3, 4, 23, 3), True).clone(groups=32, group_width=8)


def wide_resnet50_2(num_classes: int, *, width: float = 1.0, stem: str = "imagenet") -> ResNet:
    """Wide ResNet-50-2: bottlenecks twice as wide inside; as `resnet18`."""
    return _resnet(num_classes, width, stem, (3, 4, 6, 3), True).clone(group_width=128)


def alexnet(num_classes: int, *, width: float = 1.0, stem: str = "imagenet") -> AlexNet:
    """AlexNet of torchvision, 64 * width filters in the first layer; its one stem serves for both."""
    check_stem(stem)
    return AlexNet(num_classes, filters(width, 64))


def googlenet(
    num_classes: int, *, width: float = 1.0, stem: str = "imagenet"
) -> inception.GoogLeNet:
    """GoogLeNet of torchvision, 64 * width filters in the first layer; its one stem serves for both."""
    check_stem(stem)
    first = tuple(filters(width, base) for base in inception.STEM)
    blocks = [(name, tuple(filters(width, n) for n in base)) for name, base in inception.BLOCKS]
    return inception.GoogLeNet(num_classes, first, tuple(blocks))


def _densenet(num_classes, width, stem, growth, blocks) -> DenseNet:
    check_stem(stem)
    grown = filters(width, growth)
    return DenseNet(num_classes, blocks, grown, 2 * grown, stem)


def densenet121(num_classes: int, *, width: float = 1.0, stem: str = "imagenet") -> DenseNet:
    """DenseNet-121, 32 * width filters a layer; stem "imagenet" or "cifar"."""
    return _densenet(num_classes, width, stem, 32, (6, 12, 24, 16))


def densenet161(num_classes: int, *, width: float = 1.0, stem: str = "imagenet") -> DenseNet:
    """DenseNet-161, 48 * width filters a layer; stem "imagenet" or "cifar"."""
    return _densenet(num_classes, width, stem, 48, (6, 12, 36, 24))


def densenet169(num_classes: int, *, width: float = 1.0, stem: str = "imagenet") -> DenseNet:
    """DenseNet-169, 32 * width filters a layer; stem "imagenet" or "cifar"."""
    return _densenet(num_classes, width, stem, 32, (6, 12, 32, 32))


def _narrowed(groups, width):
    return tuple(g._replace(filters=filters(width, g.filters)) for g in groups)


def mobilenet_v2(num_classes: int, *, width: float = 1.0, stem: str = "imagenet") -> MobileNetV2:
    """MobileNet-V2, 32 * width filters in the first layer; stem "imagenet" or "cifar"."""
    check_stem(stem)
    groups = _narrowed(mobile.MOBILE, width)
    first, last = filters(width, mobile.STEM), filters(width, 1280)
    return MobileNetV2(num_classes, groups, first, last, 0.2, stem)


def _efficientnet(num_classes, width, stem, variant) -> EfficientNet:
    check_stem(stem)
    groups, first = mobile.scaled(variant)
    ends = (filters(width, first), filters(width, 4 * groups[-1].filters))
    dropout = mobile.COEFFICIENTS[variant][2]
    return EfficientNet(num_classes, _narrowed(groups, width), *ends, dropout, stem)


def efficientnet_b0(
    num_classes: int, *, width: float = 1.0, stem: str = "imagenet"
) -> EfficientNet:
    """EfficientNet-B0, published for 224 px, 32 * width filters in B0's first layer; stem as `mobilenet_v2`."""
    return _efficientnet(num_classes, width, stem, 0)


def efficientnet_b1(
    num_classes: int, *, width: float = 1.0, stem: str = "imagenet"
) -> EfficientNet:
    """EfficientNet-B1, as `efficientnet_b0`, for 240 px."""
    return _efficientnet(num_classes, width, stem, 1)


def efficientnet_b2(
    num_classes: int, *, width: float = 1.0, stem: str = "imagenet"
) -> EfficientNet:
    """EfficientNet-B2, as `efficientnet_b0`, for 260 px."""
    return _efficientnet(num_classes, width, stem, 2)


def efficientnet_b3(
    num_classes: int, *, width: float = 1.0, stem: str = "imagenet"
) -> EfficientNet:
    """EfficientNet-B3, as `efficientnet_b0`, for 300 px."""
    return _efficientnet(num_classes, width, stem, 3)


def efficientnet_b4(
    num_classes: int, *, width: float = 1.0, stem: str = "imagenet"
) -> EfficientNet:
    """EfficientNet-B4, as `efficientnet_b0`, for 380 px."""
    return _efficientnet(num_classes, width, stem, 4)


def _convnext(num_classes, width, stem, base, third, rate) -> ConvNeXt:
    check_stem(stem)
    first = filters(width, base)
    wide = (first, 2 * first, 4 * first, 8 * first)
    return ConvNeXt(num_classes, (3, 3, third, 3), wide, rate)


def convnext_tiny(num_classes: int, *, width: float = 1.0, stem: str = "imagenet") -> ConvNeXt:
    """ConvNeXt-T, 96 * width filters in the first stage; its one stem, of patches, serves for both."""
    return _convnext(num_classes, width, stem, 96, 9, 0.1)


def convnext_small(num_classes: int, *, width: float = 1.0, stem: str = "imagenet") -> ConvNeXt:
    """ConvNeXt-S, 96 * width filters in the first stage; its one stem, of patches, serves for both."""
    return _convnext(num_classes, width, stem, 96, 27, 0.4)


def convnext_base(num_classes: int, *, width: float = 1.0, stem: str = "imagenet") -> ConvNeXt:
    """ConvNeXt-B, 128 * width filters in the first stage; its one stem, of patches, serves for both."""
    return _convnext(num_classes, width, stem, 128, 27, 0.5)


VGGS = {
    "vgg11": vgg11,
    "vgg11_bn": vgg11_bn,
    "vgg13": vgg13,
    "vgg13_bn": vgg13_bn,
    "vgg16": vgg16,
    "vgg16_bn": vgg16_bn,
    "vgg19": vgg19,
    "vgg19_bn": vgg19_bn,
}
OTHERS = {
    "resnet18d": resnet18d,
    "resnet34d": resnet34d,
    "resnet50d": resnet50d,
    "resnet101d": resnet101d,
    "resnet152d": resnet152d,
    "seresnet18": seresnet18,
    "seresnet34": seresnet34,
    "seresnet50": seresnet50,
    "seresnet101": seresnet101,
    "seresnet152": seresnet152,
    "resnext50_32x4d": resnext50_32x4d,
    "resnext101_32x8d": resnext101_32x8d,
    "wide_resnet50_2": wide_resnet50_2,
    "alexnet": alexnet,
    "googlenet": googlenet,
    "densenet121": densenet121,
    "densenet161": densenet161,
    "densenet169": densenet169,
    "mobilenet_v2": mobilenet_v2,
    "efficientnet_b0": efficientnet_b0,
    "efficientnet_b1": efficientnet_b1,
    "efficientnet_b2": efficientnet_b2,
    "efficientnet_b3": efficientnet_b3,
    "efficientnet_b4": efficientnet_b4,
    "convnext_tiny": convnext_tiny,
    "convnext_small": convnext_small,
    "convnext_base": convnext_base,
}
