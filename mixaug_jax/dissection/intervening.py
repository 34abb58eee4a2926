"""From a network and two sets of images to a layer's `Intervention`: importance on the first, all else on the second."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from mixaug_jax.core import checks, walk
from mixaug_jax.core.types import Count, Dataset, Devices, Indices, Net
from mixaug_jax.dissection import removal_rates as rates
from mixaug_jax.dissection import unit_sets
from mixaug_jax.dissection.activations import shapes
from mixaug_jax.dissection.counting import best_labels
from mixaug_jax.dissection.interventions import Removed, Removing, remove
from mixaug_jax.dissection.removal_result import Detected, Intervention
from mixaug_jax.dissection.result import Dissection


@dataclasses.dataclass(frozen=True)
class Seen:
    """Images of a data set: examples with image and label, and which of them."""

    dataset: Dataset
    indices: Indices


@dataclasses.dataclass(frozen=True)
class Asked:
    """Which sets of units are removed.

    Attributes:
      families: of `unit_sets.FAMILIES`. units: each by itself; important: the most and the least important of each class;
        detectors: those of a concept, and equally many others; ranks: all units part by part, in random orders, and from the
        highest IoU on and from the lowest on.
      threshold: a unit detects its best concept where IoU is above.
      seed: of random sets and orders.
      removing: how.
      detected: what the units detect, from `detected_by`; None: without a dissection there are neither sets of detectors nor
        orders by IoU.
    """

    families: Sequence[str] = unit_sets.FAMILIES
    threshold: float = 0.04
    seed: Count = 0
    removing: Removing = dataclasses.field(default_factory=Removing)
    detected: Detected | None = None

    def __post_init__(self):
        checks.choices("families", self.families, unit_sets.FAMILIES)
        checks.number("threshold", self.threshold, 0, 1)
        checks.count("seed", self.seed, 0, 2**32 - 1)


def nothing_detected(units: Count, classes: Count) -> Detected:
    """What is known of U units without a dissection."""
    zeros = np.zeros(units)
    return Detected((), zeros.astype(np.int64), zeros, zeros, zeros, np.zeros((classes, 0)))


def detected_by(result: Dissection, classes: Count) -> Detected:
    """What a dissection says of the units; which classes show a concept is not known yet (`shown_by_class`)."""
    label, iou = best_labels(result.iou())
    tally, units = result.tally, np.arange(len(label))
    shared = tally.intersection[units, label]
    names = tuple(name for name, _ in result.names)
    return Detected(
        names=names,
        label=label,
        iou=iou,
        precision=shared / np.maximum(1, tally.unit),
        recall=shared / np.maximum(1, tally.concept[label]),
        shown=np.full((classes, len(names)), np.nan),
    )


def shown_by_class(seen: Seen, concepts: Count, classes: Count, threads: Count = 4) -> np.ndarray:
    """The share of each class's images that show each concept anywhere, float64 [K,C]; NaN for a class without images.

    Args:
      seen: examples with label and concepts; those without concepts are left out.
      concepts: C, how many numbers there are, 0 among them.
      classes: K.
      threads: that read images.
    """

    def read(index: Any) -> tuple[int, np.ndarray]:
        example = seen.dataset[int(index)]
        if "concepts" not in example:
            return -1, np.zeros(concepts)
        there = np.bincount(np.unique(example["concepts"]), minlength=concepts) > 0
        return int(example["label"]), there

    found, images = np.zeros((classes, concepts)), np.zeros((classes, 1))
    for label, there in walk.read_ahead(read, seen.indices, threads):
        if 0 <= label < classes:
            found[label] += there
            images[label] += 1
    return np.divide(found, images, out=np.full(found.shape, np.nan), where=images > 0)


def intervene(
    net: Net,
    training: Seen,
    heldout: Seen,
    layer: str,
    asked: Asked = Asked(),
    *,
    devices: Devices = None,
) -> Intervention:
    """Removes units of a layer, in sets that images of the training name, and measures on images that it has not seen.

    After Bau et al., PNAS 2020 (arXiv 2009.05041): the importance of a unit for a class is the drop of the class's accuracy
    without it, on training images; what the most and the least important units are worth is measured on others.

    Args:
      net: `models.Net`.
      training: images that importance is measured on.
      heldout: images of everything else; it names the classes.
      layer: any but the last.
      asked: what is removed, and how.
      devices: default all of all processes.

    Raises:
      ValueError: as `interventions.remove`; a layer that gives no maps.
    """
    classes = len(heldout.dataset.class_names)
    units = shapes(net, heldout.dataset, (layer,))[layer][2]
    single = unit_sets.single(units)
    # Once for every unit alone; the sets of the second walk follow from what that says.
    known = remove(
        net, training.dataset, training.indices, layer, single.units, asked.removing,
        devices=devices,
    )  # fmt: skip
    drop, rise = importance(known, classes)
    sets = _sets(single, drop, rise, asked)
    found = remove(
        net, heldout.dataset, heldout.indices, layer, sets.units, asked.removing,
        means=known.mean.mean(0, np.float64), devices=devices,
    )  # fmt: skip
    return Intervention(
        layer=layer,
        class_names=tuple(heldout.dataset.class_names),
        sets=sets,
        indices=np.asarray(heldout.indices, np.int64),
        **{f.name: getattr(found, f.name) for f in dataclasses.fields(found)},
        importance=drop,
        importance_loss=rise,
        detected=asked.detected or nothing_detected(units, classes),
        settings={},
    )


def importance(removed: Removed, classes: Count) -> tuple[np.ndarray, np.ndarray]:
    """For each removed set and class the drop of the class's accuracy and the rise of its mean loss, float64 [S,K] each."""
    clean = removed.clean_predicted[:, None]
    before = rates.class_accuracy(removed.labels, clean, classes)
    after = rates.class_accuracy(removed.labels, removed.predicted, classes)
    rise = rates.class_loss(removed.labels, removed.loss, classes)
    rise -= rates.class_loss(removed.labels, removed.clean_loss[:, None], classes)
    return before - after, rise


def _sets(single, drop, rise, asked):
    detected = asked.detected
    parts = [single if "units" in asked.families else single.none()]
    if "important" in asked.families:
        # A class without training images has no important units.
        parts.append(unit_sets.important(drop, rise))
    if "detectors" in asked.families and detected is not None:
        parts.append(unit_sets.detectors(detected.label, detected.iou, asked.threshold, asked.seed))
    if "ranks" in asked.families:
        iou = None if detected is None else detected.iou
        parts.append(unit_sets.ranked(len(drop), iou, asked.seed))
    return unit_sets.join(parts)
