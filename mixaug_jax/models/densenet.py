"""DenseNet (Huang et al. 2016, 1608.06993) with torchvision's names. It normalizes before it convolves."""

from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from mixaug_jax.models.layers import STEMS, StagedModel


class DenseNet(StagedModel):
    """DenseNet-121, 161 and 169.

    Layers: conv0 (after its ReLU, before the max pool), denseblock1 to denseblock4 (all that its layers give, side by side),
    norm5 (after its ReLU), fc.

    Attributes:
      num_classes: K.
      blocks: layers in each of the four blocks.
      growth: filters that each layer adds.
      filters: of the first convolution.
      stem: "imagenet" (7x7, stride 2 and a max pool) or "cifar" (3x3, stride 1, no pool).
      neck: a layer's first convolution has so many times the filters that it adds.
    """

    layers: ClassVar = ("conv0", *(f"denseblock{i}" for i in range(1, 5)), "norm5", "fc")
    hidden_layers: ClassVar = ("denseblock1", "denseblock2")
    merges_norm: ClassVar = False

    num_classes: int
    blocks: tuple[int, int, int, int]
    growth: int
    filters: int
    stem: str
    neck: int = 4

    def run(self, layer: str, x: jax.Array, train: bool) -> jax.Array:
        if layer == "conv0":
            x = self.conv("features.conv0", x, self.filters, *STEMS[self.stem])
            return self._normed("features.norm0", x, train)
        if layer == "norm5":
            return self._normed("features.norm5", x, train)
        if layer == "fc":
            x = self.global_average("avgpool", x)
            return self.dense("classifier", x, self.num_classes, jnp.float32)
        number = int(layer[-1])
        # What lies between two blocks belongs to the later one, so that a layer is a block's own output.
        if number > 1:
            x = self._transition(f"features.transition{number - 1}", x, train)
        elif self.stem == "imagenet":
            x = self.max_pool("maxpool", x, 3, 2, padding=1)
        for i in range(self.blocks[number - 1]):
            name = f"features.{layer}.denselayer{i + 1}"

            def block(model: Any, x: jax.Array, name: str = name):
                return model._layer(name, x, train)

            x = self.block(block, x)
        return x

    def _layer(self, name, x, train):
        y = self._normed(f"{name}.norm1", x, train)
        y = self.conv(f"{name}.conv1", y, self.neck * self.growth, 1)
        y = self.conv(f"{name}.conv2", self._normed(f"{name}.norm2", y, train), self.growth, 3)
        return jnp.concatenate([x, y], -1)

    def _transition(self, name, x, train):
        x = self._normed(f"{name}.norm", x, train)
        x = self.conv(f"{name}.conv", x, x.shape[-1] // 2, 1)
        return halved(x) if self.pool is None else self.pool(f"{name}.avgpool", halved, x)

    def _normed(self, name, x, train):
        return self.relu(f"{name}.relu", self.norm(name, x, train))


def halved(x: jax.Array) -> jax.Array:
    """Means of 2x2 pixels; an odd last row or column is left out."""
    return nn.avg_pool(x, (2, 2), (2, 2))
