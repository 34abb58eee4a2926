"""VGG (Simonyan and Zisserman 2014, 1409.1556, configurations A, B, D and E) with torchvision's names."""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mixaug_jax.models.layers import StagedModel

# Convolutions in each of the five blocks, by how many layers have weights.
CONVS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
GRID = 7  # the classifier of the "imagenet" stem sees 7 x 7 pixels, whatever the image's size


class VGG(StagedModel):
    """VGG-11 to 19, with or without batch norm.

    Layers: conv1 to conv5 (a block of convolutions, after its last ReLU and before its max pool), then, with the "imagenet"
    stem, fc6, fc7 (after their ReLUs) and fc8, or with the "cifar" stem only fc. With `single_layers` conv1_1 (before its
    ReLU), relu1_1, conv1_2 and so on stand in the place of the blocks; variables and logits are the same.

    Attributes:
      num_classes: K.
      filters: of the first block; the following have 2, 4, 8 and 8 times as many.
      batch_norm: a batch norm after every convolution.
      stem: "imagenet" (adaptive average pool to 7 x 7, two hidden dense layers with dropout 0.5) or "cifar" (global average
        and one dense layer, as CIFAR code does for 32 px).
      single_layers: name every convolution (with its batch norm) and every ReLU.
      convs: convolutions in each of the five blocks.
    """

    hidden_layers: ClassVar = ("conv1", "conv2")

    num_classes: int
    filters: int
    batch_norm: bool
    stem: str
    single_layers: bool = False
    convs: tuple[int, ...] = CONVS[16]

    @property
    def unseen(self) -> tuple[str, ...]:
        return ("epsilon", "slope") if self.batch_norm else ("slope",)

    @property
    def layers(self) -> tuple[str, ...]:
        head = ("fc6", "fc7", "fc8") if self.stem == "imagenet" else ("fc",)
        if self.single_layers:
            places = [(b, i) for b, count in enumerate(self.convs, 1) for i in range(1, count + 1)]
            names = [f"{kind}{b}_{i}" for b, i in places for kind in ("conv", "relu")]
            return (*names, *head)
        return ("conv1", "conv2", "conv3", "conv4", "conv5", *head)

    def run(self, layer: str, x: jax.Array, train: bool) -> jax.Array:
        if "_" in layer:
            return self._single(layer, x, train)
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

    def _single(self, layer, x, train):
        """One convolution or one ReLU: "conv3_1", "relu3_1"."""
        block, place = (int(part) for part in layer[4:].split("_"))
        if layer.startswith("relu"):
            return self._relu(block - 1, place - 1, x)
        if place == 1 and block > 1:
            x = self.max_pool(f"maxpool{block - 1}", x, 2, 2)
        return self._conv(block - 1, place - 1, x, train)

    def _convolutions(self, block: int, x, train):
        for place in range(self.convs[block]):
            x = self._relu(block, place, self._conv(block, place, x, train))
        return x

    def _index(self, block, place):
        # torchvision numbers convolutions, norms, ReLUs and pools in one row.
        step = 3 if self.batch_norm else 2
        return step * (sum(self.convs[:block]) + place) + block

    def _conv(self, block, place, x, train):
        i = self._index(block, place)
        norm = f"features.{i + 1}" if self.batch_norm else ""
        filters = self.filters * min(2**block, 8)
        return self.conv(f"features.{i}", x, filters, 3, norm=norm, bias=True, train=train)

    def _relu(self, block, place, x):
        return self.relu(f"features.{self._index(block, place) + 1 + self.batch_norm}", x)

    def _grid_average(self, name, x):
        return grid_average(x) if self.pool is None else self.pool(name, grid_average, x)


def grid_average(x: jax.Array, cells: int = GRID) -> jax.Array:
    """PyTorch's adaptive average pool [B,h,w,C] -> [B,n,n,C]: cell i averages rows floor(i h/n) to ceil((i+1) h/n)."""
    rows, cols = averaging_matrix(x.shape[1], cells), averaging_matrix(x.shape[2], cells)
    return jnp.einsum("ih,bhwc,jw->bijc", rows.astype(x.dtype), x, cols.astype(x.dtype))


def averaging_matrix(length: int, cells: int) -> np.ndarray:
    """[cells,length] float32 whose product with a line of `length` values is its adaptive average."""
    start = np.arange(cells)[:, None] * length // cells
    stop = -(-np.arange(1, cells + 1)[:, None] * length // cells)
    position = np.arange(length)
    return ((position >= start) & (position < stop)).astype(np.float32) / (stop - start)
