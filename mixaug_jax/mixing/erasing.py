"""Random erasing: one rectangle of each image is lost."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mixaug_jax.core import checks
from mixaug_jax.core.types import AnyArray, Count, Float, Images, Integers, RandomKey, Targets
from mixaug_jax.mixing import draws
from mixaug_jax.mixing.pixels import box_mask

FILLS = ("zero", "noise")
_TRIES = 10


def erased_size(
    uniform: Float[AnyArray, "... 2"],
    size: Sequence[int],
    area: Sequence[float] = (0.02, 1 / 3),
    aspect: float = 0.3,
) -> tuple[Integers, Integers]:
    """(height, width) of a rectangle in an image of `size`, of two uniform draws, for its area and for its shape.

    Args:
      uniform: [...,2] in 0..1.
      size: (height, width) of the image.
      area: smallest and largest share of the image.
      aspect: height / width is between this and its inverse, uniform in the logarithm.

    Returns:
      int32 [...], rounded half to even. Computed by numpy in the type given where `uniform` is numpy's, else in float32.
    """
    xp = jnp if isinstance(uniform, jax.Array) else np
    low, high = area
    pixels = (low + (high - low) * uniform[..., 0]) * math.prod(size)
    # aspect^(1 - 2 u), from the inverse of the smallest to it or the other way round, is uniform in the logarithm.
    shape = xp.exp(math.log(aspect) * (1 - 2 * uniform[..., 1]))
    height, width = xp.sqrt(pixels * shape), xp.sqrt(pixels / shape)
    return xp.rint(height).astype(np.int32), xp.rint(width).astype(np.int32)


def random_erasing(
    key: RandomKey,
    images: Images,
    targets: Targets,
    *,
    shard: Count = 0,
    prob: float = 0.5,
    per: str = "example",
    area: Sequence[float] = (0.02, 1 / 3),
    aspect: float = 0.3,
    fill: str = "zero",
) -> tuple[Images, Targets]:
    """One rectangle of random area and shape filled with the mean color or with noise; labels stay.

    Zhong et al., Random Erasing Data Augmentation, arXiv 1708.04896, section 3.2, as in timm: a rectangle that does not fit is
    drawn again, ten times in all, after which the image stays as it is.

    Args:
      key: the step's key, equal on all devices.
      images: [B,H,W,C] floating point, normalized.
      targets: [B,K], returned as they are.
      shard: index of this device along the data axis.
      prob: probability of a rectangle.
      per: "example" as published; or "batch", the same rectangle for the whole batch.
      area: smallest and largest share of the image; the paper's tables have 0.4 at most, timm a third.
      aspect: height / width is between this and its inverse.
      fill: "zero", the mean color; or "noise", a normal value for each pixel and channel.

    Returns:
      (images, targets), in the types given.

    Raises:
      ValueError: an option out of range, or arrays that do not fit.
    """
    checks.batch(images, targets, partners=False)
    draws.check(prob, per)
    checks.interval("area", area, 0, 1)
    checks.number("aspect", aspect, 0, 1, above=True)
    checks.choice("fill", fill, FILLS)
    size = images.shape[1:3]
    _, (shapes, row, col, whether, noise) = draws.streams(key, shard, per, 5)
    shape = draws.shape(per, images)
    # All tries are drawn at once and the first that fits is taken: a loop's length would depend on the draws.
    sides = erased_size(jax.random.uniform(shapes, (_TRIES, *shape, 2)), size, area, aspect)
    fits = (sides[0] < size[0]) & (sides[1] < size[1])
    first = jnp.argmax(fits, axis=0)[None]
    on = fits.any(0) & draws.coin(whether, prob, shape)
    edges = []
    # A rectangle of no size where nothing is erased, so that every example runs the same program.
    for tried, side, where in zip(sides, size, (row, col), strict=True):
        length = jnp.where(on, jnp.take_along_axis(tried, first, 0)[0], 0)
        start = jax.random.randint(where, shape, 0, side - length + 1)
        edges.append((start, start + length))
    (row0, row1), (col0, col1) = edges
    hole = box_mask((row0, col0, row1, col1), *size)[..., None]
    filled = jnp.zeros((), images.dtype)
    if fill == "noise":
        filled = jax.random.normal(jax.random.fold_in(noise, shard), images.shape, images.dtype)
    return jnp.where(hole, filled, images), targets
