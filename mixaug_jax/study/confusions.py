"""Which confusions of classes an augmentation makes more or less often, and of what kind they are."""

import dataclasses

import numpy as np
from scipy import special, stats

from mixaug_jax.core.types import Bool, Count, Float, Int
from mixaug_jax.study.class_answers import Answers
from mixaug_jax.study.class_statistics import FALSE_DISCOVERIES
from mixaug_jax.study.superclasses import superclass

FEWEST_ERRORS = 20  # of a pair, over both sides and all seeds; of fewer nothing is tested
AMBIGUOUS = 0.1  # the share of a class's images that show the other one as well
TOGETHER = 0.05  # p of Fisher's test, one-sided, below which two classes occur together


@dataclasses.dataclass(frozen=True)
class Confusion:
    """Images of one class that are taken for another.

    Attributes:
      true, taken: numbers of the classes.
      rates: the share of the class's images for which that happens, under the reference and under the augmentation, means over
        seeds.
      interval: of the second minus the first, a t-interval over seeds.
      p: of the t-test over seeds.
      kind: "ambiguous", "co-occurring", "fine-grained", "unrelated", or "" where nothing is known of the two.
    """

    true: int
    taken: int
    rates: tuple[float, float]
    interval: tuple[float, float]
    p: float
    kind: str


def rates(
    predicted: Int[np.ndarray, " N"], labels: Int[np.ndarray, " N"], classes: Count
) -> Float[np.ndarray, "classes classes"]:
    """The share of each class's images that are taken for each class; rows of classes without images are NaN."""
    counts = np.bincount(labels * classes + predicted, minlength=classes**2)
    counts = counts.reshape(classes, classes)
    sizes = counts.sum(1, keepdims=True)
    return np.where(sizes, counts / np.maximum(sizes, 1), np.nan)


def changed(answers: Answers, runs: list, references: list) -> list[Confusion]:
    """The confusions whose rate differs, at a false discovery rate of a tenth (Benjamini and Hochberg 1995) over all pairs of
    classes with `FEWEST_ERRORS`; the largest changes first.

    Args:
      answers: of all runs.
      runs: keys of the augmentation's, in `answers.predicted`; three or more.
      references: of the runs of the same seeds that they are compared with.
    """
    classes = len(answers.classes)
    sides = np.stack(
        [
            [rates(answers.predicted[run], answers.labels, classes) for run in side]
            for side in (references, runs)
        ]
    )
    errors = np.nansum(sides * answers.sizes[:, None], (0, 1))
    # What was taken for itself is no error.
    np.fill_diagonal(errors, 0)
    tested = np.argwhere(errors >= FEWEST_ERRORS - 1e-6)
    if not len(tested):
        return []
    difference = (sides[1] - sides[0])[:, tested[:, 0], tested[:, 1]]
    count = len(difference)
    mean = difference.mean(0)
    error = difference.std(0, ddof=1) / np.sqrt(count)
    # Differences that are alike in all seeds have no error to divide by: no test, p = 1.
    t = np.abs(mean) / np.where(error > 0, error, np.nan)
    p = np.nan_to_num(2 * special.stdtr(count - 1, -t), nan=1.0)
    kept = stats.false_discovery_control(p) <= FALSE_DISCOVERIES
    half = special.stdtrit(count - 1, 0.975) * error
    # No share changes by more than all.
    low, high = np.clip([mean - half, mean + half], -1, 1)
    found = []
    for k in np.flatnonzero(kept)[np.argsort(-np.abs(mean[kept]), kind="stable")]:
        true, taken = (int(m) for m in tested[k])
        before, after = sides[:, :, true, taken].mean(1)
        found.append(
            Confusion(
                true,
                taken,
                (float(before), float(after)),
                (float(low[k]), float(high[k])),
                float(p[k]),
                kind(answers.classes, answers.shown, answers.labels, (true, taken)),
            )
        )
    return found


def kind(
    classes: tuple[str, ...],
    shown: Bool[np.ndarray, "M K"],
    labels: Int[np.ndarray, " N"],
    pair: tuple[int, int],
) -> str:
    """Of what kind a confusion is: see `Confusion`. Kirichenko et al. 2023 (arXiv 2401.01764) have these kinds; where they end
    is a choice of this file."""
    true, taken = pair
    families = [superclass(classes, classes[m]) for m in pair]
    known = bool(len(shown)) or bool(families[0])
    if len(shown):
        # In this order: of a picture that shows both, the label itself is a matter of choice, whatever else holds.
        own = shown[labels == true, taken]
        if len(own) and own.mean() >= AMBIGUOUS:
            return "ambiguous"
        one, other = shown[:, true], shown[:, taken]
        table = [
            [np.sum(one & other), np.sum(one & ~other)],
            [np.sum(~one & other), np.sum(~one & ~other)],
        ]
        if stats.fisher_exact(table, alternative="greater").pvalue < TOGETHER:
            return "co-occurring"
    if families[0] and families[0] == families[1]:
        return "fine-grained"
    return "unrelated" if known else ""
