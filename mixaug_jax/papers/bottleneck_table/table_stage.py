"""The stage `bottleneck_table` of a run: the comparison of Schulz et al. 2020 (arXiv 2001.00396) on a run's own network."""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mixaug_jax import config as config_lib
from mixaug_jax.attribution import METHODS
from mixaug_jax.attribution.target import map_layers
from mixaug_jax.config import keys
from mixaug_jax.core import checks, files, processes, say, stored, walk
from mixaug_jax.core import devices as devices_lib
from mixaug_jax.core.entries import name_of
from mixaug_jax.core.types import Config, Dataset, Net, Path
from mixaug_jax.data.source import numbered_as
from mixaug_jax.explain import readouts
from mixaug_jax.explain.examples import Examples, load_examples, num_classes
from mixaug_jax.explain.job import make_job
from mixaug_jax.models.net import Preprocess
from mixaug_jax.papers.bottleneck_table import (
    protocol,
    published_rows,
    row_results,
    table_keys,
    table_section,
)
from mixaug_jax.papers.bottleneck_table.published_rows import Row
from mixaug_jax.papers.bottleneck_table.row_results import Result, Shared
from mixaug_jax.scores.tiles import grid
from mixaug_jax.stages import explain
from mixaug_jax.stages.base import Stage
from mixaug_jax.stages.checkpoints import each_checkpoint
from mixaug_jax.training import checkpoint

FOLDER = "bottleneck_table"
_ADVICE = "memory ran out; lower explain.memory_gb or explain.max_images"
# Of VGG with single layers, as in the paper's code: what is read out before the last convolution and the logits, and the layer
# of the per-sample bottleneck.
_VGG_READ = ("conv3_1", "conv4_1", "conv5_1")
_VGG_LAYER = "conv4_1"


def run(config: Config, workdir: Path, *, which: str = "latest", required: bool = True) -> None:
    """Compares explanations by degradation, boxes and sensitivity-n, and writes the table, its figures and its section.

    Writes `bottleneck_table/` (`bottleneck_table/<step>/` for which="all"): a .npz for each row, table.csv, and the figures
    `degradation_curves` and `sensitivity_n`. A row that is there for the same settings, images and weights is not computed
    again, so a run that was stopped goes on; the readout bottleneck is that of the explanations, `readout/<step>.npz`.

    Args:
      config: of the run, with the section `table`; which images and classes are asked is said by `explain`.
      workdir: a run's working directory, with checkpoints.
      which: "latest", "best", "all" or a step's number.
      required: whether it is an error where the network's classes are not the data's; if not, the predicted class is asked.

    Raises:
      ValueError: settings or data that cannot work, no such checkpoint.
      MemoryError, OSError: memory or disk ran out.
    """
    check(config)
    workdir = pathlib.Path(workdir).absolute()
    checkpoint.check_settings(workdir, config)
    checkpoint.steps(workdir, which)
    dataset = explain.open_dataset(config)

    def work(net: Net, folder: pathlib.Path, step: int) -> None:
        readout = workdir / explain.READOUTS / f"{step}.npz"
        _step(config, net, dataset, folder, workdir, readout)

    with devices_lib.applied(config):
        each_checkpoint(workdir, which, FOLDER, _ADVICE, work)


def check(config: Config) -> None:
    """Raises ValueError for settings or data that cannot work."""
    config_lib.check(config)
    asked = table_keys.of_config(config)
    keys.check_values(config_lib.flatten({table_keys.SECTION: asked.to_dict()}), table_keys.KEYS)
    for side in (*asked.tiles, *asked.sens_tiles):
        if not config.weights and side > config.data.size:
            raise ValueError(
                f"table.tiles and table.sens_tiles must be at most data.size={config.data.size} pixels; got {side}"
            )
    known = published_rows.published(asked.tiles, asked.betas)
    published_rows.chosen(asked.rows, asked.maps, known)  # says an unknown row
    dataset = explain.open_dataset(config)
    if asked.layer and not config.weights:  # else the network is known when the file has been read
        _check_layer(asked, single_layers(explain.untrained(config, dataset)), dataset)


