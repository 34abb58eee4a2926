"""The occlusion experiment: removals against a closed form, and what may not change them."""

import dataclasses
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from occlusion_cases import MEAN, keys_of, linear, logits64, loss64, run, small

from mixaug_jax.occlusion import removal
from mixaug_jax.occlusion.grid import FULL, RANKINGS, SELECTIONS, VALUES, Grid, plan
from mixaug_jax.scores.replacement import rise_blur

SHARES = (0, 10, 33, 90, 100)


UNITS = {
    "pixels": {},
    "elements": {"channels": "each"},
    "tiles": {"window": (2, 2)},
    "time-frequency cells": {"window": (3, 2), "channels": "each"},
}


def gradient64(net, x, label):
    z = logits64(net, x)
    p = np.exp(z - z.max())
    p = p / p.sum() - np.eye(len(z))[label]
    return (np.float64(net.variables["params"]["fc"]["kernel"]) @ p).reshape(x.shape)


def value64(name, x, key):
    """What takes the place of x [h, w, C]."""
    low, high = x.min((0, 1)), x.max((0, 1))
    return np.broadcast_to(
        {
            "zero": 0.0,
            "data_mean": MEAN,
            "sample_mean": x.mean((0, 1)),
            "minimum": low,
            "maximum": high,
            "noise": low
            + (high - low) * np.asarray(jax.random.uniform(jax.random.fold_in(key, 0), x.shape)),
            "blur": np.asarray(rise_blur(jnp.asarray(x, jnp.float32))),
        }[name],
        x.shape,
    )


def score64(name, net, x, label, r, key, grid):
    """The score of every element."""
    g = gradient64(net, x, label)
    if name == "integrated_gradients":
        way = (np.arange(100) + 0.5) / 100
        return (x - r) * np.mean([gradient64(net, r + a * (x - r), label) for a in way], 0)
    if name == "smoothgrad":
        key = jax.random.fold_in(key, 2)
        noise = [
            jax.random.normal(jax.random.fold_in(key, i), x.shape) for i in range(grid.samples)
        ]
        spread = grid.sigma * (x.max() - x.min())
        return np.mean([gradient64(net, x + spread * np.asarray(n), label) for n in noise], 0)
    product = {
        "gradient": g,
        "abs_gradient": np.abs(g),
        "gradient_x_input": g * x,
        "abs_gradient_x_input": np.abs(g * x),
        "minus_gradient_x_input": -g * x,
        "gradient_x_difference": g * (x - r),
    }
    return product[name]


