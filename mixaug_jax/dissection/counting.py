"""What the units detect: intersections over unions, best labels, detectors and unique concepts,
chance and sampling error.

IoU of unit u and concept c, pooled over the data set (Bau et al., CVPR 2017, section 2.3): |on and
c| / |on or c|, where `on` are the label-map pixels with an upsampled activation strictly above the
unit's threshold. The original paper's programs let a unit's area count only on images that hold
some label of c's category ("restricted"); github.com/davidbau/dissect counts all images, which is
the default here. An image counts as holding a category by its labels alone, as in the original
(NetDissect-Lite asks the unit's own pixels to touch it). A label in two slots of a pixel counts
once, as in davidbau/dissect. No 1e-10 is added anywhere: 0/0 is 0.
"""

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from mixaug_jax.core import checks, stats
from mixaug_jax.core.types import (
    Activations,
    AnyArray,
    Devices,
    Float,
    Int,
    Integer,
    LabelMaps,
    Sliced,
    Thresholds,
)
from mixaug_jax.dissection import tables
from mixaug_jax.dissection.activations import check_activations
from mixaug_jax.dissection.parts import NO_PARTS, Parts
from mixaug_jax.dissection.tables import Categories, Counting


@dataclasses.dataclass(frozen=True)
class Tally:
    """Pixel counts of U units and C concepts, number 0 being "none"; numpy int64.

    Attributes:
      intersection: [U,C]; column 0 is 0.
      unit: [U], pixels with the unit on.
      unit_by_category: [U,categories], the same over images that hold a label of the category;
        [U,0] without categories.
      concept: [C], pixels that carry the label in any slot; entry 0 is 0.
      categories: [C] category number of each concept, entry 0 being -1; empty without categories.
    """

    intersection: Int[np.ndarray, "U C"]
    unit: Int[np.ndarray, " U"]
    unit_by_category: Int[np.ndarray, "U _"]
    concept: Int[np.ndarray, " C"]
    categories: Int[np.ndarray, " _"]

    def iou(self, restricted: bool = False) -> Float[np.ndarray, "U C"]:
        """[U,C] float64 in 0..1; 0 in column 0, for units that are never on and for concepts that
        are in no image.

        restricted: a unit's area counts only on images that hold the concept's category (needs
          categories).
        """
        area = self.unit[:, None]  # pooled over all images, as in davidbau/dissect
        if restricted:
            _need_categories(self.categories)
            area = self.unit_by_category[:, self.categories]
        union = area + self.concept - self.intersection
        return np.where(union > 0, self.intersection / np.maximum(union, 1), 0.0)


def _need_categories(categories) -> None:
    if categories is None or not len(categories):
        raise ValueError("a restricted IoU needs categories: the category of each concept")


def tally(
    activations: Activations | Sliced,
    thresholds: Thresholds | Sequence[float],
    segmentation: LabelMaps | Sliced,
    num_concepts: int,
    *,
    categories: Categories = None,
    padding: str = "edge",
    batch_size: int = 16,
    devices: Devices = None,
) -> Tally:
    """Counts, over all images, the pixels of every unit, every concept and every pair.

    In a job of several processes all call it with the same arguments, and get the same.

    Args:
      activations: [N,h,w,U] finite floats: an array, a memory map, or anything with `shape`
        whose slices along N are arrays; of several processes each reads its `walk.share` of the N
        images alone.
      thresholds: [U]; a pixel is on where its activation, bilinear in float32 at label-map size, is
        strictly above.
      segmentation: [N,H,W,K] integers, K label slots a pixel, 0 = none; may be a memory map. For
        `tally_orders` every process reads any of them.
      num_concepts: C, with number 0: labels are 1..C-1.
      categories: [C] int, each concept's category number (entry 0 ignored); needed for areas by
        category.
      padding: beyond the outer nodes of a map lies "edge" their value or "zero" nothing; see
        `resample`.
      batch_size: images of a device at a time; the result does not depend on it.
      devices: default all of all processes; the result does not depend on them.

    Raises:
      ValueError: shapes that disagree, no image, label numbers outside 0..C-1, NaN.
    """
    counting = Counting(num_concepts, categories, padding, batch_size=batch_size, devices=devices)
    check_activations(activations)
    orders = np.arange(activations.shape[0])[None]
    return tally_orders(activations, thresholds, segmentation, orders, counting)[0]


