"""The flow: its inverse, its volume against the Jacobian, and what it is trained for."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixaug_jax.papers.relevance.panels import flow as flows

SIDE = 8
encode, decode = jax.jit(flows.encode), jax.jit(flows.decode)


def images(count=16, side=SIDE, seed=0):
    """Dark squares on bright grounds, at random places."""
    rng = np.random.default_rng(seed)
    found = rng.integers(150, 250, (count, 1, 1, 3)) + np.zeros((count, side, side, 1))
    found += rng.integers(0, 5, found.shape)
    for one, (row, col) in zip(found, rng.integers(0, side // 2, (count, 2)), strict=True):
        one[row : row + side // 2, col : col + side // 2] = 40
    return found.astype(np.uint8)


def moved(flow, seed=1):
    """The flow with other weights than those of its initialization, which are nearly the identity."""
    leaves, tree = jax.tree.flatten([level["params"] for level in flow.levels])
    rng = np.random.default_rng(seed)
    # Triangular matrices of many large entries could not be inverted in float32.
    found = [leaf + 0.5 / leaf.shape[-1] * rng.normal(size=leaf.shape) for leaf in leaves]
    found = [np.asarray(leaf, np.float32) for leaf in found]
    levels = [
        level | {"params": params}
        for level, params in zip(flow.levels, jax.tree.unflatten(tree, found), strict=True)
    ]
    return dataclasses.replace(flow, levels=tuple(levels))


@pytest.fixture(scope="module")
def flow():
    x = flows.spread_values(images(), jax.random.key(0))
    return flows.init(jax.random.key(1), x, (8, 8, 8), 2)


def test_inverse(flow):
    x = flows.as_numbers(images(6, seed=2))
    for one in (flow, moved(flow)):
        latents, _ = encode(one, x)
        assert latents.shape == (6, SIDE * SIDE * 3)
        np.testing.assert_allclose(decode(one, latents), x, atol=1e-4)
        other = jax.random.normal(jax.random.key(3), latents.shape)
        np.testing.assert_allclose(encode(one, decode(one, other))[0], other, atol=1e-3)
    stored = np.asarray(flows.as_stored(x))
    np.testing.assert_array_equal(stored, images(6, seed=2))


def test_volume_is_that_of_the_jacobian():
    x = flows.as_numbers(images(3, 4))
    flow = moved(flows.init(jax.random.key(1), x, (6, 6), 2))
    jacobian = jax.jit(jax.vmap(jax.jacobian(lambda one: flows.encode(flow, one[None])[0][0])))(x)
    signs, expected = np.linalg.slogdet(np.asarray(jacobian, np.float64).reshape(3, 48, 48))
    assert (signs != 0).all()
    found = encode(flow, x)[1]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)
    assert np.ptp(expected) > 1e-2  # the couplings' volume depends on the image


def test_first_batch_is_normalized_by_its_first_step():
    x = flows.spread_values(images(64), jax.random.key(0))
    flow = flows.init(jax.random.key(1), x, (8,), 1)
    latents, _ = encode(flow, x)
    # The rotation keeps the sum of squares, the coupling is the identity.
    assert float(latents.var()) == pytest.approx(1, abs=0.01)
    assert float(latents.mean()) == pytest.approx(0, abs=0.01)


def test_halves_leave_from_the_second_level_on(flow):
    assert flow.last == 96  # 1 x 1 x 96 of 8 x 8 x 3: 12 channels, 48 of which 24 leave, 96
    x = flows.as_numbers(images(2))
    a, _ = encode(flow, x)
    changed = a.at[:, : -flow.last].set(0)
    assert not np.allclose(decode(flow, changed), x, atol=1e-2)
    with pytest.raises(ValueError, match="needs a side that 8 divides; got 12 pixels"):
        flows.init(jax.random.key(0), jnp.zeros((2, 12, 12, 3)))


def test_bits_are_those_of_a_density(flow):
    """Of one level without couplings' weights a flow is a linear map: its density is that of a normal distribution."""
    x = flows.spread_values(images(200, 4), jax.random.key(0))
    plain = flows.init(jax.random.key(1), x, (6,), 1)
    latents, volume = encode(plain, x)
    expected = -0.5 * np.square(latents).sum(1) - 24 * np.log(2 * np.pi) + np.asarray(volume)
    np.testing.assert_allclose(
        np.asarray(flows.bits(plain, x)), 8 - expected / (48 * np.log(2)), rtol=1e-5
    )