def units64(shape, grid):
    """The number of the unit of every element, int [h, w, C]."""
    row, col, channel = np.indices(shape)
    channel = channel if grid.channels == "each" else 0 * channel
    rows, cols, channels = grid.units(shape)
    unit = (row // grid.window[0] * cols + col // grid.window[1]) * channels + channel
    return unit, rows * cols * channels


def chosen64(scores, selection, share, key, shape):
    """bool [units]; no two scores are equal."""
    count = math.floor(share * len(scores) / 100 + 0.5)
    if selection == "random":
        scores = np.asarray(jax.random.uniform(jax.random.fold_in(key, 1), shape)).ravel()
    sign = -1 if selection in ("bottom", "negative", "lowest") else 1
    ranked = sign * (np.abs(scores) if selection == "lowest" else scores)
    chosen = np.zeros(len(scores), bool)
    chosen[np.argsort(-ranked)[:count]] = True
    return chosen & (ranked > 0) if selection in ("positive", "negative") else chosen


def expected(net, x, label, by, key, grid):
    """Of every cell of the grid: loss, first order, and how far the label's logit leads."""
    x = np.float64(x)
    unit, count = units64(x.shape, grid)
    found = np.zeros((3, *grid.shape))
    g = gradient64(net, x, label)
    for v, value in enumerate(grid.values):
        r = value64(value, x, key)
        for s, name in enumerate(grid.rankings):
            elements = score64(name, net, x, by, r, key, grid)
            scores = np.bincount(unit.ravel(), elements.ravel(), count)
            for (q, selection), (k, share) in itertools.product(
                enumerate(grid.selections), enumerate(grid.shares)
            ):
                gone = chosen64(scores, selection, share, key, grid.units(x.shape))[unit]
                after = np.where(gone, r, x)
                z = logits64(net, after)
                lead = z[label] - np.delete(z, label).max()
                first_order = -(g * (x - r))[gone].sum()
                found[:, s, q, k, v] = loss64(net, after, label), first_order, lead
    return found


@pytest.mark.parametrize("units", UNITS)
def test_linear_network_in_closed_form(units):
    """Every score, selection, share and value, at windows that do not divide the image."""
    net, x, labels = linear()
    by = (labels + 1) % 4
    grid = dataclasses.replace(FULL, shares=SHARES, steps=20, samples=3, **UNITS[units])
    loss, correct, first_order = run(net, x, labels, grid, by)
    assert loss.shape == (2, len(RANKINGS), len(SELECTIONS), len(SHARES), len(VALUES))
    for i, key in enumerate(keys_of(2)):
        want = expected(net, x[i], labels[i], by[i], key, grid)
        # A logit of 7 is a sum of 84 products in float32, off by up to four of its steps of 5e-7 on some processors.
        np.testing.assert_allclose(loss[i], want[0], rtol=1e-6, atol=2e-6)
        np.testing.assert_allclose(first_order[i], want[1], rtol=0, atol=4e-6)
        sure = np.abs(want[2]) > 1e-5
        np.testing.assert_array_equal(correct[i][sure], want[2][sure] > 0)


def test_first_order_is_exact_where_the_loss_is_linear():
    """Two classes, the wrong one far ahead: the loss is the difference of the logits."""
    net, x, labels = linear(classes=2)
    labels = np.zeros_like(labels)
    net.variables["params"]["fc"]["bias"][:] = 0, 64
    grid = dataclasses.replace(FULL, shares=(5, 50), steps=2, samples=1)
    loss, _, first_order = run(net, x, labels, grid)
    clean = np.array([loss64(net, np.float64(image), 0) for image in x])
    change = loss - clean.reshape(-1, 1, 1, 1, 1)
    np.testing.assert_allclose(change, first_order, rtol=0, atol=3e-5)
    assert np.abs(change).max() > 1


# --- coinciding removals --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("score", "selection", "value"),
    [
        ("minus_gradient_x_input", "negative", "noise"),
        ("gradient_x_difference", "bottom", "zero"),
        ("gradient", "lowest", "blur"),
        ("smoothgrad", "random", "maximum"),
    ],
)
def test_what_coincides_is_the_same_when_it_is_computed_alone(score, selection, value):
    """A grid of one cell has nothing to share."""
    net, x, labels = linear()
    grid = dataclasses.replace(FULL, shares=(0, 33, 100), steps=3, samples=2, channels="each")
    one = dataclasses.replace(
        grid, rankings=(score,), selections=(selection,), shares=(33,), values=(value,)
    )
    cell = (RANKINGS.index(score), SELECTIONS.index(selection), 1, VALUES.index(value))
    for all_, alone in zip(run(net, x, labels, grid), run(net, x, labels, one), strict=True):
        np.testing.assert_allclose(alone[:, 0, 0, 0, 0], all_[:, *cell], rtol=0, atol=1e-6)


def test_the_plan_merges_what_it_should_and_nothing_else():
    """Names of one cell give the same removal by the oracle; different cells differ for some image."""
    net, x, labels = linear(images=1)
    for units in UNITS.values():
        grid = dataclasses.replace(FULL, shares=(0, 30, 100), steps=3, samples=2, **units)
        key = keys_of(1)[0]
        loss = expected(net, x[0], labels[0], labels[0], key, grid)[0]
        index = plan(grid, x.shape[1:]).index
        by_cell = [np.unique(loss[index == cell].round(12)) for cell in np.unique(index)]
        assert all(len(values) == 1 for values in by_cell)
        assert index.max() + 1 == len(by_cell), "no removal without a name"


def test_the_default_grid():
    grid = Grid()
    assert grid.shape == (4, 3, 5, 3)
    made = plan(grid, (64, 64, 3))
    # 4 tops and 4 lowests at 5 shares and 3 values and a random one, less g (x - 0) = g x, and the image.
    assert len(made.cells) == 9 * 15 - 2 * 5 + 1
    assert FULL.shape == (8, 6, 8, 7)


