"""One forward pass for all stages, its activations on disk as long as they fit.

The kernels read activations a few images at a time, so what they get is either a memory map or, past
the bound, `Recomputed`, which runs the network for the images that are asked for.
"""

import dataclasses
import functools
import pathlib
import shutil
from typing import Any

import jax
import numpy as np

from mixaug_jax.core import devices as devices_lib
from mixaug_jax.core import files as files_lib
from mixaug_jax.core import say, walk


@dataclasses.dataclass(frozen=True)
class Forward:
    """A network over the images of a data set.

    Attributes:
      net: the network, its variables on the devices.
      dataset: examples with image.
      images: [N] indices of the examples.
      stages: those whose outputs are wanted, in the network's order.
      rows: images of a step, over all devices.
      threads: that read and decode.
      devices: tuple.
    """

    net: Any
    dataset: Any
    images: np.ndarray
    stages: tuple[str, ...]
    rows: int
    threads: int
    devices: tuple

    def run(self, start: int, stop: int):
        """Yields {stage: float32 [n, h, w, U]} for images start..stop-1, a step at a time."""

        def read(index):
            return self.net.preprocess(self.dataset[int(index)]["image"])

        step = _program(self.stages, self.devices)
        pending, running = [], None
        images = walk.read_ahead(read, self.images[start:stop], self.threads)
        for number, image in enumerate(images, start + 1):
            pending.append(image)
            if len(pending) == self.rows or number == stop:
                batch = walk.pad_rows(np.stack(pending), self.rows)
                # The next batch is read while this one is computed.
                computed = (
                    len(pending),
                    step(self.net, devices_lib.shard_batch(batch, self.devices)),
                )
                if running:
                    yield _to_host(*running)
                pending, running = [], computed
        yield _to_host(*running)


def _to_host(count, features):
    return {stage: np.asarray(h)[:count] for stage, h in features.items()}


@functools.cache
def _program(stages, devices):
    """The mapped forward: (net, images [B,h,w,C]) -> {stage: [B,h,w,U]}. Kept, so that a second
    network of the same architecture compiles nothing."""

    def forward(net, x):
        return _features(net, x, stages)

    return devices_lib.pmap_inference(
        forward, (devices_lib.REPLICATED, devices_lib.SHARDED), devices_lib.SHARDED, devices=devices
    )


def _features(net, x, stages):
    """Each stage runs on from the one before; what has no place, as a dense layer's output, is a map
    of one node."""
    found, before = {}, ""
    for stage in stages:
        x = net.model.apply(net.variables, x, train=False, start=before, stop=stage)
        before = stage
        h = x.astype("float32")
        found[stage] = h[:, None, None] if h.ndim == 2 else h
    return found


def shapes(net, dataset, stages) -> dict[str, tuple[int, ...]]:
    """(h, w, U) of each stage's output; computes nothing.

    Raises:
      ValueError: an unknown stage, or one whose output is no map.
    """
    unknown = [stage for stage in stages if stage not in net.stages]
    if unknown:
        raise ValueError(
            f"stage {unknown[0]!r} is not in this network; its stages: {', '.join(net.stages)}"
        )
    image = net.preprocess(dataset[0]["image"])[None]
    ordered = tuple(stage for stage in net.stages if stage in stages)
    found = jax.eval_shape(lambda net, x: _features(net, x, ordered), net, image)
    for stage, h in found.items():
        if h.ndim != 4:
            raise ValueError(
                f"stage {stage!r} gives {h.shape[1:]} for an image; units need maps [h, w, U]"
            )
    return {stage: tuple(found[stage].shape[1:]) for stage in stages}


def last_maps(net, dataset, count: int = 2) -> tuple[str, ...]:
    """The last `count` stages of the network whose maps have more than one node."""
    found = shapes(net, dataset, net.stages)
    return tuple(stage for stage, (h, w, _) in found.items() if h * w > 1)[-count:]


@dataclasses.dataclass(frozen=True)
class Recomputed:
    """Activations [N, h, w, U] of a stage that are not kept: a slice of images runs the network."""

    forward: Forward
    shape: tuple[int, ...]

    def __getitem__(self, images: slice) -> np.ndarray:
        start, stop, _ = images.indices(self.shape[0])
        (stage,) = self.forward.stages
        # A power of two for each device, so that few sizes are compiled.
        each = -(-(stop - start) // len(self.forward.devices))
        rows = len(self.forward.devices) << (each - 1).bit_length()
        forward = dataclasses.replace(self.forward, rows=min(rows, self.forward.rows))
        return np.concatenate([found[stage] for found in forward.run(start, stop)])


def collect(
    forward: Forward, sizes: dict[str, tuple[int, ...]], folder, cache_gb: float, title: str
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Runs the network once over all images.

    Args:
      forward: what to run.
      sizes: (h, w, U) of each stage, from `shapes`.
      folder: where the activations wait; it must exist.
      cache_gb: GiB that they may take. Stages past it, or past the disk's free space, are computed
        again whenever they are read, which is said.
      title: of the lines about progress.

    Returns:
      {stage: [N, h, w, U] float32, a memory map or `Recomputed`}, and {stage: each unit's largest
      activation in each image, float32 [N, U]}.

    Raises:
      OSError: the disk is full.
    """
    total = len(forward.images)
    room = min(cache_gb * 2**30, 0.95 * shutil.disk_usage(folder).free)
    files, maxima = {}, {stage: [] for stage in forward.stages}
    for stage in forward.stages:
        need = 4 * total * int(np.prod(sizes[stage]))
        if need <= room:
            files[stage] = files_lib.create(pathlib.Path(folder) / f"{stage}.float32")
            room -= need
        else:
            say.line(
                f"{stage}: its activations need {need / 2**30:.2f} GiB, more than is left of "
                f"dissect.cache_gb={cache_gb}; the forward pass is repeated whenever they are read "
                "(more memory, or dissect.replicates=0, would save time)"
            )
    report, done = say.progress(title, total), 0
    for batch in forward.run(0, total):
        for stage, h in batch.items():
            maxima[stage].append(h.max((1, 2)))
            if stage in files:
                files[stage].write(np.ascontiguousarray(h))
        done += len(h)
        report(done)
    kept = {}
    for stage in forward.stages:
        shape = (total, *sizes[stage])
        if stage in files:
            files[stage].close()
            kept[stage] = np.memmap(files[stage].name, np.float32, "r", shape=shape)
        else:
            kept[stage] = Recomputed(dataclasses.replace(forward, stages=(stage,)), shape)
    return kept, {stage: np.concatenate(found) for stage, found in maxima.items()}


def check_activations(activations) -> None:
    """Raises ValueError unless `activations` are [N,h,w,U] with at least one of each."""
    shape = tuple(activations.shape)
    if len(shape) != 4 or 0 in shape:
        raise ValueError(
            f"activations have shape {shape}; they must be [N, h, w, U] with at least one image, "
            "one node and one unit"
        )


def read(activations, start: int, stop: int) -> np.ndarray:
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
    """Activations that say how far they have been read. Each walk from image 0 is a new one."""

    activations: Any
    title: str
    _report: list = dataclasses.field(default_factory=list)

    @property
    def shape(self):
        return self.activations.shape

    def __getitem__(self, images: slice):
        if not images.start or not self._report:
            self._report[:] = [say.progress(self.title, self.shape[0])]
        self._report[0](min(images.stop, self.shape[0]))
        return self.activations[images]
