"""The removals of a grid on a batch of images: rankings from one gradient, then a loop of forward passes."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from mixaug_jax.attribution.gradient import smoothgrad
from mixaug_jax.attribution.path import integrated_gradients
from mixaug_jax.evaluation.anomaly_grid import plan
from mixaug_jax.evaluation.replacement import fill

_NOISE, _RANDOM, _SMOOTHGRAD = range(3)  # what an image's key is folded with for each of its draws


def remove(net, images, labels, ranked_by, keys, mean, *, grid):
    """All removals of a grid on a batch of images, jittable with `grid` static.

    Images do not look at each other. Equal scores are taken in a fixed arbitrary order. A number
    that is not finite stays so in the results of its image.

    Args:
      net: `models.Net`.
      images: [B, h, w, C] float32, preprocessed.
      labels: int [B], whose loss is measured.
      ranked_by: int [B], whose loss ranks the units.
      keys: random keys [B].
      mean: [C], the value "data_mean".
      grid: `Grid`.

    Returns:
      loss [B, D] float32, the cross-entropy; correct [B, D] bool; and first_order [B, D] float32,
      the change of the loss to first order, - sum over removed elements of g (x - r), g the
      gradient for `labels`. D counts the cells of `plan(grid, (h, w, C))`; cell 0 is the image.
    """
    made = plan(grid, images.shape[1:])
    units = grid.units(images.shape[1:])
    fills = _fills(images, keys, mean, grid.values)
    gradient, ranking = gradients(net, images, labels, ranked_by)
    effects = _unit_sums(gradient * (images - fills), grid)  # [V, B, *units]
    scores = _scores(net, images, ranked_by, keys, ranking, fills, made.maps, grid)
    orders = _orders(scores.reshape(*scores.shape[:2], -1))
    thresholds = _thresholds(orders, made.cuts)

    def cell(row):
        cut, signed, value = row
        chosen = _chosen(orders, thresholds, made.cuts, cut, signed).reshape(-1, *units)
        logits = net.logits(jnp.where(_on_pixels(chosen, grid, images), fills[value], images))
        change = -jnp.where(chosen, effects[value], 0).sum((1, 2, 3))
        return _losses(logits, labels), logits.argmax(-1) == labels, change

    return jax.tree.map(jnp.transpose, jax.lax.map(cell, jnp.asarray(made.cells)))


def _losses(logits, labels):
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1)[:, 0]


def gradients(net, images, labels, ranked_by):
    """The loss's gradients [B, h, w, C] for `labels` and for `ranked_by`; one is computed where these
    are equal."""
    by = jnp.stack([labels, ranked_by])
    same = (ranked_by == labels).all()

    def add(k, found):
        return found.at[k].set(jax.grad(lambda x: _losses(net.logits(x), by[k]).sum())(images))

    found = jax.lax.fori_loop(0, jnp.where(same, 1, 2), add, jnp.zeros((2, *images.shape)))
    return found[0], jnp.where(same, found[0], found[1])


def _fills(images, keys, mean, values):
    """What takes the place of each image for each value, [V, B, h, w, C]."""

    def one(value, image, key):
        if value == "noise":
            return fill(image, "noise", jax.random.fold_in(key, _NOISE))
        if value in ("minimum", "maximum"):
            ends = image.min((0, 1)) if value == "minimum" else image.max((0, 1))
            return fill(image, ends)
        if value == "data_mean":
            return fill(image, mean)
        return fill(image, "mean" if value == "sample_mean" else value)

    return jnp.stack([jax.vmap(functools.partial(one, value))(images, keys) for value in values])


def _scores(net, images, ranked_by, keys, gradient, fills, maps, grid):
    """The scores of every map of a plan, [maps, B, *units]."""
    bases = {base for base, _, _ in maps}
    chunk = len(images)
    if "integrated_gradients" in bases:

        def integrated(example):
            image, label, start = example
            options = {"steps": grid.steps, "of": "loss", "chunk": chunk}
            return integrated_gradients(net, image, label, baseline=start, **options)

        integrals = jax.lax.map(
            lambda starts: jax.lax.map(integrated, (images, ranked_by, starts)), fills
        )
    if "smoothgrad" in bases:

        def smoothed(example):
            image, label, key = example
            options = {"samples": grid.samples, "sigma": grid.sigma, "of": "loss", "chunk": chunk}
            key = jax.random.fold_in(key, _SMOOTHGRAD)
            return smoothgrad(net, image, label, key=key, **options)

        smooth = jax.lax.map(smoothed, (images, ranked_by, keys))

    def elements(base, value):
        if base == "integrated_gradients":
            return integrals[value]
        if base == "smoothgrad":
            return smooth
        factor = images - fills[value] if base == "gradient_x_difference" else images
        product = gradient if base in ("gradient", "abs_gradient") else gradient * factor
        return jnp.abs(product) if base.startswith("abs_") else product

    def scored(base, value, magnitude):
        if base == "random":
            return _random(keys, grid.units(images.shape[1:]))
        found = _unit_sums(elements(base, grid.values.index(value) if value else 0), grid)
        return jnp.abs(found) if magnitude else found

    return jnp.stack([scored(*one) for one in maps])


def _random(keys, units):
    return jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, _RANDOM), units))(keys)


def _unit_sums(elements, grid):
    """[..., h, w, C] -> [..., *units], the sums over each unit's elements."""
    *lead, h, w, channels = elements.shape
    rows, cols, _ = grid.units((h, w, channels))
    (high, wide), none = grid.window, [(0, 0)] * len(lead)
    x = jnp.pad(elements, [*none, (0, rows * high - h), (0, cols * wide - w), (0, 0)])
    x = x.reshape(*lead, rows, high, cols, wide, channels).sum((-4, -2))
    return x if grid.channels == "each" else x.sum(-1, keepdims=True)


