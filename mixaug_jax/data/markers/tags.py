"""What is known of a marker: its 12 bits, and how it lies.

The marker of the BeesBook project, as in RenderGAN (Sixt, Wild and Landgraf 2018, arXiv 1611.01331): a disc whose inner half is
white and whose other inner half is black, a ring of 12 cells around it, white or black by the bits, and a white rim.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from mixaug_jax.core.types import AnyArray, Count, Float, Integer, RandomKey, Scalar

BITS = 12
SIDE = 64  # pixels of the published pictures, in which lengths are given
MIDDLE = 0.8  # where the cells end, a share of the radius


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Labels:
    """Of B markers.

    Attributes:
      bits: [B,12], 0 (black) or 1; cell k covers 30 k to 30 (k + 1) degrees, clockwise in the picture, from the axis through
        the middle of the white half.
      zrot: [B] radians, turns it in the picture, clockwise.
      yrot, xrot: [B] radians, tilt it.
      center: [B,2], rows and columns from the picture's middle, pixels.
      radius: [B], pixels, of a marker that is not tilted.
      inner: [B], where the halves end and the cells begin, a share of the radius.
      bulge: [B] radians, how much the marker is bent; its middle is nearer to the camera.
      focal: [B], the camera's distance in radii.
    """

    bits: Any
    zrot: Any
    yrot: Any
    xrot: Any
    center: Any
    radius: Any
    inner: Any
    bulge: Any
    focal: Any


def bits_of(number: Integer[AnyArray, " B"]) -> Float[AnyArray, "B 12"]:
    """The bits [B,12] float32 of ids [B] in 0..4095, most significant first."""
    places = jnp.arange(BITS - 1, -1, -1)
    return ((jnp.asarray(number)[:, None] >> places) & 1).astype(jnp.float32)


def number_of(bits: Float[AnyArray, "B 12"]) -> Integer[AnyArray, " B"]:
    """The ids [B] of bits [B,12], of which 1 is what is above one half."""
    places = 2 ** jnp.arange(BITS - 1, -1, -1)
    return ((jnp.asarray(bits) > 0.5) * places).sum(-1)


def draw(key: RandomKey, count: Count, *, size: Count, spin: Scalar = math.pi) -> Labels:
    """Labels of `count` markers in pictures of `size` pixels, from the published distribution.

    Args:
      key: of the draw.
      count: B.
      size: side of the picture; lengths are in proportion to it.
      spin: zrot is within +-spin, radians; pi is every direction.
    """
    keys = jax.random.split(key, 8)
    scale = size / SIDE
    most = math.radians(60) / math.radians(30)
    tilts = math.radians(30) * jax.random.truncated_normal(keys[0], -most, most, (2, count))

    def uniform(key: RandomKey, low: Scalar, high: Scalar, *shape: int):
        return jax.random.uniform(key, (count, *shape), minval=low, maxval=high)

    # Of the published mean 24, deviation 1.3 and ends 22 and 26.
    normal = jax.random.truncated_normal(keys[1], -2 / 1.3, 2 / 1.3, (count,))
    return Labels(
        bits=jax.random.bernoulli(keys[2], 0.5, (count, BITS)).astype(jnp.float32),
        zrot=uniform(keys[3], -spin, spin),
        yrot=tilts[0],
        xrot=tilts[1],
        # The published range is that of crops which are cut again; a shift of 4 is what is left of it.
        center=uniform(keys[4], -4 * scale, 4 * scale, 2),
        radius=scale * (24 + 1.3 * normal),
        inner=uniform(keys[5], 0.42, 0.48),
        bulge=uniform(keys[6], 0.4, 0.8),
        focal=uniform(keys[7], 2.0, 4.0),
    )
