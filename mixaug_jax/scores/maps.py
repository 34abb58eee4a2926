"""What all scores do with a heat map first: its size, values that are not finite, the order of its values."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from mixaug_jax.core.types import AnyArray, Array, Float, Int, Num, Numbers


def checked(
    heatmap: AnyArray, shape: Sequence[int], whose: str, name: str = "heatmap"
) -> Float[Array, "..."]:
    """`heatmap` as float32 of `shape`, all zeros where any of its values is NaN or infinite.

    Args:
      whose: the thing whose size `shape` is, for the error.
      name: of the argument, for the error.

    Raises:
      ValueError: for another shape.
    """
    if jnp.shape(heatmap) != tuple(shape):
        got = list(jnp.shape(heatmap))
        raise ValueError(f"{name} must have the size of the {whose}, {list(shape)}; got {got}")
    heatmap = jnp.asarray(heatmap, jnp.float32)
    # Not the value alone: a map with a hole is no ranking of pixels.
    return jnp.where(jnp.isfinite(heatmap).all(), heatmap, 0)


def ratio(part: Numbers, whole: Numbers) -> Array:
    """part / whole, or 0 where `whole` is 0."""
    return jnp.where(whole == 0, 0.0, part / jnp.where(whole == 0, 1, whole))


def to_one(heat: Float[AnyArray, "..."]) -> Float[Array, "..."]:
    """Not negative values divided by their maximum, so that no sum overflows; zeros stay zeros."""
    top = heat.max()
    # The reciprocal of a very large number is flushed to 0, so bring it near 1 first.
    near = jnp.where(top > 1, 2.0**-64, 2.0**64)
    return ratio(heat * near, top * near)


def ranks(values: Num[AnyArray, "*n"], *, backward: bool = False) -> Int[Array, "*n"]:
    """The rank of each value, int32 of the same shape: 0 is the largest.

    Equal values are ranked in an arbitrary order that is always the same for one number of values. In reading order, a map
    with many zeros would be removed from the top of the image downwards, which is no chance ranking. `backward` ranks equal
    values in the opposite order.
    """
    flat = values.ravel()
    shuffle = np.random.RandomState(0).permutation(
        flat.size
    )  # frozen by numpy's compatibility rules
    shuffle = shuffle[::-1] if backward else shuffle
    order = jnp.asarray(shuffle)[jnp.argsort(-flat[shuffle], stable=True)]
    places = jnp.arange(flat.size, dtype=jnp.int32)
    return jnp.zeros_like(places).at[order].set(places).reshape(values.shape)
