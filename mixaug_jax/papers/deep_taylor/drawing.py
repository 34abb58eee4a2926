"""Any picture as an explanation: what roots that depend on the input allow.

A network f = outer(inner(x)) of two parts is explained by a root h~(x) for the outer part and a root x~ for the inner one:
R(x) = d/dx sum_k g_k (h_k(x) - h~_k(x)) at x~, times x - x~, with g the outer gradient (Sixt and Landgraf 2022).
That h~ is a root, in the region of h, is a condition on values; its slope dh~/dx is constrained by nothing, and decides R.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont

from mixaug_jax.core.types import AnyArray, Array, Count, Float, RandomKey
from mixaug_jax.papers.deep_taylor import admissible

STEPS, RATE, HIDDEN = 300, 0.01, 32  # of Adam, and channels of the network that moves the roots
PENALTIES = (0.0, 0.01, 0.1, 1.0)  # of the slope, one mild drawing each


@dataclasses.dataclass(frozen=True)
class Parts:
    """A network cut in two at a hidden layer.

    Attributes:
      inner: x -> h.
      outer: h -> a scalar, what is explained.
    """

    inner: Callable
    outer: Callable

    def gradient(self, x: Float[AnyArray, "..."]) -> Float[Array, "..."]:
        """Of the whole, at x."""
        return jax.grad(lambda at: self.outer(self.inner(at)))(x)


class Drawing(NamedTuple):
    """An explanation that shows a target.

    Attributes:
      relevance: the explanation, as large as x.
      target: what it should show, scaled to the sum that conservation asks for.
      error: the largest difference of the two, as a share of the target's largest value.
      slope: the largest derivative of the root, as a multiple of the largest one of the layer itself.
      untouched: the explanation with roots that do not move.
    """

    relevance: Array
    target: Array
    error: Array
    slope: Array
    untouched: Array


def draw(
    parts: Parts,
    x: Float[AnyArray, "..."],
    root: Float[AnyArray, "..."],
    target: Float[AnyArray, "..."],
) -> Drawing:
    """The explanation that is the target, by the slope of one hidden neuron's root; in closed form.

    All roots of the outer part have the values of the hidden layer at `root`, so they lie in the region if that does, and their
    sum over the input is conserved. That of one neuron j turns, too: dh~_j/dx = (df/dx - T / (x - root)) / g_j.

    Args:
      parts: the network.
      x: the input.
      root: in the linear region of x, different from it in every value.
      target: any picture as large as x, whose sum is not 0.
    """
    away = x - root
    whole = parts.gradient(x)
    target = target * (whole * away).sum() / target.sum()
    h, base = parts.inner(x), parts.inner(root)
    g = jax.grad(parts.outer)(h)
    j = jnp.argmax(
        jnp.abs(g) * (h != 0)
    )  # a neuron that is on, or it would have no slope of its own
    turned = (whole - target / away) / g.ravel()[j]

    def roots(at: Array) -> Array:
        moved = base.ravel().at[j].add((turned * (at - root)).sum())
        return moved.reshape(base.shape)

    def above(at: Array) -> Array:
        return (g * (parts.inner(at) - roots(at))).sum()

    relevance = jax.grad(above)(root) * away
    own = jax.grad(lambda at: parts.inner(at).ravel()[j])(root)
    return Drawing(
        relevance,
        target,
        jnp.abs(relevance - target).max() / jnp.abs(target).max(),
        jnp.abs(turned).max() / jnp.abs(own).max(),
        whole * away,
    )


class Mild(NamedTuple):
    """A learned drawing.

    Attributes:
      relevance: the explanation, as large as x.
      error: |R - T| / |T|, after the best scaling of R: a drawing has no scale of its own while its roots may be nearer.
      slope: |dh~/dx| / |dh/dx|, norms over all entries.
      admissible: how much of the way from h the roots can go within the region; less than 1 fades the picture and changes
        nothing else about it.
    """

    relevance: Array
    error: Array
    slope: Array
    admissible: Array


@dataclasses.dataclass(frozen=True)
class Place:
    """What is explained, and from where.

    Attributes:
      x, root: see `draw`.
      inside: whether a point of the hidden layer lies in the region of h.
    """

    x: Float[AnyArray, "..."]
    root: Float[AnyArray, "..."]
    inside: Callable[[Array], Array]


def draw_mildly(
    parts: Parts,
    place: Place,
    target: Float[AnyArray, "..."],
    key: RandomKey,
    penalty: Float[Array, ""],
) -> Mild:
    """The same with roots that many neurons move a little: h~ = h - s(h) h, s a network of 1x1 convolutions.

    It is trained to make |R - T|^2 / |T|^2 + penalty |dh~/dx|^2 / |dh/dx|^2 small; norms of slopes by random projections.

    Args:
      parts, target: see `draw`.
      place: the input, its root, and the region.
      key: decides the first weights and the projections.
      penalty: of the slope.
    """
    h, pull = jax.vjp(parts.inner, place.root)
    away, g = place.x - place.root, jax.grad(parts.outer)(h)
    target = target / jnp.linalg.norm(target)
    first, *keys = jax.random.split(key, STEPS + 2)
    start = _unmoving(first, h)
    # The scale is free: in units in which a move as large as h gives a picture of norm 1.
    unit = jnp.linalg.norm(pull(g)[0] * away)

    def explained(weights: dict) -> Array:
        return pull(jax.grad(lambda h: (g * _move(weights, h)).sum())(h))[0] * away / unit

    def slopes(weights: dict, key: Array) -> tuple[Array, Array]:
        signs = jax.random.rademacher(key, h.shape).astype(h.dtype)
        turned = jax.vjp(lambda h: h - _move(weights, h), h)[1](signs)[0]
        return tuple(jnp.square(pull(c)[0]).sum() for c in (turned, signs))

    def loss(weights: dict, key: Array) -> Array:
        turned, own = slopes(weights, key)
        return jnp.square(explained(weights) - target).sum() + penalty * turned / own

    optimizer = optax.adam(RATE)

    def step(state: tuple, key: Array) -> tuple[tuple, None]:
        weights, memory = state
        updates, memory = optimizer.update(jax.grad(loss)(weights, key), memory)
        return (optax.apply_updates(weights, updates), memory), None

    (weights, _), _ = jax.lax.scan(step, (start, optimizer.init(start)), jnp.stack(keys[:-1]))
    relevance = explained(weights)
    scale = (relevance * target).sum() / jnp.maximum(jnp.square(relevance).sum(), 1e-30)
    turned, own = slopes(weights, keys[-1])
    return Mild(
        relevance,
        jnp.linalg.norm(scale * relevance - target),
        jnp.sqrt(turned / own),
        admissible.farthest(place.inside, h, -_move(weights, h)),
    )


def _unmoving(key, h):
    """The first weights of the network that moves the roots: it moves nothing yet, as its last layer is 0."""
    channels = h.shape[-1]
    return {
        "into": jax.random.normal(key, (channels, HIDDEN)) / channels**0.5 / jnp.std(h),
        "bias": jnp.zeros(HIDDEN),
        "out": jnp.zeros((HIDDEN, channels)),
    }


def _move(weights, h):
    """s(h) h: how far each neuron's root goes, as a share of its own value; what is off stays where it is."""
    return jnp.tanh(h @ weights["into"] + weights["bias"]) @ weights["out"] * h


def letter(height: Count, width: Count, text: str = "T") -> Float[np.ndarray, "h w"]:
    """A letter, 1 on a ground of 0, as large as an image."""
    picture = PIL.Image.new("L", (width, height))
    font = PIL.ImageFont.load_default(0.9 * min(height, width))
    PIL.ImageDraw.Draw(picture).text((width / 2, height / 2), text, 255, font, anchor="mm")
    return np.asarray(picture, np.float32) / 255
