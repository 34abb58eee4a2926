"""Residual networks with torchvision's names and paddings (He et al. 2015, 1512.03385).

The bottleneck's stride is in its 3x3 convolution ("v1.5"), as in torchvision and in the CutMix and SaliencyMix releases,
not in the first 1x1 as in the paper; other people's weights may need that one, or further fields that no weights tell.
Padding is symmetric, which "SAME" is not at stride 2.

Its kin differ in a few places: ResNeXt (Xie et al. 2016, 1611.05431) and Wide ResNet (Zagoruyko and Komodakis 2016, 1605.07146)
in the 3x3 convolution of a bottleneck, ResNet-D (He et al. 2018, 1812.01187) in stem and shortcuts, SE-ResNet (Hu et al. 2017,
1709.01507) in a gate before each sum. The names of the last two are timm's.
"""

from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from mixaug_jax.models.convolution import Window
from mixaug_jax.models.layers import STEMS, StagedModel


class ResNet(StagedModel):
    """ResNet-18 to 152 and their kin.

    Layers: conv1 (after its ReLU, before the max pool), layer1, layer2, layer3, layer4, fc.

    Attributes:
      num_classes: K.
      blocks: residual blocks in each of the four layers.
      bottleneck: 1x1, 3x3, 1x1 blocks with four times the filters, instead of two 3x3.
      filters: of conv1 and layer1; each further layer has twice as many.
      stem: "imagenet" (7x7 stride 2 and a max pool), "cifar" (3x3 stride 1, no pool) or "strided" (3x3 stride 2, no pool).
      stem_pool: "auto" (as the stem says), "max" or "none".
      last_stride: of layer4, 2 or 1.
      dilation: of layer4, where the strides of the last layers are replaced by dilation: 1 for none, 2 for layer4's, 4 for
        layer3's too, 8 for layer2's too. The first block of a layer keeps the dilation of the layer before, as in torchvision.
      stride_in: "conv2" or "conv1", the convolution of a bottleneck that has its stride.
      groups: of the 3x3 convolution of a bottleneck.
      group_width: its filters in each group, where the layer has 64 filters.
      deep: a stem of three 3x3 convolutions, and shortcuts that average 2x2 pixels where they halve the side.
      gates: squeeze-and-excitation, before each sum.
    """

    layers: ClassVar = ("conv1", "layer1", "layer2", "layer3", "layer4", "fc")
    # As in the authors' code for CIFAR, besides the input itself.
    hidden_layers: ClassVar = ("layer1", "layer2")
    unseen: ClassVar = (
        *("stem_pool", "last_stride", "dilation", "stride_in"),
        *StagedModel.unseen,
    )

    num_classes: int
    blocks: tuple[int, int, int, int]
    bottleneck: bool
    filters: int
    stem: str
    stem_pool: str = "auto"
    last_stride: int = 2
    dilation: int = 1
    stride_in: str = "conv2"
    groups: int = 1
    group_width: int = 64
    deep: bool = False
    gates: bool = False

    @property
    def no_affine(self) -> str:
        return "has gates (squeeze-and-excitation)" if self.gates else ""

    def run(self, layer: str, x: jax.Array, train: bool) -> jax.Array:
        if layer == "conv1" and self.deep:
            return self._deep_stem(x, train)
        if layer == "conv1":
            x = self.conv("conv1", x, self.filters, *STEMS[self.stem], norm="bn1", train=train)
            return self.relu("relu", x)
        if layer == "fc":
            x = self.global_average("avgpool", x)
            return self.dense("fc", x, self.num_classes, jnp.float32)
        pooled = self.stem == "imagenet" if self.stem_pool == "auto" else self.stem_pool == "max"
        if layer == "layer1" and pooled:
            x = self.max_pool("maxpool", x, 3, 2, padding=1)
        depth = self.layers.index(layer) - 1
        step, *dilations = self._geometry(depth)
        residual = ResNet._bottleneck if self.bottleneck else ResNet._basic
        for i in range(self.blocks[depth]):
            # The stride is the first block's alone; the others have the layer's own dilation.
            steps = (step, *dilations) if i == 0 else (1, dilations[1], dilations[1])

            def block(model: Any, x: jax.Array, name: str = f"{layer}.{i}", steps: tuple = steps):
                return residual(model, name, x, self.filters * 2**depth, steps, train)

            x = self.block(block, x)
        return x

    def _geometry(self, depth):
        """A layer's stride, the dilation of its first block's first wide convolution, and that of all others."""
        before, here = (max(1, self.dilation // 2 ** (3 - d)) for d in (depth - 1, depth))
        stride = 1 if depth == 0 else self.last_stride if depth == 3 else 2
        return 1 if here > before else stride, before, here

    def _basic(self, name, x, filters, steps, train):
        stride, first, dilation = steps
        norms = (f"{name}.bn1", f"{name}.bn2")
        x, shortcut = self.branch(f"{name}.fork", x)
        shortcut = self._shortcut(name, shortcut, filters, stride, train)
        x = self._wide(f"{name}.conv1", x, filters, (stride, first), norms[0], train)
        x = self.relu(f"{name}.relu1", x)
        x = self._wide(f"{name}.conv2", x, filters, (1, dilation), norms[1], train)
        x = self._gate(f"{name}.se", x)
        return self.relu(f"{name}.relu2", self.residual(f"{name}.add", x, shortcut))

    def _bottleneck(self, name, x, filters, steps, train):
        stride, first, _ = steps
        early, late = (stride, 1) if self.stride_in == "conv1" else (1, stride)
        inner = filters * self.group_width // 64 * self.groups
        x, shortcut = self.branch(f"{name}.fork", x)
        shortcut = self._shortcut(name, shortcut, 4 * filters, stride, train)
        x = self.conv(f"{name}.conv1", x, inner, 1, early, norm=f"{name}.bn1", train=train)
        x = self.relu(f"{name}.relu1", x)
        x = self._wide(f"{name}.conv2", x, inner, (late, first), f"{name}.bn2", train)
        x = self.relu(f"{name}.relu2", x)
        x = self.conv(f"{name}.conv3", x, 4 * filters, 1, norm=f"{name}.bn3", train=train)
        x = self._gate(f"{name}.se", x)
        return self.relu(f"{name}.relu3", self.residual(f"{name}.add", x, shortcut))

    def _wide(self, name, x, filters, steps, norm, train):
        """A 3x3 convolution of (stride, dilation), of which one is 1: a layer that is dilated has given up its stride."""
        stride, dilation = steps
        if dilation > 1:
            return self.dilated(name, x, filters, dilation, norm=norm, train=train)
        window = Window(3, stride, groups=self.groups)
        return self.windowed(name, x, filters, window, norm=norm, train=train)

    def _shortcut(self, name, x, filters, stride, train):
        if stride == 1 and x.shape[-1] == filters:
            return x
        name = f"{name}.downsample"
        if self.deep:
            if stride > 1:
                x = halved(x) if self.pool is None else self.pool(f"{name}.avgpool", halved, x)
            return self.conv(f"{name}.1", x, filters, 1, norm=f"{name}.2", train=train)
        return self.conv(f"{name}.0", x, filters, 1, stride, norm=f"{name}.1", train=train)

    def _deep_stem(self, x, train):
        stride, half = STEMS[self.stem][1], max(1, self.filters // 2)
        x = self.conv("conv1.0", x, half, 3, stride, norm="conv1.1", train=train)
        x = self.conv("conv1.3", self.relu("conv1.2.relu", x), half, 3, norm="conv1.4", train=train)
        x = self.relu("conv1.5.relu", x)
        return self.relu("relu", self.conv("conv1.6", x, self.filters, 3, norm="bn1", train=train))

    def _gate(self, name, x):
        """x [B,h,w,C] times a number for each channel, found from the channels' means."""
        if not self.gates:
            return x
        means = x.astype(jnp.float32).mean((1, 2), keepdims=True).astype(self.dtype)
        # A sixteenth of the channels, in eights.
        few = max(8, int(x.shape[-1] / 16 + 4) // 8 * 8)
        y = self.relu(f"{name}.relu", self.conv(f"{name}.fc1", means, few, 1, bias=True))
        return x * nn.sigmoid(self.conv(f"{name}.fc2", y, x.shape[-1], 1, bias=True))


def halved(x: jax.Array) -> jax.Array:
    """Means of 2x2 pixels; where the side is odd, the last one's of what is there."""
    odd = [(0, n % 2) for n in x.shape[1:3]]
    return nn.avg_pool(x, (2, 2), (2, 2), odd, count_include_pad=False)
