"""Residual networks that normalize before they convolve: PreAct-ResNet (He et al. 2016, 1603.05027) and WideResNet
(Zagoruyko and Komodakis 2016, 1605.07146).

Names and arithmetic are those of the PyTorch code behind the published CIFAR tables of Mixup, Manifold Mixup and Cutout. Having
no norm after their convolutions, they refuse an affine rule.
"""

from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from mixaug_jax.models.layers import STEMS, StagedModel


class PreActResNet(StagedModel):
    """PreAct-ResNet-18. As in the code of the tables, and not the paper, no norm and ReLU precede the global pool.

    Layers: conv1, layer1, layer2, layer3, layer4 (each the residual sum, with no activation after it), fc.

    Attributes:
      num_classes: K.
      filters: of conv1 and layer1; each further layer has twice as many.
      stem: "cifar" (3x3 stride 1, as published) or "imagenet" (7x7 stride 2 and a max pool).
    """

    layers: ClassVar = ("conv1", "layer1", "layer2", "layer3", "layer4", "fc")
    hidden_layers: ClassVar = ("layer1", "layer2")
    merges_norm: ClassVar = False

    num_classes: int
    filters: int
    stem: str

    def run(self, layer: str, x: jax.Array, train: bool) -> jax.Array:
        if layer == "conv1":
            return self.conv("conv1", x, self.filters, *STEMS[self.stem])
        if layer == "fc":
            return self.dense(
                "linear", self.global_average("avgpool", x), self.num_classes, jnp.float32
            )
        if layer == "layer1" and self.stem == "imagenet":
            x = self.max_pool("maxpool", x, 3, 2, padding=1)
        depth = self.layers.index(layer) - 1
        for i in range(2):
            stride = 2 if depth > 0 and i == 0 else 1

            def block(model: Any, x: jax.Array, name: str = f"{layer}.{i}", stride: int = stride):
                return model._block(name, x, model.filters * 2**depth, stride, train)

            x = self.block(block, x)
        return x

    def _block(self, name, x, filters, stride, train):
        y = self.relu(f"{name}.relu1", self.norm(f"{name}.bn1", x, train))
        # A projected shortcut starts after the first norm and ReLU, an identity one before them.
        if stride > 1 or x.shape[-1] != filters:
            x = self.conv(f"{name}.shortcut.0", y, filters, 1, stride)
        y = self.conv(f"{name}.conv1", y, filters, 3, stride)
        y = self.relu(f"{name}.relu2", self.norm(f"{name}.bn2", y, train))
        y = self.conv(f"{name}.conv2", y, filters, 3)
        return self.residual(f"{name}.add", y, x)


class WideResNet(StagedModel):
    """WideResNet-(6n+4)-k.

    Layers: conv1, block1, block2 (each the residual sum, with no activation after it), block3 (after the last norm and ReLU,
    before the pool), fc.

    Attributes:
      num_classes: K.
      blocks: residual blocks n in each of the three groups.
      filters: of block1, 16 k; block2 has twice and block3 four times as many.
      stem_filters: of conv1.
      dropout: rate between a block's two convolutions; 0.3 is Cutout's setting for CIFAR.
      stem: "cifar" (3x3 stride 1, as published) or "imagenet" (7x7 stride 2 and a max pool).
    """

    layers: ClassVar = ("conv1", "block1", "block2", "block3", "fc")
    hidden_layers: ClassVar = ("block1", "block2")
    merges_norm: ClassVar = False

    num_classes: int
    blocks: int
    filters: int
    stem_filters: int
    dropout: float
    stem: str

    def run(self, layer: str, x: jax.Array, train: bool) -> jax.Array:
        if layer == "conv1":
            return self.conv("conv1", x, self.stem_filters, *STEMS[self.stem])
        if layer == "fc":
            return self.dense(
                "fc", self.global_average("avgpool", x), self.num_classes, jnp.float32
            )
        if layer == "block1" and self.stem == "imagenet":
            x = self.max_pool("maxpool", x, 3, 2, padding=1)
        group = self.layers.index(layer) - 1
        for i in range(self.blocks):
            stride = 2 if group > 0 and i == 0 else 1

            def block(
                model: Any, x: jax.Array, name: str = f"{layer}.layer.{i}", stride: int = stride
            ):
                return model._block(name, x, model.filters * 2**group, stride, train)

            x = self.block(block, x)
        # Blocks end with a sum; the last one's is read after the norm that a next block would begin with.
        return self.relu("relu", self.norm("bn1", x, train)) if layer == "block3" else x

    def _block(self, name, x, filters, stride, train):
        y = self.relu(f"{name}.relu1", self.norm(f"{name}.bn1", x, train))
        if x.shape[-1] != filters:
            x = self.conv(f"{name}.convShortcut", y, filters, 1, stride)
        y = self.conv(f"{name}.conv1", y, filters, 3, stride)
        y = self.relu(f"{name}.relu2", self.norm(f"{name}.bn2", y, train))
        y = nn.Dropout(self.dropout, name=f"{name}.dropout")(y, deterministic=not train)
        y = self.conv(f"{name}.conv2", y, filters, 3)
        return self.residual(f"{name}.add", y, x)
