"""The removals of a grid on a batch of images: `rank` by one gradient, then `evaluate`, a loop of
forward passes. Images do not look at each other; a number that is not finite stays so in the results
of its image."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mixaug_jax.attribution.gradients import smoothgrad
from mixaug_jax.attribution.path import integrated_gradients
from mixaug_jax.core.types import AnyArray, Bool, Float, Images, Int, Integer, Net
from mixaug_jax.models.probability import log_probabilities, predicted
from mixaug_jax.occlusion.grid import Grid, plan
from mixaug_jax.scores.replacement import fill

_NOISE, _RANDOM, _SMOOTHGRAD = range(3)  # what an image's key is folded with for each of its draws
_LARGEST = 0x7FFFFFFF


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Batch:
    """Images, and by what each is ranked and measured.

    Attributes:
      images: float32 [B,h,w,C], preprocessed.
      labels: int [B], whose loss is measured.
      ranked_by: int [B], whose loss ranks the units.
      keys: random keys [B].
    """

    images: Images
    labels: Integer[AnyArray, " B"]
    ranked_by: Integer[AnyArray, " B"]
    keys: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Ranking:
    """What it takes to evaluate any removal of a plan on B images.

    Scores are kept as integers of the same order: the compiler sorts these alone five times faster
    than floats or with their places. The units of a cut are those above a threshold, and of those
    that equal it the first in a fixed permutation (in reading order, ties would be removed from the
    top of the image downwards).

    Attributes:
      images: float32 [B,h,w,C].
      labels: int [B], whose loss is measured.
      fills: float32 [B,V,h,w,C], what takes the images' place.
      effects: float32 [B,V,*units], g (x - r) of each unit, g the gradient for `labels`.
      keys: int32 [B,maps,units], the scores.
      least: int32 [B,P], the smallest key of each cut.
      last: int32 [B,P], the last place of a cut among the units of that key.
    """

    images: Images
    labels: Integer[AnyArray, " B"]
    fills: Float[AnyArray, "B V h w C"]
    effects: Float[AnyArray, "B V rows columns channels"]
    keys: Int[AnyArray, "B maps units"]
    least: Int[AnyArray, "B P"]
    last: Int[AnyArray, "B P"]


def rank(net: Net, batch: Batch, mean: Float[AnyArray, " C"], *, grid: Grid) -> Ranking:
    """Scores the units of images in every way of a grid, and cuts off those that go.

    Args:
      net: `models.Net`.
      batch: the images.
      mean: [C], the value "data_mean".
      grid: what is removed.
    """
    images, labels = batch.images, batch.labels
    # By names alone, while tracing: only removals that differ become part of the program.
    made = plan(grid, images.shape[1:])
    fills = _fills(images, batch.keys, mean, grid.values)
    own, ranking = gradients(net, images, labels, batch.ranked_by)
    scores = _scores(net, batch, ranking, fills, made.maps, grid)
    ordered = _integers(scores.reshape(*scores.shape[:2], -1))
    return Ranking(
        images,
        labels,
        fills,
        _unit_sums(own[:, None] * (images[:, None] - fills), grid),
        ordered,
        *_thresholds(ordered, made.cuts),
    )


def evaluate(
    net: Net, ranking: Ranking, cells: Integer[AnyArray, "c 3"], *, grid: Grid
) -> tuple[Float[jax.Array, "B c"], Bool[jax.Array, "B c"], Float[jax.Array, "B c"]]:
    """What becomes of the loss.

    Args:
      net: `models.Net`.
      ranking: from `rank`.
      cells: int [c,3], rows of `Plan.cells`.
      grid: that of the ranking.

    Returns:
      loss [B,c] float32, the cross-entropy; correct [B,c] bool; and first_order [B,c] float32,
      the change of the loss to first order, - sum over removed elements of g (x - r).
    """
    images, labels = ranking.images, ranking.labels
    units = grid.units(images.shape[1:])
    cuts = jnp.asarray(plan(grid, images.shape[1:]).cuts)

    # A cell at a time: all images with the units of one cut replaced by one value.
    def one(cell: jax.Array) -> tuple:
        cut, signed, value = cell
        chosen = _chosen(ranking, cuts, cut, signed).reshape(-1, *units)
        gone = _on_pixels(chosen, grid, images)
        logits = net.logits(jnp.where(gone, ranking.fills[:, value], images))
        change = -jnp.where(chosen, ranking.effects[:, value], 0).sum((1, 2, 3))
        return _losses(net, logits, labels), predicted(logits) == labels, change

    return jax.tree.map(jnp.transpose, jax.lax.map(one, jnp.asarray(cells)))


def _losses(net, logits, labels):
    return -jnp.take_along_axis(log_probabilities(net, logits), labels[:, None], 1)[:, 0]


def gradients(
    net: Net, images: Images, labels: Integer[AnyArray, " B"], ranked_by: Integer[AnyArray, " B"]
) -> tuple[Float[jax.Array, "B h w C"], Float[jax.Array, "B h w C"]]:
    """The loss's gradients [B,h,w,C] for `labels` and for `ranked_by`; one is computed where these
    are equal."""
    # Where all of a batch are ranked by the label that is measured, the second pass would be the first again.
    by = jnp.stack([labels, ranked_by])
    same = (ranked_by == labels).all()

    def add(k: jax.Array, found: jax.Array) -> jax.Array:
        return found.at[k].set(jax.grad(lambda x: _losses(net, net.logits(x), by[k]).sum())(images))

    found = jax.lax.fori_loop(0, jnp.where(same, 1, 2), add, jnp.zeros((2, *images.shape)))
    return found[0], jnp.where(same, found[0], found[1])


def _fills(images, keys, mean, values):
    """What takes the place of each image for each value, [B,V,h,w,C]."""

    def one(value: str, image: jax.Array, key: jax.Array) -> jax.Array:
        if value == "noise":
            return fill(image, "noise", jax.random.fold_in(key, _NOISE))
        if value in ("minimum", "maximum"):
            ends = image.min((0, 1)) if value == "minimum" else image.max((0, 1))
            return fill(image, ends)
        if value == "data_mean":
            return fill(image, mean)
        return fill(image, "mean" if value == "sample_mean" else value)

    return jnp.stack([jax.vmap(functools.partial(one, value))(images, keys) for value in values], 1)


def _scores(net, batch, gradient, fills, maps, grid):
    """The scores of every map of a plan, [B,maps,*units]."""
    images = batch.images
    bases = {base for base, _, _ in maps}
    # These two take a loop of their own for every image; the others follow from one gradient.
    integrals = _integrals(net, batch, fills, grid) if "integrated_gradients" in bases else None
    smooth = _smooth(net, batch, grid) if "smoothgrad" in bases else None

    # Products of arrays that are there already: the scores of single elements.
    def elements(base: str, value: int) -> jax.Array:
        if base == "integrated_gradients":
            return integrals[value]
        if base == "smoothgrad":
            return smooth
        factor = images - fills[:, value] if base == "gradient_x_difference" else images
        product = gradient if base in ("gradient", "abs_gradient") else gradient * factor
        return jnp.abs(product) if base.startswith("abs_") else product

    # Sums over a unit come before the magnitude: "lowest" is small on the whole, not in every element.
    def scored(base: str, value: str, magnitude: bool) -> jax.Array:
        if base == "random":
            return _random(batch.keys, grid.units(images.shape[1:]))
        found = _unit_sums(elements(base, grid.values.index(value) if value else 0), grid)
        return jnp.abs(found) if magnitude else found

    return jnp.stack([scored(*one) for one in maps], 1)


def _integrals(net, batch, fills, grid):
    """Integrated gradients [V,B,h,w,C] of the loss from each value, which takes the units' place, to the images."""
    options = {"steps": grid.steps, "output": "loss", "chunk": len(batch.images)}

    def integrated(example: tuple) -> jax.Array:
        image, label, start = example
        return integrated_gradients(net, image, label, baseline=start, **options)

    return jax.lax.map(
        lambda starts: jax.lax.map(integrated, (batch.images, batch.ranked_by, starts)),
        jnp.moveaxis(fills, 1, 0),
    )