def _on_pixels(chosen, grid, images):
    """[B, *units] -> [B, h, w, C or 1]: each unit's value at its pixels."""
    for axis, length in enumerate(grid.window, 1):
        chosen = jnp.repeat(chosen, length, axis) if length > 1 else chosen
    return chosen[:, : images.shape[1], : images.shape[2]]


@dataclasses.dataclass(frozen=True)
class _Orders:
    """Scores as integers of the same order, [maps, B, units], and sorted, smallest first.

    The compiler sorts integers alone five times faster than floats or with their places; the places
    of the largest follow from the threshold, and equal ones by `place` [units], a fixed permutation
    (in reading order, ties would be removed from the top of the image downwards).
    """

    keys: jax.Array
    ascending: jax.Array
    place: np.ndarray


def _orders(scores):
    bits = jax.lax.bitcast_convert_type(jnp.where(scores == 0, 0.0, scores), jnp.int32)
    keys = jnp.where(bits < 0, bits ^ 0x7FFFFFFF, bits)  # keys of -s are ~keys of s
    place = np.random.RandomState(0).permutation(scores.shape[-1])  # numpy keeps it for ever
    return _Orders(keys, jax.lax.sort(keys, is_stable=False), place.astype(np.int32))


def _thresholds(orders, cuts):
    """For every cut and image the smallest key that is chosen, and the last place that is chosen
    among units with that key; int32 [P, B] each. Cut 0 chooses nothing."""
    order = np.argsort(orders.place)

    def threshold(row):
        number, flipped, count = row
        keys, ascending = orders.keys[number], orders.ascending[number]
        least = jnp.where(flipped, ~ascending[:, count - 1], ascending[:, -count])
        keys = jnp.where(flipped, ~keys, keys)
        wanted = count - (keys > least[:, None]).sum(1, keepdims=True)
        passed = jnp.cumsum((keys == least[:, None])[:, order], 1, dtype=jnp.int32)
        last = (passed < wanted).sum(1, dtype=jnp.int32)
        nothing = count == 0
        return jnp.where(nothing, 0x7FFFFFFF, least), jnp.where(nothing, -1, last)

    return jax.lax.map(threshold, jnp.asarray(cuts))


def _chosen(orders, thresholds, cuts, cut, signed):
    """The units [B, units] of a cut; where `signed`, those above 0 (below, if it is flipped)."""
    number, flipped, _ = jnp.asarray(cuts)[cut]
    least, last = (t[cut][:, None] for t in thresholds)
    keys = jnp.where(flipped, ~orders.keys[number], orders.keys[number])
    chosen = (keys > least) | ((keys == least) & (orders.place <= last))
    return chosen & ((keys > 0) | (signed == 0))
