"""The stage `intervene` of a run: from its checkpoints, and their dissections, to `interventions/` in the working directory."""

import dataclasses
import functools
import json
import pathlib

from mixaug_jax import config as config_lib
from mixaug_jax import data
from mixaug_jax.core import checks, files, processes, say, stored
from mixaug_jax.core import devices as devices_lib
from mixaug_jax.core.files import checksum
from mixaug_jax.core.types import Config, Net, Path
from mixaug_jax.core.walk import spread
from mixaug_jax.data.source import numbered_as
from mixaug_jax.dissection import activations, concepts, intervening, removal_result
from mixaug_jax.dissection import result as dissections
from mixaug_jax.dissection.intervening import Asked, Seen
from mixaug_jax.dissection.interventions import VALUES, Removing
from mixaug_jax.dissection.removal_result import Detected, Intervention
from mixaug_jax.draw import intervention_figures, intervention_tables, style
from mixaug_jax.explain.examples import num_classes
from mixaug_jax.stages.base import Stage
from mixaug_jax.stages.checkpoints import each_checkpoint
from mixaug_jax.training import checkpoint

FOLDER = "interventions"
_MEMORY_ADVICE = "memory ran out; lower eval.batch_size or intervene.max_images"
_BY_CONCEPT = ("detectors", "ranks")  # the sets that a dissection names
_BATCH = 50  # images of a device at most: larger batches are no faster, since each goes through under many sets


def run(config: Config, workdir: Path, *, which: str = "latest", required: bool = True) -> None:
    """Removes units of checkpoints of a run and writes what becomes of each class.

    Writes `interventions/` (`interventions/<step>/` for each step of which="all"): `<layer>.npz`, units.csv, classes.csv,
    concepts.csv, orders.csv, and the figures `removals_<layer>` as PNG, SVG and PDF. A layer whose .npz is there with the same
    settings, images, weights and dissection is not computed again.

    Args:
      config: from `get_config`; its settings are those of the run, but for `intervene`.
      workdir: a run's working directory, with checkpoints, and with dissections of them for the sets of detectors.
      which: "latest", "best", "all" or a step's number.
      required: whether what the data do not allow, and a dissection that is not there, are errors; if not, the part that can be
        done is done, with a line about the rest.

    Raises:
      ValueError: settings or data that cannot work, no such checkpoint or layer, classes that do not fit, no dissection.
      MemoryError, OSError: memory or disk ran out.
    """
    config_lib.check(config)
    workdir = pathlib.Path(workdir).absolute()
    checkpoint.check_settings(workdir, config)
    checkpoint.steps(workdir, which)  # what is not there is said before the data is opened
    try:
        seen = _open_splits(config)
    except ValueError as error:
        if required:
            raise
        say.line(f"intervene: left out, because {error}")
        return

    def work(net: Net, folder: pathlib.Path, step: int) -> None:
        dissected = workdir / "dissection" / folder.relative_to(workdir / FOLDER)
        _intervene_step(config, net, seen, (folder, dissected), step, required)

    with devices_lib.applied(config):
        each_checkpoint(workdir, which, FOLDER, _MEMORY_ADVICE, work)


def check(config: Config) -> None:
    """Raises ValueError for settings that cannot work; what the data do not allow is left out by `run`, and no error here."""
    config_lib.check(config)


def _open_splits(config) -> tuple:
    """The sets whose images name important units, and that they are measured on."""
    d = config.data
    names = [d.train_split, d.test_split or d.validation_split]
    if not names[0]:
        raise ValueError(
            "data.train_split is empty: importance is measured on its images; name a split"
        )
    if not names[1]:
        raise ValueError(
            "data.test_split and data.validation_split are empty: removals are measured on images of one of them; name a split"
        )
    found = tuple(data.open_source(name, config, annotations=False) for name in names)
    if found[0].multi_label:
        raise ValueError("an image may show several classes, and importance is for one of them")
    return found


def _intervene_step(config, net, sources, folders, step, required):
    """One checkpoint: what is there already is read, the rest computed, tables and figures written."""
    folder, dissected = folders
    checks.choices("intervene.layers", config.intervene.layers, net.layers[:-1])
    classes = num_classes(net, sources[1])
    sources = [numbered_as(source, classes) for source in sources]
    other = next((s for s in sources if s.num_classes != classes), None)
    if other is not None:
        sentence = f"the network has {classes} classes and the data set {other.num_classes}"
        return _leave_out(sentence, required)
    # Traced before images are read: a layer without maps is said at once.
    layers = tuple(config.intervene.layers) or activations.last_maps(net, sources[1])
    activations.shapes(net, sources[1], layers)
    if not layers:
        sentence = "no layer of the network has maps of more than one node; name others in intervene.layers"
        return _leave_out(sentence, required)
    limit = config.intervene.max_images
    training, heldout = (Seen(source, spread(len(source), limit)) for source in sources)
    say.line(
        f"intervening on step {step}: {', '.join(layers)}; {len(training.indices)} training images name important units, "
        f"{len(heldout.indices)} others measure"
    )
    results, again = {}, False
    for layer in layers:
        detectors = dissected / f"{layer}.npz"
        found = _dissection(config, net, detectors, layer, required)
        # One that does not see it would remove other units than the others.
        told = {"detected": found and checksum((found.threshold, found.tally.intersection))}
        processes.compare_views(detectors, told)
        asked = _asked(config, found)
        # Without what the units detect, which a checksum of the dissection stands for.
        settings = _settings(config, net, (training, heldout), asked, (layer, found))
        path = folder / f"{layer}.npz"
        detected = found and _detected(config, found, classes)
        asked = dataclasses.replace(asked, detected=detected)
        given = (net, training, heldout, layer, asked)
        make = functools.partial(_intervened, given, settings)
        results[layer], new = stored.keep(
            path, settings, load=removal_result.load, make=make, save=removal_result.save
        )
        again |= new
    if processes.is_main():
        _write(config, results, folder, again=again)


