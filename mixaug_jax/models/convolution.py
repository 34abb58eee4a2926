"""2-d convolution that is as fast backwards as forwards on CPU.

XLA's CPU backend hands a convolution to its fast kernels only in the layout [B,h,w,C] x [k,k,C,F]. The gradients that JAX
derives are written in other layouts: outside of loops the compiler rewrites them, inside of `scan`, `map` and `while_loop` it
does not, and they run 30 times slower. And it treats the kernel's gradient as one convolution with a window of the whole image
over channels as many as the batch has images, which is slow for 1x1 kernels and for large batches. Where a kernel has more
places than the image, it lets the two change roles, which its fast kernels cannot do: 10 to 30 times slower. So on CPU 1x1
convolutions are products of matrices, the others have gradients of their own, and the border of small images is spelled out.
Results are XLA's to float32 rounding. Other platforms take XLA's road, and which one it is, is decided when a program is
lowered.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mixaug_jax.core.types import AnyArray, Array, Float, Images

Kernel = Float[AnyArray, "k k C F"]
Convolved = Float[Array, "B rows columns F"]

# A part of the batch has at least so many images and multiplications when a kernel's gradient is summed part by part: below,
# the loop costs more than it saves.
MIN_IMAGES = 4
MIN_PRODUCTS = 25_000_000


class Window(NamedTuple):
    """The shape of a convolution.

    Attributes:
      size, stride: pixels.
      bias: whether it has one.
      groups: of channels, each convolved by itself.
      padding: zeros on every side; -1 is `size // 2`.
    """

    size: int
    stride: int = 1
    bias: bool = False
    groups: int = 1
    padding: int = -1


# Jitted, so that the ways of all platforms and their derivatives are traced once for each shape, and not for each layer.
@functools.partial(jax.jit, static_argnums=(2, 3))
def conv(x: Images, kernel: Kernel, stride: int, padding: int) -> Convolved:
    """x [B,h,w,C] convolved with kernel [k,k,C,F], `padding` zeros on every side -> [B,h',w',F].

    Reverse mode works to any order, and under `vmap`; forward mode (`jax.jvp`) for 1x1 kernels without padding only.
    """
    if kernel.shape[:2] == (1, 1) and padding == 0:
        return jax.lax.platform_dependent(
            x,
            kernel,
            cpu=functools.partial(pointwise, stride=stride),
            default=functools.partial(plain_conv, stride=stride, padding=0),
        )
    return _conv(x, kernel, stride, padding)


def plain_conv(x: Images, kernel: Kernel, stride: int, padding: int) -> Convolved:
    """`conv` as XLA has it, with JAX's own gradients."""
    return _convolve(x, kernel, [(padding, padding)] * 2, stride)


