"""What the networks of a study say of every test image, from `predictions.npz`, and what the images show besides their
class."""

import contextlib
import dataclasses
import pathlib
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from mixaug_jax import config as config_lib
from mixaug_jax import data
from mixaug_jax.core import say, walk
from mixaug_jax.core.files import load_if, load_npz, save_npz
from mixaug_jax.core.types import Bool, Config, Int, Path
from mixaug_jax.study import plan
from mixaug_jax.training import predictions


@dataclasses.dataclass(frozen=True)
class Answers:
    """Of N images of one split, the same for every run.

    Attributes:
      classes: their names, [K].
      labels: int [N], the true class.
      predicted: {(augmentation, seed): int [N]}, the class with the largest logit; networks above chance.
      shown: bool [N,K], every class that an image shows, its own among them; [0,K] where that is not known.
    """

    classes: tuple[str, ...]
    labels: Int[np.ndarray, " N"]
    predicted: dict[tuple[str, int], np.ndarray]
    shown: Bool[np.ndarray, "M K"]

    @property
    def sizes(self) -> Int[np.ndarray, " K"]:
        """How many images each class has."""
        return np.bincount(self.labels, minlength=len(self.classes))


def read(workdirs: Mapping[tuple[str, int], str], folder: Path) -> tuple[Answers | None, list[str]]:
    """The predictions of all runs, of those that were asked of the same images.

    Args:
      workdirs: {(augmentation, seed): working directory}; the first with predictions says which images count.
      folder: of the study, where it is kept what images show.

    Returns:
      The answers, None where no run has any, and sentences about runs that were left out.
    """
    found: dict[tuple[str, int], predictions.Predictions] = {}
    problems = []
    for (name, seed), where in workdirs.items():
        if not (pathlib.Path(where) / predictions.FILE).exists():
            continue
        try:
            one = predictions.load(where)
        except ValueError as error:
            problems.append(f"{name} seed {seed}: {error}")
            continue
        first = next(iter(found.values()), one)
        if _images(one) != _images(first):
            text = "predictions left out: they are of other images than those of the first run"
            problems.append(f"{name} seed {seed}: {text}")
            continue
        found[name, seed] = one
    if not found:
        return None, problems
    run, first = next(iter(found.items()))
    config = config_lib.read(workdirs[run])
    classes = tuple(config.resolved.class_names)
    shown = np.zeros((0, len(classes)), bool)
    # The data may be gone; then nothing is said of other classes.
    with contextlib.suppress(ValueError, OSError):
        shown = _shown(config, first, classes, pathlib.Path(folder) / plan.SHOWN)
    by_run = {key: one.predicted.astype(np.int64) for key, one in found.items()}
    return Answers(classes, first.label.astype(np.int64), by_run, shown), problems


def _images(one) -> tuple:
    """What is the same for predictions of the same images, without their pixels."""
    return one.settings["split"], zlib.crc32(one.indices), zlib.crc32(one.label)


def _shown(config, first, classes, cache) -> np.ndarray:
    own = np.eye(len(classes), dtype=bool)[first.label]
    if first.targets.shape[1] == len(classes):
        return (first.targets >= 0.5) | own
    settings = {
        "images": len(first.label),
        "labels": zlib.crc32(first.label),
        "examples": first.settings["examples"],
    }
    stored = load_if(_load, cache, settings)
    if stored is None:
        stored = _Stored(_boxed(config, first, classes), settings)
        save_npz(cache, {"shown": stored.shown}, settings)
    return stored.shown | own if len(stored.shown) else stored.shown


@dataclasses.dataclass(frozen=True)
class _Stored:
    shown: np.ndarray
    settings: dict


def _load(path) -> _Stored:
    def make(arrays: Any, settings: Any):
        return _Stored(arrays["shown"], settings)

    return load_npz(path, make, "what images show")


def _boxed(config: Config, first, classes) -> np.ndarray:
    """The classes of the boxes of every image; [0,K] for a set whose boxes are not called like its classes."""
    source = data.open_source(config.data[f"{first.settings['split']}_split"], config)
    shown = np.zeros((len(first.label), len(classes)), bool)
    if source.box_names != classes or len(source) <= first.indices.max(initial=0):
        return shown[:0]
    report = say.progress("what images show", len(shown))
    read = walk.read_ahead(
        lambda index: source[int(index)]["box_labels"], first.indices, config.data.threads
    )
    for row, boxes in enumerate(read):
        shown[row, boxes] = True
        report(row + 1)
    return shown
