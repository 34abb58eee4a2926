"""What single units detect beyond one label: the logical form of up to three concepts that fits a unit best.

Mu, Andreas: "Compositional Explanations of Neurons", NeurIPS 2020 (arXiv 2006.14032): forms are composed of concepts by AND, OR
and AND NOT from the left, and found by a beam search for the largest IoU with the unit's pixels, over all images. Here the beam
has the best forms of each length, forms that say the same are one, and a concept that changes no pixel of a form is not added.
Counts are integers, so that any devices and processes find the same forms.

A longer form always fits at least as well. So the same search, over as many units, is made with label maps shuffled against
images: a form says more than chance where its IoU is above the largest of all these. Where no unit has anything to do with any
concept, that is so for at least one form in one of S + 1 layers, with S shuffles.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from mixaug_jax.core import checks
from mixaug_jax.core.types import Activations, Bool, Count, Float, Int, LabelMaps, Sliced
from mixaug_jax.dissection import tables
from mixaug_jax.dissection.counting import Tally
from mixaug_jax.dissection.formula_counts import AND, AND_NOT, OR, Formulas, count
from mixaug_jax.dissection.tables import Counting

LENGTH = 3  # concepts of a form at most
BEAM = 10  # forms of each length that are composed further
_WORDS = {AND: "AND", OR: "OR", AND_NOT: "AND NOT"}
_KINDS = (AND, OR, AND_NOT)
_SAME = 6 * BEAM  # candidates that are looked at before those that say the same are left out


@dataclasses.dataclass(frozen=True)
class Composed:
    """The best logical forms of n units of a layer, the sharpest first; none by default.

    Attributes:
      units: [n] numbers.
      concepts: [n,3] numbers of the concepts; 0 where a form is shorter.
      operators: [n,2] between them, from the left: 1 AND, 2 OR, 3 AND NOT, 0 none.
      iou: float64 [n,3], of the best form of at most one, two and three concepts, over all images; the last is this form's.
      null: float64 [S,n,3], the same for the n units that are sharpest where label maps are shuffled against images.
    """

    units: Int[np.ndarray, " n"]
    concepts: Int[np.ndarray, "n 3"]
    operators: Int[np.ndarray, "n 2"]
    iou: Float[np.ndarray, "n 3"]
    null: Float[np.ndarray, "S n 3"]

    @property
    def chance(self) -> Float[np.ndarray, " 3"]:
        """The largest IoU of any unit in any shuffle, by length; NaN where nothing was shuffled."""
        return self.null.max((0, 1)) if self.null.size else np.full(LENGTH, np.nan)

    @property
    def above_chance(self) -> Bool[np.ndarray, " n"]:
        """Whether a form's IoU is larger than that; nowhere where nothing was shuffled."""
        return self.iou[:, -1] > self.chance[-1]

    def texts(self, names: Sequence[tuple[str, str]]) -> list[str]:
        """Each form as text, "(sky AND blue) AND NOT tree"; `names` are (name, category) of the concepts."""
        return [_text(*form, names) for form in zip(self.concepts, self.operators, strict=True)]


NONE = Composed(
    np.zeros(0, np.int64),
    np.zeros((0, LENGTH), np.int64),
    np.zeros((0, LENGTH - 1), np.int64),
    np.zeros((0, LENGTH)),
    np.zeros((0, 0, LENGTH)),
)


def _text(concepts, operators, names) -> str:
    text, before = names[concepts[0]][0], 0
    for concept, operator in zip(concepts[1:], operators, strict=True):
        if not operator:
            break
        # Chains of one operator read the same with any parentheses.
        text = f"({text})" if before not in (0, operator) else text
        text, before = f"{text} {_WORDS[operator]} {names[concept][0]}", operator
    return text


@dataclasses.dataclass(frozen=True)
class Tallied:
    """What is known of single concepts before they are composed.

    Attributes:
      tallies: of the S pairings of images with label maps, their own first.
      orders: those pairings, see `counting.tally_orders`.
    """

    tallies: Sequence[Tally]
    orders: Int[np.ndarray, "S N"]


