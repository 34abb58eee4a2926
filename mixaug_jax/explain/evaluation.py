"""What the explanations of one method are worth, on many images."""

import dataclasses
import json
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mixaug_jax.core.files import load_npz, save_npz
from mixaug_jax.core.frames import frame, names_of
from mixaug_jax.core.stats import image_weights, percentiles
from mixaug_jax.scores import SCORES
from mixaug_jax.scores.score import as_score

HEADER = ("method", "kind", "score", "mean", "low", "high", "images", "left_out")
_ACROSS = 6  # columns of the summary
_ARRAYS = ("heat", "indices", "labels", "predicted")
_GROUPS = {"scores": "score.", "curves": "curve.", "pairs": "pair."}


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """One method on N images.

    Attributes:
      heat: float32 [N,h,w], the heat maps, of the network's input size.
      indices: int [N], of the images in the data set.
      labels: int [N], the class that was explained.
      predicted: int [N], the class with the largest logit.
      scores: {name: float64 [N]}, NaN where the image was left out; of a curve, the area under it. Besides those that were
        asked for the values that they give beside themselves, see `scores.score.Score.also`: "background_attribution", say.
      curves: {name: float32 [N,T+1]}.
      pairs: {"sensitivity_n": float32 [N,2,sizes,samples]}, the sums and drops that it correlates; {} without that score.
      entries: {"kind": "method" or "control", "title", "scores": see `scores.score.facts`}, what pages and studies need to
        know of the method and its scores; of some methods also "missing" and "ties", see `caveats`.
      settings: what made this, as JSON has it.
    """

    heat: np.ndarray
    indices: np.ndarray
    labels: np.ndarray
    predicted: np.ndarray
    scores: dict[str, np.ndarray]
    curves: dict[str, np.ndarray]
    pairs: dict[str, np.ndarray]
    entries: dict
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
    def hits(self) -> np.ndarray:
        """float64 [N]: 1 where the map's largest value hits, 0 where it misses, NaN where no score says so."""
        said = self.entries["scores"]
        known = [self.scores[name] for name, facts in said.items() if facts.get("hits")]
        return known[0] if known else np.full(len(self.indices), np.nan)

    @property
    def kind(self) -> str:
        """Whether it is a "method" or a "control" that knows nothing of the network."""
        return self.entries["kind"]

    def to_frame(self, dataset: Any = ()) -> Any:
        """A `pandas.DataFrame` (extra `frames`) of a row for each image: its index and the name of its file, the explained and
        the predicted class, and a column for each score, NaN where the image was left out.

        Args:
          dataset: the images' own, for the names of their files; () leaves these "".
        """
        return frame(image_columns(self, dataset))


@dataclasses.dataclass(frozen=True)
class Row:
    """A mean over images with its bootstrap interval.

    Attributes:
      score: its name.
      mean, low, high: over the images that count; percentiles `stats.PERCENTILES` of means over images drawn anew. All methods
        share the draws. NaN where no image counts.
      images: how many count.
      left_out: how many do not: without a region, cropped away, or not in the subset.
    """

    score: str
    mean: float
    low: float
    high: float
    images: int
    left_out: int


def image_columns(result: Evaluation, dataset: Any = ()) -> dict[str, Any]:
    """The columns of `Evaluation.to_frame`, each [N]."""
    return {
        "method": [result.method] * len(result.indices),
        "image": result.indices,
        "file": names_of(dataset, result.indices),
        "label": result.labels,
        "predicted": result.predicted,
        **result.scores,
    }


