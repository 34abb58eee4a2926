"""Which units are removed together: single ones, cumulative orders, detectors of a concept beside equally many others."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from mixaug_jax.core.types import Bool, Count, Float, Int
from mixaug_jax.core.walk import spread

SINGLE, ALL = "unit", "all"
MOST, LEAST = "most important", "least important"
DETECTORS, OTHERS = "detectors", "others"
HIGH, LOW, RANDOM = "high IoU first", "low IoU first", "random order"
FAMILIES = ("units", "important", "detectors", "ranks")
CONTROLS = 10  # random sets, or orders, beside each that is asked about
PARTS = 8  # of all units; an order is removed part by part
MOST_SUBJECTS = 20  # classes and concepts, so that the cost is bounded for any data set


@dataclasses.dataclass(frozen=True)
class UnitSets:
    """S sets of a layer's U units.

    Attributes:
      units: bool [S,U].
      kind: [S], SINGLE, ALL, MOST, LEAST, DETECTORS, OTHERS, HIGH, LOW or RANDOM.
      subject: int [S], the unit, the class or the concept that the set is about; -1 for none.
      draw: int [S], the number of a random set among its like; 0 where nothing is random.
    """

    units: Bool[np.ndarray, "S U"]
    kind: np.ndarray
    subject: Int[np.ndarray, " S"]
    draw: Int[np.ndarray, " S"]

    def __len__(self) -> int:
        return len(self.units)

    @property
    def sizes(self) -> Int[np.ndarray, " S"]:
        """How many units each set has."""
        return self.units.sum(1)

    def none(self) -> "UnitSets":
        """The same without any set."""
        return UnitSets(*(getattr(self, f.name)[:0] for f in dataclasses.fields(self)))

    def find(self, kind: str, subject: Count = -1) -> Int[np.ndarray, " n"]:
        """Places of the sets of a kind, of a subject where one is given (not -1), in their order."""
        found = self.kind == kind
        return np.flatnonzero(found & (self.subject == subject) if subject >= 0 else found)


def join(parts: Sequence[UnitSets]) -> UnitSets:
    """Several as one; none is without any set."""
    columns = [f.name for f in dataclasses.fields(UnitSets)]
    return UnitSets(*(np.concatenate([getattr(p, name) for p in parts]) for name in columns))


def _sets(units, kind, subject, draw=0) -> UnitSets:
    count = len(units)
    subject, draw = (np.broadcast_to(np.asarray(v, np.int64), count) for v in (subject, draw))
    return UnitSets(np.asarray(units, bool), np.full(count, kind), subject.copy(), draw.copy())


def single(units: Count) -> UnitSets:
    """Each unit by itself."""
    return _sets(np.eye(units, dtype=bool), SINGLE, np.arange(units))


def _first(order, counts) -> np.ndarray:
    """bool [len(counts),U]: the first so many of an order."""
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return place < np.asarray(counts)[:, None]


def important(importance: Float[np.ndarray, "U K"], loss: Float[np.ndarray, "U K"]) -> UnitSets:
    """For each class the 1, 2, 4, ... most and the equally many least important units (Bau et al., PNAS 2020).

    Args:
      importance: drop of the class's accuracy without the unit, on images that are not those to be measured on.
      loss: rise of the class's loss without it, which decides between equal drops; NaN in both: a class without images.
    """
    units = len(importance)
    counts = [2**k for k in range(units.bit_length()) if 2**k < units]
    parts = [_sets(np.zeros((0, units)), MOST, -1)]
    there = np.flatnonzero(~np.isnan(importance).any(0))
    for k in there[spread(len(there), MOST_SUBJECTS)].tolist():
        order = np.lexsort((np.arange(units), -loss[:, k], -importance[:, k]))
        parts.append(_sets(_first(order, counts), MOST, k))
        parts.append(_sets(_first(order[::-1], counts), LEAST, k))
    return join(parts)


def detectors(
    label: Int[np.ndarray, " U"], iou: Float[np.ndarray, " U"], threshold: float, seed: Count = 0
) -> UnitSets:
    """For each concept all of its detectors, and `CONTROLS` times equally many units that do not detect it.

    Concepts that half of the units or more detect have no such controls, and are left out; of more than `MOST_SUBJECTS` those
    with the most detectors are taken.

    Args:
      label: each unit's best concept.
      iou: of it.
      threshold: a unit is a detector where IoU is above.
      seed: of the controls.
    """
    units = len(label)
    numbers = np.bincount(label[iou > threshold], minlength=1)
    # A concept that most units detect leaves too few others for a control of equal size.
    known = np.flatnonzero((numbers > 0) & (2 * numbers <= units))
    best = np.array([iou[label == c].max() for c in known])
    known = known[np.lexsort((-best, -numbers[known]))][:MOST_SUBJECTS] if len(known) else known
    parts = [_sets(np.zeros((0, units)), DETECTORS, -1)]
    for concept in sorted(known.tolist()):
        own = (label == concept) & (iou > threshold)
        # By seed and concept alone, so that a control does not depend on which other concepts there are.
        draw = np.random.Generator(np.random.Philox(key=[seed, concept]))
        others = np.zeros((CONTROLS, units), bool)
        for row in others:
            row[draw.choice(np.flatnonzero(~own), own.sum(), replace=False)] = True
        parts += [
            _sets(own[None], DETECTORS, concept),
            _sets(others, OTHERS, concept, np.arange(CONTROLS)),
        ]
    return join(parts)


def ranked(units: Count, iou: Float[np.ndarray, " U"] | None = None, seed: Count = 0) -> UnitSets:
    """Orders of all units, removed part by part: `CONTROLS` at random; where `iou` is given, from its highest on and from its
    lowest on. The last set has all units."""
    counts = np.unique(np.arange(1, PARTS) * units // PARTS)
    counts = counts[(counts > 0) & (counts < units)]
    parts = []
    if iou is not None:
        order = np.argsort(-iou, kind="stable")
        parts = [
            _sets(_first(order, counts), HIGH, -1),
            _sets(_first(order[::-1], counts), LOW, -1),
        ]
    draw = np.random.Generator(np.random.Philox(key=[seed, 2**32]))
    for k in range(CONTROLS):
        parts.append(_sets(_first(draw.permutation(units), counts), RANDOM, -1, k))
    return join([*parts, _sets(np.ones((1, units)), ALL, -1)])