def tally_orders(
    activations: Activations | Sliced,
    thresholds: Thresholds | Sequence[float],
    segmentation: LabelMaps | Sliced,
    orders: Integer[AnyArray, "S N"],
    counting: Counting,
) -> list[Tally]:
    """`tally` for several pairings of images with label maps at once; activations are upsampled
    once.

    Args:
      activations, thresholds, segmentation: as in `tally`.
      orders: [S,N] int, set s pairs image i with label maps orders[s, i]. The chance level of a
        count is its value for `derangements`.
      counting: what is counted.
    """
    table, sizes = tables.count(activations, thresholds, segmentation, counting, orders=orders)
    return [_tally(t, s, counting) for t, s in zip(table, sizes, strict=True)]


def _tally(table: np.ndarray, sizes: np.ndarray, counting: Counting) -> Tally:
    """A table [rows,U] and its sizes [rows] as a Tally; views, not copies."""
    # Row 0 is no concept: its pixels are the unit's area.
    unit, table[0] = table[0].copy(), 0
    concept = sizes[: counting.num_concepts].copy()
    concept[0] = 0
    return Tally(
        intersection=table[: counting.num_concepts].T,
        unit=unit,
        unit_by_category=table[counting.num_concepts :].T,
        concept=concept,
        categories=tables.clean_categories(counting.categories),
    )


def derangements(images: int, count: int = 5, seed: int = 0) -> Int[np.ndarray, "{count} {images}"]:
    """[count,images] int: permutations, uniform among those that leave no image in its place."""
    checks.count("count", count, 0)
    checks.count("seed", seed, 0, 2**128 - 1)
    if checks.count("images", images, 0) < 2:
        raise ValueError("label maps can only be shuffled against images where there are 2 or more")
    # Keyed by the seed alone, so that equal seeds shuffle all networks' label maps alike.
    draw = np.random.Generator(np.random.Philox(key=seed))
    orders = np.empty((count, images), np.int64)
    for order in orders:
        order[:] = draw.permutation(images)
        while (order == np.arange(images)).any():  # e tries on average
            order[:] = draw.permutation(images)
    return orders


def best_labels(
    iou: Float[np.ndarray, "*S U C"],
) -> tuple[Int[np.ndarray, "*S U"], Float[np.ndarray, "*S U"]]:
    """The label [...,U] of each unit's largest IoU and that IoU, from IoU [...,U,C]; ties to the
    lowest number, never 0."""
    if iou.shape[-1] < 2:
        raise ValueError("iou must have a column for a concept besides number 0, 'none'")
    label = 1 + iou[..., 1:].argmax(-1)
    return label, np.take_along_axis(iou, label[..., None], -1)[..., 0]


def top_labels(
    iou: Float[np.ndarray, "U C"], count: int = 5
) -> tuple[Int[np.ndarray, "U top"], Float[np.ndarray, "U top"]]:
    """The labels [U,count] of the largest IoUs and those IoUs, from IoU [U,C], best first; ties to
    the lowest number, never 0."""
    checks.count("count", count)
    label = 1 + np.argsort(-iou[:, 1:], 1, kind="stable")[:, :count]
    return label, np.take_along_axis(iou, label, 1)


