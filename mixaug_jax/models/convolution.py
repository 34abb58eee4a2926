"""2-d convolution."""

import jax
import jax.numpy as jnp


def conv(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    """x [B,h,w,C] convolved with kernel [k,k,C,F], `padding` zeros on every side -> [B,h',w',F]."""
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        ((padding, padding), (padding, padding)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
