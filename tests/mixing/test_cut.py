"""Labels of least energy on a grid, against exact minima."""

import jax
import numpy as np
import pytest

from mixaug_jax.mixing.cut import least_labels

solve = jax.jit(least_labels, static_argnames="iterations")


def problem(count, rows, cols, labels, seed, strength=0.6):
    """Costs and weights of a kind that neither alone decides."""
    rng = np.random.default_rng(seed)
    unary = rng.exponential(1, (count, rows, cols, labels)).astype(np.float32)
    weights = [
        (strength * rng.uniform(0.5, 2, (count, *shape))).astype(np.float32)
        for shape in ((rows - 1, cols), (rows, cols - 1))
    ]
    return unary, *weights


def energy(labels, unary, rows, cols):
    t = labels / (unary.shape[-1] - 1)
    chosen = np.take_along_axis(unary.astype(np.float64), labels[..., None], -1).sum((1, 2, 3))
    return (
        chosen
        + (rows * np.diff(t, axis=1) ** 2).sum((1, 2))
        + (cols * np.diff(t, axis=2) ** 2).sum((1, 2))
    )


def least(unary, rows, cols):
    """The smallest energy of each grid, by going through all states of one row after the other."""
    count, height, width, labels = unary.shape
    states = np.stack(np.meshgrid(*[np.arange(labels)] * width, indexing="ij"), -1).reshape(
        -1, width
    )
    t = states / (labels - 1)
    best = np.zeros((count, len(states)))
    for row in range(height):
        own = sum(unary[:, row, c][:, states[:, c]] for c in range(width)).astype(np.float64)
        own += (cols[:, row, None] * np.diff(t, axis=1) ** 2).sum(-1)
        if row:
            step = (rows[:, row - 1, None, None] * (t[:, None] - t) ** 2).sum(-1)
            best = (best[:, :, None] + step).min(1)
        best = best + own
    return best.min(1)


@pytest.mark.parametrize(("labels", "width"), [(3, 4), (2, 5)])
def test_exact_minimum(labels, width):
    given = problem(24, 4, width, labels, seed=labels)
    found = energy(np.asarray(solve(*given, iterations=400)), *given)
    exact = least(*given)
    assert (found >= exact - 1e-5).all()
    gap = (found - exact) / exact
    assert gap.mean() < 5e-4
    assert (gap < 1e-5).mean() >= 0.9
    # These problems are none that each cell could solve by itself, nor by one label for all.
    alone = energy(given[0].argmin(-1), *given)
    assert (alone > exact * 1.01).mean() > 0.9


def test_no_weights_and_none_but_weights():
    unary, rows, cols = problem(4, 3, 5, 3, seed=0)
    np.testing.assert_array_equal(solve(unary, 0 * rows, 0 * cols), unary.argmin(-1))
    # So strong weights that one label is best for all cells of a grid: that of the smallest sum.
    same = solve(unary, 1e3 + rows, 1e3 + cols)
    np.testing.assert_array_equal(
        same, np.broadcast_to(unary.sum((1, 2)).argmin(-1)[:, None, None], same.shape)
    )
    assert np.isfinite(solve(0 * unary, rows, cols)).all()


def test_padding_changes_nothing():
    unary, rows, cols = problem(6, 4, 4, 3, seed=3)
    wide = [np.pad(x, ((0, 0), (0, 3), (0, 3), (0, 0))[: x.ndim]) for x in (unary, rows, cols)]
    labels, padded = solve(unary, rows, cols), solve(*wide)
    np.testing.assert_array_equal(padded[:, :4, :4], labels)


def test_golden_problems(golden):
    """The exact minima, and the labels of the published code."""
    g = golden("mixers_net/mixers.npz")
    gaps, better = [], []
    for n in (2, 4, 8, 16):
        given = [g[f"puzzle_{n}_{name}"] for name in ("unary", "wrow", "wcol")]
        found = energy(np.asarray(solve(*given)), *given)
        exact, released = (g[f"puzzle_{n}_energy_{name}"] for name in ("exact", "released"))
        gaps += list((found - exact) / np.abs(exact))
        better += list(found <= released + 1e-6 * np.abs(released))
    assert np.mean(gaps) <= 5e-4
    assert np.max(gaps) <= 1e-2
    assert np.mean(better) >= 0.95
