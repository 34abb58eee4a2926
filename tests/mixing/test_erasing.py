"""Random erasing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from mixaug_jax.mixing import MIXERS
from mixaug_jax.mixing.erasing import erased_size


def test_sizes_are_timms(golden):
    g = golden("mixers_net/mixers.npz")
    np.testing.assert_array_equal(
        np.stack(erased_size(g["erase_uniform"], (32, 32)), -1), g["erase_size"]
    )


@pytest.mark.parametrize("per", ["example", "batch"])
def test_one_rectangle_of_the_wanted_area(per):
    x = jnp.ones((64, 32, 24, 3))
    run = jax.jit(lambda key: MIXERS["random_erasing"](key, x, jnp.eye(64), prob=1.0, per=per))
    out, labels = run(jax.random.key(0))
    np.testing.assert_array_equal(labels, np.eye(64))
    holes = np.asarray(out == 0).all(-1)
    for hole in holes:
        rows, cols = hole.any(1).sum(), hole.any(0).sum()
        assert hole.sum() == rows * cols  # a rectangle
        assert 0.01 * 768 < rows * cols < 0.36 * 768
    assert (len({hole.tobytes() for hole in holes}) == 1) == (per == "batch")


def test_noise_and_the_coin():
    x = jnp.full((128, 16, 16, 3), 100.0)
    run = jax.jit(lambda key: MIXERS["random_erasing"](key, x, jnp.eye(128), fill="noise")[0])
    changed = np.asarray(run(jax.random.key(1)) != 100).all(-1)
    assert 0.3 < changed.any((1, 2)).mean() < 0.7
    inside = np.asarray(run(jax.random.key(1)))[changed]
    assert abs(inside.mean()) < 0.1
    assert abs(inside.std() - 1) < 0.1


def test_what_does_not_fit_is_not_erased():
    x = tiny.images(8)
    # Sides of 16 * sqrt(2) times a factor between .7 and 1.4 fit only where one is short; a whole area never does.
    never = jax.jit(
        lambda key: MIXERS["random_erasing"](key, x, jnp.eye(8), prob=1.0, area=(0.999, 1.0))[0]
    )(jax.random.key(0))
    np.testing.assert_array_equal(never, x)
