"""The flow: its inverse, its volume against the Jacobian, and what it is trained for."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixaug_jax.models import MODELS, Net, Preprocess
from mixaug_jax.papers.relevance.panels import flow as flows
from mixaug_jax.papers.relevance.panels import flow_routes, flow_training, seen
from mixaug_jax.papers.relevance.panels.panel import Pictures

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


TRAINING = flow_training.Training(steps=120, batch=8, lr=1e-2, depth=2, widths=(8, 8))


@pytest.fixture(scope="module")
def trained():
    return flow_training.train_flow(images(300), TRAINING)


def test_training_beats_a_gaussian_of_each_pixel(trained):
    flow, bits = trained
    other = images(300)
    pixels = flow_training.pixel_bits(other)
    held = flows.spread_values(images(100, seed=9), jax.random.key(5))
    assert float(flows.bits(flow, held).mean()) < pixels - 0.5
    assert bits[-1] < bits[0]
    # By hand: values of deviation 20 take log2(20 sqrt(2 pi e)) bits.
    noise = np.random.default_rng(0).normal(128, 20, (20000, 1, 1, 1)).round().astype(np.uint8)
    expected = np.log2(20 * np.sqrt(2 * np.pi * np.e))
    assert flow_training.pixel_bits(np.repeat(noise, 3, 3)) == pytest.approx(expected, abs=0.02)


def test_one_device_trains_as_four_do(monkeypatch):
    short = dataclasses.replace(TRAINING, steps=3, widths=(4,), depth=1)
    four, _ = flow_training.train_flow(images(40), short)
    alone = jax.devices()[:1]
    monkeypatch.setattr(jax, "devices", lambda: alone)
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    flow_training._program.cache_clear()
    one, _ = flow_training.train_flow(images(40), short)
    flow_training._program.cache_clear()
    for a, b in zip(jax.tree.leaves(four), jax.tree.leaves(one), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_smaller_and_larger_images():
    large = flow_routes.enlarged(images(3), 2 * SIDE)
    assert large.shape == (3, 2 * SIDE, 2 * SIDE, 3)
    even = np.full((2, 6, 6, 3), 77, np.uint8)
    even[:, 0, 0] = 80
    small = flow_training.small(even, 3)
    assert small[0, 0, 0, 0] == 78  # of 80, 77, 77, 77
    assert small[0, 1, 1, 0] == 77
    with pytest.raises(ValueError, match="6 pixels, must be a multiple of the flow's, 4"):
        flow_training.small(even, 4)


def test_along_a_linear_classifier(trained):
    flow, _ = trained
    latents, _ = encode(flow, flows.as_numbers(images(40)))
    last = np.asarray(latents[:, -flow.last :])
    labels = (last[:, 0] > np.median(last[:, 0])).astype(int)
    head = flow_routes.fit_head(last, labels, 1e-3)
    assert (((last @ head.weights + head.bias) > 0) == labels).mean() > 0.9
    targets = np.array([-2.0, 0.0, 3.0], np.float32)
    found = flow_routes.along_head(latents, head, targets)
    logits = found[..., -flow.last :] @ head.weights + head.bias
    np.testing.assert_allclose(logits, np.tile(targets, (40, 1)), atol=1e-3)
    # What lies across the weights stays.
    kept = found - latents[:, None]
    np.testing.assert_allclose(kept[..., : -flow.last], 0, atol=1e-6)
    across = kept[..., -flow.last :]
    across -= (across @ head.weights)[..., None] * head.weights / (head.weights @ head.weights)
    np.testing.assert_allclose(across, 0, atol=1e-4)


def shown(count=24):
    stored = images(count)
    return Pictures(
        stored, np.linspace(-2, 2, count).astype(np.float32), ("a", "b"),
        np.zeros((count, 0), np.float32),
    )  # fmt: skip


def test_a_panel_of_the_flows_own_classifier(trained):
    flow, _ = trained
    pictures = shown()
    labels = (pictures.images[:, 0, 0, 0] > 200).astype(int)
    panel = flow_routes.flow_classifier(
        None, pictures, jax.random.key(0), flow=flow, labels=labels, rows=4
    )
    assert panel.images.shape == (4, 5, SIDE, SIDE, 3)
    assert (np.diff(panel.logits, axis=1) > 0).all()


def test_any_network_is_moved_to_its_targets(trained, monkeypatch):
    """Latents go where the logit is what was asked for, and no farther than need be."""
    flow, _ = trained
    monkeypatch.setattr(flow_routes, "MOST", 60)
    model = MODELS["tiny"](2)
    variables = model.init(jax.random.key(0), np.zeros((1, SIDE, SIDE, 3), np.float32), train=False)
    net = Net(model, variables, Preprocess(SIDE, mean=(0.5,) * 3, std=(0.25,) * 3))
    stored = images(12)
    own = seen.logits(net, stored)
    pictures = Pictures(stored, own - own.mean(), ("a", "b"), np.zeros((12, 0), np.float32))
    panel = flow_routes.counterfactual(
        net, pictures, jax.random.key(0), flow=flow, rows=3, percents=(-50, 50), shift=own.mean()
    )
    half = np.percentile(np.abs(pictures.logits), 50)
    assert np.abs(panel.logits - np.array([-half, half])).max() < 0.3 * half
    other = dataclasses.replace(net, preprocess=Preprocess(4, resize=4))
    with pytest.raises(ValueError, match="sees whole images of 8 pixels by a Preprocess"):
        flow_routes.counterfactual(other, pictures, jax.random.key(0), flow=flow)
