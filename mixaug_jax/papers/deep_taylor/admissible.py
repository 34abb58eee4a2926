"""Is a point in the linear region of another one, and how far does the region reach?

A ReLU network is linear where no ReLU changes; such a region is convex. A root is admissible, and a Taylor expansion at it says
something about x, only within the region of x (Sixt and Landgraf 2022, arXiv 2211.08425).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mixaug_jax.core.types import AnyArray, Array, Bool, Count, Float, RandomKey, Scalar
from mixaug_jax.papers.deep_taylor.relu_stack import Stack, forward

NEAR = 0.999  # of the way to a root: at the root itself the neuron's own ReLU changes
BETWEEN = 9  # points on the way, of the test by segment
RTOL, ATOL = 1e-3, 1e-5  # of the published comparison of gradients


class Verdict(NamedTuple):
    """What the tests say of a point: True where it is in the region.

    Attributes:
      same_gradient: the output's gradient is that at h, the published test.
      same_pattern: every ReLU is as at h; implies the other two.
      same_pattern_but_own: the same, without the ReLU whose root it is.
      segment: every ReLU stays as it is at nine points on the way; the point itself may lie beyond.
    """

    same_gradient: Array
    same_pattern: Array
    same_pattern_but_own: Array
    segment: Array


def pre_activations(stack: Stack, h: Float[AnyArray, " in"]) -> Float[Array, " neurons"]:
    """What goes into every ReLU of a stack whose input is h, one layer after the other."""
    found = []
    for layer in stack:
        found.append(h @ layer.kernel + layer.bias)
        h = jax.nn.relu(found[-1])
    return jnp.concatenate(found)


def pattern(stack: Stack, h: Float[AnyArray, " in"]) -> Bool[Array, " neurons"]:
    """Which ReLUs are on."""
    return pre_activations(stack, h) > 0


def judge(
    stack: Stack, h: Float[AnyArray, " in"], roots: Float[AnyArray, "J in"], output: int = 0
) -> Verdict:
    """Whether the roots of the first layer's neurons lie in the region of h, tested at `NEAR` of the way; values [J].

    Args:
      stack: the layers from the one whose input h is, up to the output.
      h: the layer's input.
      roots: of the neurons 0..J-1 of the stack's first layer.
      output: the neuron whose gradient is compared.
    """

    def gradient(at: Array) -> Array:
        return jax.grad(lambda at: forward(stack, at)[output])(at)

    here, on = gradient(h), pattern(stack, h)

    def one(j: Count, point: Array) -> Verdict:
        point = h + NEAR * (point - h)
        alike = jnp.isclose(gradient(point), here, RTOL, ATOL).all()
        same = pattern(stack, point) == on
        # At its own root a neuron stands on its border, so it is left out of the second answer.
        others = same | (jnp.arange(len(on)) == j)
        way = jnp.linspace(0, 1, BETWEEN + 2)[1:-1, None]
        stays = (jax.vmap(lambda at: pattern(stack, at))(h + way * (point - h)) == on).all()
        return Verdict(alike, same.all(), others.all(), stays)

    return jax.vmap(one)(jnp.arange(len(roots)), roots)


def farthest(
    inside: Callable[[Array], Array],
    h: Float[AnyArray, "..."],
    way: Float[AnyArray, "..."],
    length: Scalar = 1.0,
    steps: int = 20,
) -> Float[Array, ""]:
    """How far one can go from h along `way` and stay inside: bisection between 0 and `length`; `length` where all of it is.

    The region is convex, so a point inside has all points before it inside.

    Args:
      inside: whether a point is in the region.
      h, way: where from, and where to.
      length: the farthest, in units of `way`.
      steps: each halves what is not known.
    """

    def halve(ends: tuple[Array, Array], _: None):
        low, high = ends
        middle = (low + high) / 2
        there = inside(h + middle * way)
        return (jnp.where(there, middle, low), jnp.where(there, high, middle)), None

    dtype = jnp.result_type(h, float)
    # Twice as far, so that the first step looks at `length` itself and `inside` is compiled once.
    ends = jnp.zeros((), dtype), jnp.asarray(2 * length, dtype)
    (low, _), _ = jax.lax.scan(halve, ends, None, length=steps + 1)
    return jnp.minimum(low, length)


def unit_directions(key: RandomKey, count: int, size: int) -> Float[Array, "n in"]:
    """Random directions of length 1."""
    draw = jax.random.normal(key, (count, size), float)
    return draw / jnp.linalg.norm(draw, axis=-1, keepdims=True)


def reach(
    stack: Stack, h: Float[AnyArray, " in"], ways: Float[AnyArray, "n in"], *, steps: int = 20
) -> Float[Array, "n in"]:
    """The farthest point of the region of h along each direction, at most 1 away, entries below 0 set to 0."""
    on = pattern(stack, h)

    def one(way: Array) -> Array:
        def inside(at: Array) -> Array:
            return (pattern(stack, jnp.maximum(at, 0)) == on).all()

        return jnp.maximum(h + farthest(inside, h, way, 1.0, steps) * way, 0)

    return jax.vmap(one)(ways)


def reach_published(
    stack: Stack, h: Float[AnyArray, " in"], ways: Float[AnyArray, "n in"], output: int = 0
) -> Float[Array, "n in"]:
    """The same as the published sampler finds it: the last of ten points on the way that has the gradient of h.

    Its ten refinements index another axis and refine nothing, so the points lie at multiples of 1/9 of the way.
    """

    def gradient(at: Array) -> Array:
        return jax.grad(lambda at: forward(stack, at)[output])(at)

    here = gradient(h)

    def one(way: Array) -> Array:
        points = jnp.maximum(h + jnp.linspace(0, 1, 10)[:, None] * way, 0)
        alike = jnp.isclose(jax.vmap(gradient)(points), here, RTOL, ATOL).all(-1)
        # The last of all that are alike, as there: not the last before the first that differs.
        return points[jnp.where(alike, jnp.arange(10), 0).max()]

    return jax.vmap(one)(ways)


def chains(
    stack: Stack,
    h: Float[AnyArray, " in"],
    key: RandomKey,
    *,
    count: int = 10,
    burn_in: int = 100,
    steps: int = 1000,
) -> Float[Array, "chains steps in"]:
    """Points of the region of h by Metropolis-Hastings, as published: one entry at a time for 20 steps, entries at least 0.

    The step's scale starts at 1e-6 and is changed by 15^(accepted share - .9) after every 20 steps, within 1e-6..0.01.
    """
    on = pattern(stack, h)

    def chain(key: Array) -> Array:
        def step(state: tuple, i: Array):
            at, scale, accepted = state
            # The same entry for 20 steps, and a new move in each.
            dim_key, move_key = (
                jax.random.fold_in(jax.random.fold_in(key, n), m) for n, m in ((i // 20, 0), (i, 1))
            )
            entry = jax.random.randint(dim_key, (), 0, len(h))
            moved = at.at[entry].add(scale * jax.random.normal(move_key, (), at.dtype))
            good = (moved[entry] >= 0) & (pattern(stack, moved) == on).all()
            at, accepted = jnp.where(good, moved, at), accepted + good
            # The share of accepted moves is that of one entry; it sets the scale for the next.
            last = i % 20 == 19
            adapted = jnp.clip(scale * 15.0 ** (accepted / 20 - 0.9), 1e-6, 0.01)
            return (at, jnp.where(last, adapted, scale), jnp.where(last, 0, accepted)), at

        start = jnp.asarray(h), jnp.asarray(1e-6, jnp.result_type(h)), jnp.asarray(0)
        return jax.lax.scan(step, start, jnp.arange(burn_in + steps))[1][burn_in:]

    return jax.vmap(chain)(jax.random.split(key, count))


def widths(points: Float[AnyArray, "n in"]) -> Float[Array, ""]:
    """The size of a region by points of it: largest less smallest value, the mean over dimensions."""
    return (points.max(0) - points.min(0)).mean()