def best_by_category(
    iou: Float[np.ndarray, "U C"], categories: Categories = None
) -> tuple[Int[np.ndarray, "U G"], Float[np.ndarray, "U G"]]:
    """The best label [U,G] of each unit within each category, and its IoU, from IoU [U,C].

    categories: [C] numbers 0..G-1, entry 0 ignored; None makes one category of all. A category
    without concepts has label 0, IoU 0.
    """
    concepts = iou.shape[1]
    # "none" is in no category, so it is nobody's best.
    whole = np.zeros(concepts, int) if categories is None else categories
    categories = tables.clean_categories(whole)
    if len(categories) != concepts:
        raise ValueError(
            f"categories must have an entry for each of the {concepts} concept numbers; got {len(categories)}"
        )
    labels = np.zeros((len(iou), categories.max() + 1), np.int64)
    values = np.zeros(labels.shape)
    for group in range(labels.shape[1]):
        (members,) = np.nonzero(categories == group)
        if len(members):
            place = iou[:, members].argmax(1)
            labels[:, group] = members[place]
            values[:, group] = iou[np.arange(len(iou)), members[place]]
    return labels, values


def count_detectors(
    labels: Int[np.ndarray, "*S U G"],
    values: Float[np.ndarray, "*S U G"],
    iou_thresholds: Sequence[float] = (0.03, 0.04, 0.05),
    *,
    per: str = "unit",
) -> tuple[Int[np.ndarray, "*S T G"], Int[np.ndarray, "*S T G"]]:
    """Counts detectors, units with IoU > threshold (strict), and the different concepts that they
    detect.

    Args:
      labels, values: [...,U,G], from `best_by_category`.
      iou_thresholds: T of them.
      per: "unit", each unit has one best label over all categories (the bar graphs of the original
        programs and davidbau/dissect); "category", each unit competes in every category on its own
        (the original's figures across networks).

    Returns:
      detectors and unique concepts, each int64 [...,T,G]. The paper's total of unique concepts is
      the sum over G.
    """
    checks.choice("per", per, ("unit", "category"))
    if np.ndim(iou_thresholds) != 1:
        raise ValueError(
            f"iou_thresholds must be a row of numbers; got {checks.shown(iou_thresholds)}"
        )
    if labels.shape != values.shape:
        raise ValueError(
            f"labels and values must be of one shape; got {list(labels.shape)} and {list(values.shape)}"
        )
    # One label a unit: what is not its best of all categories counts as not detected; ties go to the lowest number.
    if per == "unit":
        best = values == values.max(-1, keepdims=True)
        lowest = np.where(best, labels, np.iinfo(labels.dtype).max).min(-1, keepdims=True)
        values = np.where(labels == lowest, values, 0.0)
    passed = values[..., None, :, :] > np.asarray(iou_thresholds)[:, None, None]  # [..., T, U, G]
    detected = np.where(passed, labels[..., None, :, :], 0)
    ordered = np.sort(detected, -2)
    # The 0 of what is no detector comes first, so each other number is new once.
    new = np.diff(ordered, axis=-2, prepend=0) > 0
    return passed.sum(-2), new.sum(-2)


@dataclasses.dataclass(frozen=True)
class _Units:
    """Units first..last-1 of activations, read when sliced."""

    activations: Activations | Sliced
    first: int
    last: int

    @property
    def shape(self) -> tuple[int, ...]:
        return (*self.activations.shape[:3], self.last - self.first)

    def __getitem__(self, images: slice) -> Any:
        return self.activations[images][..., self.first : self.last]


Best = tuple[Int[np.ndarray, "U G"], Float[np.ndarray, "U G"]]  # of `best_by_category`


@dataclasses.dataclass(frozen=True)
class Halves:
    """How the halves of a data set are looked at.

    Attributes:
      seed: of the groups and halves, see `stats.groups`.
      restricted: which IoU of the halves, as in `Tally.iou`.
      parts: where the counts of each block of units are kept.
    """

    seed: int = 0
    restricted: bool = False
    parts: Parts = NO_PARTS


