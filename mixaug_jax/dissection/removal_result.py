"""What removing the units of one layer found, and the few numbers that sum it up."""

import dataclasses
import functools
from typing import Any

import numpy as np

from mixaug_jax.core.files import load_npz, save_npz
from mixaug_jax.core.frames import frame
from mixaug_jax.core.types import AnyArray, Count, Float, Int, Num, Path
from mixaug_jax.dissection import removal_rates as rates
from mixaug_jax.dissection import unit_sets
from mixaug_jax.dissection.unit_sets import UnitSets

SUMMARY = (
    "removal_area",
    "ranked_gap",
    "detector_harm",
    "single_drop",
)  # what `summary` gives


@dataclasses.dataclass(frozen=True)
class Detected:
    """What the units detect, as far as a dissection of the same weights says it; C concepts.

    Attributes:
      names: of the concepts; 0 is none. () without a dissection.
      label: int [U], each unit's best concept.
      iou: float64 [U], of it.
      precision: float64 [U], the share of the unit's pixels that show the concept.
      recall: float64 [U], the share of the concept's pixels where the unit is on.
      shown: float64 [K,C], the share of each class's images that show the concept; NaN where that is not known.
    """

    names: tuple[str, ...]
    label: Int[np.ndarray, " U"]
    iou: Float[np.ndarray, " U"]
    precision: Float[np.ndarray, " U"]
    recall: Float[np.ndarray, " U"]
    shown: Float[np.ndarray, "K C"]

    def showing(self, concept: Count) -> Int[np.ndarray, " n"]:
        """The classes that show a concept in more of their images than classes do on average."""
        shares = self.shown[:, concept]
        return np.flatnonzero(shares > rates.mean_there(shares) + 1e-12)


@dataclasses.dataclass(frozen=True)
class Intervention:
    """A layer's units, and what becomes of N images that were not looked at before without S sets of them; K classes.

    Attributes:
      layer: its name.
      class_names: [K].
      sets: what was removed.
      indices: int [N], of the images in their split.
      labels, predicted, loss, clean_predicted, clean_loss, mean: as in `interventions.Removed`, of these images.
      importance: float64 [U,K], the drop of each class's accuracy on training images without each unit; NaN where a class has
        none.
      importance_loss: float64 [U,K], the rise of each class's mean loss there.
      detected: what the units detect.
      settings: what made this, as JSON has it.
    """

    layer: str
    class_names: tuple[str, ...]
    sets: UnitSets
    indices: Int[np.ndarray, " N"]
    labels: Int[np.ndarray, " N"]
    predicted: Int[np.ndarray, "N S"]
    loss: Float[np.ndarray, "N S"]
    clean_predicted: Int[np.ndarray, " N"]
    clean_loss: Float[np.ndarray, " N"]
    mean: Float[np.ndarray, "N U"]
    importance: Float[np.ndarray, "U K"]
    importance_loss: Float[np.ndarray, "U K"]
    detected: Detected
    settings: dict

    @property
    def units(self) -> int:
        """How many units the layer has."""
        return self.mean.shape[1]

    def to_frame(self) -> Any:
        """A `pandas.DataFrame` (extra `frames`) of a row for each set of units: its kind, its subject (a unit, a class or a
        concept, by the kind; -1 for none), how many units it has, the accuracy and the mean loss without it, and what
        that loses of the accuracy."""
        accuracy = (self.predicted == self.labels[:, None]).mean(0)
        return frame(
            {
                "layer": [self.layer] * len(self.sets),
                "kind": self.sets.kind,
                "subject": self.sets.subject,
                "draw": self.sets.draw,
                "units": self.sets.sizes,
                "accuracy": accuracy,
                "drop": (self.clean_predicted == self.labels).mean() - accuracy,
                "loss": self.loss.mean(0),
            }
        )

    @functools.cached_property
    def answers(self) -> Int[np.ndarray, "N sets"]:
        """The predicted class with all units, then without each set."""
        return np.concatenate([self.clean_predicted[:, None], self.predicted], 1)

    def accuracy(self, weights: Num[AnyArray, "R N"] | None = None) -> Float[np.ndarray, "R sets"]:
        """The balanced accuracy with all units, then without each set; `weights` as of `removal_rates.one_class`."""
        return rates.balanced_accuracy(self.labels, self.answers, weights)

    @functools.cached_property
    def class_accuracy(self) -> Float[np.ndarray, "sets K"]:
        """The accuracy of each class with all units, then without each set."""
        return rates.class_accuracy(self.labels, self.answers, len(self.class_names))

    def drops(
        self,
        places: Int[np.ndarray, " n"],
        classes: Int[np.ndarray, " n"],
        weights: Num[AnyArray, "R N"] | None = None,
    ) -> Float[np.ndarray, "R n"]:
        """What a class's accuracy loses without a set, for n pairs of both."""
        count = 1 if weights is None else len(weights)
        found = np.full((count, len(places)), np.nan)
        # Not all classes of all sets: of a thousand classes these would be too many for the memory.
        for k in np.unique(classes).tolist():
            own = classes == k
            columns = self.answers[:, np.concatenate([[0], 1 + places[own]])]
            accuracy = rates.one_class(self.labels, columns, k, weights)
            found[:, own] = accuracy[:, :1] - accuracy[:, 1:]
        return found

    def class_means(self) -> Float[np.ndarray, "K U"]:
        """The mean activation of each unit over the images of each class; NaN where there is none."""
        return rates.class_loss(self.labels, self.mean, len(self.class_names)).T


