"""Sums along a path by the squares of gradients (IDGI): the change of the output in each step goes to the features by their
share of the squared gradient."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mixaug_jax.attribution import chunks
from mixaug_jax.attribution.target import nan_like, outputs
from mixaug_jax.core.types import AnyArray, Array, Count, Image, Images, Indices, Label, Net, Scalar


def valued(net: Net, label: Label, output: str) -> Callable:
    """The function f(x [n,h,w,C]) -> (outputs [n], gradients [n,h,w,C]) of what is explained."""

    def f(x: Images) -> tuple[Array, Array]:
        values, vjp = jax.vjp(lambda x: outputs(net, x, label, output), x)
        return values, nan_like(values[:, None, None, None], vjp(jnp.ones_like(values))[0])

    return f


class Squares(NamedTuple):
    """The sum of g^2 d / |g|^2 so far, with what it needs of the points before.

    Attributes:
      total: [h,w,C].
      unit: [h,w,C], g^2 / |g|^2 of the last point with a gradient.
      live: whether the last point had one.
      value: the output at the last point.
      waiting: changes of the output after points without a gradient.
    """

    total: Array
    unit: Array
    live: Array
    value: Array
    waiting: Array


def begin(image: Image, value: Scalar | Array) -> Squares:
    """Before the first point, whose output is `value`."""
    zero = jnp.zeros_like(image)
    return Squares(zero, zero, jnp.asarray(False), jnp.asarray(value), jnp.zeros_like(value))


def add(sums: Squares, value: Scalar | Array, gradient: Image) -> Squares:
    """With one more point: the change of the output since the one before goes to the squares of that one's gradient."""
    change = value - sums.value + sums.waiting
    total = sums.total + jnp.where(sums.live, change, 0) * sums.unit
    square = jnp.square(gradient)
    norm = square.sum()
    live = norm > 0
    unit = jnp.where(live, square / jnp.where(live, norm, 1), sums.unit)
    return Squares(total, unit, live, value, jnp.where(sums.live, 0, change))


def end(sums: Squares, value: Scalar | Array) -> Array:
    """The sum with the end of the path, whose output is `value`; what is still waiting goes to the last gradient there was."""
    return sums.total + (value - sums.value + sums.waiting) * sums.unit


def along_straight(
    f: Callable, image: Image, start: Image, alphas: AnyArray, chunk: int = 8
) -> Array:
    """IDGI on the straight path: the sum over its points x_j of g_j^2 (f(x_j+1) - f(x_j)) / |g_j|^2, [h,w,C].

    Args:
      f: f(x [n,h,w,C]) -> (outputs [n], gradients [n,h,w,C]).
      image: where the path ends.
      start: where it begins.
      alphas: [n + 1] from the start (0) to the image (1), the places of the points.
      chunk: gradients in memory at once; 0 is all.
    """
    alphas = jnp.asarray(alphas, image.dtype)

    def points(indices: Indices) -> Images:
        return start + alphas[indices].reshape(-1, 1, 1, 1) * (image - start)

    return walked(f, points, image, len(alphas) - 1, chunk)


def walked(f: Callable, points: Callable, image: Image, steps: Count, chunk: Count) -> Array:
    """The sum over the points 0..`steps`, of which the last has no gradient of its own, [h,w,C].

    Args:
      f: f(x [n,h,w,C]) -> (outputs [n], gradients [n,h,w,C]).
      points: points(indices [n]) -> [n,h,w,C].
      image: of their size.
      steps: how many gradients.
      chunk: gradients in memory at once; 0 is all.
    """
    first, last = (f(points(jnp.array([k])))[0][0] for k in (0, steps))

    def step(sums: Squares, indices: Indices, real: AnyArray) -> Squares:
        values, gradients = f(points(indices))

        def one(sums: Squares, row: tuple) -> tuple[Squares, None]:
            value, gradient, there = row
            # Chunks are filled up with points that are not there, and these must change nothing.
            more = add(sums, value, gradient)
            return jax.tree.map(lambda new, old: jnp.where(there, new, old), more, sums), None

        return jax.lax.scan(one, sums, (values, gradients, real))[0]

    return end(chunks.fold(step, begin(image, first), steps, chunk), last)
