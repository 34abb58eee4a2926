"""The stage `dissect` of a run: from its checkpoints to `dissection/` in the working directory."""

import dataclasses
import os
import pathlib
import shutil
import tempfile
import zlib
from collections.abc import Mapping

import jax

from mixaug_jax import config as config_lib
from mixaug_jax import data
from mixaug_jax.core import checks, files, processes, say
from mixaug_jax.core import devices as devices_lib
from mixaug_jax.core.files import load_if
from mixaug_jax.core.types import Config, Dataset, Net, Path, Preprocess
from mixaug_jax.dissection import activations, broden, colors, concepts, network, segmenter
from mixaug_jax.dissection.result import Dissection, Options, Resources, load, save
from mixaug_jax.draw import dissection_figures, dissection_tables, style, unit_pictures
from mixaug_jax.stages.base import Stage
from mixaug_jax.stages.checkpoints import each_checkpoint
from mixaug_jax.training import checkpoint

_MEMORY_ADVICE = (
    "memory ran out; lower eval.batch_size, dissect.size or dissect.max_images, or name fewer "
    "dissect.layers"
)


def run(config: Config, workdir: Path, *, which: str = "latest", required: bool = True) -> None:
    """Dissects checkpoints of a run and writes tables and figures.

    Writes `dissection/` (`dissection/<step>/` for each step of which="all"): `<layer>.npz`,
    units.csv, concepts.csv, counts.csv, formulas.csv where `dissect.formulas` asks for it,
    `pictures/<layer>.npz` for the page's unit browser, and the
    figures `unique_<layer>` and `units_<layer>` as PNG and SVG. A layer whose .npz is there with the
    same settings and weights is not computed again.
    Counts of blocks of units wait in `dissection/parts/` until all is done: a run that was stopped goes on after the last one.
    In a job of several processes each runs the network over its share of the images, and keeps their
    activations in its system's folder for temporary files; the first one writes.

    Args:
      config: from `get_config`; its settings are those of the run, but for `dissect`.
      workdir: a run's working directory, with checkpoints.
      which: "latest", "best", "all" or a step's number.
      required: whether missing label maps are an error; if not, the part that can be done is done,
        with a line about the rest.

    Raises:
      ValueError: settings or data that cannot work, no such checkpoint or layer, no masks.
      MemoryError, OSError: memory or disk ran out.
    """
    config_lib.check(config)
    workdir = pathlib.Path(workdir).absolute()
    checkpoint.check_settings(workdir, config)
    checkpoint.steps(workdir, which)  # what is not there is said before the data is opened
    # Of the run, not data.size: imported weights may see images of another size.
    side = config_lib.read(workdir).resolved.preprocess["size"]
    dataset, note = _open_dataset(config, required, side)
    if note:
        say.line(f"dissect: {note}")
    if dataset is None:
        return

    def work(net: Net, folder: pathlib.Path, step: int) -> None:
        if config.dissect.broden:  # whose images are square already, and are seen whole
            net = dataclasses.replace(net, preprocess=dataclasses.replace(net.preprocess, resize=0))
        _dissect_step(config, net, dataset, folder, step, required)

    with devices_lib.applied(config):
        each_checkpoint(workdir, which, "dissection", _MEMORY_ADVICE, work)


def _dissect_step(config, net, dataset, folder, step, required):
    """One checkpoint: what is there already is read, the rest computed, tables and figures written."""
    # A wrong name, or a layer without maps, is said before any work.
    checks.choices("dissect.layers", config.dissect.layers, net.layers)
    layers = tuple(config.dissect.layers) or activations.last_maps(net, dataset)
    activations.shapes(net, dataset, layers)
    if not layers:
        sentence = (
            "no layer of the network has maps of more than one node; name others in dissect.layers"
        )
        if required:
            raise ValueError(f"dissect: {sentence}")
        say.line(f"dissect: left out, because {sentence}")
        return
    options = options_of(config)
    try:
        labels = _label_maps(config, net, dataset, options)
    except concepts.NoMasksError as error:
        if required:
            raise
        say.line(f"dissect: left out, because {error}")
        return
    say.line(
        f"dissecting step {step}: {', '.join(layers)}; {len(labels.indices)} images, "
        f"{labels.vocabulary.size} concepts ({', '.join(labels.vocabulary.categories)})"
    )
    # A layer is computed where its file is not there, or was made by other settings or weights.
    settings = network.settings_of(net, labels, options, layers)
    results, main = {}, processes.is_main()
    for layer in layers:
        path = folder / f"{layer}.npz"
        results[layer] = load_if(load, path, settings[layer]) if main else None
    missing = [n for n, result in results.items() if not processes.agreed(result is not None)]
    if missing:
        results |= _compute(config, folder, net, dataset, missing, labels)
    if not main:
        return
    for layer in missing:
        save(results[layer], folder / f"{layer}.npz")
    shutil.rmtree(folder / "parts", ignore_errors=True)  # what a run that was stopped goes on from
    keep(config, results, (dataset, net.preprocess, labels), folder, again=bool(missing))


