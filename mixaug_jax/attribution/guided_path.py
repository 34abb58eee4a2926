"""Attribution along the guided path, on which features with small gradients move first."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mixaug_jax.attribution import squares
from mixaug_jax.attribution.squares import Squares
from mixaug_jax.attribution.target import replacement
from mixaug_jax.core import checks
from mixaug_jax.core.types import Array, Attribution, Baseline, Image, Label, Net

_EQUAL = 1e-6  # of all that there is to go: float32 does not hold the published 1e-9


class Guided(NamedTuple):
    """Where the guided path is: each feature's share of its way, what is attributed so far, and the sums of squares."""

    share: Array
    total: Array
    squares: Squares


def along_guided(
    f: Callable, image: Image, start: Image, *, steps: int, fraction: float, max_dist: float
) -> tuple[Array, Array]:
    """The guided path's integral of the gradient and its sum of squares (IDGI), both [h,w,C].

    At step k all features lie within `max_dist` of (k + 1) / steps of their way. Those behind are pulled up; then the ones with
    the smallest gradients move until the distance that is left is the straight path's.

    Args:
      f: f(x [1,h,w,C]) -> (outputs [1], gradients [1,h,w,C]).
      image, start: the ends of the path.
      steps: gradients, one after the other.
      fraction: of the features that move at once.
      max_dist: of the straight path, as a share of the way.
    """
    way = image - start
    length = jnp.abs(way)
    there = length > 0

    def step(state: Guided, k: Array) -> tuple[Guided, None]:
        values, gradients = f((start + state.share * way)[None])
        goal = (k + 1) / steps
        low, high = jnp.maximum(goal - max_dist, 0), jnp.minimum(goal + max_dist, 1)
        left = length.sum() * (1 - goal)
        # What does not change from baseline to image is at its end, and never chosen.
        share = jnp.where(there, state.share, high)
        share = _advance(share, jnp.abs(gradients[0]), length, (low, high, left), fraction)
        share = jnp.where(there, share, state.share)
        total = state.total + (share - state.share) * way * gradients[0]
        return Guided(share, total, squares.add(state.squares, values[0], gradients[0])), None

    first = f(start[None])[0][0]
    zero = jnp.zeros_like(image)
    state, _ = jax.lax.scan(
        step, Guided(zero, zero, squares.begin(image, first)), jnp.arange(steps, dtype=image.dtype)
    )
    last = f((start + state.share * way)[None])[0][0]
    return state.total, squares.end(state.squares, last)


def _advance(share, gradient, length, bounds, fraction):
    """The shares of a step's end, from those of its start."""
    low, high, left = bounds
    share = jnp.maximum(share, low)
    place = math.floor(fraction * (share.size - 1))
    # Each round sends a share `fraction` of the features to the bound, and one of them at least.
    most = math.ceil(min(1 / fraction, share.size)) + 3
    equal = _EQUAL if share.dtype == jnp.float32 else 1e-9

    def going(state: tuple) -> Array:
        _, moving, rounds = state
        return moving & (rounds < most)

    def body(state: tuple) -> tuple:
        share, _, rounds = state
        now = (length * (1 - share)).sum()
        arrived = jnp.abs(now - left) <= equal * jnp.maximum(jnp.maximum(now, left), 1)
        free = jnp.where(share == high, jnp.inf, gradient)
        threshold = jnp.sort(free, axis=None)[place]
        chosen = (free <= threshold) & (free < jnp.inf)
        room = jnp.where(chosen, length * (high - share), 0).sum()
        # All the room of the chosen ones, or the part of it that is left to go.
        gamma = jnp.where(room > 0, (now - left) / jnp.where(room > 0, room, 1), jnp.inf)
        part = jnp.where(gamma > 1, high, share + gamma * (high - share))
        moved = jnp.where(chosen & ~arrived, part, share)
        return moved, ~arrived & (gamma > 1), rounds + 1

    return jax.lax.while_loop(going, body, (share, jnp.asarray(True), 0))[0]


def guided_ig(
    net: Net,
    image: Image,
    label: Label,
    *,
    steps: int = 200,
    fraction: float = 0.25,
    max_dist: float = 0.02,
    baseline: Baseline = "zero",
    output: str = "logit",
) -> Attribution:
    """Guided integrated gradients, signed [h,w,C] (Kapishnikov et al. 2021, arXiv 2106.09788).

    The path moves the features with small gradients first. It is not complete: the sum is that of left rectangles, on a path
    that turns at every step. Steps follow each other, so memory is that of one gradient, and nothing is gained by chunks.

    Args:
      net, image, label: see `mixaug_jax.attribution`.
      steps: number of gradients.
      fraction: of the features that move at once, above 0.
      max_dist: how far a feature may be from the straight path, as a share of its way; 0 is integrated gradients by the left
        rule, 1 the freest path.
      baseline: "zero", "mean", "blur" or an array.
      output: the output explained, "logit", "prob" or "loss".

    Raises:
      ValueError: for options out of range.
    """
    image = checks.image(image)
    check_guided(steps, fraction, max_dist)
    given = {"steps": steps, "fraction": fraction, "max_dist": max_dist}
    f = squares.valued(net, label, output)
    return along_guided(f, image, replacement(image, baseline), **given)[0]


def check_guided(steps: int, fraction: float, max_dist: float) -> None:
    """Raises ValueError for options of `guided_ig` out of range."""
    checks.count("steps", steps)
    checks.number("fraction", fraction, 0, 1, above=True)
    checks.number("max_dist", max_dist, 0, 1)
