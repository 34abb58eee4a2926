"""The occlusion anomaly: is a network better on images that parts have been removed from?

Subramanian et al. 2022, arXiv 2207.07769: where parts of an input are removed in the order of a
gradient of the loss, a network can do better on the whole test set than with complete inputs. The
paper's lists of scores, shares and values are not public; those of `Grid` are this package's.

    swept = sweep(net, dataset, range(200), Options(labels=("true",)))
    found = outcome(swept)      # changes with intervals, and what of them the label gives away

One gradient an image ranks its units (integrated gradients and SmoothGrad take more). Every removal
is then evaluated with the ranking held, and those that coincide are evaluated once.
"""

import dataclasses
import functools
import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from mixaug_jax.core import checks, say, walk
from mixaug_jax.core import devices as devices_lib
from mixaug_jax.core.files import checksum
from mixaug_jax.core.types import Count, Dataset, Devices, Int, Net
from mixaug_jax.explain.examples import num_classes, on_devices, predictor
from mixaug_jax.explain.job import NO_OPTIONS
from mixaug_jax.occlusion.grid import FULL, Grid, plan
from mixaug_jax.occlusion.outcomes import Sweep, compare, load, outcome, save
from mixaug_jax.occlusion.removal import Batch, evaluate, rank

__all__ = ["FULL", "Grid", "Options", "Sweep", "compare", "load", "outcome", "save", "sweep"]

_CELLS = 16  # removals of one call; between calls there is word of progress
_KNOWN = ("true", "predicted")


@dataclasses.dataclass(frozen=True)
class Options:
    """What is removed from images, and how they are walked over; only the first four decide the results.

    Attributes:
      grid: what is removed, see `Grid`.
      labels: whose loss ranks the units: "true", "predicted", or a class's number for all images.
        The loss that is measured is always that of the true label.
      seed: of random removals, noise and SmoothGrad, 0..2**32 - 1.
      precision: of float32 matrix products, "default", "high" or "highest".
      batch_size: at least 1, images in memory at once, over all devices of all processes.
      threads: that read images.
    """

    grid: Grid = dataclasses.field(default_factory=Grid)
    labels: Sequence[str | Count] = ("true", "predicted")
    seed: Count = 0
    precision: str = "highest"
    batch_size: Count = 50
    threads: Count = 4

    def __post_init__(self):
        checks.count("seed", self.seed, 0, 2**32 - 1)
        checks.choice("precision", self.precision, devices_lib.PRECISIONS)
        for name in ("batch_size", "threads"):
            checks.count(name, getattr(self, name))
        if not isinstance(self.labels, (tuple, list)):
            raise ValueError(f"labels must be a tuple, such as ('true', 3); got {self.labels!r}")
        wrong = [k for k in self.labels if k not in _KNOWN and not str(k).isdigit()]
        if not self.labels or wrong:
            raise ValueError(
                f"labels must be 'true', 'predicted' or numbers of classes; got {tuple(self.labels)}"
            )