def selectivity(means: Float[np.ndarray, "K U"]) -> tuple[np.ndarray, np.ndarray]:
    """Each unit's class of the largest mean activation [U], and its index (Morcos et al. 2018, arXiv 1803.06959, section 2.4).

    Args:
      means: by class, NaN for a class without images.

    Returns:
      the class, and (m - o) / (m + o) with its mean m and the mean o of the other classes' means: 0 where all classes move the
      unit alike, 1 where one alone does; 0 for a unit that nothing moves, NaN where means are negative, which it has no sense
      for, and where one class alone has images.

    Raises:
      ValueError: no class has images.
    """
    there = np.flatnonzero(~np.isnan(means).any(1))
    if not len(there):
        raise ValueError("no class has images: there is nothing that units could be selective for")
    known = means[there]
    best = known.argmax(0)
    most = known.max(0)
    others = (known.sum(0) - most) / max(1, len(there) - 1)
    total = most + others
    index = np.divide(most - others, total, out=np.zeros_like(most), where=total > 0)
    unknown = (known < 0).any(0) | (len(there) < 2)
    return there[best], np.where(unknown, np.nan, index)


def area(
    result: Intervention, kind: str, weights: Num[AnyArray, "R N"] | None = None
) -> np.ndarray:
    """The area under the balanced accuracy against the share of units removed, [R], the mean over the orders of a kind.

    With a kind of `unit_sets.ranked`; 1 is a network that stays right whatever is removed. NaN where there is no such order.
    """
    accuracy = result.accuracy(weights)
    places = result.sets.find(kind)
    if not len(places):
        return np.full(len(accuracy), np.nan)
    last, found = result.sets.find(unit_sets.ALL), []
    for k in np.unique(result.sets.draw[places]):
        own = np.concatenate([places[result.sets.draw[places] == k], last])
        shares = np.concatenate([[0], result.sets.sizes[own] / result.units])
        heights = accuracy[:, np.concatenate([[0], 1 + own])]
        found.append(np.trapezoid(heights, shares, axis=1))
    return np.mean(found, 0)


def harms(
    result: Intervention, weights: Num[AnyArray, "R N"] | None = None
) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """For each concept what its classes' accuracy loses without its detectors, and without equally many other units.

    Returns:
      {concept: (drop without its detectors [R], mean drop without each of the sets of others [R])}, means over the classes that
      show it more than others do; concepts that no class shows more, none with images here, are left out.
    """
    found = {}
    there = np.unique(result.labels)
    for place in result.sets.find(unit_sets.DETECTORS).tolist():
        concept = int(result.sets.subject[place])
        classes = np.intersect1d(result.detected.showing(concept), there)
        # One class alone cannot be told from others.
        if not len(classes) or len(there) < 2:
            continue
        places = np.array([place, *result.sets.find(unit_sets.OTHERS, concept)])
        pairs = np.repeat(places, len(classes)), np.tile(classes, len(places))
        lost = result.drops(*pairs, weights)
        # Draws may leave out all images of a class.
        lost = rates.mean_there(lost.reshape(len(lost), len(places), len(classes)))
        found[concept] = lost[:, 0], lost[:, 1:].mean(1)
    return found


def summary(
    result: Intervention, weights: Num[AnyArray, "R N"] | None = None
) -> dict[str, np.ndarray]:
    """The numbers that sum a layer up, each [R]; NaN where the sets that it needs were not removed.

    removal_area: `area` of random orders. ranked_gap: that, minus `area` of the order that begins with the highest IoU: above 0
    where the clearest detectors are needed more than other units. detector_harm: the mean over concepts of what their classes
    lose without their detectors beyond what they lose without equally many other units. single_drop: the mean drop of balanced
    accuracy without one unit.
    """
    known = harms(result, weights)
    beyond = [own - others for own, others in known.values()]
    accuracy = result.accuracy(weights)
    single = accuracy[:, 1 + result.sets.find(unit_sets.SINGLE)]
    nothing = np.full(len(accuracy), np.nan)
    by_chance = area(result, unit_sets.RANDOM, weights)
    return {
        "removal_area": by_chance,
        "ranked_gap": by_chance - area(result, unit_sets.HIGH, weights),
        # A draw may leave out all images of all classes that show a concept.
        "detector_harm": rates.mean_there(np.stack(beyond, -1)) if beyond else nothing,
        "single_drop": accuracy[:, 0] - single.mean(1) if single.size else nothing,
    }


def save(result: Intervention, path: Path) -> None:
    """Writes a .npz that `load` reads; the file appears when it is whole."""
    arrays = {
        f.name: np.asarray(getattr(result, f.name))
        for f in dataclasses.fields(result)
        if f.name not in ("sets", "detected", "settings")
    }
    # A flat file of arrays, which anybody reads without this package.
    arrays |= {f"set_{f.name}": getattr(result.sets, f.name) for f in dataclasses.fields(UnitSets)}
    arrays |= {
        f"detected_{f.name}": np.asarray(getattr(result.detected, f.name))
        for f in dataclasses.fields(Detected)
    }
    save_npz(path, arrays, result.settings)


def load(path: Path) -> Intervention:
    """What `save` wrote.

    Raises:
      ValueError: no such file, or another kind of file.
    """
    return load_npz(path, _from_arrays, "an intervention")


def _from_arrays(arrays, settings):
    sets = UnitSets(**{f.name: arrays.pop(f"set_{f.name}") for f in dataclasses.fields(UnitSets)})
    detected = {f.name: arrays.pop(f"detected_{f.name}") for f in dataclasses.fields(Detected)}
    detected["names"] = tuple(map(str, detected["names"].tolist()))
    arrays["layer"] = str(arrays["layer"])
    arrays["class_names"] = tuple(map(str, arrays["class_names"].tolist()))
    return Intervention(sets=sets, detected=Detected(**detected), settings=settings, **arrays)
