"""EfficientNet-Lite: EfficientNet (Tan and Le 2019, 1905.11946) without squeeze-and-excitation and with ReLU6 for swish.

Architecture and constants are those of the authors' TensorFlow code (their Lite release; there is no paper of it): "SAME"
padding, which at stride 2 is not symmetric, batch norm with epsilon 1e-3, and stem and head that do not grow from Lite0 to
Lite4. Names are those of the PyTorch port whose converted weights are in use. Stochastic depth, which only training has, is
left out.
"""

import dataclasses
import functools
import math
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from mixaug_jax.core.types import AnyArray
from mixaug_jax.models.convolution import conv
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


# Jitted, so that the ways of all platforms are traced once for each shape, and not for each layer.
@functools.partial(jax.jit, static_argnums=2)
def depthwise(x: AnyArray, kernel: AnyArray, stride: int) -> jax.Array:
    """Each channel of x [B,h,w,C] convolved with its own kernel [k,k,1,C], without padding.

    On CPU, where XLA's own grouped convolution is 20 to 40 times slower, as a sum of shifted images; which it is, is decided
    when a program is lowered. It has reverse-mode derivatives only (no `jax.jvp`).
    """
    return _depthwise(x, kernel, stride)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _depthwise(x, kernel, stride):
    return jax.lax.platform_dependent(
        x,
        kernel,
        cpu=functools.partial(shifted_sum, stride=stride),
        default=functools.partial(grouped_conv, stride=stride),
    )


def grouped_conv(x: AnyArray, kernel: AnyArray, stride: int) -> jax.Array:
    """`depthwise` as XLA's convolution."""
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


def shifted_sum(x: AnyArray, kernel: AnyArray, stride: int) -> AnyArray:
    """`depthwise` as the sum of k^2 shifted images, each times its entry of the kernel."""
    size = len(kernel)
    rows, cols = (n - size + 1 for n in x.shape[1:3])
    return sum(
        x[:, i : i + rows : stride, j : j + cols : stride] * kernel[i, j, 0]
        for i in range(size)
        for j in range(size)
    )


def _forward(x, kernel, stride):
    return _depthwise(x, kernel, stride), (x, kernel)


def _backward(stride, saved, g):
    def xlas(x: AnyArray, kernel: AnyArray, g: AnyArray):
        # Convolution is linear in either argument, so its transpose needs no forward pass.
        of_x = jax.linear_transpose(lambda x: grouped_conv(x, kernel, stride), x)
        of_kernel = jax.linear_transpose(lambda k: grouped_conv(x, k, stride), kernel)
        return *of_x(g), *of_kernel(g)

    own = functools.partial(shifted_gradients, stride=stride)
    return jax.lax.platform_dependent(*saved, g, cpu=own, default=xlas)


def shifted_gradients(
    x: AnyArray, kernel: AnyArray, g: AnyArray, stride: int
) -> tuple[jax.Array, jax.Array]:
    """Gradients of `shifted_sum` for the cotangent g. The ones that JAX would find take ten times as long to compile."""
    size = len(kernel)
    reach = [(n - 1) * stride + 1 for n in g.shape[1:3]]
    pads = [(size - 1, n - r, stride - 1) for n, r in zip(x.shape[1:3], reach, strict=True)]
    # The third number of each pad puts the stride's zeros between the entries of g.
    spread = jax.lax.pad(g, jnp.zeros((), g.dtype), [(0, 0, 0), *pads, (0, 0, 0)])

    def entry(offset):
        window = jax.lax.dynamic_slice(x, (0, *offset, 0), (len(x), *reach, x.shape[-1]))
        return jnp.sum(window[:, ::stride, ::stride] * g, (0, 1, 2), jnp.float32)

    offsets = jnp.indices((size, size)).reshape(2, -1)
    dkernel = jax.lax.map(entry, tuple(offsets)).reshape(kernel.shape).astype(kernel.dtype)
    return shifted_sum(spread, jnp.flip(kernel, (0, 1)), 1), dkernel


_depthwise.defvjp(_forward, _backward)


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
