"""The networks once more in PyTorch's functional form, reading our variables by their layers' names."""

import torch
import torch.nn.functional as F  # noqa: N812, its customary name


class Layers:
    """PyTorch's layers on variables of ours; the batch is [B,C,h,w]."""

    def __init__(self, variables):
        self.params = variables["params"]
        self.stats = variables.get("batch_stats", {})

    def get(self, name, key, collection="params"):
        return torch.tensor(getattr(self, collection)[name][key].__array__())

    def conv(self, x, name, stride=1):
        kernel = self.get(name, "kernel").permute(3, 2, 0, 1)
        bias = self.get(name, "bias") if "bias" in self.params[name] else None
        return F.conv2d(x, kernel, bias, stride, kernel.shape[-1] // 2)

    def norm(self, x, name):
        mean, var = self.get(name, "mean", "stats"), self.get(name, "var", "stats")
        return F.batch_norm(x, mean, var, self.get(name, "scale"), self.get(name, "bias"))

    def dense(self, x, name):
        return F.linear(x, self.get(name, "kernel").T, self.get(name, "bias"))

    def head(self, x, name):
        """[B,C,h,w] or [B,C] -> logits as a numpy array."""
        return self.dense(x.mean((2, 3)) if x.ndim == 4 else x, name).numpy()


def resnet(variables, x, blocks, stem="imagenet"):
    """torchvision's ResNet, basic blocks or bottlenecks by what the variables hold."""
    net = Layers(variables)
    x = F.relu(net.norm(net.conv(x, "conv1", 2 if stem == "imagenet" else 1), "bn1"))
    if stem == "imagenet":
        x = F.max_pool2d(x, 3, 2, 1)
    for layer, count in enumerate(blocks, 1):
        for i in range(count):
            name = f"layer{layer}.{i}"
            stride = 2 if layer > 1 and i == 0 else 1
            bottleneck = f"{name}.conv3" in net.params
            y = F.relu(
                net.norm(net.conv(x, f"{name}.conv1", 1 if bottleneck else stride), f"{name}.bn1")
            )
            y = net.norm(net.conv(y, f"{name}.conv2", stride if bottleneck else 1), f"{name}.bn2")
            if bottleneck:
                y = net.norm(net.conv(F.relu(y), f"{name}.conv3"), f"{name}.bn3")
            if f"{name}.downsample.0" in net.params:
                x = net.norm(net.conv(x, f"{name}.downsample.0", stride), f"{name}.downsample.1")
            x = F.relu(x + y)
    return net.head(x, "fc")


def preact_resnet(variables, x):
    net = Layers(variables)
    x = net.conv(x, "conv1")
    for layer in range(1, 5):
        for i in range(2):
            x = preact_block(
                net, x, f"layer{layer}.{i}", 2 if layer > 1 and i == 0 else 1, "shortcut.0"
            )
    return net.head(x, "linear")


def wide_resnet(variables, x):
    """With one block in each group."""
    net = Layers(variables)
    x = net.conv(x, "conv1")
    for group in range(1, 4):
        x = preact_block(net, x, f"block{group}.layer.0", 1 if group == 1 else 2, "convShortcut")
    return net.head(F.relu(net.norm(x, "bn1")), "fc")


def preact_block(net, x, name, stride, shortcut):
    y = F.relu(net.norm(x, f"{name}.bn1"))
    if f"{name}.{shortcut}" in net.params:
        x = net.conv(y, f"{name}.{shortcut}", stride)
    y = F.relu(net.norm(net.conv(y, f"{name}.conv1", stride), f"{name}.bn2"))
    return net.conv(y, f"{name}.conv2") + x


def vgg(variables, x):
    """torchvision's VGG-16 by walking its `features` row; a missing number is a ReLU or a pool."""
    net = Layers(variables)
    batch_norm = bool(net.stats)
    index = 0
    for convs in (2, 2, 3, 3, 3):
        for _ in range(convs):
            x = net.conv(x, f"features.{index}")
            if batch_norm:
                x = net.norm(x, f"features.{index + 1}")
            x = F.relu(x)
            index += 3 if batch_norm else 2
        x = F.max_pool2d(x, 2, 2)
        index += 1
    if "classifier" in net.params:
        return net.head(x, "classifier")
    x = F.adaptive_avg_pool2d(x, 7).flatten(1)
    x = F.relu(net.dense(x, "classifier.0"))
    return net.head(F.relu(net.dense(x, "classifier.3")), "classifier.6")
