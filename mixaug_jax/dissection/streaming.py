"""One walk over the images for thresholds and counts: batches to the devices, integers back before
they can overflow."""

from collections.abc import Callable, Iterable, Iterator

import jax
import numpy as np

from mixaug_jax import parallel

LIMIT = 2**31 - 1


def check_activations(activations) -> None:
    shape = tuple(activations.shape)
    if len(shape) != 4 or 0 in shape:
        raise ValueError(
            f"activations have shape {shape}; they must be [N, h, w, U] with at least one image, "
            "one node and one unit"
        )


def read(activations, start: int, stop: int) -> np.ndarray:
    """Images start..stop-1 as float32 [n, h, w, U]; raises ValueError where one holds NaN or
    infinity."""
    batch = np.asarray(activations[start:stop], np.float32)
    finite = np.isfinite(batch).all((1, 2, 3))
    if not finite.all():
        raise ValueError(
            f"the activations of image {start + int(finite.argmin())} hold NaN or infinity; "
            "thresholds and counts need finite values"
        )
    return batch


def local(devices) -> tuple:
    """The devices to use, by default all of this process; a tuple, so that programs can be kept."""
    return tuple(jax.local_devices() if devices is None else devices)


def spans(images: int, batch_size: int, devices: tuple) -> Iterator[tuple[int, int, int]]:
    """(start, stop, rows): images start..stop-1 go in one step, padded to `rows`, a multiple of the
    number of devices."""
    rows = len(devices) * max(1, min(batch_size, -(-images // len(devices))))
    for start in range(0, images, rows):
        yield start, min(start + rows, images), rows


def pad_rows(array: np.ndarray, rows: int) -> np.ndarray:
    return np.pad(array, [(0, rows - len(array))] + [(0, 0)] * (array.ndim - 1))


def total(
    step: Callable,
    reduce: Callable,
    combine: Callable,
    state: dict,
    batches: Iterable,
    images: int,
    devices: tuple,
) -> dict:
    """Runs `step(state, batch) -> state` over all batches and returns the reduced state as numpy
    int64.

    Args:
      step: mapped over devices; `state` has a leading device axis, one row each.
      reduce: mapped over devices; state -> the same on every device, without that axis.
      combine: two reduced states -> one, on the host.
      state: name -> int32 array, what one device starts from.
      batches: (number of images, tree of arrays with a leading batch axis).
      images: how many images the int32 counts can take before they go to the host.
    """

    def fresh():
        tiled = {k: np.broadcast_to(v, (len(devices), *v.shape)) for k, v in state.items()}
        return parallel.shard_batch(tiled, devices)

    def flush(running):
        reduced = {k: np.asarray(v, np.int64) for k, v in reduce(running).items()}
        return reduced if result is None else combine(result, reduced)

    result, running, pending = None, fresh(), 0
    for count, batch in batches:
        if pending + count > images:
            result, running, pending = flush(running), fresh(), 0
        running = step(running, parallel.shard_batch(batch, devices))
        pending += count
    return flush(running)