def _smooth(net, batch, grid):
    """SmoothGrad [B,h,w,C] of the loss."""
    options = {"samples": grid.samples, "sigma": grid.sigma}
    options |= {"output": "loss", "chunk": len(batch.images)}

    def smoothed(example: tuple) -> jax.Array:
        image, label, key = example
        key = jax.random.fold_in(key, _SMOOTHGRAD)
        return smoothgrad(net, image, label, key=key, **options)

    return jax.lax.map(smoothed, (batch.images, batch.ranked_by, batch.keys))


def _random(keys, units):
    return jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, _RANDOM), units))(keys)


def _unit_sums(elements, grid):
    """[...,h,w,C] -> [...,*units], the sums over each unit's elements."""
    *lead, h, w, channels = elements.shape
    rows, cols, _ = grid.units((h, w, channels))
    (high, wide), none = grid.window, [(0, 0)] * len(lead)
    # What pads the last windows is 0, so that it adds nothing.
    x = jnp.pad(elements, [*none, (0, rows * high - h), (0, cols * wide - w), (0, 0)])
    x = x.reshape(*lead, rows, high, cols, wide, channels).sum((-4, -2))
    return x if grid.channels == "each" else x.sum(-1, keepdims=True)


def _on_pixels(chosen, grid, images):
    """[B,*units] -> [B,h,w,C or 1]: each unit's value at its pixels."""
    for axis, length in enumerate(grid.window, 1):
        chosen = jnp.repeat(chosen, length, axis) if length > 1 else chosen
    return chosen[:, : images.shape[1], : images.shape[2]]


