"""The interval of a count from random halves of the images: what it covers, and that its tallies are those of the groups."""

import jax
import numpy as np
import pytest
from dissection_problems import make_activations, make_labels
from scipy import stats as scipy_stats

from mixaug_jax import dissection
from mixaug_jax.core import stats
from mixaug_jax.dissection import Counting, Halves, Options, counting
from mixaug_jax.draw import dissection_tables

CATEGORIES = np.array([0, 0, 1, 1, 0, 2])
NAMES = (("none", "none"), *((f"concept {k}", "object") for k in range(1, 24)))


@pytest.fixture(scope="module")
def problem():
    activations = make_activations(43, 4, 5, 10, seed=3)
    labels = make_labels(43, 13, 11, 2, len(CATEGORIES), seed=4)
    thresholds = np.quantile(activations, 0.9, (0, 1, 2)).astype(np.float32)
    return activations, thresholds, labels


@pytest.mark.parametrize("restricted", [False, True])
def test_a_half_has_the_best_labels_of_its_images(problem, restricted):
    activations, thresholds, labels = problem
    orders = np.concatenate([np.arange(43)[None], dissection.derangements(43, 2)])
    asked = Counting(len(CATEGORIES), CATEGORIES)
    how = Halves(seed=7, restricted=restricted)
    tallies, found = dissection.tally_halves(*problem, orders, asked, how)
    right = dissection.tally_orders(*problem, orders, asked)
    for one, other in zip(tallies, right, strict=True):
        for field in ("intersection", "unit", "unit_by_category", "concept", "categories"):
            np.testing.assert_array_equal(getattr(one, field), getattr(other, field), field)
    groups, halves = stats.groups(43, 7), stats.half_samples(7)
    assert len(found) == len(halves) == 100
    for k in (0, 41, 99):
        chosen = halves[k][groups]
        counts = dissection.tally(
            activations[chosen], thresholds, labels[chosen], len(CATEGORIES), categories=CATEGORIES
        )
        expected = dissection.best_by_category(counts.iou(restricted), CATEGORIES)
        np.testing.assert_array_equal(found[k][0], expected[0])
        np.testing.assert_array_equal(found[k][1], expected[1])


def test_blocks_backends_batches_and_devices_give_the_same_halves(problem):
    order = np.arange(43)[None]
    kinds = [
        {},
        {"memory_mb": 0.02, "batch_size": 3},
        {"backend": "dense", "devices": jax.devices()[:4]},
        {"backend": "dense", "batch_size": 5, "devices": jax.devices()[:1]},
    ]
    (base, best), *others = (
        dissection.tally_halves(*problem, order, Counting(len(CATEGORIES), CATEGORIES, **kind))
        for kind in kinds
    )
    for tallies, found in others:
        np.testing.assert_array_equal(tallies[0].intersection, base[0].intersection)
        np.testing.assert_array_equal(tallies[0].unit_by_category, base[0].unit_by_category)
        for one, other in zip(found, best, strict=True):
            np.testing.assert_array_equal(one[0], other[0])
            np.testing.assert_array_equal(one[1], other[1])


def test_restricted_halves_need_categories(problem):
    with pytest.raises(ValueError, match="needs categories"):
        dissection.tally_halves(*problem, np.arange(43)[None], Counting(6), Halves(restricted=True))


def world(draw, images, units):
    """Tables [groups,rows,U] and sizes [groups,rows] of one set: four patches an image, of concepts that its scene decides;
    units that answer to two concepts each, as loudly as the image says, above their own 0.9 quantile."""
    fixed, concepts = np.random.default_rng(3), len(NAMES)
    answer = np.zeros((concepts, units))
    answer[fixed.integers(1, concepts, units), np.arange(units)] = fixed.uniform(0.3, 2.5, units)
    answer[fixed.integers(1, concepts, units), np.arange(units)] += fixed.uniform(0, 1.2, units)
    share = fixed.gamma(1.0, 1.0, (5, concepts - 1))
    below = np.cumsum(share / share.sum(1, keepdims=True), 1)[draw.integers(0, 5, images)]
    here = 1 + (draw.random((images, 4, 1)) > below[:, None, :-1]).sum(-1)
    loud = draw.gamma(2.0, 0.5, (images, 1, units))
    maps = answer[here] * loud + draw.normal(size=(images, 4, units))
    on = maps > np.quantile(maps, 0.9, (0, 1))
    # Row 0 is every pixel, and so is the last, that of the only category.
    rows = here[..., None] == np.arange(concepts + 1)
    rows[..., 0] = rows[..., -1] = True
    groups = stats.groups(images)[:, None] == np.arange(stats.GROUPS)
    table = np.einsum("ng,npr,npu->gru", groups, rows, on, optimize=True).astype(np.int64)
    return table, np.einsum("ng,npr->gr", groups, rows, optimize=True).astype(np.int64)


