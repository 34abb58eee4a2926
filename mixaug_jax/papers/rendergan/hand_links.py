"""The hand-made augmentations that learned ones are compared with, link by link, from the code behind RenderGAN (deepdecoder).

    tag -> blur -> uneven light -> a ground of noise -> spots and noise

Each is f(key, x, tags) -> x of pictures [B,S,S] where -1 is black and 1 white. Its numbers are those of the code; pyramid noise
is told here by the weights of its grids of 2, 4, 8, ... nodes.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from mixaug_jax.core.types import Array, Count, Float, RandomKey, Scalar
from mixaug_jax.data.markers.tag_renderer import Tags
from mixaug_jax.papers.rendergan import chain

Pictures = chain.Pictures
_WIDTHS = (1.0, 1.5, 2.0, 2.5)  # of the Gaussians that a blur lies between
_EDGES = (1.5, 3.0)
_SPOTS = (15, 1, 1, 1, 1)  # how often there are 0, 1, ... of them


def uniform(key: RandomKey, count: Count, low: Scalar, high: Scalar) -> Float[Array, "B 1 1"]:
    """A number of each picture."""
    return jax.random.uniform(key, (count, 1, 1), minval=low, maxval=high)


def pyramid(key: RandomKey, count: Count, size: Count, weights: Sequence) -> Pictures:
    """Noise [B,S,S] in 0..1: uniform values on grids of 2, 4, 8, ... nodes, enlarged and averaged by their weights."""
    total = 0.0
    for k, weight in enumerate(weights):
        key, own = jax.random.split(key)
        nodes = min(2 ** (k + 1), size)
        grid = jax.random.uniform(own, (count, nodes, nodes))
        total += weight * jax.image.resize(grid, (count, size, size), "linear")
    return total / sum(weights)


def _between(x, widths, at):
    """A Gaussian of a width between the given ones, [B,1,1] in 0..1 of the way, by the two nearest."""
    at = at * (len(widths) - 1)
    smoothed = [chain.smooth(x, width) for width in widths]
    return sum(s * jnp.clip(1 - jnp.abs(at - k), 0, 1) for k, s in enumerate(smoothed))


def blur(key: RandomKey, x: Pictures, tags: Tags) -> Pictures:
    """A Gaussian of 1 to 2.5 pixels, of 64."""
    return _between(x, _WIDTHS, uniform(key, len(x), 0, 1))


def lighting(key: RandomKey, x: Pictures, tags: Tags) -> Pictures:
    """White and black are scaled, and both are shifted by noise."""
    keys, count = jax.random.split(key, 5), len(x)
    black, white = uniform(keys[0], count, 0.1, 0.2), uniform(keys[1], count, 0.1, 0.8)
    noise = pyramid(keys[2], count, x.shape[-1], (8, 4, 1))
    shift = 1.7 * (noise - 0.5) * uniform(keys[3], count, 0.1, 1) + uniform(keys[4], count, 0, 0.1)
    return jnp.clip(0.85 * x * jnp.where(x >= 0, white, black) + shift, -1, 1)


def background(key: RandomKey, x: Pictures, tags: Tags) -> Pictures:
    """Noise in place of what the marker does not cover, with a soft edge."""
    keys, count = jax.random.split(key, 4), len(x)
    noise = pyramid(keys[0], count, x.shape[-1], (2, 4, 4, 3))
    ground = noise * uniform(keys[1], count, 0.7, 0.8) + uniform(keys[2], count, -1.1, -0.5)
    beside = _between(1 - tags.cover, _EDGES, uniform(keys[3], count, 0, 1))
    return jnp.clip(x * (1 - beside) + ground * beside, -1, 1)


def detail(key: RandomKey, x: Pictures, tags: Tags) -> Pictures:
    """Up to four spots of one gray, and noise at two scales."""
    keys, count, size = jax.random.split(key, 6), len(x), x.shape[-1]
    chances = jnp.log(jnp.asarray(_SPOTS, jnp.float32))
    spots = jax.random.categorical(keys[0], chances, shape=(count,))
    line = jnp.arange(size) + 0.5
    for k in range(len(_SPOTS) - 1):
        row, col, wide, gray = jax.random.uniform(jax.random.fold_in(keys[1], k), (4, count, 1, 1))
        far = jnp.hypot(line[:, None] - row * size, line - col * size)
        inside = jnp.clip(size * (0.02 + 0.08 * wide) - far, 0, 1) * (k < spots)[:, None, None]
        x = x * (1 - inside) + (2 * gray - 1) * inside
    half = (count, -(-size // 2), -(-size // 2))
    coarse = jax.image.resize(jax.random.normal(keys[2], half), x.shape, "linear")
    strong, weak = (uniform(keys[k], count, 0.01, 0.06) for k in (3, 4))
    return x + strong * coarse + weak * jax.random.normal(keys[5], x.shape)


HANDMADE: dict[str, Callable[[Array, Array, Tags], Array]] = {
    "blur": blur,
    "lighting": lighting,
    "background": background,
    "detail": detail,
}