def search(
    activations: Activations | Sliced,
    thresholds: Float[np.ndarray, " U"],
    segmentation: LabelMaps | Sliced,
    tallied: Tallied,
    counting: Counting,
    *,
    most: Count = 64,
) -> Composed:
    """Finds the logical forms that fit the units with the largest IoU best, and what chance gives.

    In a job of several processes all call it with the same arguments, and get the same. It takes two walks over the images for
    each block of units whose tables fit in counting.memory_mb, at 48 bytes a pairing, concept, unit and form of the beam.

    Args:
      activations, thresholds, segmentation: as in `counting.tally`.
      tallied: each concept alone, in every pairing.
      counting: as the tallies were counted.
      most: units, at most so many.

    Raises:
      ValueError: as of `counting.tally`; tallies of other pairings, units or concepts.
    """
    _check(activations, thresholds, segmentation, tallied, counting)
    checks.count("most", most)
    tallies, orders = tallied.tallies, tallied.orders
    units = np.stack([_sharpest(tally, most) for tally in tallies])
    need = 48 * len(orders) * counting.num_concepts * BEAM * units.shape[1]
    parts = min(units.shape[1], int(np.ceil(need / (counting.memory_mb * 2**20))))
    found = []
    for part in np.array_split(units, parts, axis=1):
        # All units and pairings take each step together: one walk over the images counts for all of them.
        searches = [
            [_Search.begin(tally, unit) for unit in row]
            for tally, row in zip(tallies, part, strict=True)
        ]
        for _ in range(LENGTH - 1):
            table = count(
                activations, thresholds, segmentation, orders, _formulas(part, searches), counting
            )
            searches = [
                [one.longer(counts) for one, counts in zip(row, own, strict=True)]
                for row, own in zip(searches, table, strict=True)
            ]
        found.append(searches)
    own, *shuffled = [
        list(itertools.chain(*rows)) for rows in zip(*found, strict=True)
    ]  # of each pairing, all units
    return Composed(
        units[0],
        np.stack([one.concepts for one in own]),
        np.stack([one.operators for one in own]),
        np.array([one.iou for one in own]),
        np.array([[one.iou for one in row] for row in shuffled]).reshape(-1, len(own), LENGTH),
    )


def _check(activations, thresholds, segmentation, tallied, counting):
    """Raises for arguments that do not fit each other."""
    concepts = counting.num_concepts
    tables.check(activations, thresholds, segmentation, concepts, counting.categories)
    orders = tables.check_orders(tallied.orders, activations.shape[0])
    if len(tallied.tallies) != len(orders):
        raise ValueError(f"there are {len(tallied.tallies)} tallies for {len(orders)} orders")
    wanted = activations.shape[3], concepts
    for tally in tallied.tallies:
        if tally.intersection.shape != wanted:
            found = list(tally.intersection.shape)
            raise ValueError(f"tallies must be of {list(wanted)} units and concepts; got {found}")


def _sharpest(tally, most) -> np.ndarray:
    """The units with the largest IoU, largest first; ties to the lowest number."""
    return np.argsort(-tally.iou().max(1), kind="stable")[:most]


def _formulas(units, searches) -> Formulas:
    """All beams as arrays; a beam that is not full ends in empty formulas."""
    concepts = np.zeros((*units.shape, BEAM, LENGTH - 1), np.int64)
    operators = np.zeros((*units.shape, BEAM, LENGTH - 2), np.int64)
    for place in np.ndindex(units.shape):
        for rank, form in enumerate(searches[place[0]][place[1]].beam):
            concepts[place][rank, : len(form.concepts)] = form.concepts
            operators[place][rank, : len(form.operators)] = form.operators
    return Formulas(units, concepts, operators)


