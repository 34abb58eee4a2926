"""Options of scores within compiled programs: arrays, draws, and numbers that shape a program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from explain_cases import (
    SIDE,
    evaluate,
    small_net,
)


@pytest.fixture(scope="module")
def net():
    return small_net()


def distance(heatmap, *, reference=None, key=0):
    """To a map that is given, and noise that is drawn."""
    return jnp.abs(heatmap - reference).mean() + jax.random.uniform(jax.random.key(key))


def test_scores_of_maps_take_arrays_and_draws(net):
    reference = np.linspace(0, 1, SIDE * SIDE, dtype=np.float32).reshape(SIDE, SIDE)
    options = {"distance": {"reference": reference}}
    found = evaluate(net, methods=("gradient",), scores=(distance,), entries=options, seed=4)
    heat = found["gradient"].heat
    drawn = jax.random.uniform(jax.random.key(4))  # the same for all images
    expected = np.abs(heat - reference).mean((1, 2)) + np.asarray(drawn)
    np.testing.assert_allclose(found["gradient"].scores["distance"], expected, rtol=1e-5)


def test_numbers_that_shape_a_program_may_come_as_an_array(net):
    given = {"methods": ("gradient",), "scores": ("road",)}
    plain = evaluate(net, **given, entries={"road": {"fractions": (0.25, 0.5)}})["gradient"]
    array = evaluate(net, **given, entries={"road": {"fractions": np.array([0.25, 0.5])}})
    np.testing.assert_array_equal(array["gradient"].curves["road"], plain.curves["road"])
