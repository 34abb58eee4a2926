"""A reader of panels, simulated: which attributes does a panel tell to be relevant? It is a proxy, not people.

The reader sees a panel alone. It estimates every attribute of every picture (an evaluator network, or the true values as a
control), with noise of the size of a just noticeable difference, and calls an attribute relevant where the evidence is above
what the same panel would give if its columns meant nothing.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats as scipy_stats

from mixaug_jax.core import checks, stats
from mixaug_jax.core.types import Count, Float, Given, Shaped
from mixaug_jax.papers.relevance.panels.panel import Panel, part

PROXY = "a simulated reader, which stands in for people and is none"
SHUFFLES = 1000
QUANTILE = 0.95
REPEATS = 50  # panels of other rows, which the intervals are over
Readings = Float[np.ndarray, "R C A"]
PerAttribute = Shaped[np.ndarray, "A"]


@dataclasses.dataclass(frozen=True)
class Reader:
    """How a reader looks.

    Attributes:
      names: of the attributes, A.
      jnd: float32 [A], just noticeable differences in the attributes' units, above 0: the larger of the evaluator's mean
        absolute error and a floor.
      circular: the names of those that are angles in radians.
      shuffles: of a panel with its columns shuffled.
      quantile: of the shuffled panels' evidence, above which an attribute is called relevant.
    """

    names: tuple[str, ...]
    jnd: PerAttribute
    circular: tuple[str, ...] = ()
    shuffles: int = SHUFFLES
    quantile: float = QUANTILE

    def __post_init__(self):
        checks.choices("circular", self.circular, self.names)
        checks.count("shuffles", self.shuffles)
        if len(self.jnd) != len(self.names) or not (np.asarray(self.jnd) > 0).all():
            raise ValueError(
                f"jnd must have a value above 0 for each of {len(self.names)} attributes; got {list(self.jnd)}"
            )


class Judgment(NamedTuple):
    """What a reader makes of a panel, [A] each: the evidence, what it must be above, and whether it is."""

    evidence: np.ndarray
    border: np.ndarray
    relevant: np.ndarray


class Score(NamedTuple):
    """How right a reader is: over attributes, the share of right verdicts, and the AUC of the evidence; NaN where the truth is
    the same for all."""

    accuracy: float
    auc: float


def read(panel: Panel, evaluator: Callable) -> Readings:
    """What an evaluator reads off every picture of a panel.

    Args:
      panel: to look at.
      evaluator: f(images uint8 [N,S,S,3]) -> float [N,A].

    Raises:
      ValueError: the evaluator gives another number of rows.
    """
    rows, columns = panel.logits.shape
    found = np.asarray(evaluator(panel.images.reshape(-1, *panel.images.shape[2:])), np.float32)
    if found.ndim != 2 or len(found) != rows * columns:
        raise ValueError(
            f"an evaluator must give [N,A] for N={rows * columns} images; got {list(found.shape)}"
        )
    return found.reshape(rows, columns, -1)


def judge(panel: Panel, values: Readings, reader: Reader, seed: Count) -> Judgment:
    """Blurs readings by the reader's noise and looks for evidence.

    The evidence is, by the panel's reading: "columns", |Spearman's rho| of value and column; "rows", the size of the mean slope
    within rows from the first column (-1) to the last (1), in just noticeable differences; "signs", |AUC - .5| between the
    pictures of concepts that speak for the one and for the other class. Of an angle it is the larger of the evidences of its
    sine and cosine. It is compared with the same evidence where columns are shuffled within rows (of concepts: signs over rows,
    since pictures of one concept are alike).

    Args:
      panel: that was read.
      values: [R,C,A], as of `read`, or true ones.
      reader: how it looks.
      seed: of the noise and the shuffles.

    Raises:
      ValueError: values of another shape, or not finite.
    """
    rows, columns = panel.logits.shape
    if values.shape != (rows, columns, len(reader.names)):
        raise ValueError(
            f"readings must have the shape [{rows}, {columns}, {len(reader.names)}]; got {list(values.shape)}"
        )
    if not np.isfinite(values).all():
        raise ValueError("readings must be finite")
    rng = np.random.default_rng(seed)
    blurred = values + rng.normal(size=values.shape) * reader.jnd
    spread, owner, units = _components(blurred, reader)
    weights, table = _linear(panel, spread, units)
    found = np.abs(_applied(weights[None], table))[0]
    shuffled = np.abs(_applied(_shuffled(panel, weights, reader.shuffles, rng), table))
    # One evidence for an angle's two components, in the shuffled panels as well.
    first = np.searchsorted(owner, np.arange(len(reader.names)))
    evidence = np.maximum.reduceat(found, first)
    border = np.quantile(np.maximum.reduceat(shuffled, first, axis=1), reader.quantile, axis=0)
    # Sums of equal numbers in another order differ by their rounding.
    return Judgment(evidence, border, evidence > border * (1 + 1e-6) + 1e-9)


def _components(values, reader):
    """Values [R,C,B] with an angle's sine and cosine in its place, whose each of them is, and their units."""
    parts, owner, units = [], [], []
    for k, name in enumerate(reader.names):
        angle = name in reader.circular
        parts += [np.sin(values[..., k]), np.cos(values[..., k])] if angle else [values[..., k]]
        owner += [k] * (1 + angle)
        units += [float(reader.jnd[k])] * (1 + angle)
    return np.stack(parts, -1), np.array(owner), np.array(units)


