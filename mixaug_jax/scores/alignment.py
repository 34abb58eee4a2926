"""Scores of alignment: does a heat map point where people see the object?

Each is f(heatmap [H,W], mask [H,W] bool) -> a float32 scalar in 0..1, larger is better. The heat map has the mask's size
(`attribution.resampling.enlarge` brings it there). Without an object in the mask, and for a map of zeros or with a value
that is NaN or infinite, the score is 0: a map that says nothing never hits.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mixaug_jax.core import checks
from mixaug_jax.core.types import Bool, Given, Heatmap, Mask, Scalar, Value
from mixaug_jax.scores.components import box_iou, largest_component, tight_box
from mixaug_jax.scores.maps import checked, ranks, ratio, to_one

# The share of the image that regions may cover in the papers of box_ratio (at most) and energy_pointing_game (less).
_IBA_SHARE, _SCORE_CAM_SHARE = 0.33, 0.5
_HIT = 15 / 224  # TorchRay's tolerance of the pointing game, as a share of the image's side


def _pair(heatmap, mask):
    mask = jnp.asarray(mask)
    # A floating point mask is another heat map by mistake, whose values are nearly all true.
    if mask.ndim != 2 or 0 in mask.shape or jnp.issubdtype(mask.dtype, jnp.floating):
        raise ValueError(f"mask must be bool [H,W]; got {mask.dtype} {list(mask.shape)}")
    return checked(heatmap, mask.shape, "mask"), mask != 0


def pointing_game(heatmap: Heatmap, mask: Mask, *, tolerance: float = 0) -> Value:
    """1 where the map's largest value lies on the object or less than `tolerance` pixels from it, else 0.

    Zhang et al. 2016, arXiv 1608.00507, with the rule of TorchRay (Fong et al. 2019, arXiv 1910.08485): the first of equal
    maxima in reading order counts, and the distance to the nearest object pixel must be strictly below `tolerance`. At 15, a
    distance of 15 misses; 1 is the game without tolerance. A constant map points nowhere and misses,
    unless the mask is the whole image. TorchRay counts maps of NaN as hits, and Quantus an empty mask; here both miss.

    Args:
      heatmap: [H,W] at the size of the original image.
      mask: bool [H,W], all of the class's objects together.
      tolerance: in pixels, not negative; 0 is TorchRay's 15 in proportion to a shorter side of 224.
    """
    heatmap, mask = _pair(heatmap, mask)
    checks.not_negative("tolerance", tolerance)
    height, width = mask.shape
    # In small images a share of a pixel would leave no hit: 1 is the game without tolerance.
    tolerance = tolerance or max(1, round(_HIT * min(height, width)))
    row, col = jnp.divmod(jnp.argmax(heatmap), width)
    square = (jnp.arange(height)[:, None] - row) ** 2 + (jnp.arange(width) - col) ** 2
    reach = min(tolerance, height + width)  # no pixel is farther, and squares stay small
    near = (mask & (square < reach**2)).any()
    # A constant map has its first pixel for a maximum, which would hit what lies in the corner.
    points = (heatmap.max() > heatmap.min()) | (mask.all() & (heatmap != 0).any())
    return (near & points).astype(jnp.float32)


def energy_pointing_game(heatmap: Heatmap, mask: Mask) -> Value:
    """The share of the map's positive values that lies on the object (Wang et al. 2019, Score-CAM, arXiv 1910.01279).

    The paper keeps images whose one box covers less than half; that choice is the caller's.

    Args:
      heatmap: [H,W]; negative values count as 0.
      mask: bool [H,W].
    """
    heatmap, mask = _pair(heatmap, mask)
    return _share_inside(jnp.maximum(heatmap, 0), mask)


def mass_accuracy(heatmap: Heatmap, mask: Mask) -> Value:
    """The share of the map's absolute values that lies on the object (Arras et al. 2020, arXiv 2003.07258).

    As Quantus's RelevanceMassAccuracy. Differs from `energy_pointing_game` for maps with negative values.

    Args:
      heatmap: [H,W].
      mask: bool [H,W].
    """
    heatmap, mask = _pair(heatmap, mask)
    return _share_inside(jnp.abs(heatmap), mask)


def _share_inside(heat, mask):
    heat = to_one(heat)
    return ratio(jnp.sum(heat, where=mask), jnp.sum(heat))


def box_ratio(heatmap: Heatmap, mask: Mask) -> Value:
    """The share of the n largest values that lies on the object, n being its number of pixels.

    The bounding-box ratio of Schulz et al. 2020, arXiv 2001.00396, where masks are boxes that cover at most a
    third of the image. Equal values are ranked in a fixed arbitrary order.

    Args:
      heatmap: [H,W], ranked with its sign.
      mask: bool [H,W].
    """
    heatmap, mask = _pair(heatmap, mask)
    return _top_share(heatmap, mask)


def rank_accuracy(heatmap: Heatmap, mask: Mask) -> Value:
    """As `box_ratio`, of the map's absolute values (Arras et al. 2020, arXiv 2003.07258; Quantus's RelevanceRankAccuracy).

    Args:
      heatmap: [H,W].
      mask: bool [H,W].
    """
    heatmap, mask = _pair(heatmap, mask)
    return _top_share(jnp.abs(heatmap), mask)


def _top_share(heat, mask):
    n = mask.sum()
    share = (mask & (ranks(heat) < n)).sum() / jnp.maximum(n, 1)
    return jnp.where((heat != 0).any(), share, 0.0)


def best_box_iou(heatmap: Heatmap, mask: Mask, *, levels: int = 20) -> Value:
    """The best IoU of a box drawn from the map with the object's box, over thresholds.

    The box lies around the largest connected region (8 neighbors) of at least k / levels of the map's maximum (Zhou et al.
    2015, arXiv 1512.04150, with one threshold of 0.2), at the best k, as Choe et al. 2020, arXiv 2001.07437,
    argue; they choose it for a whole data set, this score for each image: an upper bound.

    Args:
      heatmap: [H,W]; negative values never count.
      mask: bool [H,W] of one object; its box is the smallest one around it.
      levels: k runs from 1 to levels - 1.
    """
    heatmap, mask = _pair(heatmap, mask)
    checks.count("levels", levels, 2)
    target = tight_box(mask)
    heat = to_one(jnp.maximum(heatmap, 0))

    def iou(level: Scalar) -> Value:
        on = heat >= level
        return box_iou(tight_box(largest_component(on)), target)

    # One level after the other: each one grows regions over the whole map.
    return jax.lax.map(iou, jnp.arange(1, levels) / levels).max()


def effective_heat_ratio(heatmap: Heatmap, mask: Mask, *, base: float = 0.1) -> Value:
    """The heat on the object per pixel above a threshold, integrated over thresholds at the map's quantiles.

    Effective heat ratio of Zhang et al. 2021 (InputIBA), arXiv 2110.01532, with the settings of its authors' code:
    values from `base` of the maximum up count; thresholds are their deciles, none above 0.99 of the maximum; the ratio at each
    is the sum of the map on the object over the number of pixels, on it and off it; their trapezoid is the score.

    Args:
      heatmap: [H,W], scaled here to a maximum of 1; negative values never count.
      mask: bool [H,W].
      base: share of the maximum below which values are nothing, above 0 and at most 1.
    """
    heatmap, mask = _pair(heatmap, mask)
    if not 0 < base <= 1:
        raise ValueError(f"base must be above 0 and at most 1; got {base}")
    heat = to_one(jnp.maximum(heatmap, 0))
    warm = heat >= base
    # The last threshold may be the maximum itself, which a single pixel reaches.
    above = warm & (heat >= jnp.minimum(_deciles(heat, warm), 0.99)[:, None, None])
    ratios = ratio((above * (heat * mask)).sum((1, 2)), above.sum((1, 2)))
    return (ratios[1:] + ratios[:-1]).mean() / 2


def _deciles(heat, warm):
    """The smallest, the deciles and the largest of the values that are `warm`, [11]: linear between neighbors.

    In integers up to the last step, so that a decile between equal values is that value to the bit and leaves none of them out.
    """
    line = jnp.sort(jnp.where(warm, heat, jnp.inf).ravel())
    last = jnp.maximum(warm.sum() - 1, 0)
    place = jnp.arange(11) * last
    low, high = line[place // 10], line[jnp.minimum(place // 10 + 1, last)]
    return low + (high - low) * ((place % 10) / 10)


def pointing_accuracy(hits: Given, classes: Given, *, difficult: Given = ()) -> dict[str, float]:
    """The mean over classes of the share of hits, of all pairs of image and class and of the difficult ones.

    As TorchRay (Zhang et al. 2016, arXiv 1608.00507), but over the classes that occur: TorchRay counts one
    without a pair as 0.

    Args:
      hits: [N] of 0 and 1, one for each pair.
      classes: int [N].
      difficult: bool [N], see `is_difficult`; () leaves that subset out.

    Returns:
      {"all": float} and, where asked for, "difficult": NaN where no pair is.

    Raises:
      ValueError: arrays of different lengths.
    """
    hits, classes = np.asarray(hits, np.float64), np.asarray(classes)
    subsets = {"all": np.ones(hits.shape, bool)}
    if checks.given(difficult):
        subsets["difficult"] = np.asarray(difficult, bool)
    for name, array in {"classes": classes, **subsets}.items():
        if hits.ndim != 1 or array.shape != hits.shape:
            shapes = f"hits {list(hits.shape)} and {name} {list(array.shape)}"
            raise ValueError(
                f"every pair needs a hit, a class and a place in subsets; got {shapes}"
            )

    def accuracy(kept: Bool[np.ndarray, " n"]) -> float:
        # Classes count alike, however many images show them.
        present = np.unique(classes[kept])
        means = [hits[kept & (classes == k)].mean() for k in present]
        return float(np.mean(means)) if means else float("nan")

    return {name: accuracy(kept) for name, kept in subsets.items()}


def is_difficult(
    share: Given | Scalar, classes: Given | Scalar
) -> np.bool_ | Bool[np.ndarray, " n"]:
    """Whether a pair is in the pointing game's difficult subset (Zhang et al. 2016, arXiv 1608.00507).

    Args:
      share: [N], the part of the image that the class's objects cover, 0..1.
      classes: int [N], how many classes the image shows.

    Returns:
      bool [N]: the objects cover less than a quarter, and another class is present.
    """
    return (np.asarray(share) < 0.25) & (np.asarray(classes) > 1)


def background(values: np.ndarray, examples: Any) -> np.ndarray:
    """The share of the positive attribution that lies off the object, from that on it, [N]."""
    return 1 - values


def difficult_only(values: np.ndarray, examples: Any) -> np.ndarray:
    """Values [N] of the difficult examples alone, NaN elsewhere; see `is_difficult`."""
    return np.where(examples.difficult, values, np.nan)


def small_only(values: np.ndarray, examples: Any) -> np.ndarray:
    """Values [N] where the region covers at most 33 % of the image (Schulz et al. 2020, arXiv 2001.00396), NaN elsewhere."""
    return np.where(examples.masks.mean((1, 2)) <= _IBA_SHARE, values, np.nan)


def below_half_only(values: np.ndarray, examples: Any) -> np.ndarray:
    """Values [N] where the region covers less than half of the image (Wang et al. 2019, arXiv 1910.01279), NaN elsewhere."""
    return np.where(examples.masks.mean((1, 2)) < _SCORE_CAM_SHARE, values, np.nan)


def class_mean(name: str) -> Callable:
    """A summary for `Score`: the mean over classes of the hits called `name`, as TorchRay has it (see `pointing_accuracy`)."""

    def summary(result: Any) -> tuple[np.ndarray, Callable] | None:
        if name not in result.scores:
            return None
        hits = result.scores[name]
        return ~np.isnan(hits), lambda at: pointing_accuracy(hits[at], result.labels[at])["all"]

    return summary
