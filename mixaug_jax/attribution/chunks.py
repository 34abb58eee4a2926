"""Loops over samples, steps or windows, a chunk at a time, so that memory does not grow with their number.

A chunk is a row of indices; a method makes from an index whatever it needs (its noise from a key folded with the index), so
that results do not depend on the size of the chunks beyond the order in which float32 numbers are added.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from mixaug_jax.core import checks
from mixaug_jax.core.types import AnyArray, Array, Bool, Indices, Int, Numbers, Tree

# Count, mean and sum of squared deviations.
Moments = tuple[Numbers, Numbers, Numbers]


def split(
    count: int, chunk: int
) -> tuple[Int[np.ndarray, "rows length"], Bool[np.ndarray, "rows length"]]:
    """Indices 0..`count` - 1 in rows of about equal length, at most `chunk` (0: one row).

    Returns:
      int32 [rows,length], the last row filled up with the last index, and bool [rows,length], False where filled up.
    """
    checks.count("chunk", chunk, 0)
    rows = math.ceil(count / chunk) if chunk else 1
    # Of about equal length: rows are filled up, and a short last one would be computed in full.
    index = np.arange(rows * math.ceil(count / rows), dtype=np.int32).reshape(rows, -1)
    return np.minimum(index, count - 1), index < count


def fold(step: Callable, start: Tree, count: int, chunk: int) -> Tree:
    """step(carry, indices [c], real [c] bool) -> carry, over all chunks of 0..`count` - 1 from the carry `start`."""
    index, real = split(count, chunk)
    if len(index) == 1:
        # Without a loop XLA can fuse the one chunk with what surrounds it.
        return step(start, jnp.asarray(index[0]), jnp.asarray(real[0]))
    return jax.lax.scan(lambda carry, xs: (step(carry, *xs), None), start, (index, real))[0]


def total(f: Callable, count: int, chunk: int) -> Tree:
    """The sum over i of row i of f(indices [c]) -> a tree of arrays [c,...]."""

    def step(carry: Tree, indices: Indices, real: Bool[AnyArray, " n"]) -> Tree:
        rows = f(indices)
        return jax.tree.map(lambda t, r: t + jnp.sum(r, 0, where=_over_rows(real, r)), carry, rows)

    # A trace of one row: only f knows what it returns.
    shapes = jax.eval_shape(f, jax.ShapeDtypeStruct((1,), jnp.int32))
    start = jax.tree.map(lambda s: jnp.zeros(s.shape[1:], s.dtype), shapes)
    return fold(step, start, count, chunk)


def every(f: Callable, count: int, chunk: int) -> Array:
    """f(indices [c]) -> [c,...] for all of 0..`count` - 1, as one array [count,...]."""
    index, _ = split(count, chunk)
    if len(index) == 1:
        return f(jnp.asarray(index[0]))
    # The last row repeats its last index; what is beyond `count` is cut off.
    rows = jax.lax.map(f, index)
    return rows.reshape(-1, *rows.shape[2:])[:count]


def moments(f: Callable, count: int, chunk: int) -> tuple[Array, Array]:
    """Mean and mean squared deviation of the rows of f(indices [c]) -> [c,...] float32, without cancellation."""

    def step(carry: Tree, indices: Indices, real: Bool[AnyArray, " n"]) -> Tree:
        rows = f(indices)
        where = _over_rows(real, rows)
        # Around each chunk's own mean: a difference of two large sums would lose the variance.
        mean = jnp.mean(rows, 0, where=where)
        spread = jnp.sum(jnp.square(rows - mean), 0, where=where)
        return merge_moments(carry, (jnp.sum(real).astype(jnp.float32), mean, spread))

    shape = jax.eval_shape(f, jax.ShapeDtypeStruct((1,), jnp.int32)).shape[1:]
    start = (jnp.float32(0), jnp.zeros(shape), jnp.zeros(shape))
    n, mean, spread = fold(step, start, count, chunk)
    return mean, spread / n


def merge_moments(a: Moments, b: Moments) -> Moments:
    """Two sets' (count, mean, sum of squared deviations) as those of their union (Chan, Golub and LeVeque 1983, eq. 2.1)."""
    count = a[0] + b[0]
    move = (b[1] - a[1]) * (b[0] / count)
    return count, a[1] + move, a[2] + b[2] + move * (b[1] - a[1]) * a[0]


def _over_rows(real, rows):
    return real.reshape(-1, *[1] * (rows.ndim - 1))
