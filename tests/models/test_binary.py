"""Binarized networks: signs, surrogates, and what a surrogate's gradient is."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attribution_cases import close
from scipy import stats

from mixaug_jax.attribution import METHODS
from mixaug_jax.core import checks
from mixaug_jax.models import MODELS, Net, Preprocess, binary

SURROGATES = (binary.clipped_act, binary.bireal_act, binary.identity_act)
PLACES = np.array([-2, -1, -0.5, -0.0, 0, 0.25, 1, 3], np.float32)


@pytest.fixture(scope="module")
def net():
    model = MODELS["binary_resnet18"](3, width=4 / 64, stem="cifar").clone(blocks=(1, 1, 1, 1))
    x = jax.random.normal(jax.random.key(0), (1, 8, 8, 3))
    variables, rng = (
        jax.jit(lambda x: model.init(jax.random.key(1), x, train=False))(x),
        np.random.default_rng(0),
    )
    # Without offsets sums of signs are often 0, and their sign is that of a rounding error.
    shaken = jax.tree.map(
        lambda a: a + 0.1 * rng.uniform(size=a.shape).astype(np.float32), variables
    )
    return Net(model, shaken, Preprocess(8))


def test_signs():
    np.testing.assert_array_equal(binary.sign(PLACES), [-1, -1, -1, 1, 1, 1, 1, 1])
    assert np.isnan(binary.sign(jnp.float32(np.nan)))
    assert binary.sign(jnp.ones(2, jnp.bfloat16)).dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("rule", "slope"),
    [
        (binary.clipped_act, [0, 1, 1, 1, 1, 1, 1, 0]),
        (binary.bireal_act, [0, 0, 1, 2, 2, 1.5, 0, 0]),
        (binary.identity_act, [1] * 8),
    ],
)
def test_surrogates_change_the_derivative_alone(rule, slope):
    value, change = jax.jvp(lambda x: rule("sign", x), (PLACES,), (np.ones_like(PLACES),))
    np.testing.assert_array_equal(value, binary.sign(PLACES))
    np.testing.assert_array_equal(change, slope)
    _, vjp = jax.vjp(lambda x: rule("sign", x), PLACES)
    np.testing.assert_array_equal(vjp(np.ones_like(PLACES))[0], slope)


def test_kernels_have_two_values_a_channel():
    kernel = np.random.default_rng(0).normal(size=(3, 3, 4, 5)).astype(np.float32)
    ours = np.asarray(binary.binarized(kernel))
    mean = np.abs(kernel).mean((0, 1, 2))
    np.testing.assert_allclose(ours, np.sign(kernel) * mean, rtol=1e-6)
    gradient = jax.grad(lambda w: binary.binarized(w).sum())(kernel)
    np.testing.assert_allclose(gradient, np.where(np.abs(kernel) <= 1, mean, 0), rtol=1e-6)


def test_the_gradient_is_that_of_clipped_lines():
    """Two layers by hand: the same forward values, and the derivative of clip(x, -1, 1)."""
    rng = np.random.default_rng(0)
    first, second, x = (
        rng.normal(size=shape).astype(np.float32) for shape in ((4, 6), (6, 2), (4,))
    )
    tangent = rng.normal(size=4).astype(np.float32)

    def ours(x):
        return binary.clipped_act("sign", binary.clipped_act("sign", x) @ first) @ second

    def line(x):
        return jnp.clip(x, -1, 1)

    inner, outer = jax.linearize(line, x)[1], jax.linearize(line, binary.sign(x) @ first)[1]
    value, change = jax.jvp(ours, (x,), (tangent,))
    np.testing.assert_allclose(value, binary.sign(binary.sign(x) @ first) @ second)
    np.testing.assert_allclose(change, outer(inner(tangent) @ first) @ second, rtol=1e-5)


@pytest.mark.parametrize("rule", SURROGATES)
def test_finite_differences_are_zero(net, rule):
    """However far a number moves, its sign stays until it crosses 0: the gradient is the surrogate's, not the function's."""
    h = net.features(jax.random.normal(jax.random.key(2), (1, 8, 8, 3)), "layer3")
    step = jnp.abs(h) * jax.random.normal(jax.random.key(4), h.shape)
    value, change = jax.jvp(lambda h: rule("sign", h), (h,), (step,))
    difference = np.asarray(rule("sign", h + step) - value)
    crossed = np.signbit(h) != np.signbit(h + step)
    assert 0 < crossed.mean() < 0.5
    np.testing.assert_array_equal(np.abs(difference), np.where(crossed, 2, 0))
    assert np.abs(np.asarray(change)[~crossed]).max() > 0


@pytest.mark.parametrize("margin", [0.3, 1.5])
def test_smoothgrad_of_one_neuron_is_not_its_smoothed_gradient(margin):
    """y = sign(w x) under normal noise: two closed forms, whose ratio makes explanations of such networks noisy."""
    w, spread, samples = np.array([0.6, -0.8], np.float32), 0.5, 100_000
    x = margin * w  # |w| is 1, so w x is the margin
    noise = spread * np.random.default_rng(0).normal(size=(samples, 2)).astype(np.float32)
    means = jax.vmap(jax.grad(lambda x: binary.clipped(x @ w)))(x + noise).mean(0)
    inside = stats.norm.cdf((1 - margin) / spread) - stats.norm.cdf((-1 - margin) / spread)
    np.testing.assert_allclose(means, w * inside, atol=0.01)
    # By the score of the noise, which asks for no derivative.
    true = (np.asarray(binary.sign((x + noise) @ w))[:, None] * noise / spread**2).mean(0)
    np.testing.assert_allclose(true, 2 * w * stats.norm.pdf(margin / spread) / spread, atol=0.03)


def test_network(net):
    x = jax.random.normal(jax.random.key(3), (2, 8, 8, 3))
    logits = jax.jit(Net.logits)
    assert logits(net, x).shape == (2, 3)
    # The scale of a latent kernel is the scale of its output, which the norm's statistics keep: signs alone decide.
    params = jax.tree.map(lambda a: a, net.variables["params"])
    kernel = params["layer2.0.conv2"]["kernel"]
    mean = jnp.abs(kernel).mean((0, 1, 2))
    params["layer2.0.conv2"] = {"kernel": jnp.sign(kernel) * mean}
    same = Net(net.model, {**net.variables, "params": params}, net.preprocess)
    np.testing.assert_allclose(logits(same, x), logits(net, x), rtol=1e-4, atol=1e-5)
    gradient = jax.jit(METHODS["gradient"])
    maps = [gradient(net.with_rules(act=rule), x[0], 0) for rule in SURROGATES]
    assert all(np.abs(one).max() > 0 for one in maps)
    assert np.abs(maps[0] - maps[1]).max() > 0
    close(maps[0], np.asarray(gradient(net, x[0], 0)))


def test_affine_rules_see_the_binarized_kernel(net):
    seen = {}

    def affine(name, linear, x, kernel, bias):
        seen[name] = kernel
        return linear(x, kernel, bias)

    x = jax.random.normal(jax.random.key(3), (1, 8, 8, 3))
    np.testing.assert_allclose(net.with_rules(affine=affine).logits(x), net.logits(x), atol=1e-4)
    values = np.abs(seen["layer1.0.conv1"]).reshape(-1, 4)
    np.testing.assert_allclose(values, values[:1] * np.ones_like(values), rtol=1e-5)
    assert len(np.unique(np.abs(seen["conv1"]))) > 50


def test_rules_of_relus_are_refused_and_relevance_passes(net):
    x = jax.random.normal(jax.random.key(3), (8, 8, 3))
    for name in ("guided_backprop", "deeplift"):
        with pytest.raises(
            checks.UnsupportedError, match="is a sign, whose rule may be clipped_act"
        ):
            METHODS[name](net, x, 0)
    ours = jax.jit(functools.partial(METHODS["lrp"], rule="epsilon"))(net, x, 0)
    assert np.isfinite(ours).all()
    assert np.abs(ours).max() > 0
