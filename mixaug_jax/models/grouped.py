"""Convolutions in groups of channels: of one channel each (depthwise), or of some."""

import functools

import jax
import jax.numpy as jnp

from mixaug_jax.core.types import AnyArray


def in_groups(x: AnyArray, kernel: AnyArray, stride: int, padding: int) -> jax.Array:
    """x [B,h,w,C] convolved with kernel [k,k,C/G,F], group by group of the G groups, `padding` zeros on every side.

    One channel a group that gives one is `depthwise`; others are XLA's own grouped convolution, which is slow on CPU.
    """
    side = (padding, padding)
    x = jnp.pad(x, ((0, 0), side, side, (0, 0))) if padding else x
    if kernel.shape[2] == 1 and kernel.shape[3] == x.shape[-1]:
        return depthwise(x, kernel, stride)
    return grouped_conv(x, kernel, stride)


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
    """As XLA's convolution; of `depthwise`, too."""
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1] // kernel.shape[2],
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
