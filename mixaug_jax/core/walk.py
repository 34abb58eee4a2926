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
from mixaug_jax.core import files, say
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
    """The devices to use, by default all of all processes; a tuple, so that programs can be kept.

    Raises:
      ValueError: they are neither this process's own nor as many of each process.
    """
    devices = tuple(jax.devices() if devices is None else devices)
    owners = [device.process_index for device in devices]
    each = {owners.count(process) for process in range(jax.process_count())}
    if set(owners) != {jax.process_index()} and len(each) > 1:
        raise ValueError(
            f"devices must be of this process alone, or as many of each of the {jax.process_count()} processes; "
            f"got some of processes {', '.join(map(str, sorted(set(owners))))}"
        )
    return devices


def own(devices: tuple) -> tuple:
    """Those of the devices that are of this process, on which its share is computed."""
    return tuple(device for device in devices if device.process_index == jax.process_index())


def together(devices: tuple) -> bool:
    """Whether devices are of several processes, all of which then have to come by the same places."""
    return len(_owners(devices)) > 1


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
    return _joined(rows, [len(part) for part in _shares(images, devices)])


def join(rows: Tree, devices: tuple) -> Tree:
    """`gather` for any number of rows: those of process 0 come first, then those of process 1.

    Args:
      rows: tree of NumPy arrays [n, ...], of the same n; it may be 0.
      devices: of all processes.
    """
    if not together(devices):
        return rows
    count = np.array(len(jax.tree.leaves(rows)[0]))
    return _joined(rows, multihost_utils.process_allgather(count).tolist())


def is_first(devices: tuple) -> bool:
    """Whether this is the first process, or the only one, that the devices are of: the one that writes for all."""
    return jax.process_index() == _owners(devices)[0]


def told(given: Tree, devices: tuple) -> Tree:
    """What the first process gives, in all of them; the others give arrays of the same shapes."""
    mine = jax.tree.map(lambda x: np.asarray(x)[None], given)
    return jax.tree.map(lambda x: x[0], join(mine, devices))


def fingerprint(read: Callable[[int], Tree], images: int, devices: tuple) -> int:
    """A checksum of what `read` gives for up to eight images, 0..images-1; each is read by the process whose share it is in."""
    mine = share(images, devices)
    found = [read(index) for index in spread(images, 8).tolist() if index in mine]
    parts = [(files.checksum(one), files.byte_count(one)) for one in found]
    parts = join(np.array(parts, np.int64).reshape(-1, 2), devices)
    return files.joined_checksum(parts.tolist())


def progress(title: str, images: int, devices: tuple) -> Callable[[int], None]:
    """`say.progress` of all images; `report(done)` is told how many of its share this process has done."""
    report, mine = say.progress(title, images), len(share(images, devices))
    return lambda done: report(images if done >= mine else done * images // mine)


def _joined(rows, counts):
    """The rows of all processes, of which each has as many as `counts` says."""
    if len(counts) == 1:
        return rows

    def joined(array: np.ndarray) -> np.ndarray:
        # As bytes, since devices would make float32 of float64.
        each = array.dtype.itemsize * math.prod(array.shape[1:])
        shape = (sum(counts), *array.shape[1:])
        if not each * sum(counts):
            return np.zeros(shape, array.dtype)
        flat = np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8).reshape(-1, each)
        every = multihost_utils.process_allgather(pad_rows(flat, max(counts)))
        parts = [part[:count] for part, count in zip(every, counts, strict=True)]
        return np.concatenate(parts).reshape(-1).view(array.dtype).reshape(shape)

    return jax.tree.map(joined, rows)


def _owners(devices) -> list[int]:
    return sorted({device.process_index for device in devices})


def _shares(images, devices) -> list[range]:
    count = len(_owners(devices))
    return [range(images * k // count, images * (k + 1) // count) for k in range(count)]


def pad_rows(array: np.ndarray, rows: int, before: int = 0) -> np.ndarray:
    """An array [n,...] with zeros after it, and `before` rows of them ahead of it, [rows,...]."""
    after = rows - before - len(array)
    return np.pad(array, [(before, after)] + [(0, 0)] * (array.ndim - 1))


@dataclasses.dataclass(frozen=True)
class Programs:
    """What runs over many images and adds up.

    Attributes:
      step: mapped over this process's devices (`own`), (state, batch) -> state; `state` has a leading device axis, one row
        each. So processes need not take the same step at the same time, nor with the same shapes.
      reduce: mapped over all devices; state -> the same on every device, without that axis.
      combine: two reduced states -> one, on the host.
    """

    step: Callable
    reduce: Callable
    combine: Callable


def total(programs: Programs, state: dict, batches: Iterable, images: int, devices: tuple) -> dict:
    """Runs `programs.step` over all batches and returns the reduced state as numpy int64, in every process.

    Args:
      programs: what runs.
      state: name -> int32 array, what one device starts from.
      batches: trees of arrays with a leading batch axis. As `spans` gives them: every process has as many, of as many rows, and
        what is no image adds nothing.
      images: how many images' counts fit an int32; before that many rows of all processes they go to the host.
      devices: of all processes.
    """
    here, processes = own(devices), len(_owners(devices))

    def fresh() -> dict:
        tiled = {k: np.broadcast_to(v, (len(here), *v.shape)) for k, v in state.items()}
        return devices_lib.shard_batch(tiled, here)

    def flush(running: dict) -> dict:
        reduced = programs.reduce(devices_lib.across(running, devices))
        reduced = {k: np.asarray(v, np.int64) for k, v in reduced.items()}
        return reduced if result is None else programs.combine(result, reduced)

    result, running, pending = None, fresh(), 0
    for batch in batches:
        # Counted alike by all processes, which meet when they flush.
        rows = processes * len(jax.tree.leaves(batch)[0])
        if pending and pending + rows > images:
            result, running, pending = flush(running), fresh(), 0
        running = programs.step(running, devices_lib.shard_batch(batch, here))
        pending += rows
    return flush(running)
