"""Manifold mixup."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixaug_jax.mixing import MIXERS
from mixaug_jax.mixing.hidden import manifold_mixup


@pytest.mark.parametrize("shape", [(4, 5), (4, 2, 2, 2, 2)])
def test_features_of_any_rank(shape):
    features = jax.random.normal(jax.random.key(0), shape)
    targets = jnp.eye(4)
    mixer = jax.jit(lambda h: manifold_mixup(jax.random.key(1), h, targets, per="example"))
    out, mixed = mixer(features)
    expected = np.einsum("bj,j...->b...", mixed, features)
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-6)


def test_one_compiled_function_serves_every_layer():
    """Called at each of three layers with a traced choice, it mixes at the chosen one only."""
    shapes = [(6, 8, 8, 3), (6, 4, 4, 5), (6, 7)]
    features = [jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate(shapes)]
    targets = jnp.eye(6)

    @jax.jit
    def forward(chosen):
        mixed, out = targets, []
        for i, h in enumerate(features):
            h, mixed = manifold_mixup(jax.random.key(9), h, mixed, active=chosen == i)
            out.append(h)
        return out, mixed

    results = [forward(i) for i in range(4)]
    for chosen, (out, mixed) in enumerate(results):
        for i, h in enumerate(out):
            assert np.array_equal(h, features[i]) == (i != chosen)
        np.testing.assert_array_equal(mixed, results[0][1] if chosen < 3 else targets)
    assert not np.array_equal(results[0][1], targets)


def test_equals_mixup_of_the_same_draws():
    images = jax.random.normal(jax.random.key(0), (4, 6, 6, 3))
    given = {"alpha": 2.0, "per": "example", "prob": 0.5}
    hidden, plain = (
        jax.jit(lambda x, f=MIXERS[name]: f(jax.random.key(1), x, jnp.eye(4), **given))(images)
        for name in ("manifold_mixup", "mixup")
    )
    np.testing.assert_array_equal(hidden[0], plain[0])
    np.testing.assert_array_equal(hidden[1], plain[1])
