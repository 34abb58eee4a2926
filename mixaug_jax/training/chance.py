"""How well the finished network of a run classifies, beside chance; from the run's files."""

import contextlib
import dataclasses
import os
import pathlib
import zipfile

import numpy as np

from mixaug_jax import config as config_lib
from mixaug_jax.core import stats
from mixaug_jax.training import metric_log


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """The accuracy of a finished network.

    Attributes:
      split: that it is of, "test" or "validation".
      share: 0..1.
      images: how many it is of; 0 where that is not known.
      chance: the accuracy without any look at the images: 1 / classes, or the share of the most frequent class where the labels
        are at hand and that is larger.
    """

    split: str
    share: float
    images: int
    chance: float

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's interval; 0 and 1 where the number of images is not known."""
        return stats.wilson(self.share, self.images) if self.images else (0.0, 1.0)

    @property
    def at_chance(self) -> bool:
        """Whether it is not supported that the network is better than chance; False where the number of images is not known."""
        return self.images > 0 and self.interval[0] <= self.chance


def read(workdir: os.PathLike | str) -> Accuracy | None:
    """The accuracy of the run in `workdir`; None where it has not ended, or nobody measured it.

    Raises:
      ValueError: `workdir` is no run's working directory.
    """
    config = config_lib.read(workdir)
    label, predicted = _predictions(pathlib.Path(workdir))
    steps = config.resolved.steps
    line = metric_log.finished(metric_log.read(workdir), steps) if steps else {}
    split = metric_log.judged(line) if line else "test" if config.data.test_split else "validation"
    # Not finite, it is written as null.
    share = line.get(f"{split}_accuracy")
    if share is None and len(label) and not steps:  # of a network that was trained elsewhere
        share = float((label == predicted).mean())
    if share is None:
        return None
    chance = 1 / max(1, len(config.resolved.class_names))
    if len(label):
        chance = max(chance, float(np.bincount(label).max() / len(label)))
    return Accuracy(split, share, int(line.get(f"{split}_images") or len(label)), chance)


def _predictions(workdir) -> tuple[np.ndarray, np.ndarray]:
    """The label and the predicted class of each image; empty where they are not there or cannot be read."""
    broken = OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile
    with contextlib.suppress(*broken), np.load(workdir / "predictions.npz") as file:
        return file["label"], file["predicted"]
    return np.zeros(0, int), np.zeros(0, int)
