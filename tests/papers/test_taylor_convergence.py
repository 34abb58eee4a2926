"""Cosine similarity convergence of vectors and of products of matrices, on numbers alone; how inputs of the test bed share
memory."""

import jax
import numpy as np
import pytest

from mixaug_jax.papers.deep_taylor import bed_numbers, claims, convergence, relu_stack


def test_chance_level():
    for channels in (16, 64, 512):
        assert abs(convergence.chance(channels) / (0.6745 / channels**0.5) - 1) < 0.05
        draw = np.random.default_rng(0).normal(size=(5, 4000, channels)).astype(np.float32)
        found = convergence.summary(*map(np.asarray, convergence.similarities(draw)))
        assert abs(found[2] / convergence.chance(channels) - 1) < 0.05
    assert convergence.chance(1) == 1


def test_products_of_matrices():
    found = convergence.matrix_products((16, 24, 12, 20, 8))
    assert found["positive"][-1] > 0.99
    assert found["any"][-1] < 0.6
    draw = np.random.default_rng(0).normal(size=(3, 4, 6)).astype(np.float32)
    same = convergence.through_matrices(draw, [np.eye(6)] * 3, "any")
    np.testing.assert_allclose(
        *[convergence.similarities(r)[0] for r in (same[0], same[-1])], atol=1e-6
    )
    flat = convergence.through_matrices(draw, [np.outer(np.ones(6), np.arange(1, 5))], "any")[-1]
    np.testing.assert_allclose(convergence.similarities(flat)[0], 1, atol=1e-5)


def test_vectors_with_one_channel_do_not_count():
    draws = np.zeros((3, 2, 4), np.float32)
    draws[:, 0] = np.random.default_rng(0).normal(size=(3, 4))
    draws[:, 1, 2] = 1  # one channel alone, as before a max pool
    draws[2, 0] = 0
    cosine, counts = convergence.similarities(draws)
    np.testing.assert_array_equal(counts, [[True, True], [False, True], [False, True]])
    np.testing.assert_allclose(cosine[:, 1], 1)
    np.testing.assert_array_equal(convergence.similarities(draws, single=False)[1][:, 1], False)
    assert np.isnan(convergence.summary(np.zeros((1, 2)), np.zeros((1, 2), bool))).all()


def test_images_without_a_pair_do_not_count():
    cosine = np.array([[[0.2, 0.4]], [[0.9, 0.9]]])
    counts = np.array([[[True, True]], [[False, False]]])
    found = {"z_plus/cosine/fc/conv1": cosine, "z_plus/counts/fc/conv1": counts}
    told = convergence.percentiles(found)
    assert told["images/z_plus/fc/conv1"] == 1
    np.testing.assert_allclose(told["z_plus/fc/conv1"][2], 0.3)
    products = {f"products/{signs}": np.ones(2) for signs in convergence.SIGNS}
    row, *others = claims.table({"csc": told | products})
    assert (row.rule, row.reading, row.layer, row.inputs) == ("z_plus", "fc", "conv1", 1)
    np.testing.assert_allclose([row.value, row.low, row.high], [0.3, 0.21, 0.39])
    assert {r.quantity for r in others} == {"|cosine|, matrix products"}


def test_inputs_with_large_trees_of_roots_take_turns(monkeypatch):
    stack = relu_stack.bed_stack(9, 2, 4)
    x, keys = (
        np.arange(20.0, dtype=np.float32).reshape(5, 4),
        jax.random.split(jax.random.key(0), 5),
    )

    def one(x, key):
        return relu_stack.forward(stack, x) + jax.random.normal(key)

    def every(x, keys):
        return bed_numbers._every(one, stack, x, keys)

    together = every(x, keys)
    assert "scan" not in str(jax.make_jaxpr(every)(x, keys))
    monkeypatch.setattr(bed_numbers, "AT_ONCE", 2 * 4**2 + 1)
    # Two at once, and the one that is left.
    np.testing.assert_allclose(every(x, keys), together, rtol=1e-6)
    assert "scan" in str(
        jax.make_jaxpr(lambda *rows: bed_numbers._every(one, stack, *rows))(x, keys)
    )
    message = r"taylor\.width \*\* taylor\.depth must be at most 1000000, .*; got 11 \*\* 6"
    with pytest.raises(ValueError, match=message):
        bed_numbers.tree_size(6, 11)
    assert bed_numbers.tree_size(6, 10) == bed_numbers.LARGEST