def _linear(panel, values, units):
    """Evidence as |weights . table|: weights [R,C] that shuffling moves, and a table [R,C,B] that it does not."""
    rows, columns = panel.logits.shape
    position = np.linspace(-1, 1, columns) if columns > 1 else np.zeros(1)
    if panel.reading == "rows":
        weights = np.broadcast_to(position, (rows, columns))
        return weights / max(np.square(weights).sum(), 1e-12), values / units
    flat = values.reshape(rows * columns, -1)
    ranks = scipy_stats.rankdata(flat, axis=0)
    if panel.reading == "columns":
        ranks = ranks - ranks.mean(0)
        size = np.sqrt(np.square(ranks).sum(0))
        table = ranks / np.where(size > 0, size, 1)
        weights = np.broadcast_to(position, (rows, columns))
        weights = weights / max(np.sqrt(np.square(weights).sum()), 1e-12)
        return weights, table.reshape(values.shape)
    # Mann and Whitney: the sum of the ranks of the one side tells the AUC.
    weights = np.broadcast_to((np.asarray(panel.signs) > 0)[:, None], (rows, columns))
    centered = (ranks - (len(flat) + 1) / 2).reshape(values.shape)
    one = weights.sum()
    return weights / max(one * (len(flat) - one), 1), centered


def _applied(weights, table):
    return weights.reshape(len(weights), -1) @ table.reshape(-1, table.shape[-1])


def _shuffled(panel, weights, count, rng):
    rows, columns = weights.shape
    many = np.broadcast_to(weights, (count, rows, columns))
    if panel.reading == "signs":
        return rng.permuted(many[:, :, 0], axis=1)[:, :, None] * np.ones(columns)
    return rng.permuted(many, axis=2)


def score(judgment: Judgment, truth: PerAttribute) -> Score:
    """Compares a reader's verdicts with which attributes are relevant to the network, bool [A]."""
    return Score(float((judgment.relevant == truth).mean()), evidence_auc(judgment.evidence, truth))


def evidence_auc(evidence: PerAttribute, truth: PerAttribute) -> float:
    """The chance that a relevant attribute has more evidence than one that is not; NaN where there are none of either."""
    truth = np.asarray(truth, bool)
    one, other = truth.sum(), (~truth).sum()
    if not one or not other:
        return float("nan")
    ranks = scipy_stats.rankdata(evidence)
    return float((ranks[truth].sum() - one * (one + 1) / 2) / (one * other))


class ReaderRow(NamedTuple):
    """A line of the table of readers, simulated ones and people.

    Attributes:
      reader: who reads: "simulated", "true attributes", "linear" or "people".
      panel: which kind of panel.
      network: whose panel.
      accuracy, low, high: the mean share of right verdicts, and its interval over panels (people: over participants).
      auc, auc_low, auc_high: of the evidence, likewise; NaN where all attributes are relevant, or none.
      count: panels or participants.
      left_out: participants who failed the check.
    """

    reader: str
    panel: str
    network: str
    accuracy: float
    low: float
    high: float
    auc: float
    auc_low: float
    auc_high: float
    count: int
    left_out: int = 0


