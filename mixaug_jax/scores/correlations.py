"""Faithfulness as agreement: do attributions predict by how much the output falls when parts are removed?

A map of zeros, or with a value that is NaN or infinite, predicts no change at all.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mixaug_jax.attribution import chunks
from mixaug_jax.attribution.gradients import as_key
from mixaug_jax.attribution.target import outputs
from mixaug_jax.core import checks
from mixaug_jax.core.types import (
    AnyArray,
    Array,
    Attribution,
    Baseline,
    Bool,
    Count,
    Float,
    Given,
    Heatmap,
    Image,
    Indices,
    Integers,
    Label,
    Net,
    Seed,
    Value,
)
from mixaug_jax.scores.agreement import correlation
from mixaug_jax.scores.maps import checked, ratio
from mixaug_jax.scores.replacement import fill
from mixaug_jax.scores.tiles import grid, on_pixels, tile_sums


def subset_sizes(units: int, count: int = 16) -> tuple[int, ...]:
    """The sizes n of sensitivity-n: `count` log-spaced integers from 1 to 0.8 `units`, each once, as a tuple.

    Schulz et al. 2020, arXiv 2001.00396, whose code has some small sizes twice.
    """
    # All units but one at most: without all of them every map predicts the same.
    last = min(0.8 * units, units - 1)
    return tuple(int(n) for n in np.unique(np.geomspace(1, max(last, 1), count).round()))


def subset_drops(
    attribution: Heatmap | Attribution,
    net: Net,
    image: Image,
    label: Label,
    *,
    n: Integers | Given = (),
    samples: int = 100,
    window: int = 1,
    masks: Given = (),
    baseline: Baseline = "zero",
    key: Seed = 0,
    output: str = "logit",
    chunk: int = 16,
) -> tuple[Float[Array, "sizes samples"], Float[Array, "sizes samples"]]:
    """For random subsets of n units, the sum of the map over them and the drop of the output without them.

    What `sensitivity_n` correlates for one image and `pooled_sensitivity_n` over many.

    Args:
      attribution: [h,w] at the image's size, signed: what each pixel contributes; or [h,w,C], whose channels are summed.
      net, image, label: see `mixaug_jax.scores.faithfulness`.
      n: number of units removed together, one or several, each at least 1 and less than all; () is `subset_sizes`.
      samples: subsets of each size.
      window: side of the units in pixels; 1 is single pixels.
      masks: bool [sizes,samples,rows,cols], True for units removed, in place of n, samples and key.
      baseline: the replacement, see `replacement.fill`.
      key: a random key or a seed; subset i uses the key folded with i, so one key gives all images the same subsets.
      output, chunk: as in `mixaug_jax.scores.faithfulness`.

    Returns:
      sums and drops, [sizes,samples] each.
    """
    image = checks.image(image)
    attribution = jnp.asarray(attribution)
    heat = attribution.sum(-1) if attribution.ndim == 3 else attribution
    heat = checked(heat, image.shape[:2], "image", "attribution")
    # Tiles are the units: maps are summed, and pixels removed, by tile.
    cells = grid(heat.shape, window)
    after = fill(image, baseline, key)
    draw, shape = _subsets(n, samples, masks, cells, as_key(key))
    sums = tile_sums(heat, window)
    middle = sums.mean()  # apart, or the sums of a constant map would differ by rounding
    # Every drop is one from the same output, which is computed once.
    clean = outputs(net, image[None], label, output)

    def pair(indices: Indices) -> Float[Array, "n 2"]:
        gone = jax.vmap(draw)(indices)
        pixels = on_pixels(gone, window, heat.shape)[..., None]
        drop = clean - outputs(net, jnp.where(pixels, after, image), label, output)
        lost = jnp.sum((sums - middle) * gone, (1, 2)) + gone.sum((1, 2)) * middle
        return jnp.stack([lost, drop], 1)

    pairs = chunks.every(pair, shape[0] * shape[1], chunk).reshape(*shape, 2)
    return pairs[..., 0], pairs[..., 1]


def _subsets(n, samples, masks, cells, key):
    """index -> bool [rows,cols], and (sizes, samples)."""
    if checks.given(masks):
        masks = checks.array("masks", masks, (0, 0, *cells)) > 0
        shape = masks.shape[:2]
        masks = masks.reshape(-1, *cells)
        return lambda index: masks[index], shape
    checks.count("samples", samples)
    units = cells[0] * cells[1]
    sizes = jnp.asarray(_sizes(n, units))

    def draw(index: Count) -> Bool[Array, "rows cols"]:
        # The first n of a random order are a random subset of exactly n.
        order = jax.random.permutation(jax.random.fold_in(key, index), units)
        return (order < sizes[index // samples]).reshape(cells)

    return draw, (len(sizes), samples)


def _sizes(n, units):
    if units < 2:
        raise ValueError("subsets need at least 2 units, and the window covers the whole image")
    sizes = np.ravel(n) if np.size(n) else np.asarray(subset_sizes(units))
    if not all(0 < k < units and k == int(k) for k in sizes):
        raise ValueError(f"n must be integers from 1 to {units - 1}, fewer than all units; got {n}")
    return sizes.astype(np.int32)


def sensitivity_n(
    attribution: Heatmap | Attribution,
    net: Net,
    image: Image,
    label: Label,
    *,
    n: Integers | Given = (),
    samples: int = 100,
    window: int = 1,
    masks: Given = (),
    baseline: Baseline = "zero",
    key: Seed = 0,
    output: str = "logit",
    chunk: int = 16,
) -> Value:
    """The correlation of a subset's summed attribution with the drop of the output without it, the mean over sizes n.

    Ancona et al. 2017, arXiv 1711.06104: Pearson's, for one image, -1..1, larger is better; 1 at every n for the exact
    attributions of a linear model. Where the sums or the drops do not vary (a map of zeros, an output that does not change)
    it is 0. Quantus's SensitivityN is another quantity: it correlates over images the drop after all steps so far with the
    attribution of the last step. For one value a size, give one n.

    Args:
      attribution, net, image, label, n, samples, window, masks, baseline, key, output, chunk: as `subset_drops`.
    """
    # Each size has a correlation of its own; one over all of them would mostly see how much is gone.
    sums, drops = subset_drops(
        attribution,
        net,
        image,
        label,
        n=n,
        samples=samples,
        window=window,
        masks=masks,
        baseline=baseline,
        key=key,
        output=output,
        chunk=chunk,
    )
    return correlation(sums, drops).mean()


def pooled_sensitivity_n(
    sums: Float[AnyArray, "images sizes samples"], drops: Float[AnyArray, "images sizes samples"]
) -> Float[Array, " sizes"]:
    """One correlation for each size over the subsets of all images, as the code of Schulz et al. 2020, arXiv 2001.00396.

    Images whose outputs drop more weigh more, and differences between images count, unlike in the mean of `sensitivity_n`.

    Args:
      sums, drops: [images,sizes,samples], from `subset_drops` with one key for all images.

    Returns:
      [sizes].

    Raises:
      ValueError: for arrays of another or of different shapes.
    """
    sums, drops = jnp.asarray(sums), jnp.asarray(drops)
    if sums.shape != drops.shape or sums.ndim != 3 or 0 in sums.shape:
        shapes = f"{list(sums.shape)} and {list(drops.shape)}"
        raise ValueError(f"sums and drops must both be [images,sizes,samples]; got {shapes}")
    # One axis for the subsets of all images: that some images drop more than others counts here.
    sums, drops = (jnp.moveaxis(x, 1, 0) for x in (sums, drops))
    return correlation(sums.reshape(len(sums), -1), drops.reshape(len(drops), -1))


def infidelity(
    attribution: Heatmap | Attribution,
    net: Net,
    image: Image,
    label: Label,
    *,
    samples: int = 100,
    window: int = 8,
    masks: Given = (),
    baseline: Baseline = "zero",
    normalize: bool = False,
    key: Seed = 0,
    output: str = "logit",
    chunk: int = 16,
) -> Value:
    """The mean squared error of the drop that attributions predict for a perturbation, not negative, smaller is better.

    Yeh et al. 2019, arXiv 1901.09392: the mean of (sum(I phi) - (f(x) - f(x - I)))^2, with their square removal: I is the image
    less its replacement within a square in a random place, and 0 elsewhere. phi is a sensitivity, like the gradient, and not a
    contribution, like input x gradient.

    Args:
      attribution: phi, [h,w,C], or [h,w] for the same in every channel; one channel is the same for all.
      net, image, label: see `mixaug_jax.scores.faithfulness`.
      samples: number of squares.
      window: their side in pixels.
      masks: [samples,h,w] in 0..1 in place of squares.
      baseline: the replacement, see `replacement.fill`.
      normalize: first scale phi by E[ab] / E[a^2], a and b the predicted and the true drop, as captum can; zeros stay zeros.
      key: a random key or a seed; square i uses the key folded with i.
      output, chunk: as in `mixaug_jax.scores.faithfulness`.
    """
    image = checks.image(image)
    size = image.shape[:2]
    attribution = _one_channel(attribution)
    shape = image.shape if jnp.ndim(attribution) == 3 else size
    # A map without channels is the sensitivity to each of them.
    phi = checked(attribution, shape, "image", "attribution").reshape(*size, -1)
    lost = image - fill(image, baseline, key)
    draw, samples = _squares(samples, window, masks, size, as_key(key))
    # Every drop is one from the same output, which is computed once.
    clean = outputs(net, image[None], label, output)

    def pair(indices: Indices) -> Float[Array, "n 2"]:
        perturbation = jax.vmap(draw)(indices)[..., None] * lost
        drop = clean - outputs(net, image - perturbation, label, output)
        return jnp.stack([jnp.sum(perturbation * phi, (1, 2, 3)), drop], 1)

    predicted, drop = chunks.every(pair, samples, chunk).T
    if normalize:
        largest = jnp.abs(predicted).max()
        predicted = ratio(predicted, largest)  # before squaring, which small numbers do not survive
        predicted *= ratio((predicted * drop).mean(), jnp.square(predicted).mean())
    return jnp.square(predicted - drop).mean()


def _squares(samples, window, masks, size, key):
    """index -> [h,w] in 0..1, and how many there are."""
    if checks.given(masks):
        masks = checks.array("masks", masks, (0, *size))
        return lambda index: masks[index], len(masks)
    grid(size, window)
    checks.count("samples", samples)
    # Squares lie wholly inside, so that all have the same number of pixels.
    last = jnp.asarray(size) - window + 1

    def draw(index: Count) -> Float[Array, "h w"]:
        # By the index, so that one key gives all images the same squares in the same places.
        corner = jax.random.randint(jax.random.fold_in(key, index), (2,), 0, last)
        row, col = (jnp.arange(side) - start for side, start in zip(size, corner, strict=True))
        inside = ((row >= 0) & (row < window))[:, None] & ((col >= 0) & (col < window))
        return inside.astype(jnp.float32)

    return draw, samples


def _one_channel(attribution):
    """[h,w,1] as [h,w]; all else as it is."""
    attribution = jnp.asarray(attribution)
    return (
        attribution[..., 0] if attribution.ndim == 3 and attribution.shape[-1] == 1 else attribution
    )


def mean_correlation(pairs: np.ndarray, options: Mapping) -> np.ndarray:
    """What `sensitivity_n` gives of each image, [N], from the sums and drops [N,2,sizes,samples] of `subset_drops`."""
    return np.asarray(correlation(pairs[:, 0], pairs[:, 1]).mean(-1))


def pooled(result: Any) -> tuple[np.ndarray, Callable] | None:
    """A summary for `Score`: the mean over sizes of `pooled_sensitivity_n`, where its sums and drops are there."""
    if sensitivity_n.__name__ not in result.pairs:
        return None
    pairs = result.pairs[sensitivity_n.__name__]
    # Every image counts: one that says nothing still belongs to the pool.
    everything = np.ones(len(pairs), bool)
    return everything, lambda at: _pooled(*pairs[at].swapaxes(0, 1)).mean()


_pooled = jax.jit(pooled_sensitivity_n)  # once a replicate
