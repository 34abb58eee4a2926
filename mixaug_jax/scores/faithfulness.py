"""Curves of faithfulness: what a network says as the pixels that a heat map names are removed or brought in.

Each is f(heatmap, net, image [h,w,C] preprocessed, label) -> [T+1] float32, the start included; the caller vmaps. The last
point has everything removed (or brought in), so it is the same for every heat map; `road` stops at its last fraction.

* Pixels, or square tiles of `window` pixels ranked by their mean (those at the lower and right border cut), are removed `step`
  at a time, all channels together; the last step may be shorter. Equal values are ranked in a fixed arbitrary order.
* A map of zeros, or with a value that is NaN or infinite, is thus ranked arbitrarily: it scores as a random map does. Where
  the network's output is NaN, so is the curve.
* `baseline` is "zero" (the mean color), "mean" (the image's, of each channel), "image_mean", "blur" (RISE's kernel), "noise"
  or an array; see `replacement.fill`. `output` is what is recorded: "prob" or "logit" of the label, or its "loss".
* `chunk` images are in memory at once, for each image of the vmapped batch; 0 is all. It changes only the rounding.
"""

import functools
import math
from collections.abc import Callable, Mapping

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
    Count,
    Curve,
    Float,
    Given,
    Heatmap,
    Image,
    Indices,
    Label,
    Net,
    Outputs,
    Seed,
)
from mixaug_jax.scores.imputation import impute
from mixaug_jax.scores.maps import checked, ranks
from mixaug_jax.scores.replacement import fill
from mixaug_jax.scores.tiles import on_pixels, tile_means

ORDERS = ("morf", "lerf")


def _curve(
    explained: Callable, before: Image, after: Image, rank: AnyArray, counts: Given, chunk: int
) -> Curve:
    """`explained` of `before` with the first counts[t] units (int [h,w] or [h,w,C] `rank`) taken from `after`, [T+1]."""
    # Whole pixels have one rank for all channels.
    rank = rank.reshape(*rank.shape, *[1] * (3 - rank.ndim))
    counts = jnp.asarray(counts, jnp.int32)

    def score(index: Indices) -> Outputs:
        # A comparison makes each point by itself, so that any chunk of them can be computed at once.
        moved = rank < counts[index][:, None, None, None]
        return explained(jnp.where(moved, after, before))

    return chunks.every(score, len(counts), chunk)


def _counts(units, row, step):
    """How many units are moved at each point: 0, step, ..., units. A `step` of 0 is a row of them."""
    checks.count("step", step, 0)
    # RISE's step, a row of pixels, so that curves of any size have about as many points as rows.
    step = step or row
    return np.minimum(step * np.arange(math.ceil(units / step) + 1), units)


def _ranked(heatmap, image, window, step):
    """The units' rank at each pixel, largest first, [h,w], and the number moved at each point."""
    size = image.shape[:2]
    # Tiles are ranked by their mean, or those cut at the border would come last.
    means = tile_means(checked(heatmap, size, "image"), window)
    counts = _counts(math.prod(means.shape), means.shape[1], step)
    return on_pixels(ranks(means), window, size), counts


def opposite_ties(heatmap: Heatmap, *, window: int = 1) -> Heatmap:
    """A map [h,w] whose tiles of `window` pixels are ranked as this one's, but equal ones in the opposite order."""
    size = jnp.shape(heatmap)
    means = tile_means(checked(heatmap, size, "image"), window)
    # Ranks are whole numbers, and so are their sums over a tile: exact in float32 up to 4096 x 4096 pixels.
    order = -ranks(means, backward=True).astype(jnp.float32)
    return on_pixels(order, window, size)


def deletion(
    heatmap: Heatmap,
    net: Net,
    image: Image,
    label: Label,
    *,
    window: int = 1,
    step: int = 0,
    baseline: Baseline = "zero",
    key: Seed = 0,
    output: str = "prob",
    chunk: int = 16,
) -> Curve:
    """The output as the pixels with the largest values are removed first (RISE, Petsiuk et al. 2018, arXiv 1806.07421).

    A low area (`auc`) says that what the map names matters. The defaults are those of RISE's code: one row's number of
    pixels a step (224 at 224 x 224), set to 0 in normalized space. Ties there follow the reverse of numpy's argsort.

    Args:
      heatmap: [h,w] at the image's size.
      net, image, label, output, chunk: see `mixaug_jax.scores.faithfulness`. RISE explains the predicted class.
      window: side of the units in pixels; 1 is single pixels.
      step: units a step; 0 is as many as a row has.
      baseline, key: the replacement, and the random key or seed of "noise".

    Raises:
      ValueError: for a heat map of another size, or a window larger than the image.
    """
    image = checks.image(image)
    rank, counts = _ranked(heatmap, image, window, step)
    explained = functools.partial(outputs, net, label=label, output=output)
    return _curve(explained, image, fill(image, baseline, key), rank, counts, chunk)