def _check_layer(asked, net, dataset):
    """Says a wrong layer of the per-sample bottleneck before anything is trained for the table."""
    if asked.layer:
        image = np.asarray(net.preprocess(dataset[0]["image"]))
        checks.choice("table.layer", asked.layer, map_layers(net, image))


def single_layers(net: Net) -> Net:
    """A VGG with its single layers named, any other network as it is."""
    if getattr(net.model, "single_layers", None) is False:
        return dataclasses.replace(net, model=net.model.clone(single_layers=True))
    return net


def _step(config, net, dataset, folder, workdir, readout):
    net = single_layers(net)
    asked = table_keys.of_config(config)
    _check_layer(asked, net, dataset)
    shared, job, notes = _shared(config, asked, net, dataset)
    rows = _rows(config, asked, shared, dataset)
    shared = dataclasses.replace(shared, given=_given(config, rows, net, job, readout))
    say.line(_forecast(rows, shared))
    # What subsets cost depends on no map: once for all rows.
    drops = {side: _drops(shared, side, folder) for side in shared.subsets}
    results: dict[str, Result] = {}
    for name, row in rows.items():
        path, wanted = folder / f"{name}.npz", row_results.settings(row, shared)
        make = functools.partial(row_results.measure, row, shared)
        results[name], _ = stored.keep(
            path, wanted, load=row_results.load, make=make, save=row_results.save
        )
    if processes.is_main():
        measured = table_section.Measured(rows, results, drops, shared)
        table_section.write(config, workdir, folder, measured, notes)


def _rows(config, asked, shared, dataset) -> dict[str, Row]:
    """Those that are asked for and that this network can have; a line about each other one."""
    layer = asked.layer or (_VGG_LAYER if _VGG_LAYER in shared.net.layers else "")
    known = published_rows.published(asked.tiles, asked.betas, layer)
    rows = published_rows.chosen(asked.rows, asked.maps, known)
    found = {}
    for name, row in rows.items():
        try:
            row_results.check(row, shared, dataset)
            found[name] = row
        except checks.UnsupportedError as error:
            say.line(f"bottleneck_table: {name} is left out, because {error}")
    return found


def _shared(config, asked, net, dataset):
    """What all rows are measured on, without a readout; the job of those that want one; sentences about what was left out."""
    dataset = numbered_as(dataset, num_classes(net, dataset))
    label, find, _, found = explain.possible(config, net, dataset)
    notes = [f"{wrong}{done}" for wrong, done in found if not wrong.startswith("scores")]
    options = dataclasses.replace(explain.options_of(config), label=label, entries={})
    # Of METHODS those alone that want a trained readout: rows bring the others, with options of their own.
    wanting = [method for method in METHODS.values() if readouts.asked(method)]
    job = make_job(net, dataset, wanting, (), options)
    job = dataclasses.replace(job, methods={n: job.methods[n] for n in map(name_of, wanting)})
    examples = load_examples(net, dataset, find, job.reading)
    # Each row's subsets take a network's evaluation for every one of them, so fewer images must do.
    sens = walk.spread(len(examples), asked.sens_images)
    every = dataclasses.replace(job.reading, max_images=0)
    few = load_examples(net, _part(dataset, examples.indices[sens]), find, every)
    masks = _masks(net, dataset, find, examples)
    if not len(masks):
        notes.append("no boxes and no masks in this data: their column is left out")
    for note in notes:
        say.line(f"bottleneck_table: {note}")
    size = examples.images.shape[1:3]
    shared = Shared(
        net=net,
        examples=examples,
        masks=masks,
        reference=explain.reference_images(config, net, job),
        given={},
        options=options,
        at_once=job.at_once,
        curves={side: _points(size, side, asked.snapshots) for side in asked.tiles},
        subsets={
            side: _subsets(size, side, asked, config.explain.seed) for side in asked.sens_tiles
        },
        sens=sens,
        few=few,
    )
    return shared, job, notes


