"""The layers that every network here is made of, and the backward rules that can replace them.

A network subclasses `StagedModel`, names its layers and says what each one computes. Parameters lie in one flat level under
PyTorch's own module names, `variables["params"]["layer1.0.conv1"]["kernel"]`, so a torch key `layer1.0.conv1.weight` maps to
a variable by its last dot: kernels are HWIO or (in, out), batch norm has `scale`, `bias` and, in `batch_stats`, `mean`, `var`.
"""

import math
from collections.abc import Callable
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from mixaug_jax.core import checks
from mixaug_jax.core.types import AnyArray, Float
from mixaug_jax.models.convolution import Window, conv, dilated_conv, patchwise
from mixaug_jax.models.grouped import in_groups
from mixaug_jax.models.pooling import max_pool

EPSILON = 1e-5  # PyTorch's, which every released checkpoint was trained with
MOMENTUM = 0.9  # of the running statistics; PyTorch calls this 0.1
# Size and stride of a network's first convolution; "strided" is none of those that are made here, but some weights have it.
STEMS = {"imagenet": (7, 2), "cifar": (3, 1), "strided": (3, 2)}


def conv_init(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Normal with variance 2 / (k^2 C_out), as in the ResNet of the CutMix code (He et al. 2015, 1502.01852, eq. 14)."""
    # Drawing a line and folding it gives the same numbers as drawing `shape`, and compiles three times faster.
    draw = jax.random.normal(key, (math.prod(shape),)).reshape(shape)
    return draw * math.sqrt(2 / (shape[0] * shape[1] * shape[3]))


def dense_init(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Uniform within 1 / sqrt(C_in), PyTorch's default for its dense layers."""
    limit = 1 / math.sqrt(shape[0])
    return jax.random.uniform(key, (math.prod(shape),), minval=-limit, maxval=limit).reshape(shape)


class Weights(nn.Module):
    """The float32 kernel [..., in, out] of a conv or dense layer, and its bias [out] or None.

    A `std` above 0 draws the kernel from a normal of that deviation, cut off at two of them.
    """

    shape: tuple[int, ...]
    use_bias: bool
    std: float = 0.0

    @nn.compact
    def __call__(self):
        init = conv_init if len(self.shape) == 4 else dense_init
        init = nn.initializers.truncated_normal(self.std) if self.std else init
        kernel = self.param("kernel", init, self.shape)
        bias = self.param("bias", nn.initializers.zeros, self.shape[-1:]) if self.use_bias else None
        return kernel, bias


class Value(nn.Module):
    """A float32 parameter that stands alone; one that is there already may be of another shape, as positions are."""

    shape: tuple[int, ...]
    init: Callable

    @nn.compact
    def __call__(self):
        if self.has_variable("params", "value"):
            return self.get_variable("params", "value")
        return self.param("value", self.init, self.shape)


class LayerNorm(nn.Module):
    """Over the last axis, in float32 (Ba et al. 2016, 1607.06450)."""

    epsilon: float

    @nn.compact
    def __call__(self, x: jax.Array):
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:])
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
        x = x.astype(jnp.float32)
        x = x - x.mean(-1, keepdims=True)
        var = jnp.square(x).mean(-1, keepdims=True)
        return x * jax.lax.rsqrt(var + self.epsilon) * scale + bias


class BatchNorm(nn.Module):
    """What a batch norm does to its input, as (mean, multiplier, bias) [C] float32 each: (x - mean) * multiplier + bias.

    With `train`, mean and variance are those of `x` (over all devices of `axis_name`, where that is not "") and the running
    statistics move towards them, with the unbiased variance as in PyTorch. Otherwise they are the running ones.
    """

    channels: int
    axis_name: str
    epsilon: float = EPSILON

    @nn.compact
    def __call__(self, x: jax.Array | None, train: bool):
        shape = (self.channels,)
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape)
        if not train:
            return running_mean.value, scale * jax.lax.rsqrt(running_var.value + self.epsilon), bias
        mean, var, count = batch_statistics(x, self.axis_name)
        unbiased = var * (count / max(count - 1, 1))
        running_mean.value = MOMENTUM * running_mean.value + (1 - MOMENTUM) * mean
        running_var.value = MOMENTUM * running_var.value + (1 - MOMENTUM) * unbiased
        return mean, scale * jax.lax.rsqrt(var + self.epsilon), bias


