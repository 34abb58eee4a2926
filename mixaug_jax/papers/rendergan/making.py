"""What decoders are trained on: pictures that are made inside the training step, one way for each value of markers.train."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from mixaug_jax.core.types import Array, Config, Count, Path, RandomKey, Scalar
from mixaug_jax.data.markers import tag_renderer, tags
from mixaug_jax.papers.rendergan import adversary, chain, learning
from mixaug_jax.papers.rendergan.hand_links import HANDMADE
from mixaug_jax.papers.rendergan.marker_options import LEARNED, MADE


def plain(key: RandomKey, count: Count, arrays: Any, *, size: Count, spin: Scalar) -> dict:
    """Markers as they are rendered, on black; see `Source.make`.

    Args:
      key: of all draws.
      count: B.
      arrays: not used.
      size: side, pixels.
      spin: markers are turned by so much at most, radians.

    Returns:
      {"image": uint8 [B,S,S,1], "label": int32 [B], "targets": float32 [B,12], "parts": uint8 [B,S,S], 1 + the bit whose cell
      lies there, 0 beside the cells}.
    """
    labels = tags.draw(key, count, size=size, spin=spin)
    return example(labels, tag_renderer.render(labels, size).tag)


def handmade(key: RandomKey, count: Count, arrays: Any, *, size: Count, spin: Scalar) -> dict:
    """Markers after every hand-made link, see `plain`."""
    drawn, key = jax.random.split(key)
    labels = tags.draw(drawn, count, size=size, spin=spin)
    made = tag_renderer.render(labels, size)
    return example(labels, by_hand(key, made.tag, made, tuple(HANDMADE)))


def by_hand(key: RandomKey, x: Array, made: tag_renderer.Tags, names: tuple[str, ...]) -> Array:
    """Pictures [B,S,S] after the hand-made links of these names."""
    for name in names:
        key, own = jax.random.split(key)
        x = HANDMADE[name](own, x, made)
    return x


def example(labels: tags.Labels, x: Array) -> dict:
    """A batch for the training step; see `plain`."""
    count = len(x)
    return {
        "image": chain.as_bytes(x),
        "label": jnp.zeros(count, jnp.int32),
        "targets": labels.bits,
        "parts": tag_renderer.cells(labels, x.shape[-1]),
    }


def learned(
    key: RandomKey, count: Count, arrays: Any, *, generator: Any, until: str, size: Count
) -> dict:
    """Pictures of a generator up to a link, after which the hand-made links follow, see `plain`.

    Args:
      key: of all draws.
      count: B; the generator's norms see the batch of all devices.
      arrays: the generator's parameters.
      generator: as `few.Few`.
      until: the last link that is learned; "poses": none, only how markers lie.
      size: side, pixels.
    """
    drawn, key = jax.random.split(key)
    labels, made, pictures, _ = adversary.generate(
        generator, arrays, jax.random.split(drawn, count)
    )
    names = tuple(HANDMADE)
    done = names.index(until) + 1 if until in names else 0
    x = pictures[until] if done else made.tag
    return example(labels, by_hand(key, x, made, names[done:]))


_WITHOUT = {"plain": plain, "handmade": handmade}


def maker(config: Config, workdir: Path) -> tuple[Callable | None, Any]:
    """`make` and `arrays` of a source, for the run's markers.train; None where labeled pictures are read.

    Raises:
      ValueError: the generator is not there, or is of another size.
    """
    train, size, spin = config.markers.train, config.data.size, float(config.data.markers.spin)
    if train in MADE:
        return functools.partial(_WITHOUT[train], size=size, spin=spin), ()
    if train not in LEARNED:
        return None, ()
    generator, params = learning.load_generator(config, workdir)
    return functools.partial(learned, generator=generator, until=train, size=size), params
