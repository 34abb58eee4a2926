"""The occlusion anomaly: is a network better on images that parts have been removed from?

Subramanian et al. 2022, arXiv 2207.07769: where parts of an input are removed in the order of a
gradient of the loss, a network can do better on the whole test set than with complete inputs. The
paper's lists of scores, shares and values are not public; those of `Grid` are this package's.

    swept = sweep(net, dataset, range(200))
    found = outcome(swept)      # changes with intervals, and what of them the label gives away

One gradient an image ranks its units (integrated gradients and SmoothGrad take more). Every removal
is then evaluated with the ranking held, and those that coincide are evaluated once.
"""

import dataclasses
import functools
import itertools
import json
import math
from collections.abc import Mapping

import jax
import numpy as np

from mixaug_jax.core import checks, say
from mixaug_jax.core import devices as devices_lib
from mixaug_jax.core.files import checksum
from mixaug_jax.core.walk import pad_rows, read_ahead, spread
from mixaug_jax.explain.examples import num_classes, on_devices
from mixaug_jax.explain.job import NO_OPTIONS
from mixaug_jax.occlusion.grid import FULL, Grid, plan
from mixaug_jax.occlusion.outcomes import Sweep, compare, load, outcome, save
from mixaug_jax.occlusion.removal import evaluate, rank

__all__ = ["FULL", "Grid", "Sweep", "compare", "load", "outcome", "save", "sweep"]

_CELLS = 16  # removals of one call; between calls there is word of progress