def _integers(scores):
    """Scores [...,units] as int32 of the same order; those of -s are ~ those of s, but for 0."""
    bits = jax.lax.bitcast_convert_type(jnp.where(scores == 0, 0.0, scores), jnp.int32)
    return jnp.where(bits < 0, bits ^ _LARGEST, bits)


def _places(units):
    """The fixed permutation: the place of each unit, int32 [units]; numpy keeps it for ever."""
    return np.random.RandomState(0).permutation(units).astype(np.int32)


def _thresholds(keys, cuts):
    """`Ranking.least` and `last`. Cut 0 has no units."""
    order = np.argsort(_places(keys.shape[-1]))
    ascending = jax.lax.sort(keys, is_stable=False)

    def threshold(cut: jax.Array) -> tuple:
        number, flipped, count = cut
        sorted_, key = ascending[:, number], keys[:, number]
        least = jnp.where(flipped, ~sorted_[:, count - 1], sorted_[:, -count])
        key = jnp.where(flipped, ~key, key)
        # Of the units with the threshold's own key, the first in the permutation fill the count.
        wanted = count - (key > least[:, None]).sum(1, keepdims=True)
        passed = jnp.cumsum((key == least[:, None])[:, order], 1, dtype=jnp.int32)
        last = (passed < wanted).sum(1, dtype=jnp.int32)
        return jnp.where(count == 0, _LARGEST, least), jnp.where(count == 0, -1, last)

    return jax.tree.map(jnp.transpose, jax.lax.map(threshold, jnp.asarray(cuts)))


def _chosen(ranking, cuts, cut, signed):
    """The units [B,units] of a cut; where `signed`, those above 0 (below, if it is flipped)."""
    number, flipped, _ = cuts[cut]
    least, last = ranking.least[:, cut][:, None], ranking.last[:, cut][:, None]
    key = jnp.where(flipped, ~ranking.keys[:, number], ranking.keys[:, number])
    chosen = (key > least) | ((key == least) & (_places(key.shape[-1]) <= last))
    # Keys have the scores' order, and that of 0 is 0: signs are those of the scores.
    return chosen & ((key > 0) | (signed == 0))
