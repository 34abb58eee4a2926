"""Whether an effect differs between classes: planted truths, and what nothing looks like."""

import itertools

import class_cases
import numpy as np
import pytest

from mixaug_jax.study import class_statistics as cs

RNG = np.random.default_rng(0)


def test_tau_squared_is_the_mean_covariance_of_pairs():
    effects = RNG.normal(size=(4, 7))
    pairs = [np.cov(effects[s], effects[t])[0, 1] for s, t in itertools.combinations(range(4), 2)]
    assert cs.tau_squared(effects) == pytest.approx(np.mean(pairs))
    stacked = cs.tau_squared(np.stack([effects, effects[::-1, ::-1]]))
    np.testing.assert_allclose(stacked, np.mean(pairs))


def test_means_of_classes():
    values = np.array([[1.0, 0, 1, 1], [0, 0, 0, 1]])
    found = cs.class_means(values, np.array([2, 0, 0, 2]), 4)
    np.testing.assert_array_equal(found, [[0.5, np.nan, 1, np.nan], [0, np.nan, 0.5, np.nan]])


@pytest.fixture(scope="module")
def nothing():
    """200 studies in which both trainings are the same: the effects of 30 classes, three seeds."""
    return [
        class_cases.effects(*class_cases.correct([40] * 30, 3, 0, seed=seed)[:2])
        for seed in range(200)
    ]


@pytest.fixture(scope="module")
def dependent():
    """60 studies in which the effect differs by .3 in logits between 40 classes: effects and the truth."""
    found = []
    for seed in range(60):
        right, labels, truth = class_cases.correct([60] * 40, 5, 0.3, seed=seed)
        found.append((class_cases.effects(right, labels), truth))
    return found


def test_without_an_effect_p_is_uniform_and_no_class_is_named(nothing, monkeypatch):
    monkeypatch.setattr(cs, "DRAWS", 300)
    found = [cs.dependence(effects) for effects in nothing]
    p = np.array([one.p for one in found])
    assert 0.02 <= (p < 0.05).mean() <= 0.08
    assert 0.4 < (p < 0.5).mean() < 0.6
    tau2 = np.array([one.tau_squared for one in found])
    assert abs(tau2.mean()) < 3 * tau2.std() / np.sqrt(len(tau2))
    covered = [one.interval[0] <= 0 <= one.interval[1] for one in found]
    assert np.mean(covered) > 0.85
    sizes, half, named = np.full(30, 40), 0, 0
    for effects, one in zip(nothing, found, strict=True):
        small = cs.shrink(effects, sizes, one)
        low, high = small.expected_interval
        half += low <= 15 <= high
        named += bool(cs.named(small.worse).any() and one.p < 0.05)
    assert half >= 0.9 * len(nothing)
    assert named <= 0.1 * len(nothing)


def test_without_an_effect_half_of_the_classes_look_worse(nothing):
    """What the null says is what is seen where nothing happened."""
    seen = [cs.published(effects.mean(0)[None]) for effects in nothing[:40]]
    null = [cs.null_means(effects)[0] for effects in nothing[:10]]
    worse = np.mean([one.worse[0] for one in seen])
    assert 13 < worse < 16
    assert np.mean([n.worse.mean() for n in null]) == pytest.approx(worse, abs=1.5)
    assert np.mean([n.worst.mean() for n in null]) == pytest.approx(
        np.mean([one.worst[0] for one in seen]), abs=0.02
    )


def test_a_planted_spread_is_found(dependent, monkeypatch):
    monkeypatch.setattr(cs, "DRAWS", 300)
    found = [cs.dependence(effects) for effects, _ in dependent]
    true = np.sqrt(np.mean([truth.var(ddof=1) for _, truth in dependent]))
    tau = np.sqrt(np.mean([one.tau_squared for one in found]))
    assert tau == pytest.approx(true, rel=0.2)
    assert np.mean([one.p < 0.05 for one in found]) > 0.9  # its power
    inside = [
        one.interval[0] <= truth.var(ddof=1) <= one.interval[1]
        for one, (_, truth) in zip(found, dependent, strict=True)
    ]
    assert np.mean(inside) > 0.85


def test_named_classes_are_worse_but_for_a_tenth(dependent, monkeypatch):
    monkeypatch.setattr(cs, "DRAWS", 300)
    wrong, power, expected, tests, errors = [], [], [], [], []
    for effects, truth in dependent:
        small = cs.shrink(effects, np.full(40, 60), cs.dependence(effects))
        errors.append([np.mean((x - truth) ** 2) for x in (small.effect, effects.mean(0))])
        named = cs.named(small.worse)
        wrong.append((truth[named] >= 0).mean() if named.any() else 0.0)
        power.append(named[truth < 0].mean())
        low, high = small.expected_interval
        assert low <= small.expected <= high
        expected.append(low <= (truth < 0).sum() <= high)
        by_tests = cs.worse_by_tests(effects)
        tests.append((truth[by_tests] >= 0).mean() if by_tests.any() else 0.0)
    # Shrunken effects are nearer to the truth than those that are seen: on average, and in nearly every study.
    shrunken, seen = np.transpose(errors)
    assert shrunken.mean() < 0.9 * seen.mean()
    assert np.mean(shrunken < seen) > 0.9
    assert np.mean(wrong) <= 0.13
    assert np.mean(tests) <= 0.13
    assert np.mean(power) > 0.2
    # Not 95 %: the effects are skewed, the model is normal; of 150 studies it was 87 %.
    assert np.mean(expected) > 0.8


