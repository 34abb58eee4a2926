"""The per-sample information bottleneck, against the authors' library and a plain loop of their paper's code."""

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attribution_cases import close, explain, golden_net, random_net

from mixaug_jax.attribution import METHODS, bottleneck, iba_statistics, resampling
from mixaug_jax.core.checks import UnsupportedError
from mixaug_jax.models import Net, Preprocess
from mixaug_jax.models.layers import StagedModel

iba = METHODS["iba"]
SHAPE = (6, 6, 4)  # of relu3 of the random network


@pytest.fixture(scope="module")
def metrics(golden):
    return dict(golden("attribution/metrics.npz"))


def statistics(variant="library", count=9, side=12):
    net, _ = random_net(side=side)
    images = np.asarray(jax.random.normal(jax.random.key(5), (count, side, side, 3)))
    return iba_statistics(net, np.split(images, [4, 8]), layer="relu3", variant=variant), images


def test_golden(golden, metrics):
    net = golden_net(golden("attribution/tinynet_weights.npz"))
    arrays = golden("attribution/attr.npz")
    stats = tuple(metrics[f"iba_{name}"] for name in ("mean", "std", "active"))
    noise = metrics["iba_eps"]
    ours = explain(iba, net, arrays["x"], arrays["target"], stats=stats, noise=noise, chunk=2)

    def compare(actual, name):
        # Of the largest value of all eight images, where only some of them are here.
        largest = metrics.get(f"{name}_max", metrics[name].max())
        np.testing.assert_allclose(actual, metrics[name], rtol=0, atol=5e-5 * largest)

    compare(ours[..., 0], "iba_saliency_bits")

    def inside(net, image, label):
        options = bottleneck.Options("relu3", noise=noise, chunk=0)
        return bottleneck.fit_bottleneck(net, image, label, stats, options)

    run = jax.jit(jax.vmap(inside, (None, 0, 0)))
    capacity, losses = run(net, arrays["x"], arrays["target"])
    compare(capacity, "iba_capacity_nats")
    compare(losses[..., 0], "iba_model_loss")
    compare(losses[..., 1], "iba_info_loss")
    compare(losses[..., 0] + 10 * losses[..., 1], "iba_loss")


def test_golden_kernel(metrics):
    spot = np.zeros((9, 9, 1), np.float32)
    spot[4, 4] = 1
    close(resampling.smooth(spot, 1.0)[2:7, 2:7, 0], metrics["iba_kernel"], 1e-6)


def test_smoothing_keeps_constants_and_mirrors_borders():
    ones = np.ones((3, 5, 2), np.float32)
    close(resampling.smooth(ones, 1.0), ones, 1e-6)
    taps = np.exp(-(np.arange(-2, 3.0) ** 2) / 2)
    ramp = np.arange(3.0)[:, None, None] * ones
    expected = np.asarray([2, 1, 0, 1, 2]) @ taps / taps.sum()
    close(resampling.smooth(ramp, 1.0)[0, 0, 0], expected, 1e-6)
    # One tap is no smoothing, and not the default number of taps.
    spot = jnp.zeros((5, 5, 1)).at[2, 2].set(1.0)
    np.testing.assert_array_equal(resampling.smooth(spot, 0.45, 1), spot)
    assert resampling.smooth(spot, 0.45)[2, 1, 0] > 0