def dilated_conv(x: Images, kernel: Kernel, dilation: int) -> Float[Array, "B h w F"]:
    """x [B,h,w,C] convolved at stride 1 with a kernel [k,k,C,F] whose entries are `dilation` pixels apart -> [B,h,w,F].

    As XLA has it, with JAX's own gradients: only imported networks have such layers.
    """
    reach = dilation * (len(kernel) // 2)
    return _convolve(x, kernel, [(reach, reach)] * 2, holes=dilation)


def pointwise(x: Images, kernel: Kernel, stride: int) -> Convolved:
    """`conv` with a kernel [1,1,C,F] and no padding, as a product of matrices [B h' w', C] and [C, F]."""
    x = x[:, ::stride, ::stride]
    return (x.reshape(-1, x.shape[-1]) @ kernel[0, 0]).reshape(*x.shape[:-1], kernel.shape[-1])


def patchwise(x: Images, kernel: Kernel) -> Convolved:
    """`conv` without padding and with a stride as long as the kernel, as a product of matrices."""
    size = len(kernel)
    rows, cols = (n // size for n in x.shape[1:3])
    x = x[:, : rows * size, : cols * size]
    x = x.reshape(len(x), rows, size, cols, size, x.shape[-1]).transpose(0, 1, 3, 5, 2, 4)
    kernel = kernel.transpose(2, 0, 1, 3).reshape(-1, kernel.shape[-1])
    return x.reshape(*x.shape[:3], -1) @ kernel


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _conv(x, kernel, stride, padding):
    return _bordered(x, kernel, [(padding, padding)] * 2, stride)


def _forward(x, kernel, stride, padding):
    return _conv(x, kernel, stride, padding), (x, kernel)


def _backward(stride, padding, saved, g):
    def fast_on_cpu(x, kernel, g):
        dx = input_gradient(x.shape, kernel, g, stride, padding)
        return dx, kernel_gradient(x, kernel, g, stride, padding)

    def xlas(x, kernel, g):
        of_x = jax.linear_transpose(lambda x: plain_conv(x, kernel, stride, padding), x)
        of_kernel = jax.linear_transpose(lambda k: plain_conv(x, k, stride, padding), kernel)
        return *of_x(g), *of_kernel(g)

    return jax.lax.platform_dependent(*saved, g, cpu=fast_on_cpu, default=xlas)


_conv.defvjp(_forward, _backward)


def input_gradient(shape, kernel, g, stride, padding):
    """Gradient [B,h,w,C] of `conv` for the cotangent g [B,h',w',F]: g spread out, convolved with the turned kernel."""
    before = len(kernel) - 1 - padding
    # Chosen so that dx has n places, also where the stride left some over at the end.
    after = [
        n + padding - (m - 1) * stride - 1 for n, m in zip(shape[1:3], g.shape[1:3], strict=True)
    ]
    turned = jnp.flip(kernel, (0, 1)).swapaxes(2, 3)
    return _bordered(g, turned, [(before, a) for a in after], spread=stride)


def kernel_gradient(x, kernel, g, stride, padding):
    """Gradient [k,k,C,F] of `conv` for the cotangent g [B,h',w',F], summed over parts of the batch in float32."""
    images = _images_in_part(g, kernel)

    def in_parts(a):
        return a.reshape(-1, images, *a.shape[1:])

    def add_part(total, part):
        return total + _kernel_gradient(*part, len(kernel), stride, padding), None

    zero = jnp.zeros(kernel.shape, jnp.float32)
    return jax.lax.scan(add_part, zero, (in_parts(x), in_parts(g)))[0].astype(kernel.dtype)


def _kernel_gradient(x, g, size, stride, padding):
    # Images take the place of channels, and channels that of images.
    after = [
        size + (m - 1) * stride - n - padding
        for n, m in zip(x.shape[1:3], g.shape[1:3], strict=True)
    ]
    pads = [(padding, a) for a in after]
    x, g = x.transpose(3, 1, 2, 0), g.transpose(1, 2, 0, 3)
    return _convolve(x, g, pads, holes=stride).transpose(1, 2, 0, 3)


def _images_in_part(g, kernel):
    batch = len(g)
    products = g.size // g.shape[-1] * kernel.size // batch  # of one image
    for images in range(min(MIN_IMAGES, batch), batch):
        # Divisors only, since `scan` needs parts of equal size.
        if batch % images == 0 and images * products >= MIN_PRODUCTS:
            return images
    return batch


def _bordered(x, kernel, pads, stride=1, spread=1):
    """`_convolve` that never sees an image smaller than its kernel, but that image with its border."""
    if math.prod(x.shape[1:3]) >= math.prod(kernel.shape[:2]):
        return _convolve(x, kernel, pads, stride, spread)
    borders = [(0, 0, 0), *((*pad, spread - 1) for pad in pads), (0, 0, 0)]
    x = jax.lax.pad(x, jnp.zeros((), x.dtype), borders)
    # Without the barrier the compiler may fold the padding back into the convolution.
    return _convolve(jax.lax.optimization_barrier(x), kernel, [(0, 0)] * 2, stride)


def _convolve(x, kernel, pads, stride=1, spread=1, holes=1):
    """XLA's convolution; `spread` and `holes` are the distances of the input's and the kernel's entries."""
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        pads,
        lhs_dilation=(spread, spread),
        rhs_dilation=(holes, holes),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
