"""GoogLeNet (Szegedy et al. 2014, 1409.4842) as torchvision has it, with its names.

As torchvision's it differs from the paper: a batch norm, of epsilon 1e-3, follows each convolution, and 3x3 stands in the place
of 5x5. The last windows of its max pools may reach beyond the last pixel (ceil_mode), as in Caffe.
"""

import dataclasses
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from mixaug_jax.models.layers import StagedModel
from mixaug_jax.models.pooling import max_pool

STEM = (64, 64, 192)
# Of each block its name, and filters: 1x1; before 3x3, 3x3; before the other 3x3, that one; after the max pool.
BLOCKS = (
    *(("3a", (64, 96, 128, 16, 32, 32)), ("3b", (128, 128, 192, 32, 96, 64))),
    *(("4a", (192, 96, 208, 16, 48, 64)), ("4b", (160, 112, 224, 24, 64, 64))),
    *(("4c", (128, 128, 256, 24, 64, 64)), ("4d", (112, 144, 288, 32, 64, 64))),
    *(("4e", (256, 160, 320, 32, 128, 128)), ("5a", (256, 160, 320, 32, 128, 128))),
    ("5b", (384, 192, 384, 48, 128, 128)),
)
# What takes values normalized by ImageNet's mean and deviation to those between -1 and 1, of red, green and blue.
FACTORS, SHIFTS = (0.458, 0.448, 0.45), (-0.03, -0.088, -0.188)


class GoogLeNet(StagedModel):
    """GoogLeNet, or Inception v1. Its auxiliary heads, which serve training alone, are left out. It needs 15 pixels a side.

    Layers: conv1, conv2, conv3 (each after its ReLU), inception3a, inception3b, inception4a to inception4e, inception5a,
    inception5b (all four branches, side by side), fc.

    Attributes:
      num_classes: K.
      filters: of the first three convolutions.
      blocks: name and filters of each block, as in `BLOCKS`; the first of each number has a max pool in front.
      transform_input: it takes images normalized as ImageNet's and brings them to values between -1 and 1 itself.
    """

    hidden_layers: ClassVar = ("conv3", "inception3a")
    unseen: ClassVar = ("transform_input", *StagedModel.unseen)

    num_classes: int
    filters: tuple[int, int, int] = STEM
    blocks: tuple[tuple[str, tuple[int, ...]], ...] = BLOCKS
    transform_input: bool = False
    epsilon: float = dataclasses.field(default=1e-3, kw_only=True)

    @property
    def no_affine(self) -> str:
        return "normalizes images anew (transform_input)" if self.transform_input else ""

    @property
    def layers(self) -> tuple[str, ...]:
        blocks = (f"inception{name}" for name, _ in self.blocks)
        return ("conv1", "conv2", "conv3", *blocks, "fc")

    def run(self, layer: str, x: jax.Array, train: bool) -> jax.Array:
        if layer == "conv1":
            if self.transform_input:
                x = x * jnp.asarray(FACTORS, x.dtype) + jnp.asarray(SHIFTS, x.dtype)
            return self._unit("conv1", x, self.filters[0], (7, 2), train)
        if layer == "conv2":
            x = self._halved("maxpool1", x)
            return self._unit("conv2", x, self.filters[1], (1, 1), train)
        if layer == "conv3":
            return self._unit("conv3", x, self.filters[2], (3, 1), train)
        if layer == "fc":
            x = self.global_average("avgpool", x)
            x = nn.Dropout(0.2, name="dropout")(x, deterministic=not train)
            return self.dense("fc", x, self.num_classes, jnp.float32)
        place = self.layers.index(layer) - 3
        (name, filters), number = self.blocks[place], int(self.blocks[place][0][0])
        if place == 0 or int(self.blocks[place - 1][0][0]) < number:
            # The last one has windows of 2x2, the others of 3x3.
            x = self._halved(f"maxpool{number - 1}", x, 2 if number == 5 else 3)

        def block(model: Any, x: jax.Array):
            return model._inception(f"inception{name}", x, filters, train)

        return self.block(block, x)

    def _inception(self, name, x, filters, train):
        one, few, three, fewer, other, last = filters
        a, rest = self.branch(f"{name}.fork1", x)
        b, rest = self.branch(f"{name}.fork2", rest)
        c, d = self.branch(f"{name}.fork3", rest)
        a = self._unit(f"{name}.branch1", a, one, (1, 1), train)
        b = self._unit(f"{name}.branch2.0", b, few, (1, 1), train)
        b = self._unit(f"{name}.branch2.1", b, three, (3, 1), train)
        c = self._unit(f"{name}.branch3.0", c, fewer, (1, 1), train)
        c = self._unit(f"{name}.branch3.1", c, other, (3, 1), train)
        d = self.max_pool(f"{name}.branch4.maxpool", d, 3, 1, padding=1)
        d = self._unit(f"{name}.branch4.1", d, last, (1, 1), train)
        return jnp.concatenate([a, b, c, d], -1)

    def _unit(self, name, x, filters, shape, train):
        """A convolution of (size, stride), its norm and its ReLU."""
        x = self.conv(f"{name}.conv", x, filters, *shape, norm=f"{name}.bn", train=train)
        return self.relu(f"{name}.relu", x)

    def _halved(self, name, x, size=3):
        def plain(x: jax.Array):
            ends = [(0, (size - n) % 2) for n in x.shape[1:3]]
            x = jnp.pad(x, [(0, 0), *ends, (0, 0)], constant_values=-jnp.inf)
            return max_pool(x, size, 2, 0)

        return plain(x) if self.pool is None else self.pool(name, plain, x)