def _leave_out(sentence, required):
    """Says what a step cannot be done for: an error where it was asked for by name."""
    if required:
        raise ValueError(f"intervene: {sentence}")
    say.line(f"intervene: left out, because {sentence}")


def _intervened(given, settings):
    return dataclasses.replace(intervening.intervene(*given), settings=settings)


def _asked(config, found) -> Asked:
    a = config.intervene
    iou = (found.options if found else dissections.Options()).iou
    value = a.value if a.value in VALUES else float(a.value)
    removing = Removing(
        value, config.precision, min(_BATCH, config.eval.batch_size), config.data.threads
    )
    return Asked(tuple(a.sets), float(iou[len(iou) // 2]), a.seed, removing)


def _dissection(config, net, path, layer, required) -> dissections.Dissection | None:
    """The layer's dissection, of these very weights; None, with a line, where there is none or no set needs it."""
    wanted = [name for name in _BY_CONCEPT if name in config.intervene.sets]
    if not wanted:
        return None
    try:
        found = dissections.load(path) if path.exists() else None
    except ValueError as error:
        say.line(str(error))
        found = None
    if found is not None and found.settings.get("weights") == checksum(net.variables):
        return found
    sentence = f"{layer}: there is no dissection of these weights, which names its detectors (--stage=dissect makes it)"
    if required:
        raise ValueError(f"{sentence}; or leave {' and '.join(wanted)} out of intervene.sets")
    say.line(f"intervene: neither detectors nor orders by IoU of {sentence}")
    return None


def _detected(config, found, classes) -> Detected:
    """What the layer's units detect, and which classes show it: in the images that were dissected."""
    detected = intervening.detected_by(found, classes)
    d = config.dissect
    split = config.data[f"{d.split}_split"]
    if d.broden or d.segmenter or not split:  # images without the run's classes, or masks
        return detected
    source = data.open_source(split, config)
    if d.colors != "off" and not concepts.has_colors(source) and len(config.data.mean) == 3:
        source = concepts.add_colors(source, "" if d.colors == "auto" else d.colors)
    if tuple(source.concept_names) != found.names:
        return detected
    seen = Seen(numbered_as(source, classes), found.indices)
    shown = intervening.shown_by_class(seen, len(found.names), classes, config.data.threads)
    return dataclasses.replace(detected, shown=shown)


def _settings(config, net, seen, asked, of) -> dict:
    """All that decides a layer's result, as JSON has it; `weights`, `examples` and `detected` are checksums."""
    layer, found = of
    # Eight images tell another data set, or another view of it, without reading all of them.
    probed = [s.dataset[int(i)] for s in seen for i in s.indices[spread(len(s.indices), 8)]]
    examples = [(net.preprocess(e["image"]), e["label"]) for e in probed]
    # Not the settings' path or the packages: what it says of the units.
    detected = found and (found.threshold, found.tally.intersection, found.tally.unit)
    settings = {
        "layer": layer,
        "model": net.name,
        "weights": checksum(net.variables),
        "value": asked.removing.value,
        "precision": asked.removing.precision,
        "sets": asked.families,
        "threshold": asked.threshold,
        "seed": asked.seed,
        "dataset": config.data.name,
        "split": "test" if config.data.test_split else "validation",
        "images": [len(s.indices) for s in seen],
        "examples": checksum(examples),
        "detected": checksum(detected) if found else 0,
        "has_dissection": found is not None,
    }
    return json.loads(json.dumps(settings))


def _write(config, results: dict[str, Intervention], folder, *, again):
    """Tables, figures, and the summary on the console."""
    column = config.report.column_width
    for name, make in intervention_tables.TABLES.items():
        made = [make(result) for result in results.values()]
        files.write_csv(
            folder / f"{name}.csv", made[0][0], [row for _, part in made for row in part]
        )
    for layer, result in results.items():
        path = folder / f"removals_{layer}"
        # Drawing takes longer than all tables, and a figure may be of another width.
        if again or not style.is_saved(path, column=column):
            style.save_figure(intervention_figures.curves(result), path, column=column)
        say.line(intervention_tables.summary(result))
    files.seal(folder)
    done = "written to" if again else "already there:"
    say.line(
        f"{done} {folder}: {', '.join(f'{layer}.npz' for layer in results)}, "
        f"{', '.join(f'{name}.csv' for name in intervention_tables.TABLES)}, and removals_* as PNG, SVG and PDF"
    )


STAGE = Stage(run, check, "switches units off: which classes need them?", keys=("intervene.",))
