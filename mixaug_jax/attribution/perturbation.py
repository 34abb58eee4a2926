"""Attribution by what the network says when parts of the image are gone."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mixaug_jax.attribution import chunks, resampling
from mixaug_jax.attribution.gradients import as_key
from mixaug_jax.attribution.target import nan_like, outputs, replacement
from mixaug_jax.core import checks
from mixaug_jax.core.types import (
    AnyArray,
    Array,
    Attribution,
    Baseline,
    Count,
    Float,
    Given,
    Image,
    Images,
    Indices,
    Label,
    Net,
    Outputs,
    Seed,
    Shaped,
)

Sides = int | Sequence[int]  # of windows, or rows and columns


def _spans(length, window, stride):
    """Start and stop of the windows along a side: the last one is cut at the border. [n] each."""
    if window > length:
        raise ValueError(
            f"window must not be longer than the image's side of {length} pixels; got {window}"
        )
    start = stride * np.arange(math.ceil((length - window) / stride) + 1)
    start = start[start < length]
    return start, np.minimum(start + window, length)


def _inside(span, length):
    """[n,length] bool: which pixels each window covers."""
    start, stop = span
    place = np.arange(length)
    return (place >= start[:, None]) & (place < stop[:, None])


def occlusion(
    net: Net,
    image: Image,
    label: Label,
    *,
    window: Sides = 16,
    stride: Sides = 8,
    baseline: Baseline = "zero",
    per_channel: bool = False,
    output: str = "logit",
    chunk: int = 16,
) -> Attribution:
    """How much the output drops when a window is replaced, signed [h,w,1] (Zeiler and Fergus 2013, arXiv 1311.2901).

    Windows start every `stride` pixels; the last one of a row or column is cut at the border, as captum's. A pixel gets the
    mean drop of the windows that cover it, and 0 where none does (stride longer than window).

    Args:
      net, image, label: see `mixaug_jax.attribution`.
      window, stride: in pixels, one number or (rows, columns).
      baseline: "zero", "mean", "blur" or an array.
      per_channel: replace one channel at a time; gives [h,w,C].
      output: the output explained, "logit", "prob" or "loss" (a rising loss is a negative drop).
      chunk: windows in memory at once; 0 is all.

    Raises:
      ValueError: for a window larger than the image.
    """
    image = checks.image(image)
    height, width, channels = image.shape
    sides = zip(
        (height, width), checks.pair("window", window), checks.pair("stride", stride), strict=True
    )
    # A window is a span of rows times one of columns; two lines of booleans stand for its mask.
    row_span, col_span = (_spans(*side) for side in sides)
    rows, cols = _inside(row_span, height), _inside(col_span, width)
    layers = np.eye(channels, dtype=bool) if per_channel else np.ones((1, channels), bool)
    shape = (len(rows), len(cols), len(layers))
    fill = replacement(image, baseline)

    def score(index: Indices) -> Outputs:
        r, c, k = jnp.unravel_index(index, shape)
        gone = jnp.asarray(rows)[r][:, :, None, None] & jnp.asarray(cols)[c][:, None, :, None]
        gone &= jnp.asarray(layers)[k][:, None, None, :]
        return outputs(net, jnp.where(gone, fill, image), label, output)

    # The same two lines, transposed, give each pixel the sum over the windows that cover it.
    drops = outputs(net, image[None], label, output) - chunks.every(score, math.prod(shape), chunk)
    covering = rows.sum(0)[:, None, None] * cols.sum(0)[:, None]
    total = resampling.apply(rows.T, cols.T, drops.reshape(shape))
    return total / np.maximum(covering, 1)


def feature_ablation(
    net: Net,
    image: Image,
    label: Label,
    *,
    window: Sides = 8,
    masks: Given = (),
    baseline: Baseline = "zero",
    output: str = "logit",
    chunk: int = 16,
) -> Attribution:
    """How much the output drops when a group of pixels is replaced, signed [h,w,1] or [h,w,C].

    Every pixel of a group gets the whole drop, as captum's FeatureAblation; leaving out parts is as old as Zeiler and Fergus
    2013, arXiv 1311.2901.

    Args:
      net, image, label: see `mixaug_jax.attribution`.
      window: side of the square cells, from the upper left, that are the groups; one number or (rows, columns), in pixels.
      masks: bool [n,h,w], or [n,h,w,C] for groups within channels, in place of the cells; a pixel in several groups gets the
        sum of their drops, one in none 0.
      baseline: "zero", "mean", "blur" or an array.
      output: the output explained, "logit", "prob" or "loss".
      chunk: groups in memory at once; 0 is all.

    Raises:
      ValueError: for a window larger than the image.
    """
    image = checks.image(image)
    if not checks.given(masks):
        # Windows that touch and do not overlap are the cells.
        return occlusion(
            net,
            image,
            label,
            window=window,
            stride=window,
            baseline=baseline,
            output=output,
            chunk=chunk,
        )
    # Groups of pixels have one axis of channels that stands for all of them.
    shape = image.shape if jnp.ndim(masks) == 4 else image.shape[:2]
    masks = checks.array("masks", masks, (0, *shape)).reshape(-1, *shape[:2], math.prod(shape[2:]))
    fill = replacement(image, baseline)
    clean = outputs(net, image[None], label, output)[0]

    def drop(index: Indices) -> Images:
        group = masks[index]
        lost = clean - outputs(net, jnp.where(group > 0, fill, image), label, output)
        return lost[:, None, None, None] * (group > 0)

    return nan_like(clean, chunks.total(drop, len(masks), chunk))


def rise_mask(
    grid: Shaped[AnyArray, "cells cells"], shift: Given, size: Sequence[int]
) -> Float[Array, "h w"]:
    """A smooth mask of RISE, [h,w] in 0..1.

    Args:
      grid: [cells,cells] of 0 and 1.
      shift: (row, column) int, where the image begins on the enlarged grid; each at least 0 and shorter than a cell.
      size: (h, w) of the image. A cell is ceil(h / cells) by ceil(w / cells) pixels, the enlarged grid one cell larger.
    """
    cells = grid.shape[0]
    # A cell larger than the image, so that every shift finds pixels to show.
    full = [(cells + 1) * math.ceil(side / cells) for side in size]
    large = resampling.enlarge(grid.astype(jnp.float32)[..., None], full, "mirror")[..., 0]
    return jax.lax.dynamic_slice(large, tuple(shift), size)


def _rise_masks(key, cells, prob, size):
    """indices [n] -> their masks [n,h,w]."""
    checks.count("cells", cells)
    key = as_key(key)
    cell = jnp.asarray([math.ceil(side / cells) for side in size])

    def draw(index: Count) -> Float[Array, "h w"]:
        which, where = jax.random.split(jax.random.fold_in(key, index))
        grid = jax.random.uniform(which, (cells, cells)) < prob
        return rise_mask(grid, jax.random.randint(where, (2,), 0, cell), size)

    return jax.vmap(draw)


def rise(
    net: Net,
    image: Image,
    label: Label,
    *,
    key: Seed = 0,
    samples: int = 4000,
    cells: int = 7,
    prob: float = 0.5,
    masks: Given = (),
    baseline: Baseline = "zero",
    output: str = "prob",
    chunk: int = 16,
) -> Attribution:
    """RISE: the mean of random masks weighted by the output for the image they leave visible, [h,w,1].

    Petsiuk et al. 2018, arXiv 1806.07421, eq. 6, with the masks of the authors' code (bilinear, mirrored at the border).

    Args:
      net, image, label: see `mixaug_jax.attribution`.
      key: a random key or a seed; sample i uses the key folded with i.
      samples: number of masks (the paper: 4000 for VGG-16, 8000 for ResNet-50).
      cells: the masks' cells along a side.
      prob: share of visible cells, which divides the mean.
      masks: [samples,h,w] in 0..1 in place of draws.
      baseline: what is seen where a mask is 0: "zero" (the paper's), "mean", "blur" or an array.
      output: the output that weights masks, "logit", "prob" (the paper's) or "loss".
      chunk: masks in memory at once; 0 is all.
    """
    image = checks.image(image)
    size = image.shape[:2]
    if not 0 < prob <= 1:
        raise ValueError(f"prob must be above 0 and at most 1; got {prob}")
    if checks.given(masks):
        masks = checks.array("masks", masks, (0, *size))
        # Published code draws otherwise; its masks can be given.
        draw, samples = masks.__getitem__, len(masks)
    else:
        checks.count("samples", samples)
        draw = _rise_masks(key, cells, prob, size)
    fill = replacement(image, baseline)

    def weighted(indices: Indices) -> Images:
        mask = draw(indices)[..., None]
        seen = mask * image + (1 - mask) * fill
        return outputs(net, seen, label, output)[:, None, None, None] * mask

    # A pixel is seen in the share `prob` of the masks: this makes the sum a mean over those (eq. 6).
    return chunks.total(weighted, samples, chunk) / (samples * prob)