def keep(
    config: Config,
    results: Mapping[str, Dissection],
    seen: tuple[Dataset, Preprocess, concepts.LabelMaps],
    folder: pathlib.Path,
    *,
    again: bool,
) -> None:
    """Writes tables, pictures and figures of dissections whose .npz are there, as far as these are not there.

    Args:
      config: reads `report.column_width` and `data.threads`.
      results: of layers of one network, by their names.
      seen: the data set, how the network sees its images, and their label maps.
      folder: of the results.
      again: whether some of the results are new.
    """
    _keep_pictures(config, results, seen, folder)
    _write(config, results, seen, folder, again=again)


def options_of(config: Config) -> Options:
    """The section `dissect` of a config as `dissection.Options`."""
    given = {
        f.name: config.dissect[f.name]
        for f in dataclasses.fields(Options)
        if f.name in config.dissect
    }
    return Options(**given, precision=config.precision)


def _label_maps(config, net, dataset, options) -> concepts.LabelMaps:
    """Those of the data set's own concepts, or of what a segmenter finds; kept for all runs."""
    labeled, view, settings = _labeled(config, dataset, net.preprocess)
    return concepts.make_label_maps(
        labeled,
        view,
        _cache_root(config),
        size=options.size,
        max_images=options.max_images,
        settings=_data_settings(config) | settings,
        threads=config.data.threads,
    )


def _compute(config, folder, net, dataset, layers, labels) -> dict[str, Dissection]:
    """Dissects; activations wait in a folder that is removed in the end."""
    scratch = _scratch(folder)
    resources = Resources(
        folder=scratch,
        cache_gb=config.dissect.cache_gb,
        memory_gb=config.dissect.memory_gb,
        parts=folder / "parts",
        batch_size=config.eval.batch_size,
        threads=config.data.threads,
    )
    # Of a run that was killed, if of one process.
    for old in (scratch, folder / "cache"):
        shutil.rmtree(old, ignore_errors=True)
    scratch.mkdir(0o700, parents=True)
    try:
        return network.dissect(
            net, dataset, layers, options_of(config), labels=labels, resources=resources
        )
    finally:
        # After an error too: it can hold gigabytes that nobody would look for.
        shutil.rmtree(scratch, ignore_errors=True)


def _scratch(folder) -> pathlib.Path:
    """On the disk of the results, as the system's own folder for such files may be a small one in memory. But several processes
    share that disk, over a network as a rule: each has a disk of its own, whose folder TMPDIR names."""
    if jax.process_count() == 1:
        return folder / "cache"
    name = f"mixaug_jax-{os.getuid()}-{zlib.crc32(os.fsencode(folder)):08x}-{jax.process_index()}"
    return pathlib.Path(tempfile.gettempdir()) / name


def _keep_pictures(config, results, seen, folder):
    """Makes the pictures of layers that have none of the same dissection."""
    there = unit_pictures.load_for(results, folder)
    missing = {layer: result for layer, result in results.items() if layer not in there}
    # All together, so that an image that moves units of several layers is read once.
    made = unit_pictures.make(missing, *seen, threads=config.data.threads)
    for layer, pictures in made.items():
        unit_pictures.save(pictures, folder / "pictures" / f"{layer}.npz")


def _write(config, results, seen, folder, *, again):
    """Tables, figures, and the summary on the console."""
    column, (dataset, preprocess, labels) = config.report.column_width, seen
    # One table of each kind for all layers.
    rows = {
        "units": dissection_tables.unit_rows,
        "concepts": dissection_tables.concept_rows,
        "counts": dissection_tables.count_rows,
    }
    if any(len(result.formulas.units) for result in results.values()):
        rows["formulas"] = dissection_tables.formula_rows
    else:  # of a dissection before, whose results are not there any more
        (folder / "formulas.csv").unlink(missing_ok=True)
    for name, make in rows.items():
        made = [make(result) for result in results.values()]
        files.write_csv(
            folder / f"{name}.csv", made[0][0], [row for _, part in made for row in part]
        )
    # Figures take longer than all else that is there already: only missing ones are drawn again.
    for layer, result in results.items():
        drawn = [folder / f"{kind}_{layer}" for kind in ("unique", "units")]
        if again or not all(style.is_saved(path, column=column) for path in drawn):
            figure = dissection_figures.unique_concepts({layer: result})
            style.save_figure(figure, drawn[0], column=column)
            figure = dissection_figures.unit_sheet(result, dataset, preprocess, labels=labels)
            style.save_figure(figure, drawn[1], column=column)
        say.line(dissection_tables.summary(result))
    files.seal(folder)
    done = "written to" if again else "already there:"
    say.line(
        f"{done} {folder}: {', '.join(f'{layer}.npz' for layer in results)}, "
        f"{', '.join(f'{name}.csv' for name in rows)}, pictures, unique_* and units_* as PNG, SVG and PDF"
    )


