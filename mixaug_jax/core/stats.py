"""Means, shares, paired differences, ranks, and their uncertainty, at one level of confidence everywhere. NaN is a number that
is not there."""

import numpy as np
from scipy import special, stats

from mixaug_jax.core.types import Given, Scalar

LEVEL = 0.95  # of every interval
PERCENTILES = (50 - 50 * LEVEL, 50 + 50 * LEVEL)  # of resampled values: the interval's ends
ALPHA = 0.05  # below it, after Holm's correction, a difference is called supported
ANYWHERE = (-np.inf, np.inf)  # the scale of what has no bounds
REPLICATES = 1000  # of the bootstrap over images
GROUPS = 20  # of images, whose tallies are kept apart
HALVES = 100  # of these groups, drawn at random
FEWEST_SEEDS = 3  # of fewer, the spread is not known well enough for an interval or a test
FEWEST = 5  # a smaller count has no interval: too few of them can change to go by


def mean_interval(
    values: Given, scale: tuple[float, float] = ANYWHERE
) -> tuple[float, float, float, int]:
    """The mean and its t-interval (n - 1 degrees of freedom), cut to the scale.

    Cutting costs no coverage, as no mean lies beyond the scale. The usual other way, a t-interval of logits, has no value for
    an accuracy of 0 or 1, and speaks of the mean logit, which is not the mean.

    Args:
      values: [S], one a seed.
      scale: the least and the largest value there can be.

    Returns:
      mean, low, high and the number n that are there; low and high are NaN for fewer than `FEWEST_SEEDS`: with two, t is 12.7
      and the interval says nothing that the two points do not.
    """
    values = _there(values)
    n = len(values)
    mean = float(values.mean()) if n else np.nan
    if n < FEWEST_SEEDS:
        return mean, np.nan, np.nan, n
    half = float(special.stdtrit(n - 1, (1 + LEVEL) / 2) * values.std(ddof=1) / np.sqrt(n))
    # Values on a scale may leave it by a rounding error, and an interval contains its estimate.
    return mean, max(mean - half, min(scale[0], mean)), min(mean + half, max(scale[1], mean)), n


def paired(
    values: Given, reference: Given, scale: tuple[float, float] = ANYWHERE
) -> tuple[float, float, float, float, int]:
    """The mean of values - reference, pair by pair, its t-interval, and the p of the paired t-test.

    Args:
      values, reference: [S], of the same seeds.
      scale: of each of them, so that differences of accuracies stay within -1..1.

    Returns:
      difference, low, high, two-sided p, and the number of whole pairs. low, high and p are NaN with fewer than
      `FEWEST_SEEDS`, and where
      all pairs have the same difference but for rounding, which leaves no spread to go by.
    """
    values, reference = np.asarray(values, np.float64), np.asarray(reference, np.float64)
    if values.shape != reference.shape or values.ndim != 1:
        raise ValueError(
            f"values {values.shape} and reference {reference.shape} must be of the same seeds"
        )
    differences = _there(values - reference)
    width = scale[1] - scale[0]
    mean, low, high, n = mean_interval(differences, (-width, width))
    if n < FEWEST_SEEDS:
        return mean, low, high, np.nan, n
    spread = differences.std(ddof=1)
    # Differences that are equal but for rounding: a t-test of them would be as sure as it is wrong.
    if spread <= 1e-12 * max(np.nanmax(np.abs(values)), np.nanmax(np.abs(reference))):
        return mean, np.nan, np.nan, np.nan, n
    p = stats.ttest_1samp(differences, 0).pvalue
    return mean, low, high, float(p), n


def holm(p: Given) -> np.ndarray:
    """p after the correction of Holm 1979: the chance of one wrong rejection in the whole family is held.

    Args:
      p: [N] of one family; NaN takes no part and stays NaN.

    Returns:
      [N]: the i-th smallest of m times m - i + 1, made not to fall, at most 1.
    """
    p = np.asarray(p, np.float64)
    adjusted = np.full(p.shape, np.nan)
    there = np.flatnonzero(~np.isnan(p))
    order = there[np.argsort(p[there], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * factors), 1)
    return adjusted


def ranks(values: Given, better: int) -> np.ndarray:
    """Ranks from 1, the best; equal values share the mean of their ranks; NaN where there is no value.

    Args:
      values: [A].
      better: -1 where smaller is better, else larger is.
    """
    values = np.asarray(values, np.float64)
    return stats.rankdata(values if better < 0 else -values, nan_policy="omit")


def mean_ranks(values: Given, better: int) -> np.ndarray:
    """The mean over seeds of the ranks among augmentations, [A].

    Args:
      values: [A,S]. Augmentations without any value have no rank; seeds that miss one of the others are left out, so that
        every rank is among the same competitors; NaN where no seed is left.
      better: as in `ranks`.
    """
    values = np.asarray(values, np.float64)
    found = np.full(len(values), np.nan)
    competing = ~np.isnan(values).all(1)
    whole = values[competing][:, ~np.isnan(values[competing]).any(0)]
    if whole.size:
        found[competing] = np.mean([ranks(seed, better) for seed in whole.T], 0)
    return found


