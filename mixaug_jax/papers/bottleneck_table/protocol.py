"""What the table measures of maps, as the paper's code does: degradation by tiles, boxes, sensitivity-n; and their intervals.

Tiles are replaced by the image's mean of each channel; curves are recorded at 100 numbers of tiles, never with all gone.
The score of a curve is their mean, divided by the clean images' mean top probability less the mean with everything gone.
"""

import dataclasses
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from mixaug_jax.attribution import chunks
from mixaug_jax.attribution.target import replacement
from mixaug_jax.core import checks
from mixaug_jax.core.types import (
    AnyArray,
    Array,
    Bool,
    Count,
    Float,
    Given,
    Image,
    Indices,
    Int,
    Label,
    Mask,
    Net,
)
from mixaug_jax.models.net import Preprocess
from mixaug_jax.models.probability import probabilities
from mixaug_jax.scores.faithfulness import auc
from mixaug_jax.scores.tiles import on_pixels

SHARE = 0.33  # of an image that boxes cover at most
TINY = np.finfo(np.float64).tiny


def counts(units: int, snapshots: int = 100) -> tuple[int, ...]:
    """How many tiles are gone in each recorded point, as the published code counts: 0, 1, 9, 17, ... 777 of 784.

    Where there are no more tiles than snapshots it is every number, the end included.

    Args:
      units: how many tiles there are.
      snapshots: 0 is every number of tiles.
    """
    if not snapshots:
        return tuple(range(units + 1))
    after = {round(value * units) for value in np.linspace(0, 1, snapshots)}
    return (0, *(place + 1 for place in sorted(after) if place < units))


def rankings(maps: np.ndarray, window: int) -> np.ndarray:
    """The rank of each tile, most and least relevant first, int32 [N,2,rows,cols], of maps [N,h,w].

    Equal tiles go as NumPy's argsort has them, as in the published code: on another processor the order may be another.
    """
    count = tile_sums(np.ones((1, *maps.shape[1:])), window)
    means = np.where(
        np.isfinite(maps).all((1, 2), keepdims=True), tile_sums(maps, window) / count, 0
    )
    found = []
    for values in (-means, means):
        order = np.argsort(values.reshape(len(maps), -1), axis=-1)
        rank = np.empty_like(order)
        np.put_along_axis(rank, order, np.arange(order.shape[1])[None], -1)
        found.append(rank.reshape(means.shape))
    return np.stack(found, 1).astype(np.int32)