def insertion(
    heatmap: Heatmap,
    net: Net,
    image: Image,
    label: Label,
    *,
    window: int = 1,
    step: int = 0,
    baseline: Baseline = "blur",
    key: Seed = 0,
    output: str = "prob",
    chunk: int = 16,
) -> Curve:
    """The output as the pixels with the largest values come into a blurred image (RISE, Petsiuk et al. 2018, arXiv 1806.07421).

    A high area (`auc`) says that what the map names suffices. The defaults are those of RISE's code.

    Args:
      heatmap, net, image, label, window, step, output, chunk: as `deletion`.
      baseline, key: what the image starts from, and the random key or seed of "noise".
    """
    image = checks.image(image)
    rank, counts = _ranked(heatmap, image, window, step)
    explained = functools.partial(outputs, net, label=label, output=output)
    return _curve(explained, fill(image, baseline, key), image, rank, counts, chunk)


def morf(
    heatmap: Heatmap,
    net: Net,
    image: Image,
    label: Label,
    *,
    window: int = 8,
    step: int = 1,
    baseline: Baseline = "mean",
    key: Seed = 0,
    output: str = "prob",
    chunk: int = 16,
) -> Curve:
    """The output as tiles are removed, most relevant first (Samek et al. 2015, arXiv 1509.06321).

    The defaults are those of the degradation of Schulz et al. 2020, arXiv 2001.00396: tiles of 8 (also 14) pixels, replaced
    by the image's mean of each channel. Their code records 100 snapshots, never the one with everything removed; this one
    records every step. `comparison.degradation_score` is their score.

    Args:
      heatmap, net, image, label, output, chunk: as `deletion`.
      window: side of the tiles in pixels.
      step: tiles a step; 0 is as many as a row has.
      baseline, key: the replacement, and the random key or seed of "noise".
    """
    return deletion(
        heatmap,
        net,
        image,
        label,
        window=window,
        step=step,
        baseline=baseline,
        key=key,
        output=output,
        chunk=chunk,
    )


def lerf(
    heatmap: Heatmap,
    net: Net,
    image: Image,
    label: Label,
    *,
    window: int = 8,
    step: int = 1,
    baseline: Baseline = "mean",
    key: Seed = 0,
    output: str = "prob",
    chunk: int = 16,
) -> Curve:
    """As `morf`, least relevant first (Ancona et al. 2017, arXiv 1711.06104; Schulz et al. 2020, arXiv 2001.00396).

    Equal tiles go in the same order in both.

    Args:
      heatmap, net, image, label, window, step, baseline, key, output, chunk: as `morf`.
    """
    return morf(
        # Ranks break ties by place alone, so equal tiles keep their order.
        -jnp.asarray(heatmap, jnp.float32),
        net,
        image,
        label,
        window=window,
        step=step,
        baseline=baseline,
        key=key,
        output=output,
        chunk=chunk,
    )


def pixel_flipping(
    heatmap: Heatmap | Attribution,
    net: Net,
    image: Image,
    label: Label,
    *,
    step: int = 0,
    baseline: Baseline = "zero",
    key: Seed = 0,
    output: str = "prob",
    chunk: int = 16,
) -> Curve:
    """The output as single pixels or channel elements are replaced, largest value first.

    Bach et al. 2015, doi 10.1371/journal.pone.0130140.

    Quantus's PixelFlipping counts channel elements: a map [h,w,C] gives that, a map [h,w] removes whole pixels. Its curve
    lacks the start, and its mean replacement is the mean of the image as perturbed so far, which drifts; its "black" and
    "white" are the image's smallest and largest value: `baseline=image.min()`.

    Args:
      heatmap: [h,w], or [h,w,C] to flip elements.
      net, image, label, output, chunk: as `deletion`.
      step: pixels or elements a step; 0 is as many as a row has.
      baseline, key: the replacement, and the random key or seed of "noise".

    Raises:
      ValueError: for a heat map of another size.
    """
    image = checks.image(image)
    shape = image.shape if jnp.ndim(heatmap) == 3 else image.shape[:2]
    rank = ranks(checked(heatmap, shape, "image"))
    counts = _counts(rank.size, math.prod(shape[1:]), step)
    explained = functools.partial(outputs, net, label=label, output=output)
    return _curve(explained, image, fill(image, baseline, key), rank, counts, chunk)