class Scores(NamedTuple):
    """A reader on many panels: [P] accuracies and AUCs, and verdicts [P,A] with their evidence over its border."""

    accuracy: np.ndarray
    auc: np.ndarray
    relevant: np.ndarray
    ratio: np.ndarray


def drawn_from(panel: Panel) -> int:
    """How many rows `many` draws from; of concepts, whose rows are what they are, how many columns."""
    return panel.logits.shape[1 if panel.reading == "signs" else 0]


def many(
    panel: Panel, values: Readings, reader: Reader, *, truth: PerAttribute, rows: Count, seed: Count
) -> Scores:
    """Reads `REPEATS` panels of `rows` rows each, drawn without replacement from those of a larger panel.

    Of concepts, whose rows are what they are, it draws columns.

    Args:
      panel: the larger one.
      values: [R,C,A], readings of it.
      reader: how it looks.
      truth: bool [A].
      rows: at most as many as there are.
      seed: of rows and noise.
    """
    across = panel.reading == "signs"
    there = drawn_from(panel)
    found, scores = [], []
    for number in range(REPEATS):
        draw = np.random.default_rng([seed, number]).permutation(there)[:rows]
        kept = (np.arange(len(panel.logits)), np.sort(draw)) if across else (np.sort(draw), ())
        cells = np.ix_(kept[0], kept[1] if across else np.arange(panel.logits.shape[1]))
        judgment = judge(part(panel, *kept), values[cells], reader, seed * REPEATS + number)
        found.append(judgment)
        scores.append(score(judgment, truth))
    # Evidence as a multiple of what a panel that says nothing gives, so that panels can be averaged.
    borders = np.array([np.maximum(one.border, 1e-12) for one in found])
    return Scores(
        np.array([one.accuracy for one in scores]),
        np.array([one.auc for one in scores]),
        np.array([one.relevant for one in found]),
        np.array([one.evidence for one in found]) / borders,
    )


def interval(values: Given) -> tuple[float, float, float]:
    """The mean over panels and the percentiles `stats.PERCENTILES` of panels, NaN left out; an interval contains its mean."""
    values = np.asarray(values, np.float64)
    values = values[~np.isnan(values)]
    if not len(values):
        return np.nan, np.nan, np.nan
    (low, high), mean = stats.percentiles(values), float(values.mean())
    return mean, min(low, mean), max(high, mean)


def linear_reader(
    evidence: Sequence[np.ndarray], truth: Sequence[np.ndarray], held: np.ndarray
) -> np.ndarray:
    """Chances that attributes are relevant, by a logistic regression on evidence over its border from panels of other networks.

    Args:
      evidence: of each other network [P,A], over its border.
      truth: of each other network, bool [A].
      held: [P,A] of the network that is judged.

    Returns:
      [P,A] in 0..1. The one input is the logarithm of 1 + evidence over border, the same for all attributes.
    """
    x = np.concatenate([np.log1p(one).ravel() for one in evidence])
    y = np.concatenate(
        [np.broadcast_to(t, e.shape).ravel() for e, t in zip(evidence, truth, strict=True)]
    )
    slope, offset = _logistic(x, y.astype(np.float64))
    return 1 / (1 + np.exp(-(slope * np.log1p(held) + offset)))


def _logistic(x, y, penalty=1e-2):
    """Newton's steps on the mean cross-entropy, with a small penalty on the slope, which keeps separable data finite."""
    design = np.stack([x, np.ones_like(x)], 1)
    ridge, solved = np.diag([penalty, penalty / 100]), np.zeros(2)
    for _ in range(25):
        p = 1 / (1 + np.exp(-np.clip(design @ solved, -30, 30)))
        slope = design.T @ (p - y) / len(y) + ridge @ solved
        curve = (design * (p * (1 - p))[:, None]).T @ design / len(y) + ridge
        solved = solved - np.linalg.solve(curve, slope)
    return solved