def paper_code(net, image, label, stats, noise, beta, steps):
    """The published optimization, one step after the other: per-copy sampling, Adam written out."""
    mean, std, _ = stats
    features = np.asarray(net.features(image[None], "relu3"))[0]
    samples = noise.shape[1]

    def masked(alpha):
        return resampling.smooth(jax.nn.sigmoid(alpha), 1.0)

    def capacity(alpha):
        lam = masked(alpha)
        mu, log_var = lam * (features - mean) / std, jnp.log((1 - lam) ** 2)
        return -0.5 * (1 + log_var - mu**2 - jnp.exp(log_var))

    def loss(alpha, noise):
        lam = masked(alpha)
        log_var = jnp.clip(jnp.log((1 - lam) ** 2), -10, 10)
        z = lam * (features - mean) / std + jnp.exp(log_var / 2) * noise
        logits = net.between(jnp.maximum(z * std + mean, 0), "relu3")
        cross_entropy = -jax.nn.log_softmax(logits)[:, label].sum() / samples
        return cross_entropy + beta * capacity(alpha).mean()

    slope = jax.jit(jax.grad(loss))
    alpha = np.full(features.shape, 5.0)
    first, second = 0 * alpha, 0 * alpha
    for t in range(1, steps + 1):
        last = np.asarray(capacity(jnp.float32(alpha)))
        g = np.asarray(slope(jnp.float32(alpha), noise[t - 1]), float)
        first, second = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g**2
        root = np.sqrt(second / (1 - 0.999**t))
        alpha -= first / (1 - 0.9**t) / (root + 1e-8)
    return last


def test_paper_variant():
    net, images = random_net()
    stats, _ = statistics("paper")
    noise = np.random.default_rng(0).normal(size=(6, 3, *SHAPE)).astype(np.float32)
    options = {"stats": stats, "layer": "relu3", "steps": 6, "noise": noise, "variant": "paper"}
    ours = explain(iba, net, images, np.asarray([1, 2]), chunk=2, **options)
    for i, label in enumerate([1, 2]):
        nats = paper_code(net, images[i], label, stats, noise, 10.0, 6).sum(-1, keepdims=True)
        bits = jax.image.resize(nats / math.log(2) * 36 / 144, (12, 12, 1), "bilinear")
        close(ours[i], bits, 1e-4)


@pytest.mark.parametrize("variant", ["library", "paper"])
def test_constant_logits_need_no_information(variant):
    net, images = random_net()
    variables = {**net.variables, "params": dict(net.variables["params"])}
    variables["params"]["fc"] = jax.tree.map(jnp.zeros_like, variables["params"]["fc"])
    blind = dataclasses.replace(net, variables=variables)
    stats, _ = statistics(variant)

    def inside(net, image, label):
        options = bottleneck.Options("relu3", variant, steps=50, samples=1)
        return bottleneck.fit_bottleneck(net, image, label, stats, options)

    capacity, losses = jax.jit(jax.vmap(inside, (None, 0, 0)))(blind, images, np.arange(2))
    np.testing.assert_allclose(losses[..., 0], math.log(5), rtol=1e-6)
    assert losses[:, 0, 1].min() > 1
    assert (losses[:, -1, 1] < losses[:, 0, 1] / 1000).all()
    assert (np.abs(capacity).mean((1, 2, 3)) < losses[:, 0, 1] / 1000).all()


def test_chunks_agree():
    net, images = random_net()
    stats, _ = statistics()
    options = {"stats": stats, "layer": "relu3", "samples": 5, "steps": 3, "key": 8}
    whole = explain(iba, net, images, np.arange(2), chunk=0, **options)
    assert whole.shape == (2, 12, 12, 1)
    assert whole.min() >= 0
    close(explain(iba, net, images, np.arange(2), chunk=2, **options), whole, 1e-6)


def test_long_runs_stay_finite():
    """With no price on information lambda goes to 1, and log(1 - lambda) beyond the range of float32."""
    net, images = random_net()
    stats, _ = statistics()
    options = {"stats": stats, "layer": "relu3", "samples": 1, "steps": 200, "beta": 0.0}
    assert np.isfinite(explain(iba, net, images, np.arange(2), **options)).all()


def test_dead_cells_hold_no_information():
    net, images = random_net()
    (mean, std, _), _ = statistics()
    active = np.zeros(SHAPE, np.float32)
    options = {"stats": (mean, std, active), "layer": "relu3", "samples": 1, "steps": 2}
    np.testing.assert_array_equal(explain(iba, net, images, np.arange(2), **options), 0)