def batch_statistics(x: jax.Array, axis_name: str = "") -> tuple[jax.Array, jax.Array, int]:
    """Mean and biased variance [C] float32 of x [..., C] over all other axes and devices, and how many values each has seen."""
    axes = tuple(range(x.ndim - 1))
    count = x.size // x.shape[-1]
    # Sums over a whole batch need more than the eight significant bits of bfloat16.
    x = x.astype(jnp.float32)
    mean = x.mean(axes)
    # Two passes: E[x^2] - E[x]^2 cancels badly in float32 where the mean is large.
    var = jnp.square(x - mean).mean(axes)
    if axis_name:
        overall = jax.lax.pmean(mean, axis_name)
        # Variance within the devices plus variance between them; all have shares of equal size.
        var = jax.lax.pmean(var + jnp.square(mean - overall), axis_name)
        mean, count = overall, count * jax.lax.axis_size(axis_name)
    return mean, var, count


class StagedModel(nn.Module, kw_only=True):
    """A network as a sequence of named layers, built from layers whose backward pass can be replaced.

    Attributes:
      layers: the layers' names in order; the last one gives the logits.
      hidden_layers: the layers after which manifold mixup may mix.
      merges_norm: whether every batch norm directly follows a conv or dense layer, and so can be merged into it.
      no_affine: why else it refuses an affine rule, after "it"; "" is that it takes one.
      smooth: what its activations are in place of ReLUs, "GELUs"; it refuses rules of ReLUs then.
      blind_layers: those of whose maps nothing reaches the logits, as of a last block of which the class token alone is read.
      init_std: of the normal that kernels are drawn from, cut off at two deviations; 0: see `conv_init` and `dense_init`.
      unseen: the fields that change no variable's name or shape, so that no file of weights tells them.
      epsilon: what the batch norms add to the variance.
      slope: of the ReLUs below zero; above 0 they are leaky, and no backward rule of a ReLU is theirs.
      dtype: of the body's arithmetic; parameters, batch statistics and logits are float32.
      axis_name: the mapped axis over which batch statistics are averaged; "" keeps them per device.
      remat: recompute each block's activations in the backward pass.
      affine: rule `f(layer_name, linear, x, kernel, bias)` for a conv or dense layer with the batch norm that follows it:
        `kernel` and `bias` have that norm merged in, and `linear(x, kernel, bias)` is the plain layer.
      act: rule `f(layer_name, x)` in place of a ReLU. A ReLU6 is y - relu(y - 6) of y = relu(x); there the last part of the
        second one's name is "cut".
      add: rule `f(layer_name, x, y)` in place of a residual sum, `y` being the shortcut.
      pool: rule `f(layer_name, plain, x)`, where `plain(x)` is the pooling; the last part of the layer's name starts with
        "max" or "avg".
      fork: rule `f(layer_name, x) -> (x, x)` where a block and its shortcut part; what comes back from both is added without.

    Rules are compared to know whether to compile again: pass module-level functions, or frozen dataclasses with a `__call__`
    where they need settings (two equal `functools.partial` objects are not equal, nor are two lambdas).
    """

    layers: ClassVar[tuple[str, ...]] = ()
    hidden_layers: ClassVar[tuple[str, ...]] = ()
    merges_norm: ClassVar[bool] = True
    no_affine: ClassVar[str] = ""
    smooth: ClassVar[str] = ""
    blind_layers: ClassVar[tuple[str, ...]] = ()
    init_std: ClassVar[float] = 0.0
    unseen: ClassVar[tuple[str, ...]] = ("epsilon", "slope")

    epsilon: float = EPSILON
    slope: float = 0.0
    dtype: Any = jnp.float32
    axis_name: str = ""
    remat: bool = False
    affine: Callable | None = None
    act: Callable | None = None
    add: Callable | None = None
    pool: Callable | None = None
    fork: Callable | None = None

    def __post_init__(self):
        if self.affine is not None and not self.merges_norm:
            raise checks.UnsupportedError(
                f"{type(self).__name__} normalizes before its convolutions, so it has no merged layers and refuses an affine "
                "rule (relevance propagation); resnet18 and vgg16_bn accept one"
            )
        if self.affine is not None and self.no_affine:
            raise checks.UnsupportedError(
                f"{type(self).__name__} {self.no_affine}, and refuses an affine rule (relevance propagation); resnet18 and "
                "vgg16_bn accept one"
            )
        if self.act is not None and self.smooth:
            raise checks.UnsupportedError(
                f"{type(self).__name__} has {self.smooth}, and refuses rules of ReLUs; gradient and integrated_gradients need "
                "none"
            )
        if self.act is not None and self.slope:
            raise checks.UnsupportedError(
                f"{type(self).__name__} has leaky ReLUs (slope {self.slope:g}), and refuses rules of plain ones; gradient and "
                "integrated_gradients need none"
            )
        super().__post_init__()

    @nn.compact
    def __call__(
        self,
        x: Float[AnyArray, "..."],
        train: bool = False,
        start: str = "",
        stop: str = "",
        hidden: Callable[[str, jax.Array], jax.Array] | None = None,
    ) -> jax.Array:
        """Runs the layers after `start` up to and including `stop`.

        Args:
          x: images [B,h,w,C], or the output of layer `start`.
          train: use and update batch statistics, apply dropout (rng "dropout").
          start: the layer whose output `x` is; "" for the input.
          stop: the last layer to run; "" for the logits.
          hidden: `hidden(layer, h) -> h`, applied to the output of each layer that is run.

        Returns:
          The output of layer `stop`: logits [B,K] float32, or features in `dtype`.
        """
        if self.affine is not None and train:
            raise ValueError("an affine rule merges the running statistics: it needs train=False")
        for layer in layers_between(self.layers, start, stop):
            x = self.run(layer, jnp.asarray(x, self.dtype), train)
            if hidden is not None:
                x = hidden(layer, x)
        return x

    @nn.nowrap
    def maps(self, layer: str, h: Float[AnyArray, "..."]) -> Float[AnyArray, "..."]:
        """The output of `layer` as maps [B,h,w,K]: itself; a network of tokens [B,T,K] lays them out on their grid here."""
        return h

    @nn.nowrap
    def with_maps(
        self, layer: str, h: Float[AnyArray, "..."], maps: Float[AnyArray, "..."]
    ) -> Float[AnyArray, "..."]:
        """The output `h` of `layer` with other `maps` in it; what `maps` leaves out of it, as a class token, stays."""
        return maps

    def block(self, f: Callable, x: jax.Array) -> jax.Array:
        """f(model, x), recomputed in the backward pass where `remat` is set."""
        return (nn.remat(f) if self.remat and not self.is_initializing() else f)(self, x)

    def conv(
        self,
        name: str,
        x: jax.Array,
        filters: int,
        size: int,
        stride: int = 1,
        *,
        norm: str = "",
        bias: bool = False,
        train: bool = False,
    ):
        """Convolution with `size // 2` zeros on every side, then the batch norm `norm` where it is not ""."""
        return self.windowed(name, x, filters, Window(size, stride, bias), norm=norm, train=train)

    def windowed(
        self,
        name: str,
        x: Any,
        filters: int,
        window: Window,
        *,
        norm: str = "",
        train: bool = False,
    ):
        """`conv` with any border, or in groups."""
        size, stride, use_bias, groups, _ = window
        shape = (size, size, x.shape[-1] // groups, filters)
        border = size // 2 if window.padding < 0 else window.padding
        grouped = in_groups if groups > 1 else conv
        # Windows that neither overlap nor leave anything out are one matrix product.
        patches = size == stride > 1 and not border

        def linear(x: Any, kernel: Any, bias: Any):
            y = patchwise(x, kernel) if patches else grouped(x, kernel, stride, border)
            return y if bias is None else y + bias

        weights = Weights(shape, use_bias, self.init_std, name=name)
        return self._affine(name, linear, x.astype(self.dtype), weights, norm, train)

    def dilated(
        self,
        name: str,
        x: jax.Array,
        filters: int,
        dilation: int,
        *,
        norm: str,
        train: bool = False,
    ):
        """3x3 convolution of stride 1 whose taps are `dilation` apart, padded by as much, then the batch norm `norm`."""

        def linear(x: Any, kernel: Any, bias: Any):
            y = dilated_conv(x, kernel, dilation)
            return y if bias is None else y + bias

        weights = Weights((3, 3, x.shape[-1], filters), False, name=name)
        return self._affine(name, linear, x.astype(self.dtype), weights, norm, train)

    def dense(self, name: str, x: jax.Array, features: int, dtype: Any = None):
        """x [...,C] -> [...,features], with bias, in `dtype` (default: the body's)."""

        def linear(x: Any, kernel: Any, bias: Any):
            return x @ kernel + bias

        weights = Weights((x.shape[-1], features), True, self.init_std, name=name)
        return self._affine(name, linear, x.astype(dtype or self.dtype), weights)

    def _affine(self, name, linear, x, weights, norm="", train=False):
        """A layer in the dtype of `x`, and the batch norm `norm` after it where it is not ""."""
        kernel, bias = weights()
        shape, dtype = kernel.shape, x.dtype
        if self.affine is None:
            y = linear(x, kernel.astype(dtype), None if bias is None else bias.astype(dtype))
            return self.norm(norm, y, train) if norm else y
        bias = jnp.zeros(shape[-1:]) if bias is None else bias
        if norm:
            mean, multiplier, offset = BatchNorm(shape[-1], "", self.epsilon, name=norm)(
                None, False
            )
            # Output channels are a kernel's last axis, so multipliers [C] broadcast over it.
            kernel, bias = kernel * multiplier, (bias - mean) * multiplier + offset
        return self.affine(name, linear, x, kernel.astype(dtype), bias.astype(dtype))

    def norm(self, name: str, x: jax.Array, train: bool):
        """Batch norm in float32, its result in the body's dtype."""
        layer = BatchNorm(x.shape[-1], self.axis_name, self.epsilon, name=name)
        mean, multiplier, bias = layer(x, train)
        return ((x.astype(jnp.float32) - mean) * multiplier + bias).astype(self.dtype)

    def layer_norm(self, name: str, x: jax.Array):
        """Over the last axis in float32, its result in the body's dtype."""
        return LayerNorm(self.epsilon, name=name)(x).astype(self.dtype)

    def value(self, name: str, shape: tuple[int, ...], init: Callable):
        """A parameter of its own, in the body's dtype."""
        return Value(shape, init, name=name)().astype(self.dtype)

    def drop_path(self, name: str, x: jax.Array, rate: float, train: bool):
        """x [B,...], in training 0 for a share `rate` of the examples and 1 / (1 - rate) times as large for the others.

        Stochastic depth (Huang et al. 2016, 1603.09382), as in timm: `x` is what a residual block adds.
        """
        if not (rate and train):
            return x
        axes = tuple(range(1, x.ndim))
        return nn.Dropout(rate, broadcast_dims=axes, name=name)(x, deterministic=False)

    def relu(self, name: str, x: jax.Array):
        if self.act is not None:
            return self.act(name, x)
        return nn.leaky_relu(x, self.slope) if self.slope else nn.relu(x)

    def branch(self, name: str, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """x for a block and x for its shortcut."""
        return (x, x) if self.fork is None else self.fork(name, x)

    def residual(self, name: str, x: jax.Array, shortcut: Any):
        return x + shortcut if self.add is None else self.add(name, x, shortcut)

    def max_pool(self, name: str, x: jax.Array, size: int, stride: int, padding: int = 0):
        """PyTorch's max pooling: the border is padded with minus infinity."""

        def plain(x: jax.Array):
            return max_pool(x, size, stride, padding)

        return plain(x) if self.pool is None else self.pool(name, plain, x)

    def global_average(self, name: str, x: jax.Array):
        """[B,h,w,C] -> [B,C] float32."""
        return mean_over_space(x) if self.pool is None else self.pool(name, mean_over_space, x)


def mean_over_space(x: jax.Array) -> jax.Array:
    """[B,h,w,C] -> [B,C] float32."""
    return x.astype(jnp.float32).mean((1, 2))


def layers_between(layers: tuple[str, ...], start: str, stop: str) -> tuple[str, ...]:
    """The layers after `start` up to and including `stop`; "" is the input or the last layer.

    Raises:
      ValueError: for a layer that is not in `layers`, or a `stop` before `start`.
    """
    for layer in filter(None, (start, stop)):
        checks.choice("layer", layer, layers)
    first = layers.index(start) + 1 if start else 0
    last = layers.index(stop) + 1 if stop else len(layers)
    if last < first:
        raise ValueError(f"layer {stop!r} comes before layer {start!r}: nothing leads back to it")
    return layers[first:last]
