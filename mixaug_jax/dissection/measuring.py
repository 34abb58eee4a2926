"""What the units of one layer detect, from its activations and the label maps of the same images."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from mixaug_jax.core import say
from mixaug_jax.core.types import Activations, AnyArray, Float, Int, Sliced, Thresholds
from mixaug_jax.dissection import counting, thresholds
from mixaug_jax.dissection.activations import Watched
from mixaug_jax.dissection.concepts import LabelMaps
from mixaug_jax.dissection.result import PER, Options
from mixaug_jax.dissection.tables import Counting

_TOP = 5  # images of a unit that are kept


@dataclasses.dataclass(frozen=True)
class Layer:
    """The activations of a layer, and all that they are measured by.

    Attributes:
      activations: [N,h,w,U], as `thresholds.quantile` reads them.
      labels: of the same N images.
      options: how units are measured and counted.
      title: of the lines about progress.
      devices: a tuple.
    """

    activations: Activations | Sliced
    labels: LabelMaps
    options: Options
    title: str
    devices: tuple

    def watched(self, what: str) -> Watched:
        """The activations; reading them says how far `what` is."""
        return Watched(self.activations, f"{self.title}, {what}")

    @property
    def category(self) -> Int[np.ndarray, " C"]:
        """The category of each concept's number."""
        return self.labels.vocabulary.category

    @property
    def counting(self) -> Counting:
        """How pixels are counted."""
        return Counting(
            len(self.category), self.category, self.options.padding, devices=self.devices
        )


def measure(layer: Layer, given: Thresholds | Sequence[float] | None = None) -> dict[str, Any]:
    """The fields threshold, tally, counts, null and halves of a `Dissection`.

    given: thresholds [U] to use in place of the quantiles.
    """
    threshold = _threshold(layer) if given is None else np.asarray(given, np.float32)
    orders, note = _orders(len(layer.labels.indices), layer.options)
    if note:
        say.line(note)
    # The images' own label maps come first, then the shuffles, by one walk over the activations.
    (tally, *shuffled), halves = counting.tally_halves(
        layer.watched("counts"),
        threshold,
        layer.labels.maps,
        orders,
        layer.counting,
        seed=layer.options.seed,
        restricted=layer.options.restricted,
    )
    counts = _counts_of(tally, layer)
    null = [_counts_of(one, layer) for one in shuffled]
    return {
        "threshold": threshold,
        "tally": tally,
        "counts": counts,
        "null": _stacked(null, counts),
        "halves": _stacked([_count(*best, layer.options) for best in halves], counts),
    }


def count_only(layer: Layer) -> Int[np.ndarray, "2 2 T G"]:
    """The counts alone, by thresholds of their own."""
    order = np.arange(len(layer.labels.indices))[None]
    (tally,) = counting.tally_orders(
        layer.watched("counts"), _threshold(layer), layer.labels.maps, order, layer.counting
    )
    return _counts_of(tally, layer)


def top_images(
    activations: Activations | Sliced,
    maxima: Float[AnyArray, "N U"],
    indices: Int[np.ndarray, " N"],
) -> dict[str, np.ndarray]:
    """The fields top_images, top_activations and top_maps of a `Dissection`.

    Args:
      activations: [N,h,w,U]; read are the images that are among the top ones.
      maxima: each unit's largest activation in each image.
      indices: of the images in the data set; of equal maxima the first image comes first.
    """
    top = np.argsort(-maxima, 0, kind="stable")[
        :_TOP
    ]  # [5,U]; stable: ties in the data set's order
    _, height, width, units = activations.shape
    maps = np.empty((units, len(top), height, width), np.float32)
    # An image is read once for all units that it is among the top ones of.
    for image in np.unique(top).tolist():
        one = np.asarray(activations[image : image + 1])[0]
        place, unit = np.nonzero(top == image)
        maps[unit, place] = np.moveaxis(one[..., unit], -1, 0)
    return {
        "top_images": indices[top].T,
        "top_activations": np.take_along_axis(maxima, top, 0).T,
        "top_maps": maps,
    }


def _threshold(layer) -> np.ndarray:
    return thresholds.quantile(
        layer.watched("thresholds"),
        layer.options.q,
        over=layer.options.over,
        size=tuple(layer.labels.maps.shape[1:3]),
        padding=layer.options.padding,
        rule=layer.options.rule,
        devices=layer.devices,
    )


def _orders(images, options) -> tuple[np.ndarray, str]:
    """Images' own label maps, then the shuffles; and what to say where these cannot be."""
    own = np.arange(images)[None]
    if not options.shuffles:
        return own, ""
    if images < 2:
        return own, "there is no chance level: one image cannot be shuffled"
    return np.concatenate([own, counting.derangements(images, options.shuffles, options.seed)]), ""


def _stacked(found, counts) -> np.ndarray:
    return np.stack(found) if found else np.zeros((0, *counts.shape), np.int64)


def _counts_of(tally, layer) -> np.ndarray:
    best = counting.best_by_category(tally.iou(layer.options.restricted), layer.category)
    return _count(*best, layer.options)


def _count(labels, values, options) -> np.ndarray:
    """Detectors and unique concepts by both conventions, [2,2,T,G]."""
    return np.array(
        [counting.count_detectors(labels, values, options.iou, per=per) for per in PER], np.int64
    )
