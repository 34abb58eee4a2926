"""Contingency tables: on how many pixels a unit is on and a concept is there.

Symbols for one image: P label-map pixels, U units, C concepts, K label slots of a pixel, L labels
present. What bounds the cost:

* Upsampling U maps is 4 P U multiply-adds, but as floats 25 MB for ResNet-50's layer4 at 56x56; so
  the comparison with T is fused into it and floats are never stored.
* (A) One-hot matmul, [P,U] x [P,C]: 2 P U C operations (15 GFLOP there, two forward passes), at a
  matrix unit's full rate. This is the backend "dense", for GPU and TPU. Operands are 0 and 1 in
  bfloat16 and sums float32, exact below 2^24 pixels an image.
* (B) The same against the L labels that are present: 20 times less. (D) The set bits only: q P U K
  increments, the least possible, but of data-dependent shape. On CPU 32 pixels fit a word, and L U
  P/32 times AND and population count (10 M there, a few milliseconds) are near enough to (D) with
  fixed shapes: the backend "bits".

Each table has, beside the concepts, a row of all pixels (row 0: the unit's area) and a row for each
category (the unit's area in the images that hold the category). Both backends see the same
comparisons, so they give the same integers.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mixaug_jax.core import checks, walk
from mixaug_jax.core import devices as devices_lib
from mixaug_jax.core.types import (
    Activations,
    AnyArray,
    Bool,
    Devices,
    Int,
    Integer,
    LabelMaps,
    Sliced,
    Thresholds,
    UInt32,
)
from mixaug_jax.dissection import activations as activations_lib
from mixaug_jax.dissection import resample

Categories = Integer[AnyArray, "C"] | Sequence[int] | None
BACKENDS = ("dense", "bits")


@dataclasses.dataclass(frozen=True)
class Counting:
    """What the labels are, and how pixels are counted; only the first three decide the counts.

    Attributes:
      num_concepts: C, with number 0: labels are 1..C-1.
      categories: [C] int, each concept's category number (entry 0 ignored); None: none.
      padding: beyond the outer nodes of a map lies "edge" their value or "zero" nothing.
      backend: "dense" or "bits"; "": by the kind of device. Same integers.
      batch_size: images of a device at a time.
      memory_mb: MiB that the tables of `counting.tally_halves` may take at a time, on a device and on the host together.
      devices: default all of all processes.
    """

    num_concepts: int
    categories: Categories = None
    padding: str = "edge"
    backend: str = ""
    batch_size: int = 16
    memory_mb: float = 1024
    devices: Devices = None

    def __post_init__(self):
        checks.count("num_concepts", self.num_concepts, 0)  # `check` says why two are needed
        checks.choice("backend", self.backend, ("", *BACKENDS))
        checks.count("batch_size", self.batch_size)
        checks.number("memory_mb", self.memory_mb, 0, above=True)


def count(
    activations: Activations | Sliced,
    thresholds: Thresholds | Sequence[float],
    segmentation: LabelMaps | Sliced,
    counting: Counting,
    *,
    orders: Integer[AnyArray, "S N"] | None = None,
    slots: Integer[AnyArray, "S N"] | None = None,
) -> tuple[Int[np.ndarray, "T rows U"], Int[np.ndarray, "T rows"]]:
    """Tables of all units against all concepts, for S pairings of images with label maps.

    Args:
      activations, thresholds, segmentation: as in `counting.tally`.
      counting: what is counted.
      orders: [S,N] int: pairing s joins image i with label maps orders[s, i]; default its own.
      slots: [S,N] int: the table, 0..T-1, to which image i adds its counts in pairing s; default s. So groups of images have
        tables of their own at no cost but their memory: T rows U integers of 4 bytes on each device, and twice that for a
        moment when they are added up.

    Returns:
      table int64 [T,rows,U] and sizes int64 [T,rows]: pixels where a unit is on and the row's
      condition holds, and where the condition holds. Row 0 is every pixel, 1..C-1 the concepts,
      then the categories.
    """
    # All arguments are looked at before anything is compiled; labels are, when they are read.
    concepts = counting.num_concepts
    categories = check(activations, thresholds, segmentation, concepts, counting.categories)
    images, *nodes, units = activations.shape
    grid = resample.Grid(tuple(nodes), tuple(segmentation.shape[1:3]), counting.padding)
    orders = np.arange(images)[None] if orders is None else check_orders(orders, images)
    slots = np.arange(len(orders))[:, None] if slots is None else np.asarray(slots)
    slots = np.broadcast_to(slots, orders.shape).astype(np.int32)
    # The program depends on shapes and numbers alone, so that a second layer of the same size compiles nothing.
    devices = walk.chosen(counting.devices)
    on_cpu = devices_lib.platform(devices) == "cpu"
    backend = counting.backend or ("bits" if on_cpu else "dense")
    step, reduce = _programs(grid, backend, concepts, tuple(categories.tolist()), devices)
    thresholds = devices_lib.replicate(np.asarray(thresholds, np.float32), walk.own(devices))
    # Label maps are packed on the host while the device counts the batch before.
    pack = _pack_labels if backend == "bits" else _plain_labels

    def labels_of(chosen: np.ndarray, slots: np.ndarray) -> dict:
        return pack(read_labels(segmentation, chosen, concepts), slots, concepts, categories)

    # T tables lie below each other in one array, of which an image touches the rows of its labels.
    first = walk.share(images, devices).start
    spans = [
        (first + start, first + stop, rows)
        for start, stop, rows in walk.spans(images, counting.batch_size, devices)
    ]
    batches = _batches(activations, labels_of, orders, slots, spans)
    count, rows = int(slots.max()) + 1, concepts + _groups(categories)
    shapes = {"table": (count * rows, units), "sizes": (count * rows,)}
    state = {name: np.zeros(shape, np.int32) for name, shape in shapes.items()}
    programs = walk.Programs(
        lambda state, batch: step(state, batch, thresholds),
        reduce,
        lambda a, b: {k: a[k] + b[k] for k in a},
    )
    # An image adds at most its pixels to a count: how many fit before int32 overflows.
    counted = walk.total(programs, state, batches, walk.LIMIT // grid.pixels, devices)
    return counted["table"].reshape(count, rows, units), counted["sizes"].reshape(count, rows)


def _batches(
    activations, labels_of: Callable[[np.ndarray, np.ndarray], dict], orders, slots, spans
) -> Iterator:
    """A batch for each of `spans`; `labels_of` gives what a backend counts, of images and slots [n,S]."""
    for start, stop, rows in spans:
        batch = labels_of(orders[:, start:stop].T, slots[:, start:stop].T) | {
            "activations": activations_lib.read(activations, start, stop),
            # What fills up a batch counts nowhere.
            "there": np.ones(stop - start, np.int32),
        }
        yield {k: walk.pad_rows(v, rows) for k, v in batch.items()}


def check(
    activations: Activations | Sliced,
    thresholds: Thresholds | Sequence[float],
    segmentation: LabelMaps | Sliced,
    num_concepts: int,
    categories: Categories,
) -> Int[np.ndarray, " entries"]:
    """Raises for arguments that do not fit each other; returns `clean_categories(categories)`."""
    # A threshold for each unit.
    activations_lib.check_activations(activations)
    images, _, _, units = activations.shape
    if np.shape(thresholds) != (units,):
        raise ValueError(
            f"thresholds have shape {np.shape(thresholds)}, the activations {units} units"
        )
    if np.asarray(thresholds).dtype.kind in "cOSUMm":
        raise ValueError(f"thresholds must be real numbers; got {checks.shown(thresholds)}")
    if np.isnan(thresholds).any():
        raise ValueError(f"the threshold of unit {int(np.isnan(thresholds).argmax())} is NaN")
    # A label map for each image; its numbers are checked where they are read, a batch at a time.
    if not hasattr(segmentation, "shape"):
        raise ValueError(
            f"segmentation must be an array [N,H,W,K]; got {checks.shown(segmentation)}"
        )
    shape = tuple(segmentation.shape)
    if len(shape) != 4 or 0 in shape:
        raise ValueError(f"segmentation must be [N,H,W,K], none of them 0; got {list(shape)}")
    if shape[0] != images:
        raise ValueError(f"there are {shape[0]} label maps for the activations of {images} images")
    if not np.issubdtype(segmentation.dtype, np.integer):
        raise ValueError(f"segmentation must be of integers, labels; got {segmentation.dtype}")
    # A category for each number, if for any.
    if num_concepts < 2:
        raise ValueError(
            f"num_concepts must be at least 2, as number 0 is 'none'; got {num_concepts}"
        )
    categories = clean_categories(categories)
    if len(categories) not in (0, num_concepts):
        raise ValueError(
            f"categories must have an entry for each of the {num_concepts} concept numbers, number 0 among them; got "
            f"{len(categories)}"
        )
    return categories


def check_orders(orders: Integer[AnyArray, "S N"], images: int) -> Int[np.ndarray, "S N"]:
    """Pairings as an array; ValueError for what is none of N images with as many label maps."""
    found = np.asarray(orders)
    if found.ndim != 2 or not len(found) or found.shape[1] != images:
        raise ValueError(
            f"orders must be [S,{images}], a label map for each image in one pairing or more; got {list(found.shape)}"
        )
    return np.stack([checks.indices("each of orders", row, images) for row in found])


def clean_categories(categories: Categories) -> Int[np.ndarray, " entries"]:
    """[C] int32 with entry 0 set to -1, or [0] for None."""
    if categories is None:
        return np.zeros(0, np.int32)
    categories = np.array(categories)
    if categories.ndim != 1 or not np.issubdtype(categories.dtype, np.integer):
        raise ValueError("categories must be one integer for each concept number")
    categories[:1] = -1
    if (categories[1:] < 0).any():
        raise ValueError("categories must be numbers of at least 0")
    return categories.astype(np.int32)


def _groups(categories: np.ndarray) -> int:
    return int(categories.max(initial=-1)) + 1


def read_labels(
    segmentation: LabelMaps | Sliced, chosen: Int[np.ndarray, "n S"], num_concepts: int
) -> Int[np.ndarray, "n S P K"]:
    """Label maps of the images `chosen` as int32; ValueError where a number is no concept's."""
    maps = np.asarray(segmentation[chosen.reshape(-1)])
    low, high = maps.min((1, 2, 3)), maps.max((1, 2, 3))
    wrong = (low < 0) | (high >= num_concepts)
    if wrong.any():
        i = int(wrong.argmax())
        raise ValueError(
            f"the label map of image {chosen.reshape(-1)[i]} holds label "
            f"{low[i] if low[i] < 0 else high[i]}; with num_concepts={num_concepts} labels go from "
            f"0 to {num_concepts - 1}"
        )
    _, height, width, slots = maps.shape
    return maps.reshape(*chosen.shape, height * width, slots).astype(np.int32)


