"""A walk over many images: which ones, read ahead by threads, in batches to the devices, integers back before they overflow."""

import concurrent.futures
import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator

import jax
import numpy as np

from mixaug_jax.core import devices as devices_lib

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


def local(devices: Iterable | None) -> tuple:
    """The devices to use, by default all of this process; a tuple, so that programs can be kept."""
    return tuple(jax.local_devices() if devices is None else devices)


def spans(images: int, batch_size: int, devices: tuple) -> Iterator[tuple[int, int, int]]:
    """(start, stop, rows): images start..stop-1 go in one step, padded to `rows`, a multiple of the number of devices."""
    rows = len(devices) * max(1, min(batch_size, -(-images // len(devices))))
    for start in range(0, images, rows):
        yield start, min(start + rows, images), rows


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
      images: how many images the int32 counts can take before they go to the host.
    """

    def fresh() -> dict:
        tiled = {k: np.broadcast_to(v, (len(devices), *v.shape)) for k, v in state.items()}
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