def degraded(
    ranking: Int[AnyArray, "2 rows cols"],
    net: Net,
    image: Image,
    label: Label,
    predicted: Count,
    *,
    window: int = 8,
    gone: tuple[int, ...] = (0,),
    chunk: int = 16,
) -> Float[Array, "2 T 2"]:
    """Probabilities as tiles are replaced by the image's mean color, most and least relevant first (Schulz et al. 2020).

    Args:
      ranking: of `rankings`.
      net, image: see `mixaug_jax.scores`.
      label, predicted: the two classes.
      window: side of the tiles, pixels.
      gone: numbers of tiles that are replaced, rising.
      chunk: images in memory at once; 0 is all.

    Returns:
      [2,T,2]: MoRF and LeRF, at each of `gone`, of the label and of the predicted class.
    """
    image = checks.image(image)
    orders = on_pixels(jnp.asarray(ranking), window, image.shape[:2])
    after, last = replacement(image, "mean"), jnp.asarray(gone, jnp.int32)

    def each(indices: Indices) -> Float[Array, "n 2"]:
        # Both orders and all their points as one list of images, so that `chunk` bounds the memory of all.
        moved = orders[indices // len(gone)] < last[indices % len(gone)][:, None, None]
        logits = net.logits(jnp.where(moved[..., None], after, image))
        found = probabilities(net, logits)
        return jnp.stack([found[:, label], found[:, predicted]], 1)

    return chunks.every(each, 2 * len(gone), chunk).reshape(2, len(gone), 2)


def degradation(
    curves: np.ndarray, top: np.ndarray, weights: np.ndarray, positions: Given = ()
) -> np.ndarray:
    """The score of many images, [R]: larger is better, and 0 where removal does not lower the mean.

    Args:
      curves: [N,2,T,2] of `degraded`, of which one class is looked at: [N,2,T]; the last point has everything replaced.
      top: [N], the probability of the clean images' first class.
      weights: [N,R], how often an image counts in each replicate.
      positions: shares of the tiles at the points: the area under the curves by trapezoids; () is the published mean over all
        points but the last.
    """
    weight = weights / np.maximum(weights.sum(0), TINY)
    first, last = (np.einsum("nt,nr->rt", curves[:, k], weight) for k in (0, 1))
    start, end = top @ weight, first[:, -1]
    if len(positions):
        # With few tiles the end is a recorded point, too, and then there twice.
        once = np.append(np.diff(positions) > 0, True)
        area = auc(jnp.asarray(last - first)[:, once], positions=np.asarray(positions)[once])
        area = np.asarray(area)
    else:
        area = (last - first)[:, :-1].mean(1)
    falls = start > end
    return np.where(falls, area / np.where(falls, start - end, 1), 0.0)


def box_mask(boxes: np.ndarray, size: Sequence[int], preprocess: Preprocess) -> np.ndarray:
    """The union of boxes as the network would see it, float32 [h,w] in 0..1: resized and cut as the image.

    Args:
      boxes: [n,4] (row0, col0, row1, col1) in pixels of the stored image; ends are rounded down.
      size: (H, W) of that image.
      preprocess: the network's.
    """
    mask = np.zeros(size, bool)
    for row0, col0, row1, col1 in np.asarray(boxes).astype(int):
        mask[row0:row1, col0:col1] = True
    return seen_mask(mask, preprocess)


def seen_mask(mask: Mask, preprocess: Preprocess) -> np.ndarray:
    """A region of the stored image, bool [H,W], resized and cut as the network sees the image: float32 [h,w] in 0..1."""
    plain = dataclasses.replace(preprocess, mean=(0.0,), std=(1.0,), order="rgb")
    return plain(np.uint8(255) * mask.astype(np.uint8))[..., 0]


def kept(masks: np.ndarray, share: float = SHARE) -> np.ndarray:
    """Which images count, bool [N], of masks [N,h,w] in 0..1: those with something, but not too much, in boxes."""
    return (masks.mean((1, 2)) <= share) & (masks >= 0.5).any((1, 2))


def top_ratio(maps: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """The share of the n highest pixels at which the mask is above 0.5, [N], n being the number of such pixels.

    Args:
      maps: [N,h,w].
      masks: [N,h,w] in 0..1.
    """
    found = []
    for heat, mask in zip(maps, masks, strict=True):
        n = int((mask > 0.5).sum())
        # Ties as in `rankings`; a map that says nothing hits nothing.
        order = np.argsort(-heat.ravel())[:n]
        says = n and heat.any() and np.isfinite(heat).all()
        found.append((mask.ravel()[order] > 0.5).mean() if says else 0.0)
    return np.array(found)


def mass_ratio(maps: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """The share of a map's sum that lies in the mask, [N]; says nothing of maps with negative values."""
    whole = maps.sum((1, 2), dtype=np.float64)
    inside = (maps * masks).sum((1, 2), dtype=np.float64)
    return np.where(whole == 0, 0.0, inside / np.where(whole == 0, 1, whole))


def sizes(units: int, count: int = 16) -> np.ndarray:
    """The sizes of sensitivity-n as published, int32 [count]: from 1 to 0.8 of all, small ones more than once."""
    return np.geomspace(1, max(0.8 * units, 1), count).round().astype(np.int32)


def subsets(units: Sequence[int], removed: Given, samples: int, seed: int) -> np.ndarray:
    """Random subsets of tiles, without replacement, bool [sizes,samples,rows,cols]; the same for all images.

    Args:
      units: (rows, cols) of tiles.
      removed: how many of them each size has.
      samples: subsets of each size.
      seed: of the draws. The published code draws from a generator without a seed, anew for every method.
    """
    draw = np.random.Generator(np.random.Philox(key=[seed, 7]))
    order = np.tile(np.arange(units[0] * units[1]), (len(removed), samples, 1))
    order = draw.permuted(order, axis=-1)
    gone = order < np.asarray(removed)[:, None, None]
    return gone.reshape(len(removed), samples, *units)


def tile_sums(maps: np.ndarray, window: int) -> np.ndarray:
    """Maps [N,h,w] -> the sum of each tile, float64 [N,rows,cols]."""
    rows, cols = (np.arange(0, side, window) for side in maps.shape[1:])
    return np.add.reduceat(np.add.reduceat(maps.astype(np.float64), rows, 1), cols, 2)


def subset_sums(
    maps: np.ndarray, masks: Bool[np.ndarray, "S M rows cols"], window: int
) -> np.ndarray:
    """What the maps [N,h,w] have in each subset, float64 [sizes,N,samples]."""
    tiles = tile_sums(maps, window)
    return np.einsum("nrc,smrc->snm", tiles, masks.astype(np.float64), optimize=True)


def finite(sums: np.ndarray, drops: np.ndarray) -> np.ndarray:
    """Which images have numbers alone, bool [N], of [sizes,N,samples]: one NaN would make the correlation of all images NaN."""
    return np.isfinite(sums).all((0, 2)) & np.isfinite(drops).all((0, 2))


def pooled(sums: np.ndarray, drops: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """One Pearson r for each size over the subsets of all images, as published, [sizes,R]; 0 where something does not vary.

    Args:
      sums, drops: [sizes,N,samples].
      weights: [N,R], how often an image counts in each replicate. One that is not `finite` does not; NaN where none is left.
    """
    there = finite(sums, drops)
    weights = weights * there[:, None]
    sums, drops = (np.where(there[:, None], np.float64(x), 0) for x in (sums, drops))
    a, b = (x - x.mean((1, 2), keepdims=True) for x in (sums, drops))
    moments = np.stack([x.sum(2) for x in (a, b, a * a, b * b, a * b)])  # [5,sizes,N]
    sa, sb, saa, sbb, sab = np.einsum("ksn,nr->ksr", moments, weights.astype(np.float64))
    count = np.maximum(weights.sum(0) * sums.shape[2], 1)
    covariance = sab - sa * sb / count
    spread = (saa - sa * sa / count).clip(0) * (sbb - sb * sb / count).clip(0)
    found = np.where(spread > 0, covariance / np.sqrt(np.where(spread > 0, spread, 1)), 0.0)
    return np.where(weights.any(0), found, np.nan)


def per_image(sums: np.ndarray, drops: np.ndarray) -> np.ndarray:
    """Pearson's r of each image alone, [sizes,N], on which an image's scale has no influence; NaN where it is not `finite`."""
    one = np.ones((1, 1))
    pairs = ((sums[:, [i]], drops[:, [i]]) for i in range(sums.shape[1]))
    return np.concatenate([pooled(a, b, one) for a, b in pairs], 1)
