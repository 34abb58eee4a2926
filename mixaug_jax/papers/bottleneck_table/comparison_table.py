"""The table from its rows: means with intervals, ranks, what beats the controls, and whether bottlenecks come first."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats as scipy_stats

from mixaug_jax.core import stats
from mixaug_jax.core.types import Given
from mixaug_jax.papers.bottleneck_table import protocol
from mixaug_jax.papers.bottleneck_table.published_rows import BOTTLENECKS, CONTROLS, RECALLED, Row
from mixaug_jax.papers.bottleneck_table.row_results import Result

CLASSES = ("label", "predicted")  # of the curves, in their last axis
PAPER = "five of six settings (two networks by degradation 8 x 8, 14 x 14 and boxes)"


@dataclasses.dataclass(frozen=True)
class Cell:
    """One number.

    Attributes:
      value, low, high: the estimate and its interval.
      again: [R], the number in each replicate of the bootstrap over images; all rows share the draws.
      rank: among all rows, 1 the best.
      beats: controls that it is above, by Holm's correction over the whole table.
      images: how many count.
    """

    value: float
    low: float
    high: float
    again: np.ndarray
    rank: int = 0
    beats: tuple[str, ...] = ()
    images: int = 0


Table = dict[str, dict[str, Cell]]  # {row: {column: cell}}


def columns(tiles: Sequence[int], units: Sequence[int], boxes: bool) -> dict[str, str]:
    """{column: what it is}; the first ones are the paper's settings.

    Args:
      tiles, units: sides, pixels.
      boxes: whether there are any.
    """
    found = {f"degradation {side}": f"degradation, tiles of {side} pixels" for side in tiles}
    found |= {"boxes": "share of the highest pixels inside"} if boxes else {}
    return found | {f"sensitivity-n {side}": f"pooled r, {side} x {side} units" for side in units}


def beside(tiles: Sequence[int], units: Sequence[int], boxes: bool) -> dict[str, str]:
    """{column: what it is} of the numbers that stand beside, measured in another way."""
    found = {f"degradation {side}, area": "by trapezoids, the end included" for side in tiles}
    found |= {f"degradation {side}, predicted": "of the predicted class" for side in tiles}
    if boxes:
        found |= {"boxes, whole pixels": "the package's score", "mass": "share of the map inside"}
    return found | {f"sensitivity-n {side}, per image": "mean r of each image" for side in units}


def table(
    rows: Mapping[str, Row],
    results: Mapping[str, Result],
    drops: Mapping[int, np.ndarray],
    top: np.ndarray,
    *,
    replicates: int = 200,
    seed: int = 0,
) -> Table:
    """{row: {column: cell}}, those of `columns` and of `beside`.

    Args:
      rows: by name.
      results: of the same names.
      drops: {side: [sizes,n,samples]}.
      top: [N], the probability of the predicted class of the clean images.
      replicates: of the bootstrap over images.
      seed: of its draws.
    """
    found: Table = {}
    for name, result in results.items():
        cells: dict[str, Cell] = {}
        for column, (statistic, counts) in _statistics(result, drops, top).items():
            whole = statistic(np.ones((len(counts), 1)))
            # Over all images, those that do not count included, so that all rows share the draws.
            weights = stats.image_weights(len(counts), replicates, seed)
            # A replicate may hold none of the images, and then says nothing.
            again = np.where(weights[counts].any(0), statistic(weights), np.nan)
            cells[column] = _cell(float(whole[0]), again, int(counts.sum()))
        found[name] = cells
    _rank(found)
    _compare(found, rows)
    return found


def _cell(value, again, images):
    low, high = stats.percentiles(again)
    # The estimate lies within its interval, whatever the draws.
    return Cell(value, min(low, value), max(high, value), again, images=images)


def _statistics(result, drops, top) -> dict:
    """{column: (f(weights [n,R]) -> [R], which of the n images count)}."""
    found, arrays = {}, result.arrays
    for key, curves in arrays.items():
        kind, _, side = key.partition(".")
        if kind == "curves":
            gone = np.asarray(result.settings["curves"][side])
            found |= _degradations(side, curves.astype(np.float64), top, gone / gone[-1])
        if kind == "sums":
            pair = arrays[key], drops[int(side)]
            # The published number is one correlation over all images; beside it stands the mean of each image's own.
            each, counts = protocol.per_image(*pair).mean(0), protocol.finite(*pair)
            found[f"sensitivity-n {side}"] = (
                lambda w, pair=pair: protocol.pooled(*pair, w).mean(0),
                counts,
            )
            found[f"sensitivity-n {side}, per image"] = (_weighted(each), counts)
    # Images whose boxes cover too much have NaN and do not count.
    for key, column in (("box", "boxes"), ("box_ours", "boxes, whole pixels"), ("mass", "mass")):
        if key in arrays and not np.isnan(arrays[key]).all():
            values = arrays[key][~np.isnan(arrays[key])]
            found[column] = (_weighted(values), np.ones(len(values), bool))
    return found


def _degradations(side, curves, top, positions):
    asked, predicted = curves[..., 0], curves[..., 1]

    def score(curves: np.ndarray, at: Given = ()):
        return lambda weights: protocol.degradation(curves, top, weights, at)

    every = np.ones(len(top), bool)
    return {
        f"degradation {side}": (score(asked), every),
        f"degradation {side}, area": (score(asked, positions), every),
        f"degradation {side}, predicted": (score(predicted), every),
    }


def _weighted(values):
    there = np.isfinite(values)

    def mean(weights: np.ndarray):
        weights = weights[there]
        found = values[there] @ weights / np.maximum(weights.sum(0), protocol.TINY)
        return np.where(weights.any(0), found, np.nan)

    return mean


def _rank(found):
    for column in {column for cells in found.values() for column in cells}:
        there = [name for name, cells in found.items() if column in cells]
        values = np.array([found[name][column].value for name in there])
        ranks = scipy_stats.rankdata(-values, method="min", nan_policy="omit")
        for name, rank in zip(there, ranks, strict=True):
            place = 0 if np.isnan(rank) else int(rank)
            found[name][column] = dataclasses.replace(found[name][column], rank=place)


def _compare(found, rows):
    """Notes which controls each row is above: by the bootstrap's deviation of the paired difference, one family for Holm."""
    controls = [name for name in found if rows[name].kind == CONTROLS]
    pairs, p = [], []
    for name in [name for name in found if rows[name].kind != CONTROLS]:
        for column, cell in found[name].items():
            if "," in column or column == "mass":
                continue
            for control in controls:
                other = found[control][column]
                # Resamples of a few images vary too little to claim anything.
                enough = cell.images >= stats.FEWEST
                replicated = enough and np.isfinite(cell.again - other.again).any()
                spread = np.nanstd(cell.again - other.again) if replicated else np.nan
                z = (cell.value - other.value) / spread if spread > 0 else 0.0
                pairs.append((name, column, control))
                p.append(2 * scipy_stats.norm.sf(z))
    corrected = stats.holm(np.minimum(p, 1.0)) if p else []
    for (name, column, control), value in zip(pairs, corrected, strict=True):
        cell = found[name][column]
        if value < stats.ALPHA:
            found[name][column] = dataclasses.replace(cell, beats=(*cell.beats, control))


