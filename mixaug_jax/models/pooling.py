"""Max pooling whose gradient does not take longer than a convolution's on CPU.

XLA's CPU backend spells the gradient out as a reduction over indices and a scatter, 10 times slower than the additions that it
takes: in ResNet-50 a tenth of the time of an image's gradient. Results are XLA's to the bit, sums in the same order included.
Other platforms take XLA's road, and which one it is, is decided when a program is lowered.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from mixaug_jax.core.types import Array, Float, Images

Pooled = Float[Array, "B rows columns C"]


# Jitted, so that the ways of all platforms are traced once for each shape, and not for each layer.
@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def max_pool(x: Images, size: int, stride: int, padding: int) -> Pooled:
    """The largest of each `size` x `size` window of x [B,h,w,C], `padding` times minus infinity on every side -> [B,h',w',C].

    Of equal values the first one, in reading order, gets the gradient; a window whose largest value is NaN gives none on CPU.
    It has no forward-mode derivative (`jax.jvp`).
    """
    return _max_pool(x, size, stride, padding)


def plain_max_pool(x: Images, size: int, stride: int, padding: int) -> Pooled:
    """`max_pool` as XLA has it, with JAX's own gradient."""
    return nn.max_pool(x, (size, size), (stride, stride), [(padding, padding)] * 2)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _max_pool(x, size, stride, padding):
    return plain_max_pool(x, size, stride, padding)


def _forward(x, size, stride, padding):
    y = plain_max_pool(x, size, stride, padding)
    return y, (x, y)


def _backward(size, stride, padding, saved, g):
    def additions(x, y, g):
        return _spread(_shares(x, y, g, size, stride, padding), x.shape, size, stride, padding)

    def xlas(x, y, g):
        del y
        return jax.vjp(lambda x: plain_max_pool(x, size, stride, padding), x)[1](g)[0]

    return (jax.lax.platform_dependent(*saved, g, cpu=additions, default=xlas),)


_max_pool.defvjp(_forward, _backward)


def _shares(x, y, g, size, stride, padding):
    """{(i, j): [B,h',w',C]}, the gradient that each window gives to its pixel (i, j)."""
    height, width = (stride * (n - 1) + 1 for n in y.shape[1:3])
    pads = (0, 0), (padding, padding), (padding, padding), (0, 0)
    x = jnp.pad(x, pads, constant_values=-jnp.inf)
    shares = {}
    for i in range(size):
        for j in range(size):
            wins = x[:, i : i + height : stride, j : j + width : stride] == y
            shares[i, j] = jnp.where(wins, g, 0)
            g = jnp.where(wins, 0, g)  # nothing is left for a later pixel
    return shares


def _spread(shares, shape, size, stride, padding):
    """The sum [B,h,w,C] of what each pixel gets, its windows in reading order as XLA adds them."""
    reach = (size - 1) // stride

    def phase(row, col):
        """What pixels (stride a + row, stride b + col) of the padded image get, a and b counting from 0."""
        total = 0
        # A later place within a window means an earlier window, hence the reversed ranges.
        for i in range(row, size, stride)[::-1]:
            for j in range(col, size, stride)[::-1]:
                before = i // stride, j // stride
                pads = [(0, 0), *((n, reach - n) for n in before), (0, 0)]
                total += jnp.pad(shares[i, j], pads)
        return total

    phases = [[phase(row, col) for col in range(stride)] for row in range(stride)]
    phases = jnp.stack([jnp.stack(row, 3) for row in phases], 2)
    batch, rows, _, cols, _, channels = phases.shape
    total = phases.reshape(batch, stride * rows, stride * cols, channels)
    # Pixels beyond the last window get nothing.
    missing = [max(padding + n - m, 0) for n, m in zip(shape[1:3], total.shape[1:3], strict=True)]
    total = jnp.pad(total, ((0, 0), *((0, n) for n in missing), (0, 0)))
    return total[:, padding : padding + shape[1], padding : padding + shape[2]]