def sweep(
    net: Net,
    dataset: Dataset,
    indices: Int[np.ndarray, " N"] | Sequence[int],
    options: Options = Options(),
    *,
    extra: Mapping = NO_OPTIONS,
    devices: Devices = None,
) -> Sweep:
    """Removes parts of images in every way of a grid, and says what becomes of the loss.

    In a job of several processes all of them call it alike; each reads and changes its share of the
    images, and all get the same sweep.

    Args:
      net: `models.Net`.
      dataset: examples with image and label, as `data.Source`; `net.preprocess` makes the network's
        input of an image.
      indices: int [N], of the examples, 0..len(dataset) - 1. What is random is drawn from the
        index, so it depends neither on the other images nor on batches or devices.
      options: what is removed, and whose loss ranks it.
      extra: what else belongs to the settings, such as the names of the data set and its split.
      devices: default all of all processes.

    Raises:
      ValueError: no images, one that the data set does not have, a label that the network has not,
        a window larger than the image.
    """
    # What cannot work is said before anything is compiled.
    indices = _checked(indices, dataset)
    _check(net, dataset, options)
    devices = walk.chosen(devices)
    settings = settings_of(net, dataset, indices, options, extra)
    net, classes, own = on_devices(net, devices), num_classes(net, dataset), walk.own(devices)
    every = np.arange(len(indices))

    def batches(chosen: np.ndarray) -> Iterator[tuple]:
        return _batches(net.preprocess, dataset, indices[chosen], options, devices)

    with devices_lib.precision(options.precision):
        # Complete images first: their predictions rank units, their mean takes the place of what is removed.
        truth, predicted, mean = _clean(net, batches(every), len(every), classes, devices)
        ranked_by = np.stack([_ranked_by(label, truth, predicted) for label in options.labels])
        chosen, by, job = _jobs(ranked_by, truth)
        share = walk.share(len(chosen), devices)
        columns = {"index": indices[chosen], "label": truth[chosen], "by": by}
        columns = {k: v[share.start : share.stop].astype(np.int32) for k, v in columns.items()}
        made = plan(options.grid, tuple(settings["shape"]))
        rank_batch, evaluate_cells = _programs(options.grid, own)

        # What is drawn at random is drawn from an image's index, wherever its batch lies.
        def ranked(batch: np.ndarray, rows: slice) -> Any:
            given = {k: walk.pad_rows(v[rows], len(batch)) for k, v in columns.items()}
            given = devices_lib.shard_batch({"image": batch, **given}, own)
            return rank_batch(net, given, mean, np.uint32(options.seed))

        evaluated = functools.partial(evaluate_cells, net)
        report = say.progress("occlusion", len(share), "rankings")
        found = _removed(batches(chosen), ranked, evaluated, made.cells, report)
    found = walk.gather(found, len(chosen), devices)
    names = tuple(map(str, options.labels))
    return Sweep(names, *found, job, made.index, indices, truth, predicted, settings)


