"""Runs against each other: what an augmentation did to the number of concepts."""

import dataclasses
import os
from collections.abc import Mapping

import numpy as np

from mixaug_jax.core.stats import PERCENTILES
from mixaug_jax.core.types import Int, Path
from mixaug_jax.dissection.result import Dissection, Options, load, with_total


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Differences to the first of several dissections; M others, T IoU thresholds, G categories.

    Attributes:
      names: of the dissections, [1 + M]; the first is what the others are compared with.
      categories: names [G + 1]; the last is "total", the sum over the others.
      iou: thresholds, [T].
      difference: int64 [M,2,2,T,G+1], other minus first; axes 1 and 2 are the conventions and
        detectors or unique concepts, as in `Dissection.counts`.
      interval: int64 [M,2,2,T,G+1,2], percentiles `stats.PERCENTILES` of the difference when
        images are drawn anew, the same ones for both (paired); [...,0] without replicates.
    """

    names: tuple[str, ...]
    categories: tuple[str, ...]
    iou: tuple[float, ...]
    difference: Int[np.ndarray, "M 2 2 T G"]
    interval: Int[np.ndarray, "M 2 2 T G ends"]


def compare(results: Mapping[str, Dissection | Path]) -> Comparison:
    """Differences per category to the first of `results`, each with its paired bootstrap interval.

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
    # Equal seeds draw equal images, so that differences of replicates are those of pairs.
    counts = [with_total(other.counts) - with_total(base.counts) for _, other in others]
    paired = [with_total(other.replicates) - with_total(base.replicates) for _, other in others]
    if len(base.replicates):
        # Ends are counts that occurred, not numbers between two counts.
        ends = np.percentile(paired, PERCENTILES, axis=1, method="nearest")
        interval = np.moveaxis(ends, 0, -1).astype(np.int64)
    else:
        interval = np.zeros((*np.shape(counts), 0), np.int64)
    return Comparison(
        tuple(loaded), (*base.categories, "total"), base.options.iou, np.array(counts), interval
    )


def _counted(options: Options) -> Options:
    """Without what decides the random network, and the images, of which the labels' settings tell."""
    return dataclasses.replace(options, random_baseline=False, size=0, max_images=0)


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
