"""The networks as PyTorch modules with the names of the published code; run as a script, it writes data/torch_logits.npz."""

import pathlib

import numpy as np
import recipe
import torch
from torch import nn
from torch.nn import functional

BLOCKS = {"resnet18": (2, 2, 2, 2), "resnet50": (3, 4, 6, 3)}
# Height and width of the images behind data/torch_logits.npz.
SIZES = [
    ("resnet18", 224, 224),
    ("resnet18", 149, 193),
    ("resnet50", 224, 224),
    ("resnet50", 149, 193),
]


def conv(a, b, size=3, stride=1, bias=False):
    return nn.Conv2d(a, b, size, stride, size // 2, bias=bias)


class Block(nn.Module):
    """torchvision's BasicBlock or Bottleneck; kuangliu's names where `shortcut`."""

    slope = 0.0

    def __init__(self, inside, filters, stride, bottleneck, shortcut):
        super().__init__()
        out = 4 * filters if bottleneck else filters
        widths = [inside, filters, filters, out] if bottleneck else [inside, filters, out]
        sizes, strides = ((1, 3, 1), (1, stride, 1)) if bottleneck else ((3, 3), (stride, 1))
        self.count = len(sizes)
        for i in range(self.count):
            setattr(self, f"conv{i + 1}", conv(widths[i], widths[i + 1], sizes[i], strides[i]))
            setattr(self, f"bn{i + 1}", nn.BatchNorm2d(widths[i + 1]))
        side = nn.Sequential()
        if stride > 1 or inside != out:
            side = nn.Sequential(conv(inside, out, 1, stride), nn.BatchNorm2d(out))
        self.side = "shortcut" if shortcut else "downsample"
        setattr(self, self.side, side)

    def forward(self, x):
        y = x
        for i in range(1, self.count + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            y = functional.leaky_relu(y, self.slope) if i < self.count else y
        return functional.leaky_relu(y + getattr(self, self.side)(x), self.slope)


class ResNet(nn.Module):
    slope = 0.0

    def __init__(self, name, classes, filters=64, cifar=False, kuangliu=False):
        super().__init__()
        bottleneck = name == "resnet50"
        self.conv1 = conv(3, filters, *((3, 1) if cifar else (7, 2)))
        self.bn1 = nn.BatchNorm2d(filters)
        self.pool = nn.Identity() if cifar else nn.MaxPool2d(3, 2, 1)
        inside = filters
        for layer, blocks in enumerate(BLOCKS[name]):
            made, width = [], filters * 2**layer
            for i in range(blocks):
                stride = 2 if layer and not i else 1
                made.append(Block(inside, width, stride, bottleneck, kuangliu))
                inside = 4 * width if bottleneck else width
            setattr(self, f"layer{layer + 1}", nn.Sequential(*made))
        self.last = "linear" if kuangliu else "fc"
        setattr(self, self.last, nn.Linear(inside, classes))

    def forward(self, x):
        x = self.pool(functional.leaky_relu(self.bn1(self.conv1(x)), self.slope))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return getattr(self, self.last)(x.mean((2, 3)))


# Networks that have the names and shapes of others: name, whether the stem is 3x3, and what is done to it.
LOOKALIKES = {
    "dilation 2": ("resnet50", False, {"dilation": 2}),
    "dilation 4": ("resnet50", False, {"dilation": 4}),
    "dilation 8": ("resnet50", False, {"dilation": 8}),
    "basic, dilation 4": ("resnet18", False, {"dilation": 4}),
    "last stride": ("resnet50", False, {"last_stride": 1}),
    "stride in conv1": ("resnet50", False, {"stride_in": "conv1"}),
    "no pool": ("resnet18", False, {"pool": "none"}),
    "3x3, pool": ("resnet18", True, {"pool": "max"}),
    "3x3 stride 2, pool": ("resnet18", True, {"stem": "strided", "pool": "max"}),
    "3x3 stride 2": ("resnet18", True, {"stem": "strided"}),
    "leaky": ("resnet18", False, {"slope": 0.1}),
    "epsilon": ("resnet18", False, {"epsilon": 0.1}),
}


def lookalike(name):
    """One of LOOKALIKES, with 5 classes and 4 filters, and weights by the recipe."""
    architecture, cifar, changes = LOOKALIKES[name]
    net = filled(ResNet(architecture, 5, 4, cifar))
    for key, value in changes.items():
        if key == "pool":
            net.pool = nn.MaxPool2d(3, 2, 1) if value == "max" else nn.Identity()
        elif key == "stem":
            net.conv1.stride = (2, 2)
        elif key in ("slope", "epsilon"):
            for module in net.modules():
                setattr(module, {"epsilon": "eps"}.get(key, key), value)
        elif key == "last_stride":
            restride(net.layer4[0], 1)
        elif key == "stride_in":
            for layer in (net.layer2, net.layer3, net.layer4):
                layer[0].conv1.stride, layer[0].conv2.stride = (2, 2), (1, 1)
        else:
            dilate(net, value)
    return net


def restride(block, stride):
    """Another stride of the first block of a layer."""
    for conv in (block.conv1, block.conv2, block.downsample[0]):
        if conv.stride != (1, 1):
            conv.stride = (stride, stride)


def dilate(net, last):
    """As torchvision's `replace_stride_with_dilation`, `last` being the dilation that layer4 ends with."""
    dilation = 1
    for number in range(5 - last.bit_length() + 1, 5):
        blocks = getattr(net, f"layer{number}")
        restride(blocks[0], 1)
        before, dilation = dilation, 2 * dilation
        for i, block in enumerate(blocks):
            convs = (block.conv2,) if block.count == 3 else (block.conv1, block.conv2)
            for j, conv in enumerate(convs):
                wide = before if i == 0 and j == 0 else dilation
                conv.dilation = conv.padding = (wide, wide)


class PreActBlock(nn.Module):
    def __init__(self, inside, filters, stride, shortcut):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inside), conv(inside, filters, 3, stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(filters), conv(filters, filters)
        self.side = shortcut
        if inside != filters:
            side = conv(inside, filters, 1, stride)
            setattr(self, shortcut, nn.Sequential(side) if shortcut == "shortcut" else side)

    def forward(self, x):
        y = self.bn1(x).relu()
        side = getattr(self, self.side)(y) if hasattr(self, self.side) else x
        return self.conv2(self.bn2(self.conv1(y)).relu()) + side


class PreActResNet(nn.Module):
    """PreAct-ResNet-18 of kuangliu's code for CIFAR."""

    def __init__(self, classes, filters):
        super().__init__()
        self.conv1 = conv(3, filters)
        inside = filters
        for layer in range(4):
            made, width = [], filters * 2**layer
            for i in range(2):
                made.append(PreActBlock(inside, width, 2 if layer and not i else 1, "shortcut"))
                inside = width
            setattr(self, f"layer{layer + 1}", nn.Sequential(*made))
        self.linear = nn.Linear(inside, classes)

    def forward(self, x):
        x = self.layer4(self.layer3(self.layer2(self.layer1(self.conv1(x)))))
        return self.linear(x.mean((2, 3)))


class Group(nn.Module):
    def __init__(self, *blocks):
        super().__init__()
        self.layer = nn.Sequential(*blocks)

    def forward(self, x):
        return self.layer(x)


class WideResNet(nn.Module):
    """WideResNet-28 of the Cutout code."""

    def __init__(self, classes, stem, filters):
        super().__init__()
        self.conv1 = conv(3, stem)
        inside = stem
        for group in range(3):
            made, width = [], filters * 2**group
            for i in range(4):
                made.append(PreActBlock(inside, width, 2 if group and not i else 1, "convShortcut"))
                inside = width
            setattr(self, f"block{group + 1}", Group(*made))
        self.bn1, self.fc = nn.BatchNorm2d(inside), nn.Linear(inside, classes)

    def forward(self, x):
        x = self.bn1(self.block3(self.block2(self.block1(self.conv1(x))))).relu()
        return self.fc(x.mean((2, 3)))


def vgg16(classes, filters, norm, cifar):
    """torchvision's VGG-16; with `cifar`, kuangliu's head."""
    layers, inside = [], 3
    for block, count in enumerate((2, 2, 3, 3, 3)):
        for _ in range(count):
            width = filters * min(2**block, 8)
            layers += [
                conv(inside, width, bias=True),
                *([nn.BatchNorm2d(width)] if norm else []),
                nn.ReLU(),
            ]
            inside = width
        layers.append(nn.MaxPool2d(2))
    wide = 64 * filters
    net = nn.Sequential()
    net.add_module("features", nn.Sequential(*layers))
    net.add_module("avgpool", nn.AdaptiveAvgPool2d(1 if cifar else 7))
    net.add_module("flatten", nn.Flatten())
    head = nn.Linear(inside, classes)
    if not cifar:
        hidden = [nn.Linear(49 * inside, wide), nn.ReLU(), nn.Dropout(), nn.Linear(wide, wide)]
        head = nn.Sequential(*hidden, nn.ReLU(), nn.Dropout(), nn.Linear(wide, classes))
    net.add_module("classifier", head)
    return net


def filled(net):
    """The module in evaluation mode, with weights by the recipe."""
    state = {
        name: torch.from_numpy(recipe.weight(name, tuple(value.shape))) if value.ndim else value
        for name, value in net.state_dict().items()
    }
    net.load_state_dict(state)
    return net.eval()


def logits(net, images):
    """Of images [B,h,w,3]."""
    with torch.no_grad():
        return net(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()


if __name__ == "__main__":
    arrays = {
        f"{name}_{height}x{width}": logits(filled(ResNet(name, 1000)), recipe.image(height, width))
        for name, height, width in SIZES
    }
    # A port of the authors' TensorFlow code, on PyPI. Without an image size its padding follows the input.
    from efficientnet_lite_pytorch import EfficientNet

    net = filled(EfficientNet.from_name("efficientnet-lite0", image_size=None))
    arrays["efficientnet_lite0_129x98"] = logits(net, recipe.image(129, 98))
    folder = pathlib.Path(__file__).parent / "data"
    np.savez_compressed(folder / "torch_logits.npz", **arrays)
    x = recipe.image(64, 48)
    arrays = {name: logits(lookalike(name), x) for name in LOOKALIKES}
    np.savez_compressed(folder / "torch_lookalikes.npz", **arrays)
