"""One row of the table on many images: its maps, and everything that is measured of them."""

import dataclasses
import json
import os
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from mixaug_jax.attribution import METHODS
from mixaug_jax.core import entries, walk
from mixaug_jax.core.files import checksum, load_npz, save_npz
from mixaug_jax.core.types import Net
from mixaug_jax.explain import programs, running
from mixaug_jax.explain.examples import Examples, on_devices
from mixaug_jax.explain.job import Job, Options, settings_of
from mixaug_jax.papers.bottleneck_table import protocol
from mixaug_jax.papers.bottleneck_table.published_rows import Row
from mixaug_jax.papers.bottleneck_table.signal_patterns import (
    pattern_attribution,
    patterns,
    sums_of,
)
from mixaug_jax.scores import SCORES
from mixaug_jax.scores.score import Score

DEGRADED = Score(protocol.degraded, value=lambda measured, options: measured)


@dataclasses.dataclass(frozen=True)
class Shared:
    """What all rows are measured on.

    Attributes:
      net: the network.
      examples: the images.
      masks: float32 [N,h,w] in 0..1, where the objects are; empty (0, ...) where nobody knows.
      reference: training images, for the statistics of bottlenecks and patterns.
      given: {method: options that are filled in}, the trained readout.
      options: of the explanations.
      at_once: evaluations of the network in memory at once.
      curves: {side of tiles: numbers of tiles that are gone at each point, all of them at the last}.
      subsets: {side of units: bool [sizes,samples,rows,cols]}.
      sens: places among the examples that sensitivity-n looks at.
      few: these images.
    """

    net: Net
    examples: Examples
    masks: np.ndarray
    reference: Any
    given: Mapping[str, Mapping]
    options: Options
    at_once: int
    curves: Mapping[int, tuple[int, ...]]
    subsets: Mapping[int, np.ndarray]
    sens: np.ndarray
    few: Examples


@dataclasses.dataclass(frozen=True)
class Result:
    """A row, measured.

    Attributes:
      arrays: {"curves.<side>": [N,2,T,2] of `protocol.degraded`, "sums.<side>": [sizes,n,samples], "box", "box_ours",
        "mass" [N], NaN where an image does not count, of "mass" where its map has a negative value; "seconds": of its maps, an
        image}.
      settings: what made it, as JSON has it.
    """

    arrays: dict[str, np.ndarray]
    settings: dict


def job_of(row: Row, shared: Shared, place: int, *, removed: bool = False) -> tuple[str, Job]:
    """The name and the job of a row's part.

    removed: with the options for subsets that are set to 0.
    """
    part = row.parts[place]
    method = METHODS[part.method] if isinstance(part.method, str) else part.method
    name = entries.name_of(part.method)
    given = {**part.options, **(row.removed if removed else {}), **shared.given.get(name, {})}
    options = dataclasses.replace(shared.options, entries={name: given})
    return name, Job({name: method}, {}, options, shared.at_once)


def settings(row: Row, shared: Shared) -> dict:
    """All that decides a row's result, as JSON has it."""
    parts = []
    for place, part in enumerate(row.parts):
        name, job = job_of(row, shared, place)
        of_part = settings_of(shared.net, shared.examples, name, job, shared.reference)
        parts.append({**of_part, "predicted": part.predicted})
    found = {
        "row": row.name,
        "parts": parts,
        "weights": checksum(shared.net.variables),
        # The maps are stored after it, so another reduction is another result.
        "post": getattr(row.post, "__qualname__", ""),
        "curves": {str(side): list(gone) for side, gone in shared.curves.items()},
        "subsets": {str(side): checksum(masks) for side, masks in shared.subsets.items()},
        "sens": shared.sens.tolist() if shared.subsets else [],
        "boxes": checksum(shared.masks),
    }
    return json.loads(json.dumps(found))


def check(row: Row, shared: Shared, dataset: Any) -> None:
    """Traces a row's methods; raises ValueError, `checks.UnsupportedError` for what this network cannot do."""
    for place, part in enumerate(row.parts):
        name, job = job_of(row, shared, place)
        if part.method is pattern_attribution:
            # As many as one, also where this process has none.
            shape = (1, *shared.examples.images.shape[1:])
            jax.eval_shape(sums_of, shared.net, jax.ShapeDtypeStruct(shape, np.float32))
            continue
        running.check_method(shared.net, dataset, name, job, shared.reference)