def summarize(
    result: Evaluation,
    *,
    replicates: int = 200,
    seed: int = 0,
    scores: Mapping[str, Callable] = SCORES,
) -> list[Row]:
    """A row for each score, but for parts of the images without one, and for each summary of the scores' records that counts an
    image.

    Args:
      result: of one method.
      replicates: of the bootstrap over images; 0 leaves the intervals NaN.
      seed: of its draws.
      scores: the entries that were asked for, by name, or more.
    """
    number = len(result.indices)
    draws = image_weights(number, replicates, seed).T
    unlabeled = result.settings.get("unlabeled", 0)
    rows = []

    def add(score: Any, counted: Any, statistic: Any):
        places = np.flatnonzero(counted)
        # A resample may hold none of the images that count, and then says nothing.
        again = [statistic(np.repeat(places, draw[places])) for draw in draws if draw[places].any()]
        ends = percentiles(again)
        mean = statistic(places) if len(places) else np.nan
        left_out = number - len(places) + unlabeled
        # Resamples may lack a class, which shifts a mean over classes: the interval still contains its estimate.
        ends = min(ends[0], float(mean)), max(ends[1], float(mean))
        rows.append(Row(score, float(mean), *ends, len(places), left_out))

    # Means over images first; what is one number of many images stands behind its score.
    for name, values in result.scores.items():
        counted = ~np.isnan(values)
        if counted.any() or not result.entries["scores"][name]["view"]:
            add(name, counted, lambda places, values=values: values[places].mean())
        for summary, make in (as_score(scores[name]).summaries if name in scores else {}).items():
            found = make.f(result)
            if found is not None and found[0].any():
                add(summary, *found)
    return rows


def table(
    results: Mapping[str, Evaluation],
    *,
    replicates: int = 200,
    seed: int = 0,
    scores: Mapping[str, Callable] = SCORES,
) -> list[list]:
    """Rows under `HEADER`: every method's, then every control's; see `summarize`."""
    # "method" sorts after "control"; a reversed sort is stable too and keeps each kind's order.
    ordered = sorted(results.values(), key=lambda result: result.kind, reverse=True)
    return [
        [result.method, result.kind, row.score, *(f"{v:.6g}" for v in (row.mean, row.low, row.high)),
         row.images, row.left_out]
        for result in ordered
        for row in summarize(result, replicates=replicates, seed=seed, scores=scores)
    ]  # fmt: skip


def summary(results: Mapping[str, Evaluation]) -> str:
    """Lines of text: methods and controls against scores, means over images; other views of a score are left out."""
    first = next(iter(results.values()))
    facts = first.entries["scores"]
    names = [name for name in first.scores if not facts[name]["view"]]
    wide = max(map(len, results))
    lines = [
        f"means over {len(first.indices)} images (all scores and their intervals are in scores.csv)"
    ]
    for start in range(0, len(names), _ACROSS):
        shown = names[start : start + _ACROSS]
        lines.append(f"  {'':{wide}}" + "".join(f"  {name[:22]:>22}" for name in shown))
        for method, result in results.items():
            # Images that a score does not know, as those without a region, are in no mean.
            known = [result.scores[name][~np.isnan(result.scores[name])] for name in shown]
            cells = [f"{values.mean():22.3f}" if len(values) else f"{'-':>22}" for values in known]
            lines.append(f"  {method:{wide}}" + "".join(f"  {cell}" for cell in cells))
    return "\n".join(lines)


def save(result: Evaluation, path: os.PathLike | str) -> None:
    """Writes a .npz that `load` reads; the file appears when it is whole."""
    arrays = {name: getattr(result, name) for name in _ARRAYS}
    for group, prefix in _GROUPS.items():
        arrays |= {f"{prefix}{name}": values for name, values in getattr(result, group).items()}
    arrays["entries"] = np.array(json.dumps(result.entries))
    save_npz(path, arrays, result.settings)


def load(path: os.PathLike | str) -> Evaluation:
    """What `save` wrote.

    Raises:
      ValueError: no such file, or another kind of file.
    """

    def make(arrays: Any, settings: Any):
        plain = {name: arrays[name] for name in _ARRAYS}
        groups = {
            group: {k.removeprefix(start): v for k, v in arrays.items() if k.startswith(start)}
            for group, start in _GROUPS.items()
        }
        said = json.loads(str(arrays["entries"]))
        return Evaluation(**plain, **groups, entries=said, settings=settings)

    return load_npz(path, make, "an evaluation")
