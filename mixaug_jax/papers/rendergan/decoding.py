"""The stage `decode`: trains a decoder on what markers.train says, and reads the held pictures with it."""

import os
import pathlib

import jax
import ml_collections

from mixaug_jax import config as config_lib
from mixaug_jax import data, training
from mixaug_jax.config.allowed import PLACE
from mixaug_jax.core import checks, files, processes, say
from mixaug_jax.core import devices as devices_lib
from mixaug_jax.core.types import Config, Net
from mixaug_jax.data.markers import held_scene
from mixaug_jax.draw import page
from mixaug_jax.papers.rendergan import making, reading
from mixaug_jax.papers.rendergan.marker_options import BOTH, KEYS, LABELED, check_own
from mixaug_jax.stages.base import Stage
from mixaug_jax.stages.checkpoints import each_checkpoint
from mixaug_jax.training import checkpoint

_FOLDER = "decoding"
_MEMORY_ADVICE = "memory ran out; lower eval.batch_size"
_SUMMARY = ("what", "value", "low", "high", "pictures")
_CURVE = ("confidence at least", "share kept", "wrong bits of 12", "low", "high")


def run(
    config: ml_collections.ConfigDict,
    workdir: os.PathLike | str,
    *,
    which: str = "latest",
    required: bool = True,
) -> None:
    """Trains a decoder, or goes on, and reads the test split with it.

    Writes `decoding/` (`decoding/<step>/` for which="all"): decoding.csv, confidence.csv, reading.npz, and the page's section,
    which is of the last checkpoint that was read.

    Args:
      config: of `configs/rendergan.py`.
      workdir: folder of the run; made where missing.
      which: the checkpoints that read: "latest", "best", "all" or a step's number.
      required: not used: without a decoder there is nothing to read with.

    Raises:
      ValueError: settings or data that cannot work, a working directory of another markers.train.
      FloatingPointError: the loss is not finite.
      training.Interrupted: SIGTERM came.
    """
    check(config)
    workdir = pathlib.Path(workdir).absolute()
    _check_same(config, workdir)
    with devices_lib.applied(config):
        make, arrays = making.maker(config, workdir)
    _note(workdir, arrays)
    training.train(config, workdir, make=make, arrays=arrays)
    source = data.open_source(config.data.test_split, config)

    def work(net: Net, folder: pathlib.Path, step: int) -> None:
        _read(config, net, source, workdir, folder, step)

    with devices_lib.applied(config):
        each_checkpoint(workdir, which, _FOLDER, _MEMORY_ADVICE, work)


def check(config: ml_collections.ConfigDict) -> None:
    """Raises ValueError for settings that cannot work, or crops that are not there."""
    training.check(config)
    check_own(config)
    if not config.data.test_split:
        raise ValueError("data.test_split is empty: there is nothing to read")
    _check_splits(config)


def _check_splits(config):
    """Finds before a generator is trained what would else be found after it; rendered pictures are as many as was asked for."""
    if config.data.markers.crops:
        data.open_splits(config)
        if config.markers.train in (BOTH, LABELED):
            data.open_source(LABELED, config)
        return
    for name in ("train", "validation", "test"):
        split = data.settled(config).data[f"{name}_split"]
        if split or name != "validation":  # which may be empty
            checks.choice(f"data.{name}_split", split, held_scene.SPLITS)


def _check_same(config: Config, workdir):
    """A section that the stage brings is compared here: the decoder that is there learned from what it says."""
    if not (workdir / "config.json").exists():
        return
    stored = config_lib.read(workdir)
    before = config_lib.flatten(
        {"markers": stored.markers.to_dict()} if "markers" in stored else {}
    )
    for key, value in config_lib.flatten({"markers": config.markers.to_dict()}).items():
        if KEYS[key].decides != PLACE and before.get(key, value) != value:
            raise ValueError(
                f"{workdir} holds a run of other settings ({key}: {before[key]} -> {value}); use another --workdir, or these "
                "settings again"
            )


def _note(workdir, arrays):
    """A decoder goes on from the generator that it began with, or not at all."""
    path, sums = workdir / "made.json", {"generator": files.checksum(jax.device_get(arrays))}
    if checkpoint.steps_there(workdir) and path.exists() and files.read_json(path) != sums:
        raise ValueError(
            f"{workdir} holds a decoder that learned from another generator; use another --workdir"
        )
    if processes.is_main():
        workdir.mkdir(parents=True, exist_ok=True)
        files.write_json(path, sums)
    devices_lib.barrier("generator noted")


def _read(config, net, source, workdir, folder, step):
    """One checkpoint: reads the pictures, writes tables and the page's section."""
    found = reading.read(net, source, config)
    # All read pictures; one writes.
    if not processes.is_main():
        return
    folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "weights": files.checksum(net.variables),
        "step": step,
        "train": config.markers.train,
        "split": config.data.test_split,
    }
    arrays = {
        name: getattr(found, name) for name in ("probabilities", "targets", "weights", "hard")
    }
    files.save_npz(folder / "reading.npz", arrays, settings)
    rows, curve = reading.summary(found), reading.curve(found)
    files.write_csv(folder / "decoding.csv", _SUMMARY, rows)
    files.write_csv(folder / "confidence.csv", _CURVE, curve)
    _write_section(config, workdir, rows, curve)
    for name, value, low, high, _ in rows[:4]:
        say.line(f"{name}: {value:.3f} ({low:.3f} to {high:.3f})")
    say.line(f"written to {folder}: reading.npz, decoding.csv, confidence.csv")


def _write_section(config, workdir, rows, curve):
    """The page's section."""
    folder = workdir / "report"
    shown = [
        [name, page.Interval(value, low, high), count] for name, value, low, high, count in rows
    ]
    # A decoder that can say when it is not sure is worth more than its mean: what is left when it may.
    kept = [[at, share, page.Interval(*interval)] for at, share, *interval in curve]
    page.write_section(
        workdir,
        "decoding",
        "How well the markers are read",
        page.paragraph(
            f"A decoder trained on what markers.train={config.markers.train} says reads the test split. Guessing gives 6 wrong "
            "bits of 12. Intervals are over pictures: of one training they say nothing of another."
        ),
        page.table(
            folder,
            page.Table(
                "decoding",
                "Wrong bits, in all and by what hides them.",
                ("what", "value", "pictures"),
                shown,
            ),
        ),
        page.table(
            folder,
            page.Table(
                "confidence",
                "Pictures whose least sure bit is at least so far from even odds, and their wrong bits.",
                ("confidence at least", "share kept", "wrong bits of 12"),
                kept,
            ),
        ),
    )


STAGE = Stage(
    run, check, "trains a decoder of markers and reads the held pictures (configs/rendergan.py)"
)
