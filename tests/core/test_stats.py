"""Statistics against scipy's or a few plain lines, and where there is nothing to compute."""

import numpy as np
import pytest
from scipy import stats as scipy_stats

from mixaug_jax.core import stats

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("n", [3, 10])
def test_mean_interval_is_the_t_interval(n):
    values = RNG.normal(3, 2, n)
    mean, low, high, count = stats.mean_interval([*values, np.nan])
    expected = scipy_stats.t.interval(0.95, n - 1, values.mean(), scipy_stats.sem(values))
    np.testing.assert_allclose((mean, low, high), (values.mean(), *expected), rtol=1e-12)
    assert count == n


@pytest.mark.parametrize("n", [3, 10])
def test_paired_is_the_paired_t_test(n):
    one, two = RNG.normal(0.9, 0.01, n), RNG.normal(0.9, 0.01, n)
    difference, low, high, p, count = stats.paired([*one, np.nan, 1], [*two, 1, np.nan])
    found = scipy_stats.ttest_rel(one, two)
    interval = found.confidence_interval(0.95)
    np.testing.assert_allclose(
        (difference, low, high, p), ((one - two).mean(), *interval, found.pvalue), rtol=1e-9
    )
    assert count == n


def test_pairing_takes_out_what_a_seed_does_to_both():
    seeds = np.array([0.0, 10, 20])
    difference, low, high, p, _ = stats.paired(seeds + np.array([1, 1.1, 0.9]), seeds)
    assert difference == pytest.approx(1)
    assert 0 < low < high < 2
    assert p < 0.01


@pytest.mark.parametrize("values", [[], [np.nan], [0.5], [0.5, np.nan], [0.25, 0.75, np.nan]])
def test_two_seeds_have_no_interval(values):
    mean, low, high, n = stats.mean_interval(values)
    assert n == np.sum(~np.isnan(values))
    assert np.isnan([low, high]).all()
    assert np.isnan(mean) if not n else mean == 0.5
    *_, p, n_pairs = stats.paired(values, values)
    assert np.isnan(p)
    assert n_pairs == n


@pytest.mark.parametrize("step", [-1.0, 0.1, 0.0])
def test_equal_differences_are_no_evidence(step):
    reference = np.array([10.0, 12, 15])
    difference, low, high, p, n = stats.paired(reference + step, reference)
    assert (difference, n) == (pytest.approx(step), 3)
    assert np.isnan([low, high, p]).all()


def test_intervals_stay_on_the_scale_and_hold_their_estimate():
    for values in ([0.99, 1.0, 0.8], [0.0, 0.01, 0.3], [1.0, 1.0, 0.9], RNG.random(4)):
        mean, low, high, _ = stats.mean_interval(values, (0.0, 1.0))
        _, free_low, free_high, _ = stats.mean_interval(values)
        assert 0 <= low <= mean <= high <= 1
        assert (low, high) == (max(free_low, 0), min(free_high, 1))
    difference, low, high, p, _ = stats.paired([1.0, 0.1, 1.0], [0.0, 0.0, 0.9], (0.0, 1.0))
    assert -1 <= low < difference < high <= 1
    free = stats.paired([1.0, 0.1, 1.0], [0.0, 0.0, 0.9])
    assert free[1] < -0.5
    assert free[2] > 1
    assert p == free[3]  # of the test nothing is cut
    # A rounding error beyond the scale is still held.
    mean, low, high, _ = stats.mean_interval(np.full(3, 1 + 1e-12), (0.0, 1.0))
    assert low <= mean <= high


def test_pairs_of_other_lengths_are_refused():
    with pytest.raises(ValueError, match="same seeds"):
        stats.paired([1.0, 2.0], [1.0])


def test_holm_by_hand():
    p = np.array([0.01, np.nan, 0.04, 0.03, 0.005])
    # Sorted .005 .01 .03 .04 times 4 3 2 1; the last may not fall below the one before.
    np.testing.assert_allclose(stats.holm(p), [0.03, np.nan, 0.06, 0.06, 0.02])
    np.testing.assert_array_equal(stats.holm([0.9, 0.8]), [1, 1])
    assert stats.holm([]).shape == (0,)


def test_holm_by_its_definition():
    p = RNG.uniform(0, 0.2, 9)
    steps = [sorted(p)[i] * (len(p) - i) for i in range(len(p))]
    expected = [min(1, max(steps[: 1 + sorted(p).index(one)])) for one in p]
    np.testing.assert_allclose(stats.holm(p), expected, rtol=1e-12)


@pytest.mark.parametrize("better", [1, 0, -1])
def test_ranks_share_the_mean_among_ties(better):
    values = np.array([3.0, 1, 3, np.nan, 2])
    there = ~np.isnan(values)
    expected = np.full(5, np.nan)
    expected[there] = scipy_stats.rankdata(values[there] if better < 0 else -values[there])
    np.testing.assert_array_equal(stats.ranks(values, better), expected)


def test_mean_ranks_are_among_the_same_competitors():
    values = np.array([[3.0, 1, 9], [1, 3, np.nan], [2, 2, 1], [np.nan] * 3])
    # The third seed misses the second one; the fourth competes nowhere.
    np.testing.assert_array_equal(stats.mean_ranks(values, 1), [2, 2, 2, np.nan])
    assert np.isnan(stats.mean_ranks(np.full((2, 3), np.nan), 1)).all()
    np.testing.assert_array_equal(
        stats.mean_ranks([[1.0, np.nan], [np.nan, 2.0]], 1), [np.nan, np.nan]
    )