def _removed(
    batches: Iterable, ranked: Callable, evaluated: Callable, cells: np.ndarray, report: Callable
) -> list[np.ndarray]:
    """Loss, correct and first_order [j,D] of all cells, for the rankings of this process's share, batch after batch."""
    found = []
    for rows, batch, _ in batches:
        # A batch is ranked once; then its cells go, `_CELLS` in one call.
        ranking, parts, count = ranked(batch, rows), [], rows.stop - rows.start
        for chunk in _chunks(cells):
            parts.append([np.asarray(a)[:count] for a in evaluated(ranking, chunk)])
            report(rows.start + count * len(parts) * _CELLS // (len(cells) + _CELLS))
        found.append([np.concatenate(part, 1) for part in zip(*parts, strict=True)])
        report(rows.stop)
    return [np.concatenate(part)[:, : len(cells)] for part in zip(*found, strict=True)]


def _chunks(cells):
    """Rows of cells, `_CELLS` at a time; the last ones filled up with the first."""
    # Filled up, so that every call has the shape of the first.
    cells = np.concatenate([cells, np.repeat(cells[:1], -len(cells) % _CELLS, 0)])
    return np.split(cells, len(cells) // _CELLS)


def settings_of(
    net: Net,
    dataset: Dataset,
    indices: Int[np.ndarray, " N"] | Sequence[int],
    options: Options,
    extra: Mapping = NO_OPTIONS,
) -> dict:
    """All that decides a sweep, as JSON has it; `weights`, `images` and `data` are checksums, the
    last one of eight of the images. `extra` is added."""
    indices = _checked(indices, dataset)
    # Eight images tell another data set, or another view of it, without reading all of them.
    probed = [dataset[int(i)] for i in indices[walk.spread(len(indices), 8)]]
    seen = [(net.preprocess(example["image"]), np.int64(example["label"])) for example in probed]
    settings = {
        "model": net.name,
        "weights": checksum(net.variables),
        "data": checksum(seen),
        "images": checksum(indices),
        "shape": seen[0][0].shape,
        "grid": dataclasses.asdict(options.grid),
        "labels": tuple(map(str, options.labels)),
        "seed": int(options.seed),
        "precision": options.precision,
        **extra,
    }
    return json.loads(json.dumps(settings))


def _checked(indices, dataset) -> np.ndarray:
    """The examples' indices, int64 [N]."""
    indices = np.asarray(indices)
    if not indices.size:
        raise ValueError("there are no images: a sweep needs at least one")
    if indices.ndim != 1 or indices.dtype.kind not in "iu":
        raise ValueError(f"indices must be integers [N]; got {indices.dtype} {list(indices.shape)}")
    wrong = indices[(indices < 0) | (indices >= len(dataset))]
    if wrong.size:
        raise ValueError(f"indices must lie in 0..{len(dataset) - 1}; got {wrong[0]}")
    return indices.astype(np.int64)


def _check(net, dataset, options):
    """Raises ValueError for a window or a label that the network does not have."""
    options.grid.units(net.preprocess(dataset[0]["image"]).shape)
    classes = num_classes(net, dataset)
    for label in options.labels:
        if label not in _KNOWN:
            checks.label(int(label), classes)


def _ranked_by(label, truth, predicted):
    """The class whose loss ranks each image's units, int [N]."""
    given = {"true": truth, "predicted": predicted}
    return given[label] if label in given else np.full_like(truth, int(label))


def _jobs(ranked_by, truth):
    """The different pairs of an image and a label to rank by, those with the true label first.

    Args:
      ranked_by: int [L,N].
      truth: int [N].

    Returns:
      image [J] and label [J] of each pair, and the pair [L,N] of each entry of `ranked_by`.
    """
    image = np.broadcast_to(np.arange(len(truth)), ranked_by.shape)
    # The true label first: the batches in which one gradient is enough stand together.
    pairs = np.stack([ranked_by != truth, image, ranked_by], -1).reshape(-1, 3)
    pairs, job = np.unique(pairs, axis=0, return_inverse=True)
    return pairs[:, 1], pairs[:, 2], job.reshape(ranked_by.shape).astype(np.int32)


def _batches(preprocess, dataset, indices, options, devices) -> Iterator[tuple]:
    """Yields (which of this process's share, float32 [rows,h,w,C], their labels), about equally many; the rest is padding."""

    def read(index: Count) -> tuple[np.ndarray, int]:
        example = dataset[int(index)]
        return np.asarray(preprocess(example["image"])), int(example["label"])

    # Equal batches, rather than full ones and a rest, waste the least on padding.
    steps = math.ceil(len(indices) / options.batch_size)
    each = math.ceil(len(indices) / steps / len(devices))
    share = walk.share(len(indices), devices)
    ready = walk.read_ahead(read, indices[share.start : share.stop], options.threads)
    for start, stop, rows in walk.spans(len(indices), each, devices):
        batch = list(itertools.islice(ready, stop - start))
        # Of the first image the shape alone, where a process has none.
        images = [image for image, _ in batch] or [read(indices[0])[0]]
        images = walk.pad_rows(np.stack(images)[: len(batch)], rows)
        yield slice(start, stop), images, [label for _, label in batch]


def _clean(net, batches, total, classes, devices):
    """Labels and predictions [N] for complete images, and the mean [C] of the finite ones; `total` is N."""
    own, found = walk.own(devices), []
    for rows, batch, labels in batches:
        for label in labels:
            checks.label(label, classes)
        count = rows.stop - rows.start
        predicted = np.asarray(predictor(own)(net, devices_lib.shard_batch(batch, own)))[:count]
        colors = batch[:count].mean((1, 2), dtype=np.float64)
        found.append((np.array(labels, np.int64), predicted.astype(np.int64), colors))
    found = tuple(map(np.concatenate, zip(*found, strict=True)))
    labels, predicted, colors = walk.gather(found, total, devices)
    # One broken image would make the mean, and with it every removal, NaN.
    colors = colors[np.isfinite(colors).all(1)]
    mean = colors.sum(0) / max(1, len(colors))
    return labels, predicted, mean.astype(np.float32)


@functools.cache
def _programs(grid, devices):
    """The mapped `rank` and `evaluate`. Kept, so that a second network of the same architecture
    compiles nothing."""
    whole, split = devices_lib.REPLICATED, devices_lib.SHARDED

    def rank_batch(net: Net, batch: dict, mean: jax.Array, seed: jax.Array) -> Any:
        # By the image's number, so that batches and devices do not matter.
        keys = jax.vmap(functools.partial(jax.random.fold_in, jax.random.key(seed)))(batch["index"])
        given = Batch(batch["image"], batch["label"], batch["by"], keys)
        return rank(net, given, mean, grid=grid)

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
