"""Residual networks with torchvision's names and paddings (He et al. 2015, 1512.03385).

The bottleneck's stride is in its 3x3 convolution ("v1.5"), as in torchvision and in the CutMix and SaliencyMix releases,
not in the first 1x1 as in the paper; other people's weights may need that one, or further fields that no weights tell.
Padding is symmetric, which "SAME" is not at stride 2.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from mixaug_jax.models.layers import STEMS, StagedModel


class ResNet(StagedModel):
    """ResNet-18 to 152.

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

    def run(self, layer: str, x: jax.Array, train: bool) -> jax.Array:
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
        return self.relu(f"{name}.relu2", self.residual(f"{name}.add", x, shortcut))

    def _bottleneck(self, name, x, filters, steps, train):
        stride, first, _ = steps
        early, late = (stride, 1) if self.stride_in == "conv1" else (1, stride)
        x, shortcut = self.branch(f"{name}.fork", x)
        shortcut = self._shortcut(name, shortcut, 4 * filters, stride, train)
        x = self.conv(f"{name}.conv1", x, filters, 1, early, norm=f"{name}.bn1", train=train)
        x = self.relu(f"{name}.relu1", x)
        x = self._wide(f"{name}.conv2", x, filters, (late, first), f"{name}.bn2", train)
        x = self.relu(f"{name}.relu2", x)
        x = self.conv(f"{name}.conv3", x, 4 * filters, 1, norm=f"{name}.bn3", train=train)
        return self.relu(f"{name}.relu3", self.residual(f"{name}.add", x, shortcut))

    def _wide(self, name, x, filters, steps, norm, train):
        """A 3x3 convolution of (stride, dilation), of which one is 1: a layer that is dilated has given up its stride."""
        stride, dilation = steps
        if dilation > 1:
            return self.dilated(name, x, filters, dilation, norm=norm, train=train)
        return self.conv(name, x, filters, 3, stride, norm=norm, train=train)

    def _shortcut(self, name, x, filters, stride, train):
        if stride == 1 and x.shape[-1] == filters:
            return x
        name = f"{name}.downsample"
        return self.conv(f"{name}.0", x, filters, 1, stride, norm=f"{name}.1", train=train)
