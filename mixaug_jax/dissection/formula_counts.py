"""How many pixels formulas of concepts, and the units that they stand for, share with each further concept.

The pixels of what joins a formula f and a concept c follow from those of f, of c and of both, and so do those of them where the
unit is on. So a walk over the images counts, for all formulas at once, f and c, and f and c and unit, 32 pixels to a word and
label by label of those that are in the image.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mixaug_jax.core import devices as devices_lib
from mixaug_jax.core import walk
from mixaug_jax.core.types import Activations, Int, LabelMaps, Sliced, Thresholds, UInt32
from mixaug_jax.dissection import activations as activations_lib
from mixaug_jax.dissection import resample, tables
from mixaug_jax.dissection.tables import Counting

AND, OR, AND_NOT = 1, 2, 3  # 0 ends a formula


@dataclasses.dataclass(frozen=True)
class Formulas:
    """Formulas of up to L concepts, B for each of n units, in S pairings of images with label maps.

    Attributes:
      units: [S,n] numbers.
      concepts: [S,n,B,L] numbers; 0 ends a formula, and one that begins with it is empty.
      operators: [S,n,B,L-1], AND, OR or AND_NOT, from the left; 0 ends.
    """

    units: Int[np.ndarray, "S n"]
    concepts: Int[np.ndarray, "S n B L"]
    operators: Int[np.ndarray, "S n B _"]


def count(
    activations: Activations | Sliced,
    thresholds: Thresholds | Sequence[float],
    segmentation: LabelMaps | Sliced,
    orders: Int[np.ndarray, "S N"],
    formulas: Formulas,
    counting: Counting,
) -> Int[np.ndarray, "S n B two C"]:
    """The pixels that formulas share with each concept, and those of them where the unit is on; int64.

    Args:
      activations, thresholds, segmentation: as in `counting.tally`.
      orders: pairing s joins image i with label maps orders[s, i].
      formulas: what is counted.
      counting: how; the categories do not matter.
    """
    grid = resample.Grid(
        tuple(activations.shape[1:3]), tuple(segmentation.shape[1:3]), counting.padding
    )
    devices, images = walk.chosen(counting.devices), activations.shape[0]
    units, places = np.unique(formulas.units, return_inverse=True)
    step, reduce = _programs(grid, devices)
    constants = {
        "thresholds": np.asarray(thresholds, np.float32)[units],
        "places": places.reshape(formulas.units.shape).astype(np.int32),
        "operators": formulas.operators.astype(np.int32),
    }
    constants = devices_lib.replicate(constants, walk.own(devices))
    labels = _Labels(segmentation, orders, formulas.concepts, counting.num_concepts)
    first = walk.share(images, devices).start

    def batches() -> Iterator[dict]:
        for start, stop, rows in walk.spans(images, counting.batch_size, devices):
            start, stop = first + start, first + stop
            batch = labels.batch(start, stop) | {
                "activations": activations_lib.read(activations, start, stop)[..., units],
                "there": np.ones(stop - start, np.int32),  # what fills up a batch counts nowhere
            }
            yield {k: walk.pad_rows(v, rows) for k, v in batch.items()}

    sets, n, beam, _ = formulas.concepts.shape
    state = {"table": np.zeros((sets * counting.num_concepts, 2 * n * beam), np.int32)}
    programs = walk.Programs(
        lambda state, batch: step(state, batch, constants),
        reduce,
        lambda a, b: {k: a[k] + b[k] for k in a},
    )
    found = walk.total(programs, state, batches(), walk.LIMIT // grid.pixels, devices)["table"]
    return np.moveaxis(found.reshape(sets, counting.num_concepts, n, beam, 2), 1, -1)


@dataclasses.dataclass(frozen=True)
class _Labels:
    """The label maps of all pairings, and where in them each formula's concepts are."""

    segmentation: LabelMaps | Sliced
    orders: Int[np.ndarray, "S N"]
    concepts: Int[np.ndarray, "S n B L"]
    count: int

    def batch(self, start: int, stop: int) -> dict[str, np.ndarray]:
        """Of images start..stop-1: `words` uint32 [n,S,M,W] of the labels that are there, the last row empty; the rows of the
        table that they add to, `ids` [n,S,M]; and the rows of the formulas' concepts, `leaves` [n,S,n,B,L]."""
        chosen = self.orders[:, start:stop].T
        maps = tables.read_labels(self.segmentation, chosen, self.count)
        none = np.zeros(0, np.int32)
        packed = [[tables.pack_image(one, self.count, none) for one in image] for image in maps]
        most = max((len(ids) for image in packed for ids, _ in image), default=1)
        most = 1 << max(5, most.bit_length())  # few programs, and a row to spare
        shape = (*chosen.shape, most)
        ids = np.zeros(shape, np.int32)
        words = np.zeros((*shape, -(-maps.shape[2] // 32)), np.uint32)
        row = np.full((*chosen.shape, self.count), most - 1, np.int32)
        for i, s in np.ndindex(chosen.shape):
            there, bits = packed[i][s]
            ids[i, s, : len(there)], words[i, s, : len(there)] = there, bits
            row[i, s, there[1:]] = 1 + np.arange(len(there) - 1)
        leaves = row[:, np.arange(len(self.orders))[:, None, None, None], self.concepts]
        return {"ids": ids, "words": words, "leaves": leaves}


@functools.cache
def _programs(grid: resample.Grid, devices: tuple):
    """The mapped step and reduction; as in `tables`, a device takes its images one by one."""
    sharded, replicated = devices_lib.SHARDED, devices_lib.REPLICATED

    def step(state: dict, batch: dict, constants: dict) -> dict:
        def image(table: jax.Array, x: dict) -> tuple[jax.Array, None]:
            on = resample.upsample(x["activations"], grid) > constants["thresholds"]
            on = tables.pack_pixels(on.reshape(-1, on.shape[-1]))
            rows = len(table) // len(x["ids"])

            def pairing(table: jax.Array, y: tuple) -> tuple[jax.Array, None]:
                number, ids, words, leaves, places, operators = y
                masks = _evaluate(words.T, leaves, operators)
                both = jnp.stack([masks, masks & on[:, places][..., None]], -1)
                sums = tables.shared_pixels(both.reshape(len(both), -1), words.T)
                return table.at[number * rows + ids].add(sums * x["there"]), None

            given = (x["ids"], x["words"], x["leaves"], constants["places"], constants["operators"])
            table, _ = jax.lax.scan(pairing, table, (jnp.arange(len(x["ids"])), *given))
            return table, None

        # A state has a leading axis of devices, which is 1 on each of them.
        table, _ = jax.lax.scan(image, state["table"][0], batch)
        return {"table": table[None]}

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


def _evaluate(
    words: UInt32[jax.Array, "W M"], leaves: Int[jax.Array, "n B L"], operators: jax.Array
) -> UInt32[jax.Array, "W n B"]:
    """The pixels where each formula holds, from the left."""
    mask = words[:, leaves[..., 0]]
    for k in range(leaves.shape[-1] - 1):
        other, operator = words[:, leaves[..., k + 1]], operators[..., k]
        joined = jnp.where(operator == OR, mask | other, mask)
        joined = jnp.where(operator == AND, mask & other, joined)
        mask = jnp.where(operator == AND_NOT, mask & ~other, joined)
    return mask
