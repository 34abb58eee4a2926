"""Square tiles as the units that are removed: from the upper left, the last row and column cut at the border."""

import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from mixaug_jax.attribution import resampling
from mixaug_jax.core import checks
from mixaug_jax.core.types import AnyArray, Array, Float, Shaped


def grid(size: Sequence[int], window: int) -> tuple[int, int]:
    """How many rows and columns of tiles an image of `size` (h, w) has.

    Raises:
      ValueError: unless `window` is a positive integer no longer than the image's shorter side.
    """
    checks.count("window", window)
    if window > min(size):
        raise ValueError(
            f"window must not be longer than the image's side of {min(size)} pixels; got {window}"
        )
    return tuple(math.ceil(side / window) for side in size)


def tile_means(heatmap: Float[AnyArray, "h w"], window: int) -> Float[Array, "rows cols"]:
    """[h,w] -> [rows,cols], the mean of each tile; of a constant tile to the bit, so that equal tiles are equal."""
    counts = tile_sums(jnp.ones(heatmap.shape), window)
    # Sums of what differs from a tile's first value, which for a constant tile are 0 to the bit.
    first = heatmap[::window, ::window]
    beyond = tile_sums(heatmap - on_pixels(first, window, heatmap.shape), window)
    return first + beyond / counts


def tile_sums(heatmap: Float[AnyArray, "h w"], window: int) -> Float[AnyArray, "rows cols"]:
    """[h,w] -> [rows,cols], the sum of each tile."""
    shape = grid(heatmap.shape, window)
    if window == 1:
        return heatmap
    belongs = [
        np.arange(count)[:, None] == np.arange(side) // window
        for count, side in zip(shape, heatmap.shape, strict=True)
    ]
    return resampling.apply(*belongs, heatmap)


def on_pixels(
    values: Shaped[AnyArray, "*n rows cols"], window: int, size: Sequence[int]
) -> Shaped[AnyArray, "*n h w"]:
    """[..., rows,cols] -> [...,h,w]: each tile's value at its pixels."""
    if window == 1:
        return values
    row, col = (np.arange(side) // window for side in size)
    return values[..., row[:, None], col]