def road(
    heatmap: Heatmap,
    net: Net,
    image: Image,
    label: Label,
    *,
    fractions: Given = (0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9),
    order: str = "morf",
    sigma: float = 0.01,
    key: Seed = 0,
    output: str = "prob",
    chunk: int = 16,
) -> Curve:
    """The output as removed pixels are imputed from their neighbors (ROAD, Rong et al. 2022, arXiv 2202.00449).

    Noisy linear imputation hides the shape of what was removed, which a constant color gives away; see `imputation.impute`.
    The area over unequal fractions is `auc(curve, positions=(0, *fractions))`. ROAD's accuracy is whether the label has the
    largest logit; this is the output itself.

    Args:
      heatmap, net, image, label, output, chunk: as `deletion`.
      fractions: of pixels removed, rising within 0..1; int(fraction h w) pixels each. The curve starts before them with
        nothing removed.
      order: "morf" removes the largest values first, "lerf" the smallest.
      sigma: standard deviation of the noise on imputed pixels, in the units of the preprocessed image; 0 is none.
      key: a random key or a seed; fraction i uses the key folded with i.

    Returns:
      [len(fractions) + 1].
    """
    image = checks.image(image)
    checks.choice("order", order, ORDERS)
    checks.not_negative("sigma", sigma)
    heat = checked(heatmap, image.shape[:2], "image")
    # The order of removal is the map's, or its reverse with ties as they were.
    rank = ranks(heat if order == "morf" else -heat)
    counts = _fraction_counts(fractions, rank.size)
    key = as_key(key)

    # Noise hides that imputed pixels are smoother than real ones.
    def imputed(index: Count) -> Image:
        gone = rank < counts[index]
        noise = sigma * jax.random.normal(jax.random.fold_in(key, index), image.shape)
        return jnp.where(gone[..., None], impute(image, gone) + noise, image)

    def score(index: Indices) -> Outputs:
        return outputs(net, jax.vmap(imputed)(index), label, output)

    return chunks.every(score, len(counts), chunk)


def _fraction_counts(fractions, pixels):
    """How many pixels are removed at each point, int32 [T+1], the first 0."""
    try:
        known = np.asarray(fractions, float)
    except (TypeError, ValueError):
        # Text or a ragged list, which is refused below with the same sentence.
        known = np.zeros(0)
    if (
        known.ndim != 1
        or not known.size
        or not (np.diff(known, prepend=0) > 0).all()
        or known[-1] > 1
    ):
        raise ValueError(f"fractions must rise within 0..1, from above 0; got {fractions}")
    return jnp.asarray([0, *(int(f * pixels) for f in known)], jnp.int32)


def auc(curve: Given, *, positions: Given = ()) -> Float[Array, "..."]:
    """The area under curves over 0..1, the trapezoid rule: [..., T+1] -> [...] (RISE, Petsiuk et al. 2018, arXiv 1806.07421).

    Args:
      curve: at least two points each; NaN gives NaN.
      positions: [T+1], where the points lie, each beyond the one before; () is at equal distances from 0 to 1. The area is
        divided by their range.

    Raises:
      ValueError: a single point, or places that do not rise.
    """
    curve = jnp.asarray(curve, jnp.float32)
    if curve.ndim < 1 or curve.shape[-1] < 2:
        raise ValueError(f"curve must have at least two points; got the shape {list(curve.shape)}")
    points = curve.shape[-1]
    at = positions if checks.given(positions) else np.linspace(0, 1, points)
    # Positions that are traced cannot be looked at.
    known, at = checks.concrete(at), checks.array("positions", at, (points,))
    if known is not None and not (np.diff(known) > 0).all():
        raise ValueError(f"positions must rise from point to point; got {known.tolist()}")
    middle = (curve[..., 1:] + curve[..., :-1]) / 2
    return (middle * jnp.diff(at)).sum(-1) / (at[-1] - at[0])


def road_positions(options: Mapping, count: int) -> tuple[float, ...]:
    """Where the points of `road`'s curve lie: what its fractions say, after 0."""
    return (0.0, *options["fractions"])


def road_direction(options: Mapping) -> int:
    """Whether a larger area of `road` is better (1), as where the least relevant go first, or a smaller one (-1)."""
    return -1 if options["order"] == "morf" else 1
