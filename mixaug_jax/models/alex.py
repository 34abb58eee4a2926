"""AlexNet as torchvision has it (Krizhevsky 2014, 1404.5997), with its names."""

import functools
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from mixaug_jax.models.convolution import Window
from mixaug_jax.models.layers import StagedModel
from mixaug_jax.models.vgg import grid_average

# Of the five convolutions: its number in torchvision's row, filters by those of the first, size, stride and padding.
CONVS = ((0, 1, 11, 4, 2), (3, 3, 5, 1, 2), (6, 6, 3, 1, 1), (8, 4, 3, 1, 1), (10, 4, 3, 1, 1))
POOLED = (1, 2)  # the convolutions after which a max pool comes, and the fifth
GRID = 6


class AlexNet(StagedModel):
    """Layers: conv1 to conv5 (after their ReLUs, before a max pool), fc6, fc7 (after theirs), fc8. It needs 63 pixels a side.

    Attributes:
      num_classes: K.
      filters: of conv1.
    """

    layers: ClassVar = (*(f"conv{i}" for i in range(1, 6)), "fc6", "fc7", "fc8")
    hidden_layers: ClassVar = ("conv1", "conv2")
    unseen: ClassVar = ("slope",)

    num_classes: int
    filters: int

    def run(self, layer: str, x: jax.Array, train: bool) -> jax.Array:
        number = int(layer[-1])
        if layer.startswith("conv"):
            if number - 1 in POOLED:
                x = self.max_pool(f"maxpool{number - 1}", x, 3, 2)
            place, times, size, stride, padding = CONVS[number - 1]
            name = f"features.{place}"
            window = Window(size, stride, bias=True, padding=padding)
            x = self.windowed(name, x, times * self.filters, window)
            return self.relu(f"features.{place + 1}", x)
        hidden = 64 * self.filters
        if layer == "fc6":
            x = self._grid(self.max_pool("maxpool5", x, 3, 2))
            # Channels first, as PyTorch flattens them.
            x = jnp.transpose(x, (0, 3, 1, 2)).reshape(len(x), -1)
        if layer != "fc8":
            x = nn.Dropout(0.5, name=f"dropout{number}")(x, deterministic=not train)
            name = "classifier.1" if layer == "fc6" else "classifier.4"
            return self.relu(f"relu{number}", self.dense(name, x, hidden))
        return self.dense("classifier.6", x, self.num_classes, jnp.float32)

    def _grid(self, x):
        average = functools.partial(grid_average, cells=GRID)
        return average(x) if self.pool is None else self.pool("avgpool", average, x)
