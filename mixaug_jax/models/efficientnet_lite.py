"""EfficientNet-Lite: EfficientNet (Tan and Le 2019, 1905.11946) without squeeze-and-excitation and with ReLU6 for swish.

Architecture and constants are those of the authors' TensorFlow code (their Lite release; there is no paper of it): "SAME"
padding, which at stride 2 is not symmetric, batch norm with epsilon 1e-3, and stem and head that do not grow from Lite0 to
Lite4. Names are those of the PyTorch port whose converted weights are in use. Stochastic depth, which only training has, is
left out.
"""

import dataclasses
import math
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from mixaug_jax.core.types import AnyArray
from mixaug_jax.models.convolution import conv
from mixaug_jax.models.grouped import depthwise
from mixaug_jax.models.layers import StagedModel, Weights

STEM, HEAD = 32, 1280
# Of the seven groups: filters and blocks of Lite0, size and stride of the first block's depthwise convolution.
FILTERS = (16, 24, 40, 80, 112, 192, 320)
BLOCKS = (1, 2, 2, 3, 3, 4, 1)
SIZES = (3, 3, 5, 3, 5, 5, 3)
STRIDES = (1, 2, 2, 2, 1, 2, 1)
# Width and depth coefficients and dropout of Lite0 to Lite4, and the side of the images that they were trained on.
COEFFICIENTS = ((1.0, 1.0, 0.2), (1.0, 1.1, 0.2), (1.1, 1.2, 0.3), (1.2, 1.4, 0.3), (1.4, 1.8, 0.3))
SIDES = (224, 240, 260, 280, 300)


class EfficientNetLite(StagedModel):
    """EfficientNet-Lite0 to 4.

    Layers: stem, block1 to block7 (groups of blocks; each ends in a convolution, or a residual sum, with no activation after
    it), head (after its ReLU6, before the pool), fc.

    Attributes:
      num_classes: K.
      filters: of the seven groups.
      blocks: in each of the seven groups.
      stem_filters, head_filters: of the first and last convolution.
      dropout: rate before the dense layer.
      stem: "imagenet" (stride 2) or "cifar" (stride 1).
    """

    layers: ClassVar = ("stem", *(f"block{i}" for i in range(1, 8)), "head", "fc")
    hidden_layers: ClassVar = ("block1", "block2")
    unseen: ClassVar = ("epsilon",)  # ReLU6 has no slope

    num_classes: int
    filters: tuple[int, ...]
    blocks: tuple[int, ...]
    stem_filters: int
    head_filters: int
    dropout: float
    stem: str
    epsilon: float = dataclasses.field(default=1e-3, kw_only=True)

    def run(self, layer: str, x: jax.Array, train: bool) -> jax.Array:
        if layer == "stem":
            stride = 2 if self.stem == "imagenet" else 1
            return self.relu("_relu0", self._stem(x, stride, train))
        if layer == "head":
            x = self.conv("_conv_head", x, self.head_filters, 1, norm="_bn1", train=train)
            return self.relu("_relu1", x)
        if layer == "fc":
            x = self.global_average("avgpool", x)
            x = nn.Dropout(self.dropout, name="dropout")(x, deterministic=not train)
            return self.dense("_fc", x, self.num_classes, jnp.float32)
        group = int(layer[-1]) - 1
        for i in range(self.blocks[group]):
            stride = STRIDES[group] if i == 0 else 1
            # Published names count blocks over all groups.
            name = f"_blocks.{sum(self.blocks[:group]) + i}"

            def block(model: Any, x: jax.Array, name: str = name, stride: int = stride):
                return model._block(name, x, group, stride, train)

            x = self.block(block, x)
        return x

    def relu(self, name: str, x: jax.Array):
        """ReLU6; under a rule as y - relu(y - 6) of y = relu(x), the second ReLU's name ending in "cut"."""
        y = super().relu(name, x)
        return jnp.minimum(y, 6) if self.act is None else y - self.act(f"{name}.cut", y - 6)

    def _block(self, name, x, group, stride, train):
        """Mobile inverted bottleneck: 1x1 to six times the filters (not in the first group), depthwise, 1x1 without ReLU."""
        y, x = self.branch(f"{name}.fork", x) if self._adds(x, group, stride) else (x, x)
        if group > 0:
            filters = 6 * x.shape[-1]
            y = self.conv(f"{name}._expand_conv", y, filters, 1, norm=f"{name}._bn0", train=train)
            y = self.relu(f"{name}._relu0", y)
        y = self._depthwise(
            f"{name}._depthwise_conv", y, SIZES[group], stride, f"{name}._bn1", train
        )
        y = self.relu(f"{name}._relu1", y)
        filters = self.filters[group]
        y = self.conv(f"{name}._project_conv", y, filters, 1, norm=f"{name}._bn2", train=train)
        return self.residual(f"{name}.add", y, x) if self._adds(x, group, stride) else y

    def _adds(self, x, group, stride):
        return stride == 1 and x.shape[-1] == self.filters[group]

    def _stem(self, x, stride, train):
        def linear(x: AnyArray, kernel: AnyArray, bias: Any):
            y = conv(same_pad(x, 3, stride), kernel, stride, 0)
            return y if bias is None else y + bias

        weights = Weights((3, 3, x.shape[-1], self.stem_filters), False, name="_conv_stem")
        x = x.astype(self.dtype)
        return self._affine("_conv_stem", linear, x, weights, "_bn0", train)

    def _depthwise(self, name, x, size, stride, norm, train):
        def linear(x: AnyArray, kernel: AnyArray, bias: Any):
            y = depthwise(same_pad(x, size, stride), kernel, stride)
            return y if bias is None else y + bias

        weights = Weights((size, size, 1, x.shape[-1]), False, name=name)
        return self._affine(name, linear, x.astype(self.dtype), weights, norm, train)


def same_pad(x: AnyArray, size: int, stride: int) -> jax.Array:
    """x [B,h,w,C] with TensorFlow's "SAME" zeros for a window of `size`: the odd one goes below and to the right."""
    pads = []
    for n in x.shape[1:3]:
        total = max((math.ceil(n / stride) - 1) * stride + size - n, 0)
        pads.append((total // 2, total - total // 2))
    return jnp.pad(x, ((0, 0), *pads, (0, 0)))


def scaled(wide: float, deep: float) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Filters and blocks of the seven groups under the paper's width and depth coefficients (section 3.3).

    As in the authors' code, filters are rounded to a multiple of 8, by no more than a tenth downwards, blocks are rounded up,
    and for Lite the first and last group keep their number of blocks.
    """
    filters = []
    for base in FILTERS:
        rounded = max(8, int(base * wide + 4) // 8 * 8)
        filters.append(rounded if rounded >= 0.9 * base * wide else rounded + 8)
    blocks = [n if i in (0, 6) else math.ceil(n * deep) for i, n in enumerate(BLOCKS)]
    return tuple(filters), tuple(blocks)
