"""Maps of what stands out, of a network and of an image alone."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from mixaug_jax.mixing import maps

NET = tiny.net(4)
TARGETS = jnp.eye(4)[jnp.arange(6) % 4]


def test_spectral_residual_is_the_published_one(golden):
    g = golden("mixers_net/mixers.npz")
    x = (g["image_u8"] / np.float32(255) - g["mean"]) / g["std"]
    wanted = g["guided_sr_map"]
    found = jax.jit(maps.spectral_residual)(x)
    np.testing.assert_allclose(found / wanted.max(), wanted / wanted.max(), rtol=0, atol=1e-4)


def test_spectral_residual_of_large_gray_and_black_images():
    large = jax.jit(maps.spectral_residual)(tiny.images(1, side=160, channels=1))
    assert large.shape == (1, 160, 160)
    assert (np.asarray(large) >= 0).all()
    black = jax.jit(maps.spectral_residual)(jnp.zeros((1, 8, 8, 3)))
    assert np.isfinite(black).all()


def test_two_channels_have_no_gray():
    with pytest.raises(ValueError, match=r"images must have 3 channels or 1, .*; got 2"):
        maps.spectral_residual(jnp.zeros((2, 8, 8, 2)))


def test_evidence_is_the_published_one(golden):
    g = golden("mixers_net/mixers.npz")
    scores = np.einsum("bhwc,bc->bhw", g["features"], g["snap_weight"][g["label"]])
    scores += g["snap_bias"][g["label"]][:, None, None]
    found = maps.spread(scores, (32, 32))
    np.testing.assert_allclose(found * 32**2, g["snap_map"] * 32**2, rtol=0, atol=1e-4)


def test_evidence_of_a_network_is_features_times_class_weights():
    x = tiny.images()
    found = jax.jit(maps.evidence)(NET, x, TARGETS)
    features = np.asarray(NET.features(x, "relu4"))
    head = NET.variables["params"]["fc"]
    kind = np.arange(6) % 4
    scores = np.einsum("bhwc,cb->bhw", features, np.asarray(head["kernel"])[:, kind])
    scores += np.asarray(head["bias"])[kind][:, None, None]
    np.testing.assert_allclose(found, maps.spread(scores, (16, 16)), rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(found.sum((1, 2)), 1, rtol=1e-5)


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_gradient_is_that_of_each_images_own_loss(loss):
    net = dataclasses.replace(NET, loss=loss)
    x = tiny.images()
    found = jax.jit(maps.gradient)(net, x, TARGETS)
    assert found.shape == (6, 16, 16)

    def own(one, target):
        logits = net.logits(one[None])[0]
        if loss == "softmax":
            return -jax.nn.log_softmax(logits) @ target
        p = jax.nn.sigmoid(logits)
        return -(target * jnp.log(p) + (1 - target) * jnp.log(1 - p)).sum()

    slope = np.asarray(jax.jit(jax.grad(own))(x[2], TARGETS[2]))
    np.testing.assert_allclose(found[2], np.sqrt((slope**2).mean(-1)), rtol=1e-3, atol=1e-7)


def test_gradient_of_classes_of_which_some_are_not_known():
    net = dataclasses.replace(NET, loss="sigmoid")
    x, known = tiny.images(), jnp.array([1.0, 1, 0, 1])
    weights = jnp.broadcast_to(known, TARGETS.shape)
    both = jnp.concatenate([TARGETS * weights, weights], -1)
    other = jnp.concatenate([(1 - TARGETS) * (1 - weights) * 0 + TARGETS * weights, weights], -1)
    found = jax.jit(maps.gradient)(net, x, both)
    np.testing.assert_array_equal(found, jax.jit(maps.gradient)(net, x, other))
    assert not np.allclose(found, jax.jit(maps.gradient)(net, x, TARGETS))


def test_activation_is_the_mean_of_a_layer():
    x = tiny.images()
    np.testing.assert_allclose(
        jax.jit(maps.activation, static_argnames="layer")(NET, x, layer="relu1"),
        NET.features(x, "relu1").mean(-1),
        rtol=1e-5,
        atol=1e-6,
    )
    assert maps.activation(NET, x).shape == (6, 4, 4)  # the last with 4 x 4 nodes


def test_maps_without_anything_are_uniform():
    flat = np.zeros((2, 4, 5), np.float32)
    flat[1, 2, 3] = np.nan
    np.testing.assert_allclose(maps.shares(flat), np.full((2, 4, 5), 1 / 20), rtol=1e-6)
    np.testing.assert_allclose(
        maps.spread(np.ones((1, 2, 2)), (4, 5)), np.full((1, 4, 5), 1 / 20), rtol=1e-6
    )


def test_nothing_is_differentiated_through_a_map():
    x = tiny.images(2)

    def total(variables):
        net = dataclasses.replace(NET, variables=variables)
        found = maps.gradient(net, x, TARGETS[:2]).sum() + maps.evidence(net, x, TARGETS[:2]).max()
        return found + maps.activation(net, x).sum()

    slopes = jax.jit(jax.grad(total))(NET.variables)
    assert all((np.asarray(leaf) == 0).all() for leaf in jax.tree.leaves(slopes))