def test_one_level_of_confidence():
    assert stats.LEVEL == 0.95
    np.testing.assert_allclose(stats.PERCENTILES, (2.5, 97.5))


def with_gaps(n=400):
    """Scores of n images, [n,2], of which the second misses half."""
    scores = RNG.normal(size=(n, 2))
    scores[::2, 1] = np.nan
    return scores


def test_bootstrap_is_the_mean_of_images_drawn_anew():
    scores = with_gaps(30)
    counts = np.random.default_rng(5).multinomial(30, np.full(30, 1 / 30), size=8)
    expected = [np.nanmean(np.repeat(scores, count, axis=0), 0) for count in counts]
    drawn = stats.bootstrap_means(scores, replicates=8, seed=5)
    np.testing.assert_allclose(drawn, expected, rtol=1e-12)
    assert np.isnan(stats.bootstrap_means(np.full((3, 1), np.nan), replicates=2)).all()


def test_the_bootstraps_interval_is_scipys():
    scores = with_gaps()
    drawn = stats.bootstrap_means(scores)
    assert drawn.shape == (1000, 2)
    for column in (0, 1):
        values = scores[:, column][~np.isnan(scores[:, column])]
        found = scipy_stats.bootstrap(
            (values,), np.mean, method="percentile", confidence_level=0.95, rng=RNG
        ).confidence_interval
        low, high = stats.percentiles(drawn[:, column])
        np.testing.assert_allclose((low, high), found, atol=0.1 * (high - low))


@pytest.mark.parametrize("n", [1, 2, 20, 1000])
def test_percentiles_by_hand(n):
    values = RNG.normal(size=n)
    places = np.array([0.025, 0.975]) * (n - 1)
    below = np.minimum(places.astype(int), max(0, n - 2))
    ordered = np.append(np.sort(values), np.sort(values)[-1:])
    expected = ordered[below] + (places - below) * (ordered[below + 1] - ordered[below])
    shuffled = RNG.permutation(np.append(values, [np.nan] * 3))
    np.testing.assert_allclose(stats.percentiles(shuffled), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("hits", "count"), [(0, 1), (1, 1), (0, 50), (3, 10), (49, 50), (700, 1000)]
)
def test_wilsons_interval_solves_its_equation(hits, count):
    """Its ends p are where |share - p| is the normal quantile times p's own standard error."""
    share, z = hits / count, scipy_stats.norm.ppf(0.975)
    low, high = stats.wilson(share, count)
    for end in (low, high):
        error = np.sqrt(end * (1 - end) / count)
        np.testing.assert_allclose(abs(share - end), z * error, rtol=1e-9, atol=1e-12)
    assert 0 <= low <= share <= high <= 1
    assert low < high


def test_bootstrap_draws_the_same_images_for_every_network():
    one = RNG.normal(size=(50, 1))
    drawn = stats.bootstrap_means(one)
    np.testing.assert_allclose(stats.bootstrap_means(one + 2) - drawn, 2)
    single = stats.bootstrap_means([[0.25]], replicates=3)
    np.testing.assert_array_equal(single, np.full((3, 1), 0.25))
    assert np.isnan(stats.percentiles(np.zeros(0))).all()


def test_image_weights_are_poisson_and_know_only_their_image():
    weights = stats.image_weights(3000, replicates=20, seed=4)
    assert weights.dtype == np.int32
    for image in (0, 17, 2999):
        uniform = np.random.Generator(np.random.Philox(key=[4, image])).random(20)
        np.testing.assert_array_equal(weights[image], scipy_stats.poisson.ppf(uniform, 1))
    np.testing.assert_array_equal(stats.image_weights(40, 20, 4), weights[:40])
    np.testing.assert_array_equal(stats.image_weights(40, 5, 4), weights[:40, :5])
    assert not np.array_equal(stats.image_weights(40, 20, 5), weights[:40])
    share = np.bincount(weights.ravel()) / weights.size
    np.testing.assert_allclose(share[:5], scipy_stats.poisson.pmf(range(5), 1), atol=0.005)


def test_groups_are_of_equal_size_and_halves_of_ten():
    for images in (20, 33, 400):
        sizes = np.bincount(stats.groups(images, 3), minlength=20)
        assert np.ptp(sizes) <= 1
        assert sizes.sum() == images
    np.testing.assert_array_equal(stats.groups(50, 3), stats.groups(50, 3))
    assert not np.array_equal(stats.groups(50, 3), stats.groups(50, 4))
    # Not neighbor by neighbor: data sets are sorted.
    assert len(np.unique(np.diff(stats.groups(200, 0)))) > 10
    halves = stats.half_samples(1)
    assert halves.shape == (100, 20)
    np.testing.assert_array_equal(halves.sum(1), 10)
    assert len(np.unique(halves, axis=0)) == 100
    assert abs(halves.mean(0) - 0.5).max() < 0.2


def test_halves_of_a_mean_give_its_standard_error_with_no_factor():
    values = RNG.normal(size=(200, 20))
    chosen = stats.half_samples()
    halves = np.stack([(values[:, half]).mean(1) for half in chosen])
    low, high = stats.half_sample_interval(values.mean(1), halves, np.full(200, -9), 9)
    expected = scipy_stats.sem(values, axis=1) * scipy_stats.t.ppf(0.975, 19)
    ratio = (high - low) / 2 / expected
    assert abs(ratio.mean() - 1) < 0.03
    assert ratio.std() < 0.12  # 100 halves
    low, high = stats.half_sample_interval(values.mean(1), halves, 0, 0.05)
    assert low.min() == 0
    assert high.max() == 0.05
