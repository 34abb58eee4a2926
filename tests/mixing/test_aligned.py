"""alignmix and batchmixup."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from mixaug_jax.mixing import MIXERS
from mixaug_jax.mixing.aligned import align_mix, sinkhorn_plan


def test_plans_and_mixtures_are_the_published_ones(golden):
    g = golden("mixers_net/mixers.npz")
    features, partner = g["align_features"], g["partner"]
    for rounds in (5, 100):
        plan = jax.jit(sinkhorn_plan, static_argnames="iterations")(
            features, features[partner], iterations=rounds
        )
        np.testing.assert_allclose(plan, g[f"align_plan_{rounds}"], rtol=0, atol=1e-4)
    for onto_own, name in ((True, "align_own"), (False, "align_partner")):
        mixed = align_mix(features, g["align_plan_100"], partner, g["align_lam"], onto_own)
        np.testing.assert_allclose(mixed, g[name], rtol=0, atol=1e-5)


def test_a_plan_finds_what_was_moved():
    """A map and the same with its nodes exchanged: aligned, they are alike again."""
    nodes = 3 * np.asarray(tiny.images(2, side=3, channels=8))
    order = np.random.default_rng(0).permutation(9)
    moved = nodes.reshape(2, 9, 8)[:, order].reshape(nodes.shape)
    both = np.stack([nodes[0], moved[0]])
    plan = jax.jit(sinkhorn_plan, static_argnames="tolerance")(
        both, both[::-1].copy(), tolerance=0.0
    )
    np.testing.assert_allclose(plan.sum(2), 1, atol=1e-2)
    out = align_mix(both, plan, np.array([1, 0]), 0.3, True)
    np.testing.assert_allclose(out, both, atol=0.1)
    apart = 0.3 * both + 0.7 * both[::-1]
    assert np.abs(apart - both).max() > 0.5


def test_alignmix_mixes_where_it_is_active_and_labels_once():
    features, targets = 0.2 * tiny.images(6, side=4, channels=5), jnp.eye(6)
    run = jax.jit(
        lambda key, active, deepest: MIXERS["alignmix"](
            key, features, targets, active=active, deepest=deepest, alpha=8.0
        ),
        static_argnums=2,
    )
    key = jax.random.key(1)
    out, labels = run(key, True, True)
    plain, same = run(key, True, False)
    np.testing.assert_array_equal(labels, same)
    assert not np.array_equal(labels, targets)
    assert not np.allclose(out, plain)
    np.testing.assert_allclose(plain, np.einsum("bj,jhwc->bhwc", labels, features), atol=1e-5)
    for deepest in (True, False):
        off, own = run(key, False, deepest)
        np.testing.assert_array_equal(off, features)
        np.testing.assert_array_equal(own, targets)


def test_batchmixup_is_a_mean_of_the_batch():
    features, targets = tiny.images(8, side=2), jnp.eye(8)
    run = jax.jit(
        lambda key, t: MIXERS["batchmixup"](key, features, targets, temperature=t),
        static_argnums=1,
    )
    out, weights = run(jax.random.key(0), 1.0)
    np.testing.assert_allclose(out, np.einsum("bj,jhwc->bhwc", weights, features), atol=1e-5)
    # A softmax of numbers in 0..1 has weights within a factor of e.
    assert np.max(weights) / np.min(weights) < np.e
    _, sharp = run(jax.random.key(0), 0.02)
    assert np.max(sharp, 1).mean() > 0.6


@pytest.mark.parametrize("name", ["alignmix", "batchmixup"])
def test_devices_draw_apart(name):
    features = tiny.images(6, side=4)
    run = jax.jit(lambda shard: MIXERS[name](jax.random.key(0), features, jnp.eye(6), shard=shard))
    assert not np.array_equal(run(0)[1], run(1)[1])


@pytest.mark.parametrize("name", ["alignmix", "batchmixup"])
@pytest.mark.parametrize("layers", [(), ("last", "last")])
def test_places_are_drawn_from_what_there_is(name, layers):
    with pytest.raises(ValueError, match="layers must be one or both of input, last, each once"):
        MIXERS[name](jax.random.key(0), tiny.images(4, side=4), jnp.eye(4), layers=layers)
