"""Fine-grained saliency: how much a pixel stands out from six neighborhoods of growing size.

Montabone & Soto, Human detection using a mobile platform and novel features derived from a visual
saliency mechanism, Image and Vision Computing 28(3), 2010, in the form of OpenCV's
StaticSaliencyFineGrained, which SaliencyMix uses.
"""

import functools
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np

from mixaug_jax.core import checks
from mixaug_jax.core.types import AnyArray, Array, Float, UInt8

# OpenCV's neighborhoods: pixel i sees i - n + 1 .. i + n, cut at the edge.
_HALF_SIZES = (12, 24, 28, 48, 56, 112)
_MOST_PIXELS = 256 * 256
# Two sums of at most 6 * 255 share a number, brighter + _OFF * darker, so that they are computed once.
_OFF = 2048


def fine_grained_saliency(
    images: UInt8[AnyArray, "B H W 3"], *, order: str = "rgb"
) -> UInt8[Array, "B H W"]:
    """The map of OpenCV's StaticSaliencyFineGrained, bit for bit.

    All values are whole numbers below 2^24, so float32 arithmetic is exact and as good as integers.

    Args:
      images: uint8 [B,H,W,3] of at most 65536 pixels each (256 x 256), above which OpenCV's own
        float32 sums depend on their order.
      order: of the channels, "rgb" or "bgr". OpenCV takes the first channel for blue: "bgr" gives
        what OpenCV makes of the array as it is, "rgb" what it makes of the reversed channels, the
        image's true luminance.

    Returns:
      uint8 [B,H,W], OpenCV's map times 255. The sum of bright-on-dark and dark-on-bright wraps at
      256, as OpenCV's does. A constant image gives 0 everywhere.

    Raises:
      ValueError: another type, shape or order, or more pixels.
    """
    checks.choice("order", order, ("rgb", "bgr"))
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype != jnp.uint8:
        raise ValueError(f"images must be uint8 [B,H,W,3]; got {images.dtype} {list(images.shape)}")
    height, width = images.shape[1:3]
    if 0 in images.shape or height * width > _MOST_PIXELS:
        raise ValueError(
            f"images must have 1 to {_MOST_PIXELS} pixels (256 x 256); got {height} x {width}"
        )
    # In turns of about 256 x 256 pixels, at least two: what a turn computes stays in the cache, and
    # its result is stored once, where XLA would else repeat the whole sum for each of its uses.
    turn = min(max(_MOST_PIXELS // (height * width), 1), -(-images.shape[0] // 2))
    levels = jax.lax.map(functools.partial(_levels, order=order), images, batch_size=turn)
    return jax.vmap(_combine)(levels)


def misread_saliency(image: Float[AnyArray, "H W 3"]) -> UInt8[Array, "H W"]:
    """What OpenCV makes of float32, which is what the published SaliencyMix feeds it.

    OpenCV reads its gray image, by now float32, as bytes: the center's value at (row, column) is
    byte `column` of that row's buffer, while the neighborhoods are real float sums. So the map is
    noise, and its peak has nothing to do with the image's content. Bit for bit what OpenCV gives on
    processors with fused multiply-add.

    Args:
      image: float32 [H,W,3].

    Returns:
      uint8 [H,W], OpenCV's map times 255.
    """
    height, width = image.shape[:2]
    first, second, third = (image[..., channel] for channel in range(3))
    gray = _fused(third, 0.299, _fused(first, 0.114, np.float32(0.587) * second))
    for _ in range(2):
        gray = _binomial(gray) / 16
    # Little-endian, on any device: XLA defines the least significant byte as the first.
    raw = jax.lax.bitcast_convert_type(gray, jnp.uint8).reshape(height, 4 * width)
    center = raw[:, :width].astype(jnp.float32)

    # One addition after the other: float sums depend on their order.
    def running_sum(x: Float[Array, "n m"]) -> Float[Array, "n m"]:
        return jax.lax.scan(lambda s, row: (s + row, s + row), jnp.zeros_like(x[0]), x)[1]

    integral = running_sum(running_sum(gray.T).T)
    levels = 0.0
    for total, others, times in _windows(integral):
        excess = center - (total - center) / jnp.maximum(others, 1)
        level = jnp.trunc(jnp.abs(excess)) % 256
        levels += jnp.where(excess > 0, times, times * _OFF) * level
    return _combine(levels)


def _fused(a, b, c):
    """a * b + c of float32 rounded once, as OpenCV's instruction does; `b` is a Python number.

    Its last bit decides a whole byte of the misread map, so it must not depend on whether a
    compiler fuses. The errors of the product and of the sum are exact float32 numbers, added at the
    end.
    """
    b = np.float32(b)
    a_high, b_high = _upper_half(a), _upper_half(b)
    a_low, b_low = a - a_high, b - b_high
    product = a * b
    error = ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low
    total = product + c
    added = total - product
    rest = (product - (total - added)) + (c - added)
    return total + (rest + error)


def _upper_half(x):
    """float32 with the lower 12 of 24 significant bits cleared, so that products are exact."""
    bits = jax.lax.bitcast_convert_type(jnp.asarray(x), jnp.uint32)
    return jax.lax.bitcast_convert_type(bits & np.uint32(0xFFFFF000), jnp.float32)


def _levels(image, order):
    """How far each pixel of uint8 [H,W,3] is from its neighborhoods, brighter + _OFF * darker."""
    gray = _gray(image, order)
    levels = 0.0
    for total, others, times in _windows(_integral(gray)):
        # center - mean of the others, times their number, so that it stays whole.
        excess = gray * others - (total - gray)
        level = _quotient(jnp.abs(excess), jnp.maximum(others, 1))
        levels += jnp.where(excess > 0, times, times * _OFF) * level
    return levels


def _combine(levels):
    """uint8 map of `_levels` [H,W]: brighter and darker, each stretched to 255, added modulo 256."""
    darker = jnp.floor(levels / _OFF)
    out = _stretch(levels - darker * _OFF) + _stretch(darker)
    return jnp.where(out < 256, out, out - 256).astype(jnp.uint8)


def _gray(image, order):
    """Luminance of uint8 [H,W,3] in OpenCV's 15-bit fixed point, blurred twice, float32 [H,W]."""
    channels = (2, 1, 0) if order == "rgb" else (0, 1, 2)
    blue, green, red = (image[..., channel].astype(jnp.float32) for channel in channels)
    gray = jnp.floor((3735 * blue + 19235 * green + 9798 * red + 16384) / 32768)
    for _ in range(2):
        gray = jnp.floor((_binomial(gray) + 8) / 16)
    return gray


def _binomial(x):
    """[1 2 1] along rows, then along columns of [H,W], mirrored without repeating the edge."""
    for axis, size in enumerate(x.shape):
        margin = [(0, 0), (0, 0)]
        margin[axis] = (1, 1)
        x = jnp.pad(x, margin, mode="reflect" if size > 1 else "edge")
    x = 2 * x[:, 1:-1] + (x[:, :-2] + x[:, 2:])
    return 2 * x[1:-1] + (x[:-2] + x[2:])


def _integral(gray):
    """Sums over all pixels up to and including each, [H,W]."""
    # A running sum is a product with a triangle of ones, many times faster than cumsum on a CPU.
    # HIGHEST because accelerators would round the second product's input to bfloat16.
    rows, cols = (np.tri(size, dtype=np.float32) for size in gray.shape)
    highest = jax.lax.Precision.HIGHEST
    return jnp.matmul(rows, jnp.matmul(gray, cols.T, precision=highest), precision=highest)


def _windows(integral):
    """Yields (sums of a neighborhood [H,W], its pixels less one [H,W], how often)."""
    height, width = integral.shape
    largest = max(height, width)
    # All neighborhoods that reach over the whole image are the same one.
    halves = Counter(min(half, largest) for half in _HALF_SIZES)
    margin = max(halves)
    before, after = (margin, 0), (0, margin)
    padded = jnp.pad(jnp.pad(integral, (before, before)), (after, after), mode="edge")
    for half, times in halves.items():
        lo, hi = margin - half, margin + half

        def corner(row: int, col: int) -> Float[Array, "H W"]:
            return padded[row : row + height, col : col + width]

        # In OpenCV's order: the first sum may exceed 2^24 and round.
        total = ((corner(hi, hi) + corner(lo, lo)) - corner(hi, lo)) - corner(lo, hi)
        rows, cols = (_lengths(half, size) for size in (height, width))
        others = jnp.asarray(rows[:, None]) * cols - 1
        yield total, others, times


def _lengths(half, size):
    """float32 [size], how much of a neighborhood lies within the image."""
    at = np.arange(size)
    end, start = (np.clip(at + sign * half + 1, 0, size) for sign in (1, -1))
    return (end - start).astype(np.float32)


def _quotient(numerator, denominator):
    """floor(numerator / denominator) of whole numbers from 0 to below 2^24, in float32.

    The division may be off by one unit where a device approximates it; the comparisons are exact.
    """
    quotient = jnp.floor(numerator / denominator)
    quotient -= (quotient * denominator > numerator).astype(jnp.float32)
    return quotient + ((quotient + 1) * denominator <= numerator).astype(jnp.float32)


def _stretch(x):
    """trunc(255 x / max x) of whole numbers [H,W]; zeros stay."""
    return _quotient(255 * x, jnp.maximum(jnp.max(x), 1))