def _plain_labels(labels: np.ndarray, slots: np.ndarray, num_concepts, categories) -> dict:
    """Label maps [n,S,P,K] as they are, and `ids` [n,S,rows], the rows of the table that the device adds to."""
    rows = num_concepts + _groups(categories)
    ids = slots[..., None] * rows + np.arange(rows, dtype=np.int32)
    return {"labels": labels, "ids": ids.reshape(len(labels), -1)}


def _pack_labels(labels: np.ndarray, slots: np.ndarray, num_concepts, categories) -> dict:
    """Label maps [n,S,P,K] as the rows that each image touches.

    Returns `ids` [n,M], rows of the table (T tables one after the other), and `words` uint32 [n,M,W],
    the pixels of each, 32 to a word.
    """
    rows = num_concepts + _groups(categories)
    packed = []
    # Images touch different rows, so each brings the numbers of its own.
    for sets, places in zip(labels, slots, strict=True):
        one = [pack_image(maps, num_concepts, categories) for maps in sets]
        ids = np.concatenate([s * rows + ids for s, (ids, _) in zip(places, one, strict=True)])
        packed.append((ids.astype(np.int32), np.concatenate([words for _, words in one])))
    # A power of two, so that few programs are compiled. What fills up adds no pixel to row 0.
    most = 1 << max(5, (max((len(ids) for ids, _ in packed), default=1) - 1).bit_length())
    ids = np.zeros((len(labels), most), np.int32)
    words = np.zeros((len(labels), most, -(-labels.shape[2] // 32)), np.uint32)
    for row, (some, bits) in enumerate(packed):
        ids[row, : len(some)], words[row, : len(some)] = some, bits
    return {"ids": ids, "words": words}


def pack_image(
    maps: Int[np.ndarray, "P K"], num_concepts: int, categories: Int[np.ndarray, " entries"]
) -> tuple[Int[np.ndarray, " M"], UInt32[np.ndarray, "M W"]]:
    """Label maps of one image: ids [M], 0 for all pixels first, then its labels and their categories, and words, the
    pixels of each. A label that stands in two slots of a pixel sets its bit there once."""
    present = np.flatnonzero(np.bincount(maps.ravel(), minlength=num_concepts))
    present = present[present > 0]
    groups = np.unique(categories[present]) if len(categories) else present[:0]
    pixels = len(maps)
    bits = np.zeros((1 + len(present) + len(groups), 32 * -(-pixels // 32)), bool)
    place = np.zeros(num_concepts, int)  # unlabeled pixels go to row 0, which has them all
    place[present] = 1 + np.arange(len(present))
    bits[place[maps], np.arange(pixels)[:, None]] = True
    # All pixels of the image: for a unit's area, and for its area in images with the category.
    bits[0, :pixels] = True
    bits[1 + len(present) :, :pixels] = True
    ids = np.concatenate([[0], present, num_concepts + groups])
    return ids, np.packbits(bits, axis=1, bitorder="little").view("<u4")


@functools.cache
def _programs(grid: resample.Grid, backend: str, num_concepts: int, categories: tuple, devices):
    """The mapped step and reduction. A device takes its images one by one, so the integers do not
    depend on how many share a batch."""
    sharded, replicated = devices_lib.SHARDED, devices_lib.REPLICATED

    def step(state: dict, batch: dict, thresholds: jax.Array) -> dict:
        def image(state: dict, x: dict) -> tuple[dict, None]:
            # Fused by the compiler into the counting: upsampled floats are never stored.
            on = resample.upsample(x["activations"], grid) > thresholds
            on = on.reshape(-1, on.shape[-1])
            if backend == "bits":
                sums, sizes = _count_bits(on, x["words"])
            else:
                sums, sizes = _count_dense(on, x["labels"], num_concepts, categories)
            # Both backends see equal comparisons, so these integers are equal.
            table = state["table"].at[x["ids"]].add(sums * x["there"])
            sizes = state["sizes"].at[x["ids"]].add(sizes * x["there"])
            return {"table": table, "sizes": sizes}, None

        # A state has a leading axis of devices, which is 1 on each of them.
        state, _ = jax.lax.scan(image, jax.tree.map(lambda x: x[0], state), batch)
        return jax.tree.map(lambda x: x[None], state)

    def reduce(state: dict) -> dict:
        return jax.tree.map(lambda x: jax.lax.psum(x[0], devices_lib.AXIS), state)

    return (
        devices_lib.pmap(
            step,
            (sharded, sharded, replicated),
            sharded,
            donate_argnums=0,
            devices=walk.own(devices),
        ),
        devices_lib.pmap(reduce, (sharded,), replicated, devices=devices),
    )


def _count_bits(on: jax.Array, words: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Pixels of each row [M,U] with the unit on, and of each row [M].

    on: [P,U] bool; words: uint32 [M,W].
    """
    sums = shared_pixels(pack_pixels(on), words.T)
    return sums, jax.lax.population_count(words).astype(jnp.int32).sum(1)


def pack_pixels(on: Bool[jax.Array, "P U"]) -> UInt32[jax.Array, "W U"]:
    """The same, 32 pixels to a word, the first in its lowest bit."""
    on = jnp.pad(on, ((0, -len(on) % 32), (0, 0))).reshape(-(-len(on) // 32), 32, -1)

    def fold(k: jax.Array, packed: jax.Array) -> jax.Array:
        return packed | (on[:, k].astype(jnp.uint32) << k.astype(jnp.uint32))

    return jax.lax.fori_loop(0, 32, fold, jnp.zeros((len(on), on.shape[2]), jnp.uint32))


def shared_pixels(
    packed: UInt32[jax.Array, "W U"], words: UInt32[jax.Array, "W M"]
) -> Int[jax.Array, "M U"]:
    """How many pixels each pair of columns has in common."""

    # One word of pixels at a time: [M,U] integers stay in the cache, [M,W,U] would not.
    def intersect(w: jax.Array, sums: jax.Array) -> jax.Array:
        both = packed[w][None] & words[w][:, None]
        return sums + jax.lax.population_count(both).astype(jnp.int32)

    sums = jnp.zeros((words.shape[1], packed.shape[1]), jnp.int32)
    return jax.lax.fori_loop(0, len(words), intersect, sums)


def _count_dense(on: jax.Array, labels: jax.Array, num_concepts: int, categories: tuple):
    """The same for all rows of all tables, [S rows,U] and [S rows].

    on: [P,U] bool; labels: int32 [S,P,K].
    """
    here = (labels[..., None] == jnp.arange(num_concepts)).any(2)  # in any slot: [S,P,C]
    member = np.array(categories)[:, None] == np.arange(max(categories, default=-1) + 1)
    holds = (here.any(1)[..., None] & member.reshape(num_concepts, -1)).any(1)  # [S,categories]
    holds = jnp.broadcast_to(holds[:, None], (*here.shape[:2], holds.shape[1]))
    rows = jnp.concatenate([here.at[..., 0].set(True), holds], -1)  # [S,P,rows]
    rows = jnp.moveaxis(rows, 1, 2).reshape(-1, len(on))
    # 0 and 1 are exact in bfloat16, and their sums in float32 below 2^24 pixels.
    sums = jax.lax.dot(
        rows.astype(jnp.bfloat16), on.astype(jnp.bfloat16), preferred_element_type=jnp.float32
    )
    return sums.astype(jnp.int32), rows.sum(1, dtype=jnp.int32)