def test_halves_of_the_images_give_the_spread_of_all_images(dependent):
    right, labels, truth = class_cases.correct([60] * 40, 5, 0.3, seed=1)
    difference = right[1].astype(float) - right[0]
    halves = cs.tau_squared_of_halves(difference, labels, 40)
    assert 0.4 * truth.var() < halves < 2 * truth.var()
    # A class of one image cannot be halved and takes no part.
    labels = np.append(labels, 40)
    extended = np.append(difference, [[1.0]] * 5, 1)
    assert cs.tau_squared_of_halves(extended, labels, 41) == pytest.approx(halves, rel=0.5)


def test_one_class_of_two_images_has_no_spread():
    with np.errstate(all="raise"):
        assert np.isnan(cs.tau_squared_of_halves(np.ones((3, 4)), np.array([0, 0, 1, 2]), 3))


def test_intervals_without_noise_lie_within_the_scale():
    small = cs.Shrunken(np.array([-0.9, 0.1]), np.array([0.2, 0.1]), np.zeros(2), 1.0, (0.0, 2.0))
    np.testing.assert_allclose(small.ends, [[-1, 0.1 - 0.196], [-0.508, 0.296]], atol=1e-4)


def test_names_change_nothing():
    right, labels, _ = class_cases.correct([50] * 20, 4, 0.4)
    effects = class_cases.effects(right, labels)
    order = np.random.default_rng(1).permutation(20)
    one, other = cs.dependence(effects), cs.dependence(effects[:, order])
    assert one.tau_squared == pytest.approx(other.tau_squared)
    assert one.interval == pytest.approx(other.interval)
    assert one.p == pytest.approx(other.p, abs=0.01)
    small = [
        cs.shrink(e, np.full(20, 50), d) for e, d in ((effects, one), (effects[:, order], other))
    ]
    np.testing.assert_allclose(small[0].effect[order], small[1].effect)
    np.testing.assert_allclose(small[0].worse[order], small[1].worse)


def test_small_classes_are_drawn_to_the_mean_more():
    right, labels, _ = class_cases.correct([20] * 15 + [200] * 15, 4, 0.5)
    effects = class_cases.effects(right, labels)
    small = cs.shrink(effects, np.bincount(labels), cs.dependence(effects))
    kept = (small.effect - effects.mean()) / (effects.mean(0) - effects.mean())
    np.testing.assert_allclose(kept[:15], kept[0])
    np.testing.assert_allclose(kept[15:], kept[-1])
    assert 0 < kept[0] < kept[-1] < 1


def test_no_spread_draws_all_classes_to_the_mean():
    effects = RNG.normal(-0.05, 0.02, (3, 12))
    effects -= effects.mean(0) - effects.mean()  # every class has the mean effect over seeds
    found = cs.dependence(effects)
    assert found.tau_squared < 0
    assert found.tau == 0
    small = cs.shrink(effects, np.full(12, 30), found)
    np.testing.assert_allclose(small.effect, effects.mean())


def test_agreement_is_between_different_seeds():
    truth = RNG.normal(size=40)
    same = truth + 0.1 * RNG.normal(size=(4, 40))
    assert cs.agreement(same, same) > 0.9
    noise = RNG.normal(size=(4, 40))
    # All noise is shared, and still nothing agrees.
    assert abs(cs.agreement(noise, noise)) < 0.35
    assert np.isnan(cs.agreement(noise[:1], noise[:1]))


def test_rank_correlation():
    from scipy import stats

    one, other = RNG.normal(size=(2, 30))
    other += one
    rho, p = cs.rank_correlation(one, other)
    assert rho == pytest.approx(stats.spearmanr(one, other).statistic)
    assert p == pytest.approx(stats.spearmanr(one, other).pvalue, abs=0.01)
    assert np.isnan(cs.rank_correlation(one, np.ones(30))).all()


def test_intervals_over_images_hold_for_these_networks():
    difference = np.array([1.0] * 10 + [-1.0] * 10 + [0.0] * 5)
    labels = np.repeat([0, 2, 1], [10, 10, 5])
    ends = cs.image_intervals(difference, labels, 4)
    np.testing.assert_array_equal(ends, [[1, 1], [0, 0], [-1, -1], [np.nan, np.nan]])
    mixed = cs.image_intervals(np.array([1.0, -1.0] * 50), np.zeros(100, int), 1)
    assert mixed[0] == pytest.approx([-0.2, 0.2], abs=0.03)


def test_named_keeps_the_expected_share_of_wrong_ones():
    np.testing.assert_array_equal(cs.named(np.array([0.5, 0.99, 0.85, 0.9])), [0, 1, 1, 1])
    assert not cs.named(np.array([0.89, 0.5])).any()