def first(found: Table, rows: Mapping[str, Row], settings: Sequence[str]) -> dict[str, str]:
    """{column: the best row, controls left out} of the settings."""
    judged = [name for name in found if rows[name].kind != CONTROLS]
    best = {}
    for column in settings:
        there = [n for n in judged if column in found[n] and not np.isnan(found[n][column].value)]
        if there:
            best[column] = max(there, key=lambda name: found[name][column].value)
    return best


def verdict(found: Table, rows: Mapping[str, Row], settings: Sequence[str]) -> str:
    """Whether bottlenecks come first, as in the paper, in a sentence.

    settings: the columns that the paper has, too.
    """
    best = first(found, rows, settings)
    won = [column for column, name in best.items() if rows[name].kind == BOTTLENECKS]
    listed = "; ".join(f"{column}: {name}" for column, name in best.items())
    return f"A bottleneck comes first in {len(won)} of {len(best)} settings here ({listed}). The paper says that of {PAPER}."


def beaten(found: Table, rows: Mapping[str, Row], column: str) -> str:
    """Which rows are above which controls in a column, in a sentence."""
    judged = [name for name in found if rows[name].kind != CONTROLS and column in found[name]]
    parts = []
    for control in [name for name in found if rows[name].kind == CONTROLS]:
        above = [name for name in judged if control in found[name][column].beats]
        parts.append(f"above {control}: {', '.join(above) or 'none'}")
    return f"{column}: {'; '.join(parts)}."


def recalled(network: str, row: str, column: str) -> float | None:
    """The paper's number, from memory and not confirmed; None where it has none."""
    place = {"degradation 8": 0, "degradation 14": 1, "boxes": 2}.get(column)
    numbers = RECALLED.get(network, {}).get(row)
    return None if place is None or numbers is None else numbers[place]
