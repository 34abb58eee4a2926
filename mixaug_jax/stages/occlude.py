"""The stage `occlude` of a run: from its checkpoints to `occlusion/` in the working directory."""

import pathlib

from mixaug_jax import config as config_lib
from mixaug_jax import data
from mixaug_jax.core import devices as devices_lib
from mixaug_jax.core import processes, say
from mixaug_jax.core.files import seal, write_csv
from mixaug_jax.core.types import Config, Net, Path
from mixaug_jax.core.walk import spread
from mixaug_jax.data.source import numbered_as
from mixaug_jax.draw import occlusion_figures, occlusion_tables
from mixaug_jax.draw.style import is_saved, save_figure
from mixaug_jax.explain.examples import num_classes
from mixaug_jax.models import imagenet
from mixaug_jax.occlusion.grid import from_config
from mixaug_jax.occlusion.outcomes import Sweep, load, outcome, save
from mixaug_jax.occlusion.sweeping import Options, settings_of, sweep
from mixaug_jax.stages.base import Stage
from mixaug_jax.stages.checkpoints import each_checkpoint
from mixaug_jax.training import checkpoint

_MEMORY_ADVICE = "memory ran out; lower occlude.batch"


def run(config: Config, workdir: Path, *, which: str = "latest", required: bool = True) -> None:
    """Removes parts of images, as a gradient of the loss ranks them, and writes what changes.

    Writes `occlusion/` (`occlusion/<step>/` for each step of which="all"): sweep.npz, sweep.csv, and the
    figures `rises` and `curves_<ranking>` as PNG, SVG and PDF. A sweep that is there with the same settings,
    images and weights is not computed again. In a job of several processes each removes parts of its
    share of the images; the first one writes.

    Args:
      config: from `get_config`; its settings are those of the run, but for `occlude`.
      workdir: a run's working directory, with checkpoints.
      which: "latest", "best", "all" or a step's number.
      required: False is the light form: occlude.light images (0: nothing is done) unless a sweep of
        more is there, and where the data set has other classes than the network, a line that says
        so in place of an error.

    Raises:
      ValueError: settings or data that cannot work, no such checkpoint, classes that do not fit.
      MemoryError, OSError: memory or disk ran out.
    """
    config_lib.check(config)
    if not required and not config.occlude.light:
        return
    workdir = pathlib.Path(workdir).absolute()
    checkpoint.check_settings(workdir, config)
    checkpoint.steps(workdir, which)  # what is not there is said before the data is opened
    dataset = _open_dataset(config)

    def work(net: Net, folder: pathlib.Path, step: int) -> None:
        _sweep_step(config, net, dataset, folder, step, required)

    with devices_lib.applied(config):
        each_checkpoint(workdir, which, "occlusion", _MEMORY_ADVICE, work)


def check(config: Config) -> None:
    """Opens the data, so that what cannot work is said before a training and not after it.

    Raises:
      ValueError: settings or data that cannot work.
    """
    config_lib.check(config)
    _open_dataset(config)


def _open_dataset(config):
    a, d = config.occlude, config.data
    name = _split(config)
    split = d[f"{name}_split"]
    if not split:
        raise ValueError(
            f"occlude.split={a.split!r}, but data.{name}_split is empty; name another split"
        )
    dataset = data.open_source(split, config, annotations=False)
    try:
        # Called for its errors, which would otherwise come only after the training.
        from_config(a).units((d.size, d.size, len(d.mean)))
    except ValueError as error:
        raise ValueError(f"occlude.{error}") from error
    # A part of ImageNet may be for a network of all of it.
    part = imagenet.numbers_of(dataset.class_names)
    classes = imagenet.CLASSES if part else dataset.num_classes
    for label in a.labels:
        if str(label).isdigit() and int(label) >= classes:
            raise ValueError(
                f"occlude.labels names class {label}; the classes are 0..{classes - 1}"
            )
    return dataset


def _split(config):
    return config.occlude.split or ("test" if config.data.test_split else "validation")


def _sweep_step(config, net, dataset, folder, step, required):
    """One checkpoint: what is there already is read, the rest computed, table and figures written."""
    # Imported weights may have other classes, of which the true label is none.
    options = options_of(config)
    classes = num_classes(net, dataset)
    dataset = numbered_as(dataset, classes)
    if classes != dataset.num_classes:
        sentence = (
            f"the network has {classes} classes and the data set {dataset.num_classes}, so there is "
            "no loss of the true label"
        )
        if required:
            raise ValueError(f"occlude: {sentence}")
        say.line(f"occlude: left out, because {sentence}")
        return
    limit = config.occlude.max_images if required else config.occlude.light
    indices = spread(len(dataset), limit)
    extra = {"dataset": config.data.name, "split": _split(config)}
    # A sweep is computed where its file is not there, or was made by other settings or weights.
    settings = settings_of(net, dataset, indices, options, extra)
    main = processes.is_main()
    path = folder / "sweep.npz"
    swept = _stored(path, settings, len(indices), exact=required) if main else None
    again = not processes.agreed(swept is not None)
    if again:
        say.line(
            f"occluding: step {step}: a grid of {' x '.join(map(str, options.grid.shape))} cells (rankings, selections, "
            f"shares, values), {len(indices)} images, ranked by the loss of: {', '.join(map(str, options.labels))}"
        )
        swept = sweep(net, dataset, indices, options, extra=extra)
    if main:
        if again:
            folder.mkdir(parents=True, exist_ok=True)
            save(swept, path)
        _write(config, swept, folder, again)


def options_of(config: Config) -> Options:
    """The section `occlude` of a config as `sweeping.Options`."""
    a = config.occlude
    return Options(
        from_config(a), tuple(a.labels), a.seed, config.precision, a.batch, config.data.threads
    )


def _stored(path, settings, images, exact) -> Sweep | None:
    """The sweep in a file, if it was made with these settings; where not `exact`, of these images or
    of more."""
    if not path.exists():
        return None
    try:
        swept = load(path)
    except ValueError as error:  # an unreadable file is replaced
        say.line(f"{error}; it is made again")
        return None
    if swept.settings == settings:
        return swept
    of_images = ("images", "data")
    # More images of the same question answer it better than fewer would.
    others = [
        {k: v for k, v in s.items() if k not in of_images} for s in (swept.settings, settings)
    ]
    more = not exact and others[0] == others[1] and len(swept.indices) > images
    return swept if more else None


def _write(config, swept, folder, again):
    """Table, figures, and the summary on the console."""
    a = config.occlude
    found = outcome(swept, replicates=a.replicates, seed=a.seed)
    write_csv(folder / "sweep.csv", occlusion_tables.HEADER, occlusion_tables.rows(swept, found))
    # A figure of rankings that are no longer in the grid would be taken for one of this sweep.
    drawn = {"rises": lambda: occlusion_figures.rises(swept, found)}
    for name in swept.grid.rankings:
        drawn[f"curves_{name}"] = lambda name=name: occlusion_figures.curves(swept, found, name)
    for old in folder.glob("curves_*") if again else ():  # of other rankings
        old.unlink()
    for name, draw in drawn.items():
        if again or not is_saved(folder / name, column=config.report.column_width):
            save_figure(draw(), folder / name, column=config.report.column_width)
    seal(folder)
    say.line(occlusion_tables.summary(swept, found))
    done = "written to" if again else "already there:"
    say.line(f"{done} {folder}: sweep.npz, sweep.csv, {', '.join(drawn)} as PNG, SVG and PDF")


STAGE = Stage(
    run, check, "removes parts of images: does the network get better?", keys=("occlude.",)
)
