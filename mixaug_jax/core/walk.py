"""A walk over many images: which ones, read ahead by threads, in batches to the devices, integers back before they overflow."""

import concurrent.futures
import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils

from mixaug_jax.core import devices as devices_lib
from mixaug_jax.core.types import Tree

LIMIT = 2**31 - 1  # of the integers on a device


def spread(count: int, wanted: int) -> np.ndarray:
    """At most `wanted` of the numbers 0..count-1 at even distances; all of them for 0."""
    if not wanted or wanted >= count:
        return np.arange(count)
    return np.arange(wanted) * count // wanted


def read_ahead(function: Callable, items: Iterable, threads: int) -> Iterator:
    """`map(function, items)` by several threads, in order, never more than twice that many ahead."""
    items = iter(items)
    with concurrent.futures.ThreadPoolExecutor(max(1, threads)) as pool:
        waiting = [pool.submit(function, item) for item in itertools.islice(items, 2 * threads)]
        while waiting:
            yield waiting.pop(0).result()
            waiting += [pool.submit(function, item) for item in itertools.islice(items, 1)]


def chosen(devices: Iterable | None) -> tuple:
    """The devices to use, by default all of all processes; a tuple, so that programs can be kept."""
    return tuple(jax.devices() if devices is None else devices)


def own(devices: tuple) -> tuple:
    """Those of the devices that are of this process, on which its share is computed."""
    return tuple(device for device in devices if device.process_index == jax.process_index())


def share(images: int, devices: tuple) -> range:
    """Which of `images` images this process reads and keeps: one run of them, each process's as long as the others' or by one
    shorter."""
    return _shares(images, devices)[_owners(devices).index(jax.process_index())]


def spans(images: int, batch_size: int, devices: tuple) -> Iterator[tuple[int, int, int]]:
    """Steps over this process's share of the images, as many in every process.

    Args:
      images: of all processes together.
      batch_size: images that a device takes at once, at most.
      devices: of all processes.

    Yields:
      (start, stop, rows): images start..stop-1 of the share go in one step, padded to `rows`, a multiple of the number of this
      process's devices. A process with fewer images than another may have none in its last step.
    """
    shares = _shares(images, devices)
    most, own = max(map(len, shares)), len(share(images, devices))
    local = len(devices) // len(shares)
    rows = local * max(1, min(batch_size, -(-most // local)))
    for start in range(0, most, rows):
        yield min(start, own), min(start + rows, own), rows


def gather(rows: Tree, images: int, devices: tuple) -> Tree:
    """Joins arrays that have a row for each image of this process's share, to the bit: every process gets the rows of all.

    Args:
      rows: tree of NumPy arrays [n, ...].
      images: of all processes together.
      devices: of all processes.

    Returns:
      The same tree with [images, ...], in the order of the images.
    """
    shares = _shares(images, devices)
    if len(shares) == 1:
        return rows
    most = max(map(len, shares))

    def joined(array: np.ndarray) -> np.ndarray:
        # As bytes, since devices would make float32 of float64.
        each = array.dtype.itemsize * math.prod(array.shape[1:])
        flat = np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8).reshape(
            len(array), each
        )
        all_rows = multihost_utils.process_allgather(pad_rows(flat, most))
        parts = [part[: len(own)] for part, own in zip(all_rows, shares, strict=True)]
        return np.concatenate(parts).view(array.dtype).reshape(images, *array.shape[1:])

    return jax.tree.map(joined, rows)


def _owners(devices) -> list[int]:
    return sorted({device.process_index for device in devices})


def _shares(images, devices) -> list[range]:
    count = len(_owners(devices))
    return [range(images * k // count, images * (k + 1) // count) for k in range(count)]


def pad_rows(array: np.ndarray, rows: int) -> np.ndarray:
    """An array [n,...] with zeros after it, [rows,...]."""
    return np.pad(array, [(0, rows - len(array))] + [(0, 0)] * (array.ndim - 1))


@dataclasses.dataclass(frozen=True)
class Programs:
    """What runs over many images and adds up.

    Attributes:
      step: mapped over devices, (state, batch) -> state; `state` has a leading device axis, one row each.
      reduce: mapped over devices; state -> the same on every device, without that axis.
      combine: two reduced states -> one, on the host.
    """

    step: Callable
    reduce: Callable
    combine: Callable


def total(programs: Programs, state: dict, batches: Iterable, images: int, devices: tuple) -> dict:
    """Runs `programs.step` over all batches and returns the reduced state as numpy int64.

    Args:
      programs: what runs.
      state: name -> int32 array, what one device starts from.
      batches: (number of images, tree of arrays with a leading batch axis).
      images: how many images of a process the int32 counts can take before they go to the host, divided by the processes.
    """

    def fresh() -> dict:
        local = len(devices) // len(_owners(devices))
        tiled = {k: np.broadcast_to(v, (local, *v.shape)) for k, v in state.items()}
        return devices_lib.shard_batch(tiled, devices)

    def flush(running: dict) -> dict:
        reduced = {k: np.asarray(v, np.int64) for k, v in programs.reduce(running).items()}
        return reduced if result is None else programs.combine(result, reduced)

    result, running, pending = None, fresh(), 0
    for count, batch in batches:
        if pending + count > images:
            result, running, pending = flush(running), fresh(), 0
        running = programs.step(running, devices_lib.shard_batch(batch, devices))
        pending += count
    return flush(running)
