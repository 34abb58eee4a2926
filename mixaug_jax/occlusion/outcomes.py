"""What a sweep of removals found: the numbers of every image, and what they come to.

swept = load("occlusion/sweep.npz")
found = outcome(swept)
found.accuracy[0, 2, 1, 3, 0]    # label, ranking, selection, share, value
"""

import dataclasses
import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from mixaug_jax.core import checks
from mixaug_jax.core.files import load_npz, save_npz
from mixaug_jax.core.frames import frame
from mixaug_jax.core.stats import PERCENTILES
from mixaug_jax.core.types import Bool, Float, Int, Path
from mixaug_jax.occlusion.grid import Grid


@dataclasses.dataclass(frozen=True)
class Sweep:
    """The removals of a grid on N images, ranked by L labels.

    D removals differ, and J pairs of an image and the label that ranks it: numbers are kept once
    for each, `index` and `job` tell where. Removal 0 is the complete image.

    Attributes:
      labels: whose loss ranks the units, by name, [L].
      loss: float32 [J,D], cross-entropy of the true label.
      correct: bool [J,D], whether the true label has the largest logit.
      first_order: float32 [J,D], the change of the loss as the gradient predicts it.
      job: int [L,N], the row of a label and an image.
      index: int [rankings,selections,shares,values], the column of each cell of the grid.
      indices: int [N], of the images in the data set.
      truth, predicted: int [N], the classes.
      settings: what made this, as JSON has it.
    """

    labels: tuple[str, ...]
    loss: Float[np.ndarray, "J D"]
    correct: Bool[np.ndarray, "J D"]
    first_order: Float[np.ndarray, "J D"]
    job: Int[np.ndarray, "L N"]
    index: Int[np.ndarray, "rankings selections shares values"]
    indices: Int[np.ndarray, " N"]
    truth: Int[np.ndarray, " N"]
    predicted: Int[np.ndarray, " N"]
    settings: dict

    @property
    def grid(self) -> Grid:
        """What was removed."""
        given = self.settings["grid"].items()
        return Grid(**{k: tuple(v) if isinstance(v, list) else v for k, v in given})

    @property
    def kept(self) -> Bool[np.ndarray, " N"]:
        """bool [N]: the images whose numbers are all finite. The others are left out everywhere."""
        finite = (np.isfinite(self.loss) & np.isfinite(self.first_order)).all(1)
        return finite[self.job].all(0)

    def changes(self, kept: Bool[np.ndarray, " N"]) -> dict[str, Float[np.ndarray, "L kept D"]]:
        """What a removal changes for each of the images `kept` [N] bool: "accuracy" (-1, 0 or 1),
        "loss", and "first_order", the prediction of the loss's change; float64 [L,kept,D]."""
        rows = self.job[:, kept]
        correct, loss = (a.astype(np.float64)[rows] for a in (self.correct, self.loss))
        return {
            "accuracy": correct - correct[..., :1],
            "loss": loss - loss[..., :1],
            "first_order": self.first_order.astype(np.float64)[rows],
        }

    def to_frame(self) -> Any:
        """A `pandas.DataFrame` (extra `frames`) of a row for each label that ranks and each cell of the grid: what is removed,
        and the mean change over images of accuracy and loss, the latter also as the gradient predicts it."""
        mean = {name: values.mean(1) for name, values in self.changes(self.kept).items()}
        label, *place = (axis.ravel() for axis in np.indices((len(self.labels), *self.index.shape)))
        removal = self.index[tuple(place)]
        axes = (self.grid.rankings, self.grid.selections, self.grid.shares, self.grid.values)
        names = ("ranking", "selection", "share", "value")
        chosen = zip(names, axes, place, strict=True)
        return frame(
            {"label": np.take(self.labels, label)}
            | {name: np.take(axis, at) for name, axis, at in chosen}
            | {"images": [int(self.kept.sum())] * len(label)}
            | {name: values[label, removal] for name, values in mean.items()}
        )


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Mean changes by removals, to the complete images; the axes [L,rankings,selections,shares,values]
    where nothing else is said. Intervals have one more axis, of two: the percentiles
    `stats.PERCENTILES` over images drawn anew, the same ones for both sides of a difference.

    Attributes:
      images: how many images.
      left_out: how many more had numbers that are not finite.
      clean_accuracy, clean_loss: of the complete images.
      accuracy, accuracy_interval: change of the share of right predictions.
      loss, loss_interval: change of the cross-entropy [nats].
      first_order: the change of the loss as the gradient predicts it.
      rises: bool, the anomaly: the interval of the change of accuracy lies above 0.
      leak_accuracy, leak_accuracy_interval, leak_loss, leak_loss_interval:
        [rankings,selections,shares,values], the change when the true label's loss ranks the units minus the change when
        the predicted label's does: what comes of the label showing through the gradient. NaN where
        the sweep has not both.
      removals: how many removals differ, the complete image not counted.
      rising: int [L], how many of them are anomalies.
      falling: int [L], how many of them lower the loss: its interval lies below 0.
      by_chance: int [L,flips], how many would be anomalies, were there no effect on accuracy: every
        change less its mean, all of an image's with one random sign.
      grid_p: float [L], how probable it then is that the strongest rise of all removals, in standard
        errors, is as strong as the one that was found: the p-value of the grid as a whole.
    """

    images: int
    left_out: int
    clean_accuracy: float
    clean_loss: float
    accuracy: Float[np.ndarray, "L ..."]
    accuracy_interval: Float[np.ndarray, "L ... 2"]
    loss: Float[np.ndarray, "L ..."]
    loss_interval: Float[np.ndarray, "L ... 2"]
    first_order: Float[np.ndarray, "L ..."]
    rises: Bool[np.ndarray, "L ..."]
    leak_accuracy: Float[np.ndarray, "..."]
    leak_accuracy_interval: Float[np.ndarray, "... 2"]
    leak_loss: Float[np.ndarray, "..."]
    leak_loss_interval: Float[np.ndarray, "... 2"]
    removals: int
    rising: Int[np.ndarray, " L"]
    falling: Int[np.ndarray, " L"]
    by_chance: Int[np.ndarray, "L flips"]
    grid_p: Float[np.ndarray, " L"]


def outcome(swept: Sweep, *, replicates: int = 1000, flips: int = 100, seed: int = 0) -> Outcome:
    """Changes of accuracy and loss with their intervals, and what is there by chance.

    Args:
      swept: from `sweep` or `load`.
      replicates: of the bootstrap over images.
      flips: of the signs, for what is there by chance.
      seed: of both.

    Raises:
      ValueError: no image with finite numbers.
    """
    # All intervals draw the same images, so that differences between them are paired.
    kept = swept.kept
    changes, draws = swept.changes(kept), _draws(kept.sum(), replicates, seed)
    mean = {name: a.mean(1)[:, swept.index] for name, a in changes.items()}
    ends = {name: _intervals(changes[name], draws) for name in ("accuracy", "loss")}
    rises = ends["accuracy"][..., 0] > 0
    # What a removal brings with the true label's gradient and not with that of the predicted one came through the label.
    leak = {}
    for name in ("accuracy", "loss"):
        leak[name] = np.full(swept.index.shape, np.nan), np.full((*swept.index.shape, 2), np.nan)
        if {"true", "predicted"} <= set(swept.labels):
            rows = [swept.labels.index(label) for label in ("true", "predicted")]
            difference = changes[name][rows[0]] - changes[name][rows[1]]
            interval = _intervals(difference, draws)
            leak[name] = difference.mean(0)[swept.index], interval[swept.index]
    # Both questions, how many rise by chance and how strongly, are answered by the same signs.
    chance = [_by_chance(a, draws, flips, seed) for a in changes["accuracy"]]
    first = swept.job[0, kept]
    # Numbers of removals become those of the grid's cells, of which several may be one removal.
    return Outcome(
        images=len(first),
        left_out=len(kept) - len(first),
        clean_accuracy=float(swept.correct[first, 0].mean()),
        clean_loss=float(swept.loss[first, 0].mean(dtype=np.float64)),
        accuracy=mean["accuracy"],
        accuracy_interval=ends["accuracy"][:, swept.index],
        loss=mean["loss"],
        loss_interval=ends["loss"][:, swept.index],
        first_order=mean["first_order"],
        rises=rises[:, swept.index],
        leak_accuracy=leak["accuracy"][0],
        leak_accuracy_interval=leak["accuracy"][1],
        leak_loss=leak["loss"][0],
        leak_loss_interval=leak["loss"][1],
        removals=swept.loss.shape[1] - 1,
        rising=rises.sum(1),
        falling=(ends["loss"][..., 1] < 0).sum(1),
        by_chance=np.stack([counts for counts, _ in chance]),
        grid_p=np.array([p for _, p in chance]),
    )


def _draws(images, replicates, seed):
    """The share of each image when as many are drawn anew, float64 [replicates,images]."""
    if not images:
        raise ValueError("no image has finite numbers, so there is nothing to average")
    checks.count("replicates", replicates)
    # Counts of a draw with replacement: one matrix product gives the means of all removals.
    rng = np.random.default_rng(seed)
    return rng.multinomial(images, np.full(images, 1 / images), replicates) / images


def _intervals(changes, draws):
    """[...,N,D] -> [...,D,2], the percentiles of the means over images drawn anew."""
    return np.moveaxis(np.percentile(draws @ changes, PERCENTILES, axis=-2), 0, -1)


def _by_chance(changes, draws, flips, seed):
    """`Outcome.by_chance` [flips] and `grid_p` of one label, of changes [N,D].

    One sign for all of an image's changes keeps what removals have in common: of 100 that are nearly
    the same, by chance either none or many seem to help.
    """
    rng = np.random.default_rng(seed)
    centered, strongest = changes - changes.mean(0), _strength(changes).max()
    counts, beyond = np.zeros(flips, np.int64), 0
    for k in range(flips):
        flipped = rng.choice((-1.0, 1.0), len(changes))[:, None] * centered
        rising = flipped[:, flipped.mean(0) > 0]  # no other interval can lie above 0
        counts[k] = _certain(rising, draws).sum()
        # The largest over the whole grid: a p-value for the grid needs no correction for its cells.
        beyond += _strength(flipped).max() >= strongest
    return counts, (1 + beyond) / (1 + flips)


def _certain(changes, draws):
    """Whether the interval of each mean lies above 0, [D]; `_intervals` only where counting means does not tell."""
    means = draws @ changes
    below = (means <= 0).sum(0)
    last = int(
        PERCENTILES[0] / 100 * (len(draws) - 1)
    )  # the percentile lies between this mean and the next
    above, near = below <= last, below == last + 1
    above[near] = np.percentile(means[:, near], PERCENTILES[0], axis=0) > 0
    return above


def _strength(changes):
    """The mean of [N,D] in standard errors, [D]; 0 where nothing changes."""
    mean, error = changes.mean(0), changes.std(0) / np.sqrt(len(changes))
    # Where all images change alike there is no error to divide by.
    return np.where(mean == 0, 0, mean / np.maximum(error, 1e-12))


@dataclasses.dataclass(frozen=True)
class Comparison:
    """How other networks' changes differ from a first one's; M others, then the axes of `Outcome`.

    Attributes:
      names: [1 + M]; the first is what the others are compared with.
      images: how many, those kept in every sweep.
      accuracy, accuracy_interval: [M,L,rankings,selections,shares,values], its change by a
        removal in the other network minus that in the first; above 0 where the other one gains
        more, or loses less. Intervals are paired over images.
      loss, loss_interval: the same of the cross-entropy.
    """

    names: tuple[str, ...]
    images: int
    accuracy: Float[np.ndarray, "M L ..."]
    accuracy_interval: Float[np.ndarray, "M L ... 2"]
    loss: Float[np.ndarray, "M L ..."]
    loss_interval: Float[np.ndarray, "M L ... 2"]


def compare(
    results: Mapping[str, Sweep | Path], *, replicates: int = 1000, seed: int = 0
) -> Comparison:
    """Whether what removals change differs between networks, image by image.

    Args:
      results: a `Sweep`, or the path of one, by the name to show; two or more, of the same grid,
        labels, seed and images.
      replicates, seed: of the bootstrap over images.

    Raises:
      ValueError: fewer than two, sweeps that cannot be paired, no image with finite numbers.
    """
    if len(results) < 2:
        raise ValueError(f"a comparison needs two sweeps or more; got {len(results)}")
    loaded = {
        name: load(result) if isinstance(result, str | os.PathLike) else result
        for name, result in results.items()
    }
    (first, base), *others = loaded.items()
    for name, other in others:
        for what in ("grid", "labels", "seed", "data", "images"):
            if base.settings[what] != other.settings[what]:
                raise ValueError(f"{name} and {first} have other {what}, so they cannot be paired")
    # An image that one network gave no finite number for is left out of all.
    kept = np.logical_and.reduce([swept.kept for swept in loaded.values()])
    draws, found = _draws(kept.sum(), replicates, seed), {}
    changes = {name: swept.changes(kept) for name, swept in loaded.items()}
    for what in ("accuracy", "loss"):
        paired = np.stack([changes[name][what] - changes[first][what] for name, _ in others])
        found[what] = paired.mean(2)[..., base.index]
        found[f"{what}_interval"] = _intervals(paired, draws)[..., base.index, :]
    return Comparison(names=tuple(loaded), images=int(kept.sum()), **found)


def save(swept: Sweep, path: Path) -> None:
    """Writes a .npz that `load` reads; the file appears when it is whole."""
    arrays = {field.name: getattr(swept, field.name) for field in dataclasses.fields(swept)}
    arrays["labels"] = np.array(json.dumps(swept.labels))
    del arrays["settings"]
    save_npz(path, arrays, swept.settings)


def load(path: Path) -> Sweep:
    """What `save` wrote.

    Raises:
      ValueError: no such file, or another kind of file.
    """

    def make(arrays: dict, settings: dict) -> Sweep:
        labels = tuple(json.loads(str(arrays.pop("labels"))))
        return Sweep(labels=labels, settings=settings, **arrays)

    return load_npz(path, make, "a sweep of removals")
