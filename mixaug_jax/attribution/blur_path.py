"""Attribution along blurring, from the widest blur to the image."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from mixaug_jax.attribution import chunks, squares
from mixaug_jax.core import checks
from mixaug_jax.core.types import Array, Attribution, Image, Indices, Label, Net, Scalar

WIDEST = 50 / 299  # of the shorter side, the widest blur of the published code
TRUNCATE = 4  # sigmas, where a Gaussian ends


def widths(steps: int, widest: float, spacing: str) -> list[float]:
    """The `steps` + 1 sigmas from 0, at equal distances ("linear") or at square roots of such ("sqrt")."""
    checks.choice("spacing", spacing, ("linear", "sqrt"))
    even = [i * widest / steps for i in range(steps + 1)]
    return even if spacing == "linear" else [math.sqrt(s) for s in even]


def gaussian(image: Image, sigma: Scalar | Array, widest: float) -> Array:
    """`image` [h,w,C] blurred with `sigma` pixels, cut off at `TRUNCATE` sigmas, zeros around it; as scipy's filter.

    Args:
      image: [h,w,C].
      sigma: at most `widest`; it may be traced, and differentiated at a fixed number of taps.
      widest: the largest sigma, which decides how far a pixel may reach.
    """
    for axis in (0, 1):
        side = image.shape[axis]
        away = jnp.abs(jnp.arange(side)[:, None] - jnp.arange(side)).astype(image.dtype)
        reach = int(TRUNCATE * widest + 0.5)
        taps = _taps(jnp.arange(-reach, reach + 1).astype(image.dtype), sigma)
        weights = _taps(away, sigma) / taps.sum()
        image = jnp.moveaxis(jnp.tensordot(weights, image, (1, axis)), 0, axis)
    return image


def _taps(away, sigma):
    safe = jnp.where(sigma > 0, sigma, 1)
    inside = jnp.abs(away) <= jnp.floor(TRUNCATE * sigma + 0.5)
    bell = jnp.exp(-jnp.square(away / safe) / 2)
    # A width of 0 is the image itself, where the derivative is 0.
    return jnp.where(sigma > 0, jnp.where(inside, bell, 0), (away == 0).astype(away.dtype))


def along_blur(
    f: Callable, image: Image, sigmas: list[float], *, difference: float = 0.0, chunk: int = 8
) -> Array:
    """Minus the integral over sigma of the gradient times the derivative of the blurred image, [h,w,C], by the left rule.

    Args:
      f: f(x [n,h,w,C]) -> (outputs [n], gradients [n,h,w,C]).
      image: [h,w,C], where sigma is 0.
      sigmas: [n + 1], increasing from 0.
      difference: the derivative is a difference over so many pixels of sigma, as published, which in float32 loses three
        digits; 0: the derivative itself.
      chunk: gradients in memory at once; 0 is all.
    """
    widest = max(sigmas) + difference
    places = jnp.asarray(sigmas, image.dtype)

    def one(sigma: Array) -> tuple[Array, Array]:
        def blurred(s: Array) -> Array:
            return gaussian(image, s, widest)

        # The released code takes a difference; without one the derivative is exact, by forward mode.
        if difference:
            x = blurred(sigma)
            return x, (blurred(sigma + difference) - x) / difference
        return jax.jvp(blurred, (sigma,), (jnp.ones_like(sigma),))

    def rows(indices: Indices) -> Array:
        x, change = jax.vmap(one)(places[indices])
        apart = (places[indices + 1] - places[indices]).reshape(-1, 1, 1, 1)
        return apart * change * f(x)[1]

    return -chunks.total(rows, len(sigmas) - 1, chunk)


def blur_ig(
    net: Net,
    image: Image,
    label: Label,
    *,
    steps: int = 100,
    max_sigma: float = 0.0,
    spacing: str = "linear",
    output: str = "logit",
    chunk: int = 8,
) -> Attribution:
    """Integrated gradients along blurring, signed [h,w,C] (Xu et al. 2020, arXiv 2004.03383).

    Sums to the difference of the output between the image and its widest blur, up to the error of the left rule. The released
    code takes the last step's width for a whole batch, which is wrong for "sqrt", and a difference over .01 pixels for the
    derivative; here each step has its own width, and the derivative is exact.

    Args:
      net, image, label: see `mixaug_jax.attribution`.
      steps: number of gradients.
      max_sigma: the widest blur, pixels; 0: 50 of 299 pixels of the shorter side, the published one.
      spacing: "linear", or "sqrt": widths are square roots, up to that of max_sigma, as in the released code.
      output: the output explained, "logit", "prob" or "loss".
      chunk: gradients in memory at once; 0 is all.

    Raises:
      ValueError: for options out of range.
    """
    image = checks.image(image)
    sigmas = sigmas_of(image, steps, max_sigma, spacing)
    return along_blur(squares.valued(net, label, output), image, sigmas, chunk=chunk)


def sigmas_of(image: Image, steps: int, max_sigma: float, spacing: str) -> list[float]:
    """The widths for options of `blur_ig`; ValueError for those out of range."""
    checks.count("steps", steps)
    checks.number("max_sigma", max_sigma, 0)
    return widths(steps, max_sigma or WIDEST * min(image.shape[:2]), spacing)
