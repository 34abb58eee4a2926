"""The random draws that mixers share.

What a batch has in common (lambda, coin, box when `per="batch"`) comes from the step's key, which
is equal on all devices; what an example has of its own comes from that key with the device's index
folded in. So one step mixes alike on every device, and no two devices use the same permutation.
"""

import jax
import jax.numpy as jnp
import numpy as np

from mixaug_jax.core import checks
from mixaug_jax.core.types import AnyArray, Array, Bool, Count, Float, Int, Key, RandomKey

# `fold_in(key, i)` is also the i-th key of `split(key)`: the shared draws therefore come from an
# index that no device has, or they would repeat a device's own.
_SHARED = np.uint32(2**32 - 1)


def check(prob: float, per: str) -> None:
    """Raises ValueError unless `prob` is in 0..1 and `per` is "batch" or "example"."""
    checks.fraction("prob", prob)
    checks.choice("per", per, ("batch", "example"))


def streams(
    key: RandomKey, shard: Count, per: str, count: int
) -> tuple[RandomKey, Key[Array, " count"]]:
    """Keys for one call of a mixer.

    Args:
      key: the step's key, equal on all devices.
      shard: index of this device along the data axis, may be traced.
      per: "batch" or "example".
      count: how many keys for options are needed.

    Returns:
      (key of the permutation, `count` keys of the options); the second depend on `shard` only where
      `per` is "example".
    """
    permutation, options = jax.random.split(jax.random.fold_in(key, shard))
    if per == "batch":
        options = jax.random.fold_in(key, _SHARED)
    return permutation, jax.random.split(options, count)


def shape(per: str, images: AnyArray) -> tuple[int, ...]:
    """Shape of one draw for the batch, () or [B]."""
    return () if per == "batch" else (images.shape[0],)


def lam(key: RandomKey, alpha: float, shape: tuple[int, ...]) -> Float[Array, "..."]:
    """float32 lambda ~ Beta(alpha, alpha) of a static `alpha`; all 1 where alpha <= 0."""
    if alpha <= 0:
        return jnp.ones(shape, jnp.float32)
    if alpha == 1:  # the uniform distribution, without beta's rejection loops
        return jax.random.uniform(key, shape)
    # As jax.random.beta, with both gamma variables in one loop: half of its compile time.
    own, partner = jax.random.loggamma(key, alpha, (2, *shape), jnp.float32)
    return jax.nn.sigmoid(own - partner)


def coin(key: RandomKey, prob: float, shape: tuple[int, ...]) -> Bool[Array, "..."]:
    """bool of the given shape, True with the static probability `prob`."""
    if prob == 1:
        return jnp.ones(shape, bool)
    return jax.random.uniform(key, shape) < prob


def pixel(
    key: RandomKey, height: int, width: int, shape: tuple[int, ...]
) -> tuple[Int[Array, "..."], Int[Array, "..."]]:
    """(row, col), int32 of the given shape, uniform over the pixels of an image."""
    row, col = jax.random.split(key)
    return jax.random.randint(row, shape, 0, height), jax.random.randint(col, shape, 0, width)