def maps(row: Row, shared: Shared, examples: Examples, *, removed: bool = False) -> np.ndarray:
    """A row's maps [N,h,w] of images; with `removed`, by the options for subsets that are set to 0."""
    raws, devices = [], walk.chosen(None)
    for place, part in enumerate(row.parts):
        name, job = job_of(row, shared, place, removed=removed)
        given = job.of_method(name)
        if part.method is pattern_attribution:
            count = -(-len(shared.reference) // shared.at_once)
            given["stats"] = patterns(shared.net, np.array_split(shared.reference, count))
        else:
            given |= running.of_reference(shared.net, name, job, shared.reference, True)
        labels = examples.predicted if part.predicted else examples.labels
        rows = {"label": labels, "index": examples.indices}
        task = programs.method_task(job.methods[name], given, job.at_once, devices)
        raws.append(_computed(task, shared, examples, rows, row.name))
    return np.asarray(row.post(*raws), np.float32)


def _computed(task, shared, examples, rows, title):
    """A task's results for all images, each with its rows; of several processes each computes its share."""
    net, total = on_devices(shared.net, task.devices), len(examples)
    own = walk.share(total, task.devices)
    mine = {name: values[own.start : own.stop] for name, values in rows.items()}
    found = task.run(net, {"image": examples.images, **mine}, title, total)
    return walk.gather(found, total, task.devices)


def measure(row: Row, shared: Shared) -> Result:
    """All of a row."""
    began = time.monotonic()
    heat = maps(row, shared, shared.examples)
    # Of the maps alone: what is measured of them costs the same for every row.
    arrays = {"seconds": np.array((time.monotonic() - began) / len(heat))}
    for side, gone in shared.curves.items():
        arrays[f"curves.{side}"] = curves(heat, shared, side, gone, row.name)
    if len(shared.masks):
        counted = protocol.kept(shared.masks)
        arrays["box"] = np.where(counted, protocol.top_ratio(heat, shared.masks), np.nan)
        # Shares of a sum in which values cancel are of nothing.
        positive = counted & (heat >= 0).all((1, 2))
        arrays["mass"] = np.where(positive, protocol.mass_ratio(heat, shared.masks), np.nan)
        ours = jax.lax.map(lambda pair: SCORES["box_ratio"](*pair), (heat, shared.examples.masks))
        arrays["box_ours"] = np.where(counted, np.asarray(ours), np.nan)
    # Few images, and for rows by removal a map of their own, as subsets are removed in another way.
    if shared.subsets:
        of_removed = (
            maps(row, shared, shared.few, removed=True) if row.removed else heat[shared.sens]
        )
        for side, masks in shared.subsets.items():
            sums = protocol.subset_sums(of_removed, masks, side)
            arrays[f"sums.{side}"] = sums.astype(np.float32)
    return Result(arrays, settings(row, shared))


def curves(
    heat: np.ndarray, shared: Shared, side: int, gone: tuple[int, ...], title: str
) -> np.ndarray:
    """`protocol.degraded` of every image, [N,2,T,2]."""
    examples = shared.examples
    rows = {"label": examples.labels, "predicted": examples.predicted.astype(np.int32)}
    rows["ranking"] = protocol.rankings(heat, side)
    options = {"window": side, "gone": gone}
    task = programs.net_task(DEGRADED, options, shared.at_once, walk.chosen(None))
    return _computed(task, shared, examples, rows, f"{title}, tiles of {side}")


def drops(shared: Shared, side: int) -> np.ndarray:
    """The drop of the label's logit for each subset, float32 [sizes,n,samples]: the same for all rows."""
    examples = shared.few
    blank = np.zeros((len(examples), *shared.examples.images.shape[1:]), np.float32)
    rows = {"label": examples.labels, "attribution": blank}
    options = {"masks": shared.subsets[side], "window": side, "baseline": "zero"}
    task = programs.net_task(SCORES["sensitivity_n"], options, shared.at_once, walk.chosen(None))
    _, found = _computed(task, shared, examples, rows, f"drops of {side} x {side} units")
    return np.asarray(found).transpose(1, 0, 2)


def save(result: Result, path: os.PathLike | str) -> None:
    """Writes a .npz that `load` reads."""
    save_npz(path, result.arrays, result.settings)


def load(path: os.PathLike | str) -> Result:
    """What `save` wrote; ValueError for another file."""
    return load_npz(path, Result, "a row of the bottleneck's table")