def unique(best, thresholds):
    labels, values = (np.stack(part) for part in zip(*best, strict=True))
    return dissection.count_detectors(labels, values, thresholds)[1][..., 0]


@pytest.mark.usefixtures("unchecked")  # 80,000 small calls
@pytest.mark.parametrize(
    ("images", "units", "levels"), [(60, 40, (0.18, 0.24, 0.3)), (150, 24, (0.15, 0.22, 0.28))]
)
def test_the_interval_covers_the_expected_count(images, units, levels):
    """400 sets of images, each with an interval of its own, against the mean count of all sets."""
    asked = Counting(len(NAMES), np.zeros(len(NAMES), int))
    whole, halves = np.ones(stats.GROUPS, bool), stats.half_samples()
    counts, ends = [], []
    for seed in range(400):
        tables = world(np.random.default_rng(seed), images, units)
        best = [counting._best_of_half(*tables, one, asked, False) for one in (whole, *halves)]
        found = unique(best, levels)
        counts.append(found[0])
        ends.append(stats.half_sample_interval(found[0], found[1:], 0, len(NAMES) - 1))
    counts, ends = np.array(counts), np.array(ends)
    expected = counts.mean(0)
    assert expected.min() >= 5
    judged = counts >= stats.FEWEST
    covered = (ends[:, 0] <= expected) & (expected <= ends[:, 1])
    shares = (covered & judged).sum(0) / judged.sum(0)
    assert (shares >= 0.9).all(), shares
    assert (shares <= 0.99).all(), shares
    assert (ends[:, 0] <= counts).all()
    assert (counts <= ends[:, 1]).all()


def dissected(images=40, seed=0, **options):
    draw = np.random.default_rng(seed)
    labels = 1 + np.random.default_rng(1).integers(0, 23, (images, 2, 2)).repeat(4, 1).repeat(4, 2)
    maps = (labels[..., None] == np.arange(1, 13)) + draw.normal(size=(images, 8, 8, 12)) / 2
    options = {"q": 0.05, "iou": (0.05, 0.3, 0.6), "shuffles": 0} | options
    return dissection.dissect_arrays(
        maps.astype(np.float32), labels[..., None], NAMES, Options(**options)
    )


def test_intervals_hold_their_count_and_stay_on_the_scale():
    found = dissected()
    ends, counts = found.intervals(), np.stack([found.counts[..., 0]] * 2, -1)
    assert ends.shape == (2, 2, 3, 2, 2)
    there = np.isfinite(ends[..., 0])
    np.testing.assert_array_equal(there[..., 0], counts[..., 0] >= 5)
    assert there.any()
    assert not there.all()
    low, high = np.moveaxis(ends, -1, 0)
    assert (low[there] <= counts[there]).all()
    assert (counts[there] <= high[there]).all()
    assert low[there].min() >= 0
    assert high[there].max() <= 23
    assert (high[:, 0][there[:, 0]] <= 12).all()  # units
    # Cells beside the count, to one decimal.
    cells = dissection_tables.beside(found, (0, 1, 0), 0)
    assert (cells["low"], cells["high"]) == tuple(ends[0, 1, 0, 0].round(1))
    few = dissection_tables.beside(found, (0, 1, 2), 0)
    assert (few["count"] < 5, few["low"], few["high"]) == (True, "", "")


def test_fewer_images_than_groups_have_no_interval():
    found = dissected(images=19)
    assert found.halves.shape == (0, 2, 2, 3, 1)
    assert np.isnan(found.intervals()).all()
    assert dissected(images=20).halves.shape == (100, 2, 2, 3, 1)


def test_differences_are_paired_by_the_same_halves():
    a, b = dissected(), dissected(seed=1)
    compared = dissection.compare({"a": a, "b": b})
    spread = (b.halves - a.halves)[:, 0, 1, 0, 0].std(ddof=1)
    half = scipy_stats.t.ppf(0.975, 19) * spread
    difference = (b.counts - a.counts)[0, 1, 0, 0]
    ends = difference - half, difference + half
    np.testing.assert_allclose(compared.interval[0, 0, 1, 0, 0], ends, rtol=1e-9)
    same = dissection.compare({"a": a, "the same": a}).interval
    assert not np.nan_to_num(same).any()
    # No interval where both counts are small.
    few = np.maximum(a.counts, b.counts)[..., 0] < 5
    np.testing.assert_array_equal(np.isnan(compared.interval[0, ..., 0, 0]), few)
    assert few.any()
