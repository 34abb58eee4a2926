"""What the explanations of one method are worth, on many images."""

import dataclasses

import jax
import numpy as np

from mixaug_jax.core.files import load_npz, save_npz
from mixaug_jax.core.stats import PERCENTILES, image_weights
from mixaug_jax.explain.options import CONTROLS
from mixaug_jax.scores.alignment import pointing_accuracy
from mixaug_jax.scores.comparison import degradation_score
from mixaug_jax.scores.correlations import pooled_sensitivity_n

HEADER = ("method", "kind", "score", "mean", "low", "high", "images", "left_out")
# Scores on a part of the images, see `Evaluation.scores`.
SUBSETS = ("pointing_game_difficult", "box_ratio_small", "energy_pointing_game_small")
_ARRAYS = ("heat", "indices", "labels", "predicted")
_pooled = jax.jit(pooled_sensitivity_n)  # once a replicate
_GROUPS = {"scores": "score.", "curves": "curve.", "pairs": "pair."}


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """One method on N images.

    Attributes:
      heat: float32 [N,h,w], the heat maps, of the network's input size.
      indices: int [N], of the images in the data set.
      labels: int [N], the class that was explained.
      predicted: int [N], the class with the largest logit.
      scores: {name: float64 [N]}, NaN where the image was left out; of a curve, the area under it. Besides those of `SCORES`:
        "background_attribution", 1 - energy_pointing_game, the share of the positive attribution that lies off the object; and
        scores on the images alone that their papers keep: "pointing_game_difficult" (see `is_difficult`), "box_ratio_small",
        where the region covers at most 33 % of the image (Schulz et al. 2020, arXiv 2001.00396), and
        "energy_pointing_game_small", where it covers less than half (Wang et al. 2019, arXiv 1910.01279).
      curves: {name: float32 [N,T+1]}.
      pairs: {"sensitivity_n": float32 [N,2,sizes,samples]}, the sums and drops that it correlates; {} without that score.
      settings: what made this, as JSON has it.
    """

    heat: np.ndarray
    indices: np.ndarray
    labels: np.ndarray
    predicted: np.ndarray
    scores: dict[str, np.ndarray]
    curves: dict[str, np.ndarray]
    pairs: dict[str, np.ndarray]
    settings: dict

    @property
    def method(self) -> str:
        """Its name in METHODS."""
        return self.settings["method"]

    @property
    def empty(self) -> int:
        """How many maps say nothing: zero everywhere, or with a value that is NaN or infinite."""
        finite = np.isfinite(self.heat).all((1, 2))
        return int((~finite | ~self.heat.any((1, 2))).sum())

    @property
    def kind(self) -> str:
        """Whether it is a "method" or a "control" that knows nothing of the network."""
        return "control" if self.method in CONTROLS else "method"


@dataclasses.dataclass(frozen=True)
class Row:
    """A mean over images with its bootstrap interval.

    Attributes:
      score: its name.
      mean, low, high: over the images that count; percentiles `stats.PERCENTILES` of means over images drawn anew. All methods share
        the draws. NaN where no image counts.
      images: how many count.
      left_out: how many do not: without a region, cropped away, or not in the subset.
    """

    score: str
    mean: float
    low: float
    high: float
    images: int
    left_out: int


def summarize(result: Evaluation, *, replicates: int = 200, seed: int = 0) -> list[Row]:
    """A row for each score, but for subsets (`SUBSETS`) without an image.

    The pointing games have another row each, "..._class_mean", the mean over classes as TorchRay has it (see
    `pointing_accuracy`). Where there are morf and lerf there is "degradation_score", with the predictions' own start; beside
    sensitivity_n there is "sensitivity_n_pooled", the mean over sizes of `pooled_sensitivity_n`.

    Args:
      result: of one method.
      replicates: of the bootstrap over images; 0 leaves the intervals NaN.
      seed: of its draws.
    """
    number = len(result.indices)
    draws = image_weights(number, replicates, seed).T
    unlabeled = result.settings.get("unlabeled", 0)
    rows = []

    def add(score, counted, statistic):
        places = np.flatnonzero(counted)
        ends = [np.nan, np.nan]
        again = [statistic(np.repeat(places, draw[places])) for draw in draws if draw[places].any()]
        if again:
            ends = np.percentile(again, PERCENTILES)
        mean = statistic(places) if len(places) else np.nan
        left_out = number - len(places) + unlabeled
        rows.append(Row(score, float(mean), *map(float, ends), len(places), left_out))

    for name, values in result.scores.items():
        counted = ~np.isnan(values)
        if name in SUBSETS and not counted.any():
            continue
        add(name, counted, lambda places, values=values: values[places].mean())
        if name.startswith("pointing_game"):

            def by_class(places, values=values):
                return pointing_accuracy(values[places], result.labels[places])["all"]

            add(f"{name}_class_mean", counted, by_class)
    everything = np.ones(number, bool)
    for name, pairs in result.pairs.items():

        def pooled(places, pairs=pairs):
            return _pooled(*pairs[places].swapaxes(0, 1)).mean()

        add(f"{name}_pooled", everything, pooled)
    if {"morf", "lerf"} <= result.curves.keys():
        morf, lerf = result.curves["morf"], result.curves["lerf"]
        if morf.shape == lerf.shape:
            counted = ~np.isnan(morf + lerf).any(1)
            add("degradation_score", counted, lambda p: degradation_score(morf[p], lerf[p]))
    return rows


def table(results: dict[str, Evaluation], *, replicates: int = 200, seed: int = 0) -> list[list]:
    """Rows under `HEADER`: every method's, then every control's."""
    ordered = sorted(results.values(), key=lambda result: result.kind, reverse=True)
    return [
        [result.method, result.kind, row.score, *(f"{v:.6g}" for v in (row.mean, row.low, row.high)),
         row.images, row.left_out]
        for result in ordered
        for row in summarize(result, replicates=replicates, seed=seed)
    ]  # fmt: skip


def summary(rows: list[list]) -> str:
    """Lines of text: methods against scores, means over images and their intervals, from `table`."""
    methods = list(dict.fromkeys(row[0] for row in rows))
    scores = list(dict.fromkeys(row[2] for row in rows if not row[2].endswith("_class_mean")))
    cells = {(row[0], row[2]): row[3:6] for row in rows}
    wide = max(map(len, methods))
    low, high = PERCENTILES
    lines = [f"means over images ({low}-{high} % of images drawn anew)"]
    for score in scores:
        lines.append(f"  {score}")
        for method in methods:
            if (method, score) in cells:
                mean, least, most = map(float, cells[method, score])
                lines.append(f"    {method:{wide}}  {mean:8.3f}  ({least:.3f} to {most:.3f})")
    return "\n".join(lines)


def save(result: Evaluation, path) -> None:
    """Writes a .npz that `load` reads; the file appears when it is whole."""
    arrays = {name: getattr(result, name) for name in _ARRAYS}
    for group, prefix in _GROUPS.items():
        arrays |= {f"{prefix}{name}": values for name, values in getattr(result, group).items()}
    save_npz(path, arrays, result.settings)


def load(path) -> Evaluation:
    """What `save` wrote.

    Raises:
      ValueError: no such file, or another kind of file.
    """

    def make(arrays, settings):
        plain = {name: arrays[name] for name in _ARRAYS}
        groups = {
            group: {k.removeprefix(start): v for k, v in arrays.items() if k.startswith(start)}
            for group, start in _GROUPS.items()
        }
        return Evaluation(**plain, **groups, settings=settings)

    return load_npz(path, make, "an evaluation")