@pytest.mark.parametrize("variant", ["library", "paper"])
def test_statistics(variant):
    stats, images = statistics(variant)
    net, _ = random_net()
    features = np.asarray(net.features(images, "relu3"), np.float64)
    live = (features != 0).sum(0)
    if variant == "library":
        expected = features.mean(0), features.std(0, ddof=1), live > 0.01 * 9
    else:
        squares = np.maximum((features**2).sum(0), 1e-5)
        expected = 0 * live, np.sqrt(squares / np.maximum(live, 1)), 0 * live + 1
    assert 0 < (live == 0).sum() < live.size, "the case has dead cells"
    for ours, right in zip(stats, expected, strict=True):
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, right, rtol=1e-5, atol=1e-6)


def test_statistics_of_constant_features():
    net, images = random_net()
    mean, std, _ = iba_statistics(net, [images[:1]] * 3, layer="relu3")
    close(mean, np.asarray(net.features(images[:1], "relu3"))[0], 1e-6)
    np.testing.assert_allclose(std, 0, atol=1e-6)


def test_the_default_layer_is_in_the_middle():
    net, images = random_net()
    default = iba_statistics(net, [images])
    for ours, right in zip(default, iba_statistics(net, [images], layer="relu3"), strict=True):
        np.testing.assert_array_equal(ours, right)


def test_too_few_images():
    net, images = random_net()
    with pytest.raises(ValueError, match="at least 2 images; got 1"):
        iba_statistics(net, [images[:1], images[:0]])


def test_batches_that_statistics_cannot_take():
    net, images = random_net()
    for second in (np.concatenate([images, images]), images[:, :6, :6]):
        with pytest.raises(ValueError, match=r"of one size, none larger than the first; got \["):
            iba_statistics(net, [images, second])
    for other in (images[0], (images * 100).astype(np.uint8)):
        with pytest.raises(ValueError, match=r"preprocessed, floating point \[N,h,w,C\]; got"):
            iba_statistics(net, [other])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stats": ()}, r"iba needs stats=\(mean, std, active\)"),
        ({"layer": "relu4"}, r"stats mean must have the shape \[3, 3, 8\]; got \[6, 6, 4\]"),
        ({"layer": "pool"}, "layer must be one of relu1, relu3, relu4"),
        ({"variant": "readout"}, "variant must be one of library, paper"),
        ({"noise": np.zeros((9, 1, *SHAPE))}, r"noise must have the shape \[10, n, 6, 6, 4\]"),
        ({"beta": -1.0}, "beta must not be negative"),
        ({"steps": 0}, "steps must be an integer of at least 1"),
    ],
)
def test_bad_options(options, message):
    net, images = random_net()
    options = {"stats": (np.zeros(SHAPE), np.ones(SHAPE), np.ones(SHAPE))} | options
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda net, x: iba(net, x, 0, **options), net, images[0])


class _Tokens(StagedModel):
    """A layer that gives tokens, which only `maps` lays out on their grid."""

    layers: ClassVar = ("tokens", "head")

    def run(self, layer, x, train):
        if layer == "tokens":
            return self.dense(layer, x.reshape(len(x), -1, x.shape[-1]), 4)
        return self.dense(layer, x.mean(1), 2)

    def maps(self, layer, h):
        side = int(h.shape[1] ** 0.5)
        return h.reshape(len(h), side, side, -1) if layer == "tokens" else h


def test_tokens_are_refused():
    x = jnp.ones((2, 8, 8, 3))
    model = _Tokens()
    net = Net(model, model.init(jax.random.key(0), x), Preprocess(8))
    with pytest.raises(UnsupportedError, match=r"iba adds noise to maps \[h,w,K\]; layer 'tokens'"):
        iba_statistics(net, [x], layer="tokens")
