"""Counterfactuals by rendering: against a network whose logit is known, and its panel read by the simulated reader."""

import jax
import numpy as np
import pytest

from mixaug_jax.papers.relevance.panels import nearest_scenes, seen
from mixaug_jax.papers.relevance.panels import simulated_reader as reading
from mixaug_jax.papers.relevance.panels.panel import Pictures

ENDS = np.array([[0.0, 1.0], [-2.0, 2.0], [0.0, 1.0]], np.float32)


def scenes(count=12, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(ENDS[:, 0], ENDS[:, 1], (count, 3)).astype(np.float32)


def test_the_smallest_change_of_a_linear_network():
    """Of logit = w . a the change of attribute k is (target - logit) / w_k, in shares of its range."""
    weights, given = np.array([3.0, 1.0, 0.0]), scenes()
    targets = np.array([-1.0, 0.5, 30.0], np.float32)
    found = nearest_scenes.nearest(lambda a: a @ weights, given, targets, ENDS)
    for n, scene in enumerate(given):
        for t, target in enumerate(targets):
            with np.errstate(divide="ignore"):
                value = scene + (target - scene @ weights) / weights
            can = (value >= ENDS[:, 0]) & (value <= ENDS[:, 1])
            assert found.reached[n, t] == can.any()
            changed = found.attributes[n, t]
            if not can.any():  # as far as the range goes
                continue
            share = np.where(can, np.abs(value - scene) / (ENDS[:, 1] - ENDS[:, 0]), np.inf)
            k = share.argmin()
            assert found.which[n, t] == k
            assert abs(changed[k] - value[k]) < (ENDS[k, 1] - ENDS[k, 0]) / 8 / 2**6
            np.testing.assert_array_equal(np.delete(changed, k), np.delete(scene, k))
            assert abs(found.logits[n, t] - target) < 0.02
    assert not found.reached[:, 2].any()
    assert found.reached[:, :2].mean() > 0.5
    # Where it cannot be reached, the scene comes as near as it can by one attribute.
    best = np.maximum((ENDS[:, 1] - given) * np.maximum(weights, 0), 0).max(1) + given @ weights
    np.testing.assert_allclose(found.logits[:, 2], best, atol=1e-4)


def test_the_nearest_of_several_crossings():
    """A logit that is not monotonic passes the target at .25, .5 and .75."""

    def ask(a):
        return np.sin(4 * np.pi * a[:, 0])

    given = np.array([[0.7, 0.0, 0.5]], np.float32)
    found = nearest_scenes.nearest(ask, given, np.zeros(1, np.float32), ENDS)
    assert found.attributes[0, 0, 0] == pytest.approx(0.75, abs=0.003)


def test_a_panel_and_its_reader(monkeypatch):
    def render(values):
        tones = np.round(255 * values[:, :1, None, None]).astype(np.uint8)
        return np.broadcast_to(tones, (len(values), 4, 4, 3)).copy()

    # Of the pictures' tone alone.
    monkeypatch.setattr(
        seen,
        "logits",
        lambda net, images: (images.mean((1, 2, 3)) / 255 * 6 - 1).astype(np.float32),
    )
    given = scenes(40)
    logits = seen.logits(None, render(given)) - 2
    shown = Pictures(render(given), logits, ("a", "b"), given)
    panel = nearest_scenes.oracle(None, shown, jax.random.key(0), render=render, rows=20, shift=2.0)
    assert panel.images.shape == (20, 5, 4, 4, 3)
    np.testing.assert_array_equal(panel.images[3, 1], render(panel.attributes[3, 1][None])[0])
    assert (np.diff(panel.logits, axis=1) > -0.1).all()
    assert np.ptp(panel.attributes[:, :, 1:], axis=1).max() == 0  # nothing but the tone changes
    reader = reading.Reader(("tone", "x", "y"), np.full(3, 0.1, np.float32))
    values = np.asarray(panel.attributes)
    found = np.mean([reading.judge(panel, values, reader, seed=k).relevant for k in range(20)], 0)
    assert found[0] == 1
    assert found[1:].max() <= 0.2  # of the noise one in twenty is taken for evidence
    with pytest.raises(ValueError, match="needs pictures whose attributes are known"):
        nearest_scenes.oracle(
            None, Pictures(shown.images, logits, ("a", "b"), given[:, :0]), jax.random.key(0),
            render=render,
        )  # fmt: skip
