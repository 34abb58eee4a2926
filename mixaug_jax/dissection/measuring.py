"""What the units of one layer detect, from its activations and the label maps of the same images."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from mixaug_jax.core import say, walk
from mixaug_jax.core.types import Activations, Devices, Int, Sliced, Thresholds
from mixaug_jax.dissection import counting, formulas, thresholds
from mixaug_jax.dissection.activations import TOP, Largest, Watched
from mixaug_jax.dissection.concepts import LabelMaps
from mixaug_jax.dissection.parts import NO_PARTS, Parts
from mixaug_jax.dissection.result import PER, Options, Resources
from mixaug_jax.dissection.tables import Counting


@dataclasses.dataclass(frozen=True)
class Layer:
    """The activations of a layer, and all that they are measured by.

    Attributes:
      activations: [N,h,w,U], as `thresholds.quantile` reads them: each process its share.
      labels: of the same N images.
      options: how units are measured and counted.
      title: of the lines about progress.
      devices: a tuple, of all processes.
      memory_gb: GiB that tables may take.
      parts: where counts are kept until all is done.
    """

    activations: Activations | Sliced
    labels: LabelMaps
    options: Options
    title: str
    devices: tuple
    memory_gb: float = Resources.memory_gb
    parts: Parts = NO_PARTS

    def watched(self, what: str) -> Watched:
        """The activations; reading them says how far `what` is."""
        return Watched(self.activations, f"{self.title}, {what}", self.devices)

    @property
    def category(self) -> Int[np.ndarray, " C"]:
        """The category of each concept's number."""
        return self.labels.vocabulary.category

    @property
    def counting(self) -> Counting:
        """How pixels are counted."""
        return Counting(
            len(self.category),
            self.category,
            self.options.padding,
            memory_mb=1024 * self.memory_gb,
            devices=self.devices,
        )


def measure(layer: Layer, given: Thresholds | Sequence[float] | None = None) -> dict[str, Any]:
    """The fields threshold, tally, counts, null, halves and formulas of a `Dissection`.

    given: thresholds [U] to use in place of the quantiles.
    """
    if given is None:
        made = layer.parts.get("thresholds", lambda: {"threshold": _threshold(layer)})
        threshold = made["threshold"]
    else:
        threshold = np.asarray(given, np.float32)
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
        counting.Halves(layer.options.seed, layer.options.restricted, layer.parts),
    )
    counts = _counts_of(tally, layer)
    null = [_counts_of(one, layer) for one in shuffled]
    return {
        "threshold": threshold,
        "tally": tally,
        "counts": counts,
        "null": _stacked(null, counts),
        "halves": _stacked([_count(*best, layer.options) for best in halves], counts),
        "formulas": _formulas(layer, threshold, formulas.Tallied([tally, *shuffled], orders)),
    }


def _formulas(layer, threshold, tallied) -> formulas.Composed:
    """None but where they are asked for."""
    if not layer.options.formulas:
        return formulas.NONE

    def found() -> dict[str, np.ndarray]:
        forms = formulas.search(
            layer.watched("logical forms"),
            threshold,
            layer.labels.maps,
            tallied,
            layer.counting,
            most=layer.options.formulas,
        )
        return {f.name: getattr(forms, f.name) for f in dataclasses.fields(forms)}

    return formulas.Composed(**layer.parts.get("forms", found))


def count_only(layer: Layer) -> Int[np.ndarray, "2 2 T G"]:
    """The counts alone, by thresholds of their own; kept as the part "untrained"."""

    def counted() -> dict[str, np.ndarray]:
        order = np.arange(len(layer.labels.indices))[None]
        (tally,) = counting.tally_orders(
            layer.watched("counts"), _threshold(layer), layer.labels.maps, order, layer.counting
        )
        return {"counts": _counts_of(tally, layer)}

    return layer.parts.get("untrained", counted)["counts"]


def top_images(
    activations: Activations | Sliced,
    largest: Largest,
    indices: Int[np.ndarray, " N"],
    devices: Devices = None,
) -> dict[str, np.ndarray]:
    """The fields top_images, top_activations and top_maps of a `Dissection`, in every process of a job.

    Args:
      activations: [N,h,w,U]; read are the images that are among the top ones, each by the process whose share it is in.
      largest: of the images of this process's share (`walk.share`).
      indices: of the images in the data set; of equal maxima the first image comes first.
      devices: default all of all processes.
    """
    devices = walk.chosen(devices)
    mine = walk.share(len(indices), devices)
    # The top ones of each share, then those of all; stable: ties in the data set's order.
    found = walk.join({"image": largest.image, "value": largest.value}, devices)
    best = np.argsort(-found["value"], 0, kind="stable")[:TOP]
    top = np.take_along_axis(found["image"], best, 0).T  # [U,5]
    # An image is read once for all units that it is among the top ones of. In the order of the images come those of process 0
    # first, then those of process 1, as `walk.join` joins their maps.
    order = np.argsort(top.reshape(-1), kind="stable")
    image, unit = top.reshape(-1)[order], order // top.shape[1]
    maps = [np.zeros((0, *activations.shape[1:3]), np.float32)]
    for one in np.unique(image).tolist():
        if one in mine:
            nodes = np.asarray(activations[one : one + 1])[0]
            maps.append(np.moveaxis(nodes[..., unit[image == one]], -1, 0))
    joined = walk.join(np.concatenate(maps), devices)
    maps = np.empty_like(joined)
    maps[order] = joined
    return {
        "top_images": indices[top],
        "top_activations": np.take_along_axis(found["value"], best, 0).T,
        "top_maps": maps.reshape(*top.shape, *joined.shape[1:]),
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
