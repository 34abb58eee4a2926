"""One forward pass for all layers, its activations on disk as long as they fit.

The kernels read activations a few images at a time, so what they get is either a memory map or, past
the bound, `Recomputed`, which runs the network for the images that are asked for. Of the processes of
a job each runs the network over its share of the images, on its own devices, and keeps what it gives.
"""

import dataclasses
import functools
import pathlib
import shutil
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from mixaug_jax.core import checks, say, walk
from mixaug_jax.core import devices as devices_lib
from mixaug_jax.core import files as files_lib
from mixaug_jax.core.types import (
    Activations,
    Count,
    Dataset,
    Devices,
    Float,
    Int,
    Net,
    Path,
    Sliced,
)


@dataclasses.dataclass(frozen=True)
class Forward:
    """A network over the images of a data set.

    Attributes:
      net: the network, its variables on the devices.
      dataset: examples with image.
      indices: [N] of the examples in the data set.
      layers: those whose outputs are wanted, in the network's order.
      rows: images of a step, over this process's devices.
      threads: that read and decode.
      devices: tuple, of all processes.
    """

    net: Net
    dataset: Dataset
    indices: Int[np.ndarray, " N"]
    layers: tuple[str, ...]
    rows: int
    threads: int
    devices: tuple

    def run(self, start: int, stop: int) -> Iterator[dict[str, np.ndarray]]:
        """Yields {layer: float32 [n,h,w,U]} for images start..stop-1, a step at a time."""

        def read(index: Count) -> np.ndarray:
            return self.net.preprocess(self.dataset[int(index)]["image"])

        if start == stop:  # the share of a process that has no image
            return
        here = walk.own(self.devices)
        step = _program(self.layers, here)
        # An image's row on its device follows its number, wherever a share begins: on some processors the last bits of a
        # convolution depend on the row.
        before = start % (self.rows // len(here))
        pending, running = [], None
        images = walk.read_ahead(read, self.indices[start:stop], self.threads)
        for number, image in enumerate(images, start + 1):
            pending.append(image)
            # Steps are padded: another number of rows would be another program.
            if before + len(pending) == self.rows or number == stop:
                batch = walk.pad_rows(np.stack(pending), self.rows, before)
                # The next batch is read while this one is computed.
                computed = (
                    slice(before, before + len(pending)),
                    step(self.net, devices_lib.shard_batch(batch, here)),
                )
                if running:
                    yield _to_host(*running)
                pending, before, running = [], 0, computed
        yield _to_host(*running)


def _to_host(rows, features):
    return {layer: np.asarray(h)[rows] for layer, h in features.items()}


@functools.cache
def _program(layers, devices):
    """The mapped forward: (net, images [B,h,w,C]) -> {layer: [B,h,w,U]}. Kept, so that a second
    network of the same architecture compiles nothing."""

    def forward(net: Net, x: jax.Array) -> dict[str, jax.Array]:
        return _features(net, x, layers)

    return devices_lib.pmap_inference(
        forward, (devices_lib.REPLICATED, devices_lib.SHARDED), devices_lib.SHARDED, devices=devices
    )


def _features(net, x, layers):
    """All layers in one pass; what has no place, as a dense layer's output, is a map of one node."""
    found = {layer: net.maps(layer, h) for layer, h in net.capture(x, layers).items()}
    return {layer: h[:, None, None] if h.ndim == 2 else h for layer, h in found.items()}


def _shapes(net, dataset, layers):
    """[B,...] of each layer's output; computes nothing."""
    image = net.preprocess(dataset[0]["image"])[None]
    found = jax.eval_shape(lambda net, x: _features(net, x, layers), net, image)
    # In the network's order, which the dict from JAX does not have.
    return {layer: tuple(found[layer].shape) for layer in net.layers if layer in layers}


def shapes(net: Net, dataset: Dataset, layers: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """(h, w, U) of each layer's output; computes nothing.

    Raises:
      ValueError: an unknown layer, or one whose output is no map.
    """
    checks.choices("layers", layers, net.layers)
    found = _shapes(net, dataset, layers)
    for layer, shape in found.items():
        if len(shape) != 4:
            raise ValueError(
                f"layer {layer!r} gives {list(shape[1:])} for an image; units need maps [h,w,U]"
            )
    return {layer: found[layer][1:] for layer in layers}


def last_maps(net: Net, dataset: Dataset, count: int = 2) -> tuple[str, ...]:
    """The last `count` layers of the network whose maps have more than one node."""
    found = _shapes(net, dataset, net.layers)
    maps = {layer: shape[1:] for layer, shape in found.items() if len(shape) == 4}
    return tuple(layer for layer, (h, w, _) in maps.items() if h * w > 1)[-count:]


TOP = 5  # images of a unit that are kept


@dataclasses.dataclass(frozen=True)
class Largest:
    """The largest activations of each of U units in the images so far, one an image; of equal ones the first comes first.

    Attributes:
      image: int [k,U], the images' numbers; k is `TOP`, or as many images as there are.
      value: float32 [k,U].
    """

    image: Int[np.ndarray, "k U"]
    value: Float[np.ndarray, "k U"]

    @classmethod
    def none(cls, units: Count) -> "Largest":
        """Of no image."""
        return cls(np.zeros((0, units), np.int64), np.zeros((0, units), np.float32))

    def with_images(self, maxima: Float[np.ndarray, "n U"], first: Count) -> "Largest":
        """With n further images, numbered from `first`, of which these are the largest activations."""
        numbers = np.broadcast_to(first + np.arange(len(maxima))[:, None], maxima.shape)
        image, value = np.concatenate([self.image, numbers]), np.concatenate([self.value, maxima])
        best = np.argsort(-value, 0, kind="stable")[:TOP]
        return Largest(*(np.take_along_axis(x, best, 0) for x in (image, value)))


@dataclasses.dataclass(frozen=True)
class Recomputed:
    """Activations [N,h,w,U] of a layer that are not kept: a slice of images runs the network, here alone."""

    forward: Forward
    shape: tuple[int, ...]

    def __getitem__(self, images: slice) -> np.ndarray:
        start, stop, _ = images.indices(self.shape[0])
        (layer,) = self.forward.layers
        # A power of two for each device, so that few sizes are compiled.
        here = len(walk.own(self.forward.devices))
        each = max(1, -(-(stop - start) // here))
        rows = here << (each - 1).bit_length()
        forward = dataclasses.replace(self.forward, rows=min(rows, self.forward.rows))
        parts = [np.zeros((0, *self.shape[1:]), np.float32)]
        return np.concatenate([*parts, *(found[layer] for found in forward.run(start, stop))])


@dataclasses.dataclass(frozen=True)
class Kept:
    """Activations [N,h,w,U] of which this process has those of its share of the images.

    Attributes:
      mine: [n,h,w,U], a memory map.
      first: the number of its first image among all.
      shape: of the whole.
    """

    mine: np.ndarray
    first: int
    shape: tuple[int, ...]

    def __getitem__(self, images: slice) -> np.ndarray:
        start, stop, _ = images.indices(self.shape[0])
        return self.mine[start - self.first : stop - self.first]


def collect(
    forward: Forward, sizes: dict[str, tuple[int, ...]], folder: Path, cache_gb: float, title: str
) -> tuple[dict[str, Any], dict[str, Largest]]:
    """Runs the network once over this process's share of the images.

    Args:
      forward: what to run.
      sizes: (h, w, U) of each layer, from `shapes`.
      folder: where this process's activations wait; it must exist.
      cache_gb: GiB that they may take. Layers past it, or past the disk's free space, are computed
        again whenever they are read, which is said.
      title: of the lines about progress.

    Returns:
      {layer: [N,h,w,U] float32, `Kept` or `Recomputed`}, and {layer: the largest activations in
      the images of the share}.

    Raises:
      OSError: the disk is full.
    """
    # Layers in the network's order take what disk there is; a full one would stop other programs, too.
    total = len(forward.indices)
    mine = walk.share(total, forward.devices)
    room = min(cache_gb * 2**30, 0.95 * shutil.disk_usage(folder).free)
    largest = {layer: Largest.none(sizes[layer][2]) for layer in forward.layers}
    files = {}
    for layer in forward.layers:
        need = 4 * len(mine) * int(np.prod(sizes[layer]))
        if need <= room:
            files[layer] = files_lib.create(pathlib.Path(folder) / f"{layer}.float32")
            room -= need
        else:
            say.line(
                f"{layer}: its activations need {need / 2**30:.2f} GiB, more than is left of "
                f"dissect.cache_gb={cache_gb}; the forward pass is repeated whenever they are read "
                "(more of it would save time)"
            )
    # Largest activations are kept of every layer, for they are few: they name the units' top images.
    report, done = walk.progress(title, total, forward.devices), 0
    for batch in forward.run(mine.start, mine.stop):
        for layer, h in batch.items():
            largest[layer] = largest[layer].with_images(h.max((1, 2)), mine.start + done)
            if layer in files:
                files[layer].write(np.ascontiguousarray(h))
        done += len(h)
        report(done)
    # What was written is read back by pages, as the kernels ask for it.
    kept = {}
    for layer in forward.layers:
        shape = (total, *sizes[layer])
        if layer in files:
            files[layer].close()
            kept[layer] = Kept(
                _mapped(files[layer].name, len(mine), sizes[layer]), mine.start, shape
            )
        else:
            kept[layer] = Recomputed(dataclasses.replace(forward, layers=(layer,)), shape)
    return kept, largest


def _mapped(name, images, size) -> np.ndarray:
    if not images:  # there is no map of an empty file
        return np.zeros((0, *size), np.float32)
    return np.memmap(name, np.float32, "r", shape=(images, *size))


def check_activations(activations: Activations | Sliced) -> None:
    """Raises ValueError unless `activations` are numbers [N,h,w,U] with at least one of each."""
    if not hasattr(activations, "shape"):
        raise ValueError(f"activations must be an array [N,h,w,U]; got {checks.shown(activations)}")
    # What is computed when read need not say its type, and other frameworks' arrays have types of their own.
    dtype = getattr(activations, "dtype", None)
    if isinstance(dtype, np.dtype) and dtype.kind in "cOSUMm":
        raise ValueError(f"activations must be real numbers; got {dtype}")
    shape = tuple(activations.shape)
    if len(shape) != 4 or 0 in shape:
        raise ValueError(
            f"activations must be [N,h,w,U] with at least one image, one node and one unit; got {list(shape)}"
        )


def read(activations: Activations | Sliced, start: int, stop: int) -> Float[np.ndarray, "n _ _ _"]:
    """Images start..stop-1 as float32 [n,h,w,U]; ValueError where one holds NaN or infinity."""
    batch = np.asarray(activations[start:stop], np.float32)
    finite = np.isfinite(batch).all((1, 2, 3))
    if not finite.all():
        raise ValueError(
            f"the activations of image {start + int(finite.argmin())} hold NaN or infinity; "
            "thresholds and counts need finite values"
        )
    return batch


@dataclasses.dataclass(frozen=True)
class Watched:
    """Activations that say how far they have been read. Each walk from the first image, or that of this process's share,
    is a new one."""

    activations: Activations | Sliced
    title: str
    devices: Devices = None
    _report: list = dataclasses.field(default_factory=list)

    @property
    def shape(self) -> tuple[int, ...]:
        """[N,h,w,U]."""
        return tuple(self.activations.shape)

    def __getitem__(self, images: slice) -> Any:
        total, devices = self.shape[0], walk.chosen(self.devices)
        first = walk.share(total, devices).start
        if (images.start or 0) <= first or not self._report:
            self._report[:] = [walk.progress(self.title, total, devices)]
        self._report[0](min(images.stop, total) - first)
        return self.activations[images]
