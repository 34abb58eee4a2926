"""VGG-16 (Simonyan and Zisserman 2014, 1409.1556, configuration D) with torchvision's names."""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mixaug_jax.models.layers import StagedModel

CONVS = (2, 2, 3, 3, 3)  # in each of the five blocks
GRID = 7  # the classifier of the "imagenet" stem sees 7 x 7 pixels, whatever the image's size


class VGG(StagedModel):
    """VGG-16, with or without batch norm.

    Layers: conv1 to conv5 (a block of convolutions, after its last ReLU and before its max pool), then, with the "imagenet"
    stem, fc6, fc7 (after their ReLUs) and fc8, or with the "cifar" stem only fc.

    Attributes:
      num_classes: K.
      filters: of the first block; the following have 2, 4, 8 and 8 times as many.
      batch_norm: a batch norm after every convolution.
      stem: "imagenet" (adaptive average pool to 7 x 7, two hidden dense layers with dropout 0.5) or "cifar" (global average
        and one dense layer, as CIFAR code does for 32 px).
    """

    hidden_layers: ClassVar = ("conv1", "conv2")

    num_classes: int
    filters: int
    batch_norm: bool
    stem: str

    @property
    def unseen(self) -> tuple[str, ...]:
        return ("epsilon", "slope") if self.batch_norm else ("slope",)

    @property
    def layers(self) -> tuple[str, ...]:
        head = ("fc6", "fc7", "fc8") if self.stem == "imagenet" else ("fc",)
        return ("conv1", "conv2", "conv3", "conv4", "conv5", *head)

    def run(self, layer: str, x: jax.Array, train: bool) -> jax.Array:
        if layer.startswith("conv"):
            number = int(layer[-1])
            x = x if number == 1 else self.max_pool(f"maxpool{number - 1}", x, 2, 2)
            return self.block(lambda model, x: model._convolutions(number - 1, x, train), x)
        if layer == "fc":
            x = self.global_average("avgpool", self.max_pool("maxpool5", x, 2, 2))
            return self.dense("classifier", x, self.num_classes, jnp.float32)
        if layer == "fc6":
            x = self._grid_average("avgpool", self.max_pool("maxpool5", x, 2, 2))
            # Channels first, as PyTorch flattens them, so that its weights fit as they are.
            x = jnp.transpose(x, (0, 3, 1, 2)).reshape(len(x), -1)
            return self.relu("relu6", self.dense("classifier.0", x, 64 * self.filters))
        x = nn.Dropout(0.5, name=f"dropout{layer[-1]}")(x, deterministic=not train)
        if layer == "fc7":
            return self.relu("relu7", self.dense("classifier.3", x, 64 * self.filters))
        return self.dense("classifier.6", x, self.num_classes, jnp.float32)

    def _convolutions(self, block: int, x, train):
        # torchvision numbers convolutions, norms, ReLUs and pools in one row.
        step = 3 if self.batch_norm else 2
        index = step * sum(CONVS[:block]) + block
        for i in range(index, index + step * CONVS[block], step):
            norm = f"features.{i + 1}" if self.batch_norm else ""
            filters = self.filters * min(2**block, 8)
            x = self.conv(f"features.{i}", x, filters, 3, norm=norm, bias=True, train=train)
            x = self.relu(f"features.{i + step - 1}", x)
        return x

    def _grid_average(self, name, x):
        return grid_average(x) if self.pool is None else self.pool(name, grid_average, x)


def grid_average(x: jax.Array) -> jax.Array:
    """PyTorch's adaptive average pool [B,h,w,C] -> [B,7,7,C]: cell i averages rows floor(i h / 7) to ceil((i + 1) h / 7)."""
    rows, cols = averaging_matrix(x.shape[1], GRID), averaging_matrix(x.shape[2], GRID)
    return jnp.einsum("ih,bhwc,jw->bijc", rows.astype(x.dtype), x, cols.astype(x.dtype))


def averaging_matrix(length: int, cells: int) -> np.ndarray:
    """[cells,length] float32 whose product with a line of `length` values is its adaptive average."""
    start = np.arange(cells)[:, None] * length // cells
    stop = -(-np.arange(1, cells + 1)[:, None] * length // cells)
    position = np.arange(length)
    return ((position >= start) & (position < stop)).astype(np.float32) / (stop - start)
