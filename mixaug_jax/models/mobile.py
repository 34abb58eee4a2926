"""MobileNet-V2 (Sandler et al. 2018, 1801.04381) and EfficientNet (Tan and Le 2019, 1905.11946) with torchvision's names.

Both are rows of mobile inverted bottlenecks: 1x1 to more filters, depthwise, 1x1 back without an activation. Padding is
symmetric, as in PyTorch's code and not in TensorFlow's.
"""

import dataclasses
import math
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from mixaug_jax.models.convolution import Window
from mixaug_jax.models.layers import StagedModel
from mixaug_jax.models.sizes import rounded


class Group(NamedTuple):
    """Blocks of one kind, of which the first has the stride: size of the depthwise kernel, factor of the first 1x1."""

    size: int
    stride: int
    expand: int
    filters: int
    blocks: int


MOBILE = (
    *(Group(3, 1, 1, 16, 1), Group(3, 2, 6, 24, 2), Group(3, 2, 6, 32, 3), Group(3, 2, 6, 64, 4)),
    *(Group(3, 1, 6, 96, 3), Group(3, 2, 6, 160, 3), Group(3, 1, 6, 320, 1)),
)
EFFICIENT = (
    *(Group(3, 1, 1, 16, 1), Group(3, 2, 6, 24, 2), Group(5, 2, 6, 40, 2), Group(3, 2, 6, 80, 3)),
    *(Group(5, 1, 6, 112, 3), Group(5, 2, 6, 192, 4), Group(3, 1, 6, 320, 1)),
)
STEM = 32
# Width and depth coefficients, dropout, and the side and short side of torchvision's images, of B0 to B4.
COEFFICIENTS = (
    (1.0, 1.0, 0.2, 224, 256),
    (1.0, 1.1, 0.2, 240, 256),
    (1.1, 1.2, 0.3, 288, 288),
    (1.2, 1.4, 0.3, 300, 320),
    (1.4, 1.8, 0.4, 380, 384),
)


def scaled(variant: int) -> tuple[tuple[Group, ...], int]:
    """The groups of EfficientNet-B0 to 4, and the filters of its stem."""
    wide, deep = COEFFICIENTS[variant][:2]
    groups = [
        g._replace(filters=rounded(g.filters * wide), blocks=math.ceil(g.blocks * deep))
        for g in EFFICIENT
    ]
    return tuple(groups), rounded(STEM * wide)


