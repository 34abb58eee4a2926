"""The networks as PyTorch modules with the names of the published code; run as a script, it writes data/torch_logits.npz."""

import pathlib

import numpy as np
import recipe
import torch
from torch import nn

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
            y = y.relu() if i < self.count else y
        return (y + getattr(self, self.side)(x)).relu()


class ResNet(nn.Module):
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
        x = self.pool(self.bn1(self.conv1(x)).relu())
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return getattr(self, self.last)(x.mean((2, 3)))


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
    np.savez_compressed(pathlib.Path(__file__).parent / "data/torch_logits.npz", **arrays)
