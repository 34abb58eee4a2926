"""2-d convolution, along the faster of two roads."""

import jax


def conv(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    """x [B,h,w,C] convolved with kernel [k,k,C,F], `padding` zeros on every side -> [B,h',w',F].

    On CPU a 1x1 convolution is computed as the matrix product that it is: XLA's own gradient with respect to the kernel is
    several times slower there, because it treats the pixels as one huge window.
    """
    if kernel.shape[:2] == (1, 1) and padding == 0 and jax.default_backend() == "cpu":
        return pointwise(x, kernel, stride)
    return plain_conv(x, kernel, stride, padding)


def plain_conv(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    """`conv` as XLA's convolution."""
    pads = ((padding, padding), (padding, padding))
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), pads, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def pointwise(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """`conv` with a kernel [1,1,C,F] and no padding, as a product of matrices [B h' w', C] and [C, F]."""
    x = x[:, ::stride, ::stride]
    return (x.reshape(-1, x.shape[-1]) @ kernel[0, 0]).reshape(*x.shape[:-1], kernel.shape[-1])