class InvertedBottlenecks(StagedModel):
    """What both are.

    Layers: stem, block1, block2, ... (groups of blocks; each ends in a convolution or a residual sum, with no activation after
    it), head (after its activation, before the pool), fc.

    Attributes:
      num_classes: K.
      groups: of blocks.
      stem_filters, head_filters: of the first and last convolution.
      dropout: rate before the dense layer.
      stem: "imagenet" (stride 2) or "cifar" (stride 1).
      drop_path_rate: stochastic depth; the last block's would be this, the first one's is 0.
    """

    hidden_layers: ClassVar = ("block1", "block2")
    unseen: ClassVar = ("epsilon",)

    num_classes: int
    groups: tuple[tuple[int, ...], ...]
    stem_filters: int
    head_filters: int
    dropout: float
    stem: str
    drop_path_rate: float = 0.0

    @property
    def layers(self) -> tuple[str, ...]:
        return ("stem", *(f"block{i + 1}" for i in range(len(self.groups))), "head", "fc")

    def run(self, layer: str, x: jax.Array, train: bool) -> jax.Array:
        if layer == "stem":
            stride = 2 if self.stem == "imagenet" else 1
            return self._unit("features.0", x, (self.stem_filters, 3, stride, 1), train)
        if layer == "head":
            return self._unit(self._head_name(), x, (self.head_filters, 1, 1, 1), train)
        if layer == "fc":
            x = self.global_average("avgpool", x)
            x = nn.Dropout(self.dropout, name="dropout")(x, deterministic=not train)
            return self.dense("classifier.1", x, self.num_classes, jnp.float32)
        group = int(layer.removeprefix("block")) - 1
        size, stride, expand, filters, blocks = self.groups[group]
        for i in range(blocks):
            # A group's stride is its first block's alone.
            shape = (size, stride if i == 0 else 1, expand, filters)

            def block(model: Any, x: jax.Array, i: int = i, shape: tuple = shape):
                return model._block(group, i, x, shape, train)

            x = self.block(block, x)
        return x

    def _block(self, group, i, x, shape, train):
        size, stride, expand, filters = shape
        name, y = self._block_name(group, i), x
        names = self._parts(name, expand)
        if expand > 1:
            y = self._unit(names["expand"], y, (expand * x.shape[-1], 1, 1, 1), train)
        y = self._unit(names["depthwise"], y, (y.shape[-1], size, stride, y.shape[-1]), train)
        y = self._gate(names.get("squeeze", ""), y, max(1, x.shape[-1] // 4))
        conv, norm = names["project"]
        y = self.conv(conv, y, filters, 1, norm=norm, train=train)
        if stride > 1 or x.shape[-1] != filters:
            return y
        before = sum(row[4] for row in self.groups[:group]) + i
        rate = self.drop_path_rate * before / sum(row[4] for row in self.groups)
        return self.residual(f"{name}.add", self.drop_path(f"{name}.drop", y, rate, train), x)

    def _unit(self, name, x, shape, train):
        """A convolution of (filters, size, stride, groups), its norm and the activation."""
        filters, size, stride, groups = shape
        norm = f"{name}.1"
        window = Window(size, stride, groups=groups)
        x = self.windowed(f"{name}.0", x, filters, window, norm=norm, train=train)
        return self._activation(f"{name}.2.relu", x)

    def _gate(self, name, x, filters):
        return x


class MobileNetV2(InvertedBottlenecks):
    """MobileNet-V2; see `InvertedBottlenecks`."""

    def _head_name(self):
        return f"features.{1 + sum(row[4] for row in self.groups)}"

    def _block_name(self, group, i):
        return f"features.{1 + sum(row[4] for row in self.groups[:group]) + i}.conv"

    def _parts(self, name, expand):
        first = int(expand > 1)
        project = (f"{name}.{first + 1}", f"{name}.{first + 2}")
        return {"expand": f"{name}.0", "depthwise": f"{name}.{first}", "project": project}

    def _activation(self, name, x):
        """ReLU6; under a rule as y - relu(y - 6) of y = relu(x), the second ReLU's name ending in "cut"."""
        y = self.relu(name, x)
        return jnp.minimum(y, 6) if self.act is None else y - self.act(f"{name}.cut", y - 6)


class EfficientNet(InvertedBottlenecks):
    """EfficientNet-B0 to 4, with squeeze-and-excitation and SiLUs; see `InvertedBottlenecks`."""

    no_affine: ClassVar = "has gates (squeeze-and-excitation)"
    smooth: ClassVar = "SiLUs"

    drop_path_rate: float = dataclasses.field(default=0.2, kw_only=True)

    def _head_name(self):
        return f"features.{1 + len(self.groups)}"

    def _block_name(self, group, i):
        return f"features.{group + 1}.{i}.block"

    def _parts(self, name, expand):
        first = int(expand > 1)
        last = f"{name}.{first + 2}"
        return {
            "expand": f"{name}.0",
            "depthwise": f"{name}.{first}",
            "squeeze": f"{name}.{first + 1}",
            "project": (f"{last}.0", f"{last}.1"),
        }

    def _activation(self, name, x):
        return nn.silu(x)

    def _gate(self, name, x, filters):
        means = x.astype(jnp.float32).mean((1, 2), keepdims=True).astype(self.dtype)
        gate = nn.silu(self.conv(f"{name}.fc1", means, filters, 1, bias=True))
        return x * nn.sigmoid(self.conv(f"{name}.fc2", gate, x.shape[-1], 1, bias=True))