def bootstrap_means(scores: Given, replicates: int = REPLICATES, seed: int = 0) -> np.ndarray:
    """Means of images drawn anew, with replacement; [R,M].

    Args:
      scores: [N,M], M scores of N images; NaN where an image was left out of one.
      replicates: R.
      seed: equal seeds and N draw equal images, so replicates of two networks are pairs.
    """
    scores = np.asarray(scores, np.float64)
    n = len(scores)
    draws = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=replicates)
    there = ~np.isnan(scores)
    with np.errstate(invalid="ignore"):  # a replicate without any image of a score is NaN
        return (draws @ np.where(there, scores, 0)) / (draws @ there.astype(np.float64))


def percentiles(replicates: Given) -> tuple[float, float]:
    """The bootstrap's interval: the percentiles `PERCENTILES` of [R]; NaN for none."""
    replicates = _there(replicates)
    if not len(replicates):
        return np.nan, np.nan
    low, high = np.percentile(replicates, PERCENTILES)
    return float(low), float(high)


def wilson(share: float, count: int) -> tuple[float, float]:
    """The interval of a share of `count` trials (Wilson, J. Am. Stat. Assoc. 22, 1927)."""
    found = stats.binomtest(round(share * count), count).proportion_ci(LEVEL, method="wilson")
    return float(found.low), float(found.high)


def image_weights(images: int, replicates: int = 20, seed: int = 0) -> np.ndarray:
    """[images,replicates] int32, Poisson(1): how often each image is drawn in each replicate of the
    bootstrap.

    A function of seed and image number alone, whatever the batches. Poisson weights are the
    bootstrap's counts for large N (Hanley and MacGibbon 2006), and need no second look at the data.
    """
    mass = np.exp(-1) / np.cumprod([1, *range(1, 16)])
    below = np.cumsum(mass)[:-1]  # the sixteenth value takes what is left, 1e-14
    weights = np.empty((images, replicates), np.int32)
    for i in range(images):
        uniform = np.random.Generator(np.random.Philox(key=[seed, i])).random(replicates)
        weights[i] = np.searchsorted(below, uniform, side="right")
    return weights


def groups(images: int, seed: int = 0) -> np.ndarray:
    """Draws the group 0..`GROUPS`-1 of each image, int32 [images]: at random, as neighbors in a data set are often alike; sizes
    differ by one at most. Equal seeds group equally many images alike, so that halves of two networks are pairs."""
    return (
        np.random.Generator(np.random.Philox(key=[seed, 1])).permutation(images).astype(np.int32)
        % GROUPS
    )


def half_samples(seed: int = 0) -> np.ndarray:
    """Draws `HALVES` halves of the groups, bool [HALVES,GROUPS], ten groups in each."""
    draw = np.random.Generator(np.random.Philox(key=[seed, 2]))
    return draw.permuted(np.tile(np.arange(GROUPS) < GROUPS // 2, (HALVES, 1)), axis=1)


def half_sample_interval(
    counts: Given, halves: Given, least: Given | Scalar, most: Given | Scalar
) -> tuple[np.ndarray, np.ndarray]:
    """The interval of the count that is expected in another set of equally many images.

    It is count -+ t sd, where sd is that of the same count in random halves of the images and t has `GROUPS` - 1 degrees of
    freedom. No factor is needed. With n groups and variance s2 between them, the mean over all has the variance s2 / n; that
    over m of them, drawn without replacement, varies around it by s2 / m (1 - m / n), the same for m = n / 2 (the delete-d
    jackknife with d = n / 2, Shao and Wu, Ann. Stat. 17, 1989). A count of concepts is no mean: it has a step where an IoU
    crosses the threshold. An IoU that truly lies x standard errors above it is counted with chance F(x), F the normal
    distribution, and so varies by F (1 - F). In halves it varies around its own value by one standard error, too, so what this
    gives is the same curve smeared out by the error of that value: too small near the threshold, too large farther away, and of
    the same integral over x. Where margins are spread evenly, the sum over many concepts is right. Deleting one group or image
    at a time moves IoU by too little for that, and drawing images with replacement adds concepts: fewer different images have
    noisier IoU.

    Args:
      counts: [...], of all images.
      halves: [HALVES,...], the same in each of `half_samples`.
      least, most: what counts, or differences of counts, may be.

    Returns:
      low and high, float64 [...], within least..most; around the count, not around the mean of the halves.
    """
    counts, halves = np.asarray(counts, np.float64), np.asarray(halves, np.float64)
    width = special.stdtrit(GROUPS - 1, (1 + LEVEL) / 2) * halves.std(0, ddof=1)
    return np.maximum(counts - width, least), np.minimum(counts + width, most)


def _there(values) -> np.ndarray:
    values = np.asarray(values, np.float64)
    return values[~np.isnan(values)]