def _part(dataset, indices):
    """The data set of some of its examples alone."""
    return dataclasses.replace(dataset, read=lambda i: dataset[int(indices[i])], size=len(indices))


def _given(config, rows, net, job, readout):
    """The trained readout, for the methods that want one, where a row that this network can have is made by one of them."""
    if not job.methods.keys() & {
        name_of(part.method) for row in rows.values() for part in row.parts
    }:
        return {}
    if _VGG_READ[0] in net.layers and not config.readout.layers:
        config = config.copy_and_resolve_references()
        config.readout.layers = vgg_read(net.layers)
    own = explain.with_readout(config, net, job, readout)
    return {name: dict(given) for name, given in own.options.entries.items()}


def vgg_read(layers: Sequence[str]) -> tuple[str, ...]:
    """What the readout reads of a VGG whose single layers are named: of VGG-16 conv3_1, conv4_1, conv5_1, conv5_3 and the
    logits, as published; of another depth the last convolution of block 5 in the place of conv5_3."""
    return (*_VGG_READ, [name for name in layers if name.startswith("conv5_")][-1], layers[-1])


def _masks(net: Net, dataset: Dataset, find: Any, examples: Examples) -> np.ndarray:
    """Where the objects are, float32 [N,h,w] in 0..1, resized as the images are; none where the data tells no place."""
    if not find.kind:
        return np.zeros((0, *examples.images.shape[1:3]), np.float32)
    if not isinstance(net.preprocess, Preprocess):
        return examples.masks.astype(np.float32)
    found = []
    for index, label in zip(examples.indices, examples.labels, strict=True):
        mask, _ = find(dataset[int(index)], int(label))
        found.append(protocol.seen_mask(mask, net.preprocess))
    return np.stack(found)


def _points(size, side, snapshots):
    units = int(np.prod(grid(size, side)))
    return (*protocol.counts(units, snapshots), units)


def _subsets(size, side, asked, seed):
    units = grid(size, side)
    numbers = protocol.sizes(int(np.prod(units)), asked.sens_sizes)
    return protocol.subsets(units, numbers, asked.sens_masks, seed)


def _drops(shared, side, folder):
    """The drops of sensitivity-n, kept in a file: one computation for all rows."""
    path = folder / f"drops_{side}.npz"
    settings = {
        "weights": files.checksum(shared.net.variables),
        "examples": int(shared.examples.checksum),
        "subsets": files.checksum(shared.subsets[side]),
        "sens": shared.sens.tolist(),
        "precision": shared.options.precision,
    }

    def load(path: Path) -> Any:
        return files.load_npz(path, lambda arrays, settings: Result(arrays, settings), "drops")

    def make() -> Result:
        return Result({"drops": row_results.drops(shared, side)}, settings)

    found, _ = stored.keep(path, settings, load=load, make=make, save=row_results.save)
    # Where the first process alone sees the file, it alone needs it.
    return found and found.arrays["drops"]


def passes(rows: Mapping[str, Row], images: int, shared: Shared) -> tuple[int, int]:
    """Forward passes of the curves of all rows, and of the drops, which are the same for all rows.

    Args:
      rows: of the table.
      images: how many are degraded.
      shared: what they are measured on.
    """
    curves = len(rows) * images * sum(2 * len(gone) for gone in shared.curves.values())
    masks = sum(subset.shape[0] * subset.shape[1] for subset in shared.subsets.values())
    return curves, len(shared.sens) * masks


def _forecast(rows, shared):
    curves, drops = passes(rows, len(shared.examples), shared)
    return (
        f"bottleneck_table: {len(rows)} rows on {len(shared.examples)} images; {curves} forward passes for the curves, {drops} "
        "for sensitivity-n, and the explanations themselves"
    )


STAGE = Stage(run, check, "compares bottlenecks with other explanations (configs/attribution_table.py)",
              keys=(f"{table_keys.SECTION}.", "explain.", "readout."))  # fmt: skip