def sweep(
    net,
    dataset,
    images,
    *,
    grid: Grid = Grid(),  # noqa: B008 (it is frozen)
    labels: tuple = ("true", "predicted"),
    seed: int = 0,
    batch_size: int = 50,
    threads: int = 4,
    extra: Mapping = NO_OPTIONS,
    devices=None,
) -> Sweep:
    """Removes parts of images in every way of a grid, and says what becomes of the loss.

    Runs on devices of this process; in a job of several processes, call it in one of them.

    Args:
      net: `models.Net`.
      dataset: examples with image and label, as `data.Source`; `net.preprocess` makes the network's
        input of an image.
      images: int [N], the examples' indices, 0..len(dataset) - 1. What is random is drawn from the
        index, so it depends neither on the other images nor on batches or devices.
      grid: what is removed, see `Grid`.
      labels: whose loss ranks the units: "true", "predicted", or a class's number for all images.
        The loss that is measured is always that of the true label.
      seed: of random removals, noise and SmoothGrad, 0..2**32 - 1.
      batch_size: at least 1, images in memory at once, over all devices.
      threads: that read images.
      extra: what else belongs to the settings, such as the names of the data set and its split.
      devices: default all of this process.

    Raises:
      ValueError: no images, one that the data set does not have, an unknown label, a label that the
        network has not, a window larger than the image, a seed, batch or number of threads outside
        its range.
    """
    images = _numbers(images, dataset)
    checks.count("batch_size", batch_size)
    checks.count("threads", threads)
    classes = num_classes(net, dataset)
    _check(net, dataset, grid, labels, seed, classes)
    devices = tuple(jax.local_devices() if devices is None else devices)
    settings = settings_of(net, dataset, images, grid, labels, seed, extra)
    truth = np.array([dataset[int(i)]["label"] for i in images], np.int64)
    for label in truth:
        checks.label(int(label), classes)
    net = on_devices(net, devices)

    def batches(chosen):
        return _batches(net.preprocess, dataset, images[chosen], batch_size, threads, devices)

    predicted, mean = _clean(net, batches(np.arange(len(images))), devices)
    ranked_by = np.stack([_ranked_by(label, truth, predicted) for label in labels])
    chosen, by, job = _jobs(ranked_by, truth)
    made = plan(grid, tuple(settings["shape"]))
    rank_batch, evaluate_cells = _programs(grid, devices)
    report, found = say.progress("occlusion", len(chosen), "rankings"), []
    for start, count, batch in batches(chosen):
        rows = chosen[start : start + count]
        columns = {"index": images[rows], "label": truth[rows], "by": by[start : start + count]}
        columns = {k: pad_rows(v.astype(np.int32), len(batch)) for k, v in columns.items()}
        given = devices_lib.shard_batch({"image": batch, **columns}, devices)
        ranking, parts = rank_batch(net, given, mean, np.uint32(seed)), []
        for cells in _chunks(made.cells):
            parts.append([np.asarray(a)[:count] for a in evaluate_cells(net, ranking, cells)])
            report(start + count * len(parts) * _CELLS // (len(made.cells) + _CELLS))
        found.append([np.concatenate(part, 1) for part in zip(*parts, strict=True)])
        report(start + count)
    removals = len(made.cells)
    found = [np.concatenate(part)[:, :removals] for part in zip(*found, strict=True)]
    names = tuple(map(str, labels))
    return Sweep(names, *found, job, made.index, images, truth, predicted, settings)


def _chunks(cells):
    """Rows of cells, `_CELLS` at a time; the last ones filled up with the first."""
    cells = np.concatenate([cells, np.repeat(cells[:1], -len(cells) % _CELLS, 0)])
    return np.split(cells, len(cells) // _CELLS)


def settings_of(net, dataset, images, grid, labels, seed, extra=NO_OPTIONS) -> dict:
    """All that decides a sweep, as JSON has it; `weights`, `images` and `data` are checksums, the
    last one of eight of the images. `extra` is added."""
    images = _numbers(images, dataset)
    probed = [dataset[int(i)] for i in images[spread(len(images), 8)]]
    seen = [(net.preprocess(example["image"]), np.int64(example["label"])) for example in probed]
    settings = {
        "model": net.name,
        "weights": checksum(net.variables),
        "data": checksum(seen),
        "images": checksum(images),
        "shape": seen[0][0].shape,
        "grid": dataclasses.asdict(grid),
        "labels": tuple(map(str, labels)),
        "seed": int(seed),
        **extra,
    }
    return json.loads(json.dumps(settings))


def _numbers(images, dataset):
    """The examples' indices, int64 [N]."""
    images = np.asarray(images)
    if not images.size:
        raise ValueError("there are no images: a sweep needs at least one")
    if images.ndim != 1 or images.dtype.kind not in "iu":
        raise ValueError(f"indices must be integers [N]; got {images.dtype} {list(images.shape)}")
    wrong = images[(images < 0) | (images >= len(dataset))]
    if wrong.size:
        raise ValueError(f"indices must lie in 0..{len(dataset) - 1}; got {wrong[0]}")
    return images.astype(np.int64)


def _check(net, dataset, grid, labels, seed, classes):
    checks.count("seed", seed, 0, 2**32 - 1)
    grid.units(net.preprocess(dataset[0]["image"]).shape)
    known = ("true", "predicted")
    if not isinstance(labels, (tuple, list)):
        raise ValueError(f"labels must be a tuple, such as ('true', 3); got {labels!r}")
    numbers = [int(label) for label in labels if label not in known and str(label).isdigit()]
    wrong = [label for label in labels if label not in known and not str(label).isdigit()]
    if not labels or wrong:
        raise ValueError(
            f"labels must be 'true', 'predicted' or numbers of classes; got {tuple(labels)}"
        )
    for label in numbers:
        checks.label(label, classes)


def _ranked_by(label, truth, predicted):
    """The class whose loss ranks each image's units, int [N]."""
    given = {"true": truth, "predicted": predicted}
    return given[label] if label in given else np.full_like(truth, int(label))


def _jobs(ranked_by, truth):
    """The different pairs of an image and a label to rank by, those with the true label first.

    Args:
      ranked_by: int [L, N].
      truth: int [N].

    Returns:
      image [J] and label [J] of each pair, and the pair [L, N] of each entry of `ranked_by`.
    """
    image = np.broadcast_to(np.arange(len(truth)), ranked_by.shape)
    pairs = np.stack([ranked_by != truth, image, ranked_by], -1).reshape(-1, 3)
    pairs, job = np.unique(pairs, axis=0, return_inverse=True)
    return pairs[:, 1], pairs[:, 2], job.reshape(ranked_by.shape).astype(np.int32)


def _batches(preprocess, dataset, images, batch_size, threads, devices):
    """Yields (start, count, float32 [rows, h, w, C]) of about equal counts; the rest is padding."""

    def read(index):
        return preprocess(dataset[int(index)]["image"])

    steps = math.ceil(len(images) / batch_size)
    rows = math.ceil(len(images) / steps / len(devices)) * len(devices)
    ready = read_ahead(read, images, threads)
    for start in range(0, len(images), rows):
        batch = np.stack(list(itertools.islice(ready, rows)))
        yield start, len(batch), pad_rows(batch, rows)


def _clean(net, batches, devices):
    """The predictions [N] for complete images, and the mean [C] of the finite ones."""
    program = _forward(devices)
    predicted, total, pixels = [], 0.0, 0
    for _, count, batch in batches:
        found = program(net, devices_lib.shard_batch(batch, devices))
        predicted.append(np.asarray(found)[:count])
        sums = batch[:count].mean((1, 2), dtype=np.float64)
        sums = sums[np.isfinite(sums).all(1)]
        total, pixels = total + sums.sum(0), pixels + len(sums)
    mean = total / max(1, pixels) + np.zeros(batch.shape[-1])
    return np.concatenate(predicted).astype(np.int64), mean.astype(np.float32)


@functools.cache
def _forward(devices):
    return devices_lib.pmap_inference(
        lambda net, x: net.logits(x).argmax(-1),
        (devices_lib.REPLICATED, devices_lib.SHARDED),
        devices_lib.SHARDED,
        devices=devices,
    )


@functools.cache
def _programs(grid, devices):
    """The mapped `rank` and `evaluate`. Kept, so that a second network of the same architecture
    compiles nothing."""
    whole, split = devices_lib.REPLICATED, devices_lib.SHARDED

    def rank_batch(net, batch, mean, seed):
        keys = jax.vmap(functools.partial(jax.random.fold_in, jax.random.key(seed)))(batch["index"])
        given = (batch["image"], batch["label"], batch["by"])
        return rank(net, *given, keys, mean, grid=grid)

    return (
        devices_lib.pmap_inference(
            rank_batch, (whole, split, whole, whole), split, devices=devices
        ),
        devices_lib.pmap_inference(
            functools.partial(evaluate, grid=grid),
            (whole, split, whole),
            split,
            devices=devices,
        ),
    )