@dataclasses.dataclass(frozen=True)
class _Form:
    """A logical form: numbers of concepts, the operators between them, and its pixels, all and those where the unit is on."""

    concepts: tuple[int, ...]
    operators: tuple[int, ...]
    size: int
    shared: int

    def meaning(self) -> int | tuple:
        """Equal for forms that differ by the order of what they join."""
        kind, node = 0, self.concepts[0]
        for concept, operator in zip(self.concepts[1:], self.operators, strict=True):
            joined = OR if operator == OR else AND
            parts = node[1] if kind == joined else frozenset({node})
            kind, node = joined, (joined, parts | {-concept if operator == AND_NOT else concept})
        return node


@dataclasses.dataclass(frozen=True)
class _Search:
    """The search for one unit, so far.

    Attributes:
      area: pixels where the unit is on.
      singles: int [2,C], pixels of each concept, and those of them where the unit is on.
      beam: the best forms of one length, best first.
      best: the best form of all lengths; of equals the shortest. None where nothing has a pixel in common with the unit.
      iou: of the best form up to each length.
    """

    area: int
    singles: Int[np.ndarray, "2 C"]
    beam: tuple
    best: _Form | None
    iou: tuple[float, ...]

    @classmethod
    def begin(cls, tally, unit) -> "_Search":
        """With single concepts."""
        singles = np.stack([tally.concept, tally.intersection[unit]])
        area, iou = int(tally.unit[unit]), tally.iou()[unit]
        order = np.argsort(-iou, kind="stable")[:BEAM]
        beam = [_Form((int(c),), (), *map(int, singles[:, c])) for c in order if iou[c] > 0]
        return cls(area, singles, (), None, ())._with(tuple(beam))

    def longer(self, counts: Int[np.ndarray, "B two C"]) -> "_Search":
        """With forms of one concept more; `counts` of the beam, from `formula_counts.count`."""
        beam, seen = [], set()
        for form in self._candidates(counts):
            if form.meaning() not in seen:
                seen.add(form.meaning())
                beam.append(form)
            if len(beam) == BEAM:
                break
        return self._with(tuple(beam))

    def _candidates(self, counts) -> Iterator[_Form]:
        """What the beam's forms and one more concept make, best first."""
        if not self.beam:
            return
        known = np.array([[form.size, form.shared] for form in self.beam])[..., None]
        both, added = counts[: len(self.beam)], self.singles[None]
        # By AND, OR and AND NOT: [3,B,2,C].
        made = np.stack([both, known + added - both, known - both])
        size, shared = made[:, :, 0], made[:, :, 1]
        iou = shared / np.maximum(self.area + size - shared, 1)
        # What changes no pixel is no longer form; a concept's second place in a form would say nothing new.
        iou[size == known[None, :, 0]] = 0
        for rank, form in enumerate(self.beam):
            iou[:, rank, list(form.concepts)] = 0
        flat = iou.reshape(-1)
        least = np.partition(flat, -_SAME)[-_SAME] if len(flat) > _SAME else 0
        chosen = np.flatnonzero((flat >= least) & (flat > 0))
        for place in chosen[np.argsort(-flat[chosen], kind="stable")].tolist():
            kind, rank, concept = map(int, np.unravel_index(place, iou.shape))
            form = self.beam[rank]
            yield _Form(
                (*form.concepts, concept),
                (*form.operators, _KINDS[kind]),
                int(size[kind, rank, concept]),
                int(shared[kind, rank, concept]),
            )

    def _with(self, beam) -> "_Search":
        best = beam[0] if beam and self._iou(beam[0]) > self._iou(self.best) else self.best
        iou = (*self.iou, self._iou(best))
        return dataclasses.replace(self, beam=beam, best=best, iou=iou)

    def _iou(self, form) -> float:
        return form.shared / max(1, self.area + form.size - form.shared) if form else 0.0

    @property
    def concepts(self) -> Int[np.ndarray, " 3"]:
        """Of the best form, 0 after its last."""
        found = self.best.concepts if self.best else ()
        return np.array([*found, *(0,) * (LENGTH - len(found))])

    @property
    def operators(self) -> Int[np.ndarray, " 2"]:
        """Of the best form, 0 after its last."""
        found = self.best.operators if self.best else ()
        return np.array([*found, *(0,) * (LENGTH - 1 - len(found))])