def tally_halves(
    activations: Activations | Sliced,
    thresholds: Thresholds | Sequence[float],
    segmentation: LabelMaps | Sliced,
    orders: Integer[AnyArray, "S N"],
    counting: Counting,
    asked: Halves = Halves(),
) -> tuple[list[Tally], list[Best]]:
    """`tally_orders`, and the best labels in random halves of the images, thresholds held.

    The images of the first pairing are tallied in `stats.GROUPS` groups, of which a half is the sum of ten. All is counted by
    one walk over the images where the tables fit in counting.memory_mb, at 24 bytes a table, concept and unit (int32 twice on
    the device, int64 and its sum on the host): 60 MiB for 512 units, 200 concepts and five shuffles, but 1.4 GiB for 2,048
    units and 1,200 concepts, whose units then go in two blocks, each with a walk of its own.

    Args:
      activations, thresholds, segmentation, orders, counting: as in `tally_orders`.
      asked: how halves are drawn and read.

    Returns:
      the tallies of the S pairings, and `best_by_category` of each half, [] for fewer images than groups.
    """
    if asked.restricted:  # said before the long walk
        _need_categories(counting.categories)
    check_activations(activations)
    images = activations.shape[0]
    orders = tables.check_orders(orders, images)
    grouped = images >= stats.GROUPS
    halves = stats.half_samples(asked.seed) if grouped else ()
    # The first tables are those of the groups, then each shuffle has one.
    own = stats.groups(images, asked.seed) if grouped else np.zeros(images, np.int32)
    first = stats.GROUPS if grouped else 1
    shuffled = np.repeat(first + np.arange(len(orders) - 1)[:, None], images, 1)
    slots = np.concatenate([own[None], shuffled])

    def counted(block: _Units) -> dict[str, np.ndarray]:
        units = np.asarray(thresholds)[block.first : block.last]
        table, sizes = tables.count(
            block, units, segmentation, counting, orders=orders, slots=slots
        )
        # Reduced to best labels before the tables of the next block take the memory.
        groups = table[:first], sizes[:first]
        best = [_best_of_half(*groups, half, counting, asked.restricted) for half in halves]
        labels, values = zip(*best, strict=True) if best else ((), ())
        whole = [part.sum(0, keepdims=True) for part in groups]
        return {
            "table": np.concatenate([whole[0], table[first:]]),
            "sizes": np.concatenate([whole[1], sizes[first:]]),
            "labels": np.array(labels, np.int64),
            "values": np.array(values, np.float64),
        }

    tallies, best = [], []
    for block in _blocks(activations, first + len(shuffled), counting):
        made = asked.parts.get(
            f"units-{block.first}-{block.last}", functools.partial(counted, block)
        )
        both = zip(made["table"], made["sizes"], strict=True)
        tallies.append([_tally(*one, counting) for one in both])
        best.append(list(zip(made["labels"], made["values"], strict=True)))
    return [_joined(blocks) for blocks in zip(*tallies, strict=True)], [
        tuple(map(np.concatenate, zip(*blocks, strict=True))) for blocks in zip(*best, strict=True)
    ]


def _blocks(activations, count: int, counting: Counting) -> list[_Units]:
    """The units in as many parts as their `count` tables need to fit in the memory."""
    units = activations.shape[3]
    categories = 1 + int(tables.clean_categories(counting.categories).max(initial=-1))
    need = units * count * (counting.num_concepts + categories) * (4 + 4 + 8 + 8)
    parts = min(units, int(np.ceil(need / (counting.memory_mb * 2**20))))
    ends = np.linspace(0, units, parts + 1).astype(int).tolist()
    return [_Units(activations, first, last) for first, last in itertools.pairwise(ends)]


def _best_of_half(table, sizes, half, counting, restricted) -> Best:
    tally = _tally(table[half].sum(0), sizes[half].sum(0), counting)
    return best_by_category(tally.iou(restricted), counting.categories)


def _joined(parts: Sequence[Tally]) -> Tally:
    """Tallies of blocks of units as one."""
    by_unit = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("intersection", "unit", "unit_by_category")
    }
    return dataclasses.replace(parts[0], **by_unit)