def check(config: Config) -> None:
    """Opens the data, so that what cannot work is said before a training and not after it.

    Raises:
      ValueError: settings or data that cannot work; missing masks are no error.
    """
    config_lib.check(config)
    _open_dataset(config, required=False, side=config.data.size)


def _open_dataset(config, required, side):
    """The examples and their concepts, and what is left out; None where no concepts are there and
    none are required. `side` is that of the network's input."""
    # Concepts come from Broden's folder, from a segmenter, from the data set itself, or from colors alone.
    d = config.dissect
    if d.broden:
        dataset = broden.open_broden(d.broden, side)
    else:
        split = config.data[f"{d.split}_split"]
        if not split:
            raise ValueError(
                f"dissect.split={d.split!r}, but data.{d.split}_split is empty; name another split"
            )
        dataset = data.open_source(split, config)
    note, gray = "", len(config.data.mean) == 1
    if d.segmenter:
        _check_segmenter(config, gray)
        return dataset, ""
    # Without masks colors can still be looked for, which is said.
    if not dataset.concept_names:
        note = f"{config.data.name} has no masks in its {d.split} split"
        if gray or d.colors == "off":
            note += f" and {'its images are gray' if gray else 'dissect.colors is off'}"
            if required:
                raise ValueError(
                    f"{note}, and a dissection needs label maps (a folder takes them from "
                    "annotations.json; dissect.broden names a folder in Broden's format, "
                    "dissect.segmenter a network that finds concepts in photos)"
                )
            return None, f"left out, because {note}"
        note += ", so only computed colors are looked for"
    if d.colors != "off" and not gray and not concepts.has_colors(dataset):
        dataset = concepts.add_colors(dataset, "" if d.colors == "auto" else d.colors)
    return dataset, note


def _check_segmenter(config, gray):
    """Raises for what would fail after the first compile otherwise."""
    segmenter.find_files(config.dissect.segmenter)
    if config.dissect.colors not in ("auto", "off"):
        colors.open_table(config.dissect.colors)
    if gray:
        raise ValueError("dissect.segmenter needs images in color, and data.mean has one channel")
    if config.dissect.broden:
        raise ValueError("dissect.segmenter and dissect.broden both give concepts; set one to ''")


def _labeled(config, dataset, preprocess):
    """(examples with concepts, how they are seen, what else decides these): those of `dataset` where
    it has concepts; where a segmenter finds them, what the network sees of the images."""
    d = config.dissect
    if not d.segmenter:
        return dataset, preprocess, {}
    label_map = segmenter.open_segmenter(
        d.segmenter,
        _cache_root(config),
        sizes=tuple(d.segmenter_sizes),
        side=preprocess.size,
        precision=config.precision,
    )
    # The segmenter sees the cut that the network sees, so its label maps need no other cut.
    seen = segmenter.view(dataset, preprocess)
    seen = concepts.annotate(seen, label_map, segmenter.NAMES)
    if d.colors != "off":
        seen = concepts.add_colors(seen, "" if d.colors == "auto" else d.colors)
    settings = {
        "segmenter": segmenter.checksum(d.segmenter),
        "sizes": list(d.segmenter_sizes),
        "seen": repr(preprocess),
        "precision": config.precision,
    }
    return seen, dataclasses.replace(preprocess, resize=0), settings


def _data_settings(config) -> dict:
    """What decides the examples, besides the network's view of them."""
    d = config.data
    return {
        "data": d.name,
        "dir": d.dir,
        "split": d[f"{config.dissect.split}_split"],
        "pixels": d.size,
        "scenes": d.scenes.to_dict() if d.name == "scenes" else {},
        **({"animals": d.animals.to_dict()} if d.name == "animals" else {}),
        "colors": config.dissect.colors,
        "broden": config.dissect.broden,
    }


def _cache_root(config) -> pathlib.Path:
    """Where label maps are kept: beside the rendered scenes, for all runs."""
    # For what is rendered data.dir is a cache; elsewhere it is the user's data, where nothing is written.
    given = config.data.dir if config.data.name in ("scenes", "animals") else ""
    given = given or os.environ.get("MIXAUG_JAX_CACHE", "") or "~/.cache/mixaug_jax"
    return pathlib.Path(given).expanduser().absolute()


STAGE = Stage(run, check, "concepts that single units detect", keys=("dissect.",))
