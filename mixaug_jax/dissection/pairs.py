"""Runs against each other: what an augmentation did to the number of concepts."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from mixaug_jax.core import stats
from mixaug_jax.core.frames import frame
from mixaug_jax.core.types import Float, Int, Path
from mixaug_jax.dissection.result import PER, Dissection, Options, load, with_total

COUNTED = ("detectors", "unique")  # the third axis of counts


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Differences to the first of several dissections; M others, T IoU thresholds, G categories.

    Attributes:
      names: of the dissections, [1 + M]; the first is what the others are compared with.
      categories: names [G + 1]; the last is "total", the sum over the others.
      iou: thresholds, [T].
      difference: int64 [M,2,2,T,G+1], other minus first; axes 1 and 2 are the conventions and
        detectors or unique concepts, as in `Dissection.counts`.
      interval: float64 [M,2,2,T,G+1,2], the 95 % interval of the difference that is expected in another set of equally many
        images, from the same halves of the images for both (paired); NaN where both counts are below 5, and for fewer than 20
        images.
    """

    names: tuple[str, ...]
    categories: tuple[str, ...]
    iou: tuple[float, ...]
    difference: Int[np.ndarray, "M 2 2 T G"]
    interval: Float[np.ndarray, "M 2 2 T G ends"]

    def to_frame(self) -> Any:
        """A `pandas.DataFrame` (extra `frames`) of a row for each other run, convention, detectors or unique concepts, IoU
        threshold and category: the difference to the first run, and low and high of its interval."""
        m, p, w, t, g = (axis.ravel() for axis in np.indices(self.difference.shape))
        return frame(
            {
                "run": np.take(self.names[1:], m),
                "minus": [self.names[0]] * len(m),
                "per": np.take(PER, p),
                "counted": np.take(COUNTED, w),
                "iou_threshold": np.take(self.iou, t),
                "category": np.take(self.categories, g),
                "difference": self.difference.ravel(),
                "low": self.interval[..., 0].ravel(),
                "high": self.interval[..., 1].ravel(),
            }
        )


def compare(results: Mapping[str, Dissection | Path]) -> Comparison:
    """Differences per category to the first of `results`, each with its interval from paired halves of the images.

    Args:
      results: a `Dissection`, or the path of a .npz with one, by the name to show; two or more, of
        the same images, concepts and options.

    Raises:
      ValueError: fewer than two, or dissections that cannot be paired.
    """
    if len(results) < 2:
        raise ValueError(f"a comparison needs two dissections or more; got {len(results)}")
    loaded = {
        name: load(result) if isinstance(result, str | os.PathLike) else result
        for name, result in results.items()
    }
    (first, base), *others = loaded.items()
    for name, other in others:
        _check_pair(first, base, name, other)
    # The first one is what all others are compared with.
    counts = [with_total(other.counts) - with_total(base.counts) for _, other in others]
    interval = [_interval(base, other) for _, other in others]
    return Comparison(
        tuple(loaded),
        (*base.categories, "total"),
        base.options.iou,
        np.array(counts),
        np.array(interval),
    )


def _interval(base: Dissection, other: Dissection) -> np.ndarray:
    """Of other minus base, [2,2,T,G+1,2]."""
    a, b = with_total(base.counts), with_total(other.counts)
    if not len(base.halves):
        return np.full((*a.shape, 2), np.nan)
    # Equal seeds halve the images alike, so that what the images do to both cancels.
    halves = with_total(other.halves) - with_total(base.halves)
    # The networks may have different numbers of units.
    ends = stats.half_sample_interval(b - a, halves, -base.most(), other.most())
    few = np.maximum(a, b) < stats.FEWEST
    return np.where(few[..., None], np.nan, np.stack(ends, -1))


def _counted(options: Options) -> Options:
    """Without what decides the random network, the formulas, and the images, of which the labels' settings tell."""
    return dataclasses.replace(options, random_baseline=False, size=0, max_images=0, formulas=0)


def _check_pair(first: str, base: Dissection, name: str, other: Dissection) -> None:
    checks = {
        "concepts": base.names == other.names,
        "images": np.array_equal(base.indices, other.indices)
        and base.settings["labels"] == other.settings["labels"],
        "options": _counted(base.options) == _counted(other.options),
    }
    for what, equal in checks.items():
        if not equal:
            raise ValueError(
                f"{name} and {first} were dissected with other {what}, so they cannot be compared"
            )
