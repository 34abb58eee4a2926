"""What decoders are trained on: pictures that are made inside the training step, one way for each value of markers.train."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mixaug_jax import data
from mixaug_jax.core.types import Array, Config, Count, Path, RandomKey, Scalar
from mixaug_jax.data.markers import tag_renderer, tags
from mixaug_jax.papers.rendergan import adversary, chain, hand_links, learning
from mixaug_jax.papers.rendergan.hand_links import HANDMADE
from mixaug_jax.papers.rendergan.marker_options import BOTH, LABELED, MADE


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
      generator: as in `adversary.generate`.
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


def labeled(key: RandomKey, count: Count, arrays: Any, *, pad: Count, spin: Scalar) -> dict:
    """Labeled pictures, another part of them each time, turned, scaled and moved, lighter or darker, with noise; see `plain`.

    How far is not published but for the sizes, .9 to 1.1: here a third of `spin`, `pad` pixels, .2 of -1..1, and the noise of
    the hand-made pictures. What comes in from beyond the edge repeats the edge.

    Args:
      key: of all draws.
      count: B.
      arrays: of `labeled_pictures`.
      pad: pixels.
      spin: radians.
    """
    which, keys = jax.random.split(key)
    index = jax.random.randint(which, (count,), 0, len(arrays["image"]))
    found = jax.tree.map(lambda v: v[index], arrays)
    turn, scale, move, gray, width, noise = jax.random.split(keys, 6)
    angle = jax.random.uniform(turn, (count,), minval=-spin / 3, maxval=spin / 3)
    size = jax.random.uniform(scale, (count,), minval=0.9, maxval=1.1)
    shift = jax.random.uniform(move, (count, 2), minval=-pad, maxval=pad)
    x = jax.vmap(functools.partial(_moved, order=1))(
        chain.as_numbers(found["image"]), angle, size, shift
    )
    x = x + hand_links.uniform(gray, count, -0.2, 0.2)
    x = x + hand_links.uniform(width, count, 0.01, 0.06) * jax.random.normal(noise, x.shape)
    found["image"] = chain.as_bytes(x)
    # With the picture, and by the nearest pixel: a mean of two cells' numbers is a third cell.
    if "parts" in found:
        found["parts"] = jax.vmap(functools.partial(_moved, order=0))(
            found["parts"], angle, size, shift
        )
    return found


def _moved(x, angle, size, shift, order):
    """A picture or map [S,S], turned about its middle, scaled and moved; the edge is repeated."""
    middle = (x.shape[0] - 1) / 2
    rows, cols = jnp.meshgrid(*[jnp.arange(x.shape[0]) - middle] * 2, indexing="ij")
    rows, cols = (rows - shift[0]) / size, (cols - shift[1]) / size
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    places = [cos * rows - sin * cols + middle, sin * rows + cos * cols + middle]
    return jax.scipy.ndimage.map_coordinates(x, places, order, mode="nearest")


def beside(key: RandomKey, count: Count, arrays: Any, *, make: Callable, real: Callable) -> dict:
    """Half of a batch as `make` gives it, half labeled pictures.

    Args:
      key: of all draws.
      count: B.
      arrays: {"made": what `make` is given, "labeled": what `real` is}.
      make: as `learned`.
      real: as `labeled`.
    """
    own, other = jax.random.split(key)
    half = count // 2
    made = make(own, half, arrays["made"])
    made["weights"] = jnp.ones_like(made["targets"])
    found = real(other, count - half, arrays["labeled"])
    return {name: jnp.concatenate([made[name], found[name]]) for name in found}


def labeled_pictures(config: Config) -> dict[str, np.ndarray]:
    """All labeled pictures, as a batch of them: image, label, targets, weights, and parts where they are known.

    Raises:
      ValueError: a folder of crops that cannot be read.
    """
    source = data.open_source(LABELED, config)
    classes = data.class_of_parts(source) if source.class_parts else None
    rows = []
    for index in range(len(source)):
        example = source[index]
        row = {name: example[name] for name in ("image", "targets", "weights")}
        row["label"] = np.int32(0)
        if classes is not None:
            row["parts"] = classes[example["parts"]]
        rows.append(row)
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


_WITHOUT = {"plain": plain, "handmade": handmade}


def maker(config: Config, workdir: Path) -> tuple[Callable, Any]:
    """`make` and `arrays` of a source, for the run's markers.train.

    Raises:
      ValueError: the generator is not there, or is of another size.
    """
    train, size, spin = config.markers.train, config.data.size, float(config.data.markers.spin)
    if train in MADE:
        return functools.partial(_WITHOUT[train], size=size, spin=spin), ()
    real = functools.partial(labeled, pad=config.data.pad, spin=spin)
    if train == LABELED:
        return real, labeled_pictures(config)
    generator, params = learning.load_generator(config, workdir)
    until = "detail" if train == BOTH else train
    make = functools.partial(learned, generator=generator, until=until, size=size)
    if train != BOTH:
        return make, params
    arrays = {"made": params, "labeled": labeled_pictures(config)}
    return functools.partial(beside, make=make, real=real), arrays