def test_share_0_changes_nothing_and_share_100_leaves_nothing():
    net, x, labels = linear()
    grid = small(rankings=RANKINGS, selections=SELECTIONS, shares=(0, 100), steps=2, samples=1)
    made = plan(grid, x.shape[1:])
    assert (made.index[:, :, 0] == 0).all()
    loss, _, first_order = run(net, x, labels, grid)
    assert (first_order[:, :, :, 0] == 0).all()
    for i in range(len(x)):
        empty = loss64(net, np.zeros(x[i].shape), labels[i])
        for selection in ("top", "bottom", "lowest", "random"):
            q = SELECTIONS.index(selection)
            np.testing.assert_allclose(loss[i, :, q, 1], empty, rtol=0, atol=2e-6)


def test_positive_and_negative_remove_only_such_elements():
    """With more than enough asked for, all elements of that sign go, and no other."""
    net, x, labels = linear()
    grid = small(rankings=("gradient_x_input",), selections=("positive", "negative"), shares=(100,))
    _, _, first_order = run(net, x, labels, dataclasses.replace(grid, channels="each"))
    for i in range(len(x)):
        effect = gradient64(net, np.float64(x[i]), labels[i]) * x[i]
        wanted = -effect[effect > 0].sum(), -effect[effect < 0].sum()
        np.testing.assert_allclose(first_order[i, 0, :, 0, 0], wanted, rtol=0, atol=2e-6)


def test_equal_scores_are_taken_in_a_fixed_order():
    """All gradients are equal: exactly 10 of 40 units go, scattered, the same for every selection."""
    net, x, labels = linear((8, 5, 1))
    net.variables["params"]["fc"]["kernel"][:] = np.arange(4, dtype=np.float32) / 8
    grid = small(selections=("top", "bottom", "lowest", "positive", "negative"), shares=(25,))
    _, _, first_order = run(net, x, labels, grid, mean=MEAN[:1])
    place = np.random.RandomState(0).permutation(40).reshape(8, 5, 1)
    for i in range(len(x)):
        g = gradient64(net, np.float64(x[i]), labels[i])
        want = -(g * x[i])[place < 10].sum()
        signed = [want * (g.flat[0] > 0), want * (g.flat[0] < 0)]
        np.testing.assert_allclose(
            first_order[i, 0, :, 0, 0], [want, want, want, *signed], rtol=0, atol=1e-6
        )


def test_one_logit():
    """As of the network with the two logits -z and z, of which each is a class by itself."""
    one, x, _ = linear(classes=1)
    labels = np.arange(len(x)) % 2
    turned = jax.tree.map(lambda w: np.concatenate([-w, w], -1), one.variables)
    two = dataclasses.replace(one, model=type(one.model)(2), variables=turned, loss="sigmoid")
    grid = small(selections=SELECTIONS, shares=(0, 50))
    found = run(one, x, labels, grid)
    for ours, right in zip(found, run(two, x, labels, grid), strict=True):
        np.testing.assert_allclose(ours, right, rtol=1e-5, atol=1e-6)
    z = np.asarray(one.logits(x))[:, 0]
    clean = np.log1p(np.exp(np.where(labels, -z, z)))
    loss = found[0].reshape(len(x), -1)
    np.testing.assert_allclose(loss[:, 0], clean, rtol=1e-5)
    assert np.ptp(loss, axis=1).min() > 0.01


def test_an_image_that_is_not_finite_harms_no_other():
    net, x, labels = linear(images=3)
    grid = small(rankings=RANKINGS, selections=SELECTIONS, values=VALUES, steps=2, samples=2)
    want = run(net, x, labels, grid)
    x[1, 2, 3, 0] = np.nan
    got = run(net, x, labels, grid)
    assert np.isnan(got[0][1, 0]).any()
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(a[[0, 2]], b[[0, 2]])


def test_thresholds_leave_exactly_the_count():
    """Ties by the fixed permutation; of none the threshold lies above everything, the last place before everything."""
    keys = np.int32([[[5, 5, 1, 5, 5, 0]]])
    cuts = np.int32([[0, 0, 0], [0, 0, 2], [0, 0, 5], [0, 1, 3]])
    least, last = removal._thresholds(jnp.asarray(keys), cuts)
    places = np.random.RandomState(0).permutation(6)
    np.testing.assert_array_equal(least, [[2**31 - 1, 5, 1, ~5]])
    tied = sorted(places[[0, 1, 3, 4]])
    np.testing.assert_array_equal(last[0], [-1, tied[1], places[2], tied[0]])
