"""The tiny network against activations, gradients and relevances made by PyTorch, captum and zennit."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixaug_jax.models import MODELS, Net, Preprocess

EPS = 1e-6


@pytest.fixture(scope="module")
def arrays(golden):
    return golden("attribution/attr.npz")


@pytest.fixture(scope="module")
def net(golden):
    weights = golden("attribution/tinynet_weights.npz")
    variables = {"params": {}, "batch_stats": {}}
    for key in weights:
        layer, name = key.rsplit(".", 1)
        if name == "weight":
            name = "scale" if layer.startswith("bn") else "kernel"
        collection = "batch_stats" if name.startswith("running_") else "params"
        variables[collection].setdefault(layer, {})[name.removeprefix("running_")] = weights[key]
    return Net(MODELS["tiny"](10), variables, Preprocess(32))


def stabilize(z):
    return z + EPS * jnp.where(z >= 0, 1, -1)


def with_backward(f, backward):
    """x -> f(x), whose cotangent r becomes backward(x, r)."""
    wrapped = jax.custom_vjp(f)
    wrapped.defvjp(lambda x: (f(x), x), lambda x, r: (backward(x, r),))
    return wrapped


def share(f, x, r):
    """Relevance r of f(x), given to x in proportion to what each entry contributes."""
    y, vjp = jax.vjp(f, x)
    return x * vjp(r / stabilize(y))[0]


def epsilon_affine(name, linear, x, kernel, bias):
    def f(x):
        return linear(x, kernel, bias)

    return with_backward(f, lambda x, r: share(f, x, r))(x)


def positive_affine(name, linear, x, kernel, bias):
    """zennit's alpha 1 beta 0 for convolutions: positive contributions only, of positive and negative inputs."""
    if kernel.ndim == 2:
        return epsilon_affine(name, linear, x, kernel, bias)

    def positive(x):
        plus = linear(jnp.maximum(x, 0), jnp.maximum(kernel, 0), jnp.maximum(bias, 0))
        return plus + linear(jnp.minimum(x, 0), jnp.minimum(kernel, 0), jnp.zeros_like(bias))

    def backward(x, r):
        return share(positive, x, r)

    return with_backward(lambda x: linear(x, kernel, bias), backward)(x)


def pass_act(name, x):
    return with_backward(jax.nn.relu, lambda x, r: r)(x)


def share_add(name, x, y):
    total = with_backward(
        lambda p: p[0] + p[1], lambda p, r: share(lambda p: p[0] + p[1], jnp.stack(p), r)
    )
    return total(jnp.stack([x, y]))


def share_pool(name, plain, x):
    if name.rpartition(".")[2].startswith("max"):
        return plain(x)  # its gradient already goes to the winner
    return with_backward(plain, lambda x, r: share(plain, x, r))(x)


def guided_act(name, x):
    return with_backward(jax.nn.relu, lambda x, r: jnp.where(x > 0, jnp.maximum(r, 0), 0))(x)


def deconvnet_act(name, x):
    return with_backward(jax.nn.relu, lambda x, r: jnp.maximum(r, 0))(x)


features = jax.jit(Net.features, static_argnums=2)


@jax.jit
def back(net, x, target, seed):
    """Cotangent of the input when `seed` [B] starts at the target logits."""
    logits, vjp = jax.vjp(net.logits, x)
    return vjp(jax.nn.one_hot(target, logits.shape[-1]) * seed[:, None])[0]


def close(actual, expected, tolerance=1e-5):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def test_logits(net, arrays):
    ours = jax.jit(Net.logits)(net, arrays["x"])
    close(ours, arrays["logits"], 1e-6)
    close(ours[:2], arrays["f64_logits"], 1e-6)


@pytest.mark.parametrize(
    ("layer", "before"), [("relu1", "bn1"), ("relu3", "add"), ("relu4", "bn4")]
)
def test_activations(net, arrays, layer, before):
    expected = np.maximum(arrays[f"act_{before}"], 0)
    close(features(net, arrays["x"], layer)[: len(expected)], expected, 1e-6)
    close(net.between(features(net, arrays["x"], layer), layer), arrays["logits"], 1e-6)


def test_flattened_features(net, arrays):
    close(features(net, arrays["x"], "relu4").mean((1, 2)), arrays["act_flat"], 1e-6)


@dataclasses.dataclass(frozen=True, eq=False)
class Inside:
    """An act or an add rule that keeps what it is given."""

    seen: dict

    def __call__(self, name, *inputs):
        self.seen[name] = inputs
        return jnp.add(*inputs) if len(inputs) > 1 else jax.nn.relu(*inputs)


def test_activations_inside_layers(net, arrays):
    seen = {}
    net.with_rules(act=Inside(seen), add=Inside(seen)).logits(arrays["x"][:2])
    assert list(seen) == ["relu1", "relu2", "add", "relu3", "relu4"]
    (bn1,), (bn3, pool1), (add,), (bn4,) = (seen[k] for k in ("relu1", "add", "relu3", "relu4"))
    found = {"bn1": bn1, "pool1": pool1, "bn3": bn3, "add": add, "bn4": bn4}
    for name, ours in found.items():
        expected = arrays[f"act_{name}"]
        close(ours[: len(expected)], expected, 1e-6)


def test_gradient(net, arrays):
    seed = np.ones(len(arrays["x"]), np.float32)
    close(back(net, arrays["x"], arrays["target"], seed), arrays["grad"])


@pytest.mark.parametrize(
    ("name", "act"), [("guided_backprop", guided_act), ("deconvnet", deconvnet_act)]
)
def test_act_rules(net, arrays, name, act):
    seed = np.ones(len(arrays["x"]), np.float32)
    ours = back(net.with_rules(act=act), arrays["x"], arrays["target"], seed)
    close(ours, arrays[name])


@pytest.mark.parametrize(
    ("name", "affine"), [("epsilon1e-6", epsilon_affine), ("alpha1beta0", positive_affine)]
)
def test_relevance_rules(net, arrays, name, affine):
    ruled = net.with_rules(affine=affine, act=pass_act, add=share_add, pool=share_pool)
    seed = arrays["logits"][np.arange(len(arrays["x"])), arrays["target"]]
    close(back(ruled, arrays["x"], arrays["target"], seed), arrays[f"lrp_zennit_{name}"])


@dataclasses.dataclass(frozen=True, eq=False)
class Record:
    """A rule that keeps the merged kernels it is given."""

    seen: dict

    def __call__(self, name, linear, x, kernel, bias):
        self.seen[name] = (kernel, bias)
        return linear(x, kernel, bias)


def test_merged_kernels(net, arrays):
    seen = {}
    logits = net.with_rules(affine=Record(seen)).logits(arrays["x"])
    close(logits, arrays["logits"], 1e-5)
    assert list(seen) == ["conv1", "conv2", "conv3", "conv4", "fc"]
    for name in ("conv1", "conv2", "conv3", "conv4"):
        close(seen[name][0], arrays[f"bnmerged_{name}_weight"], 1e-6)
        close(seen[name][1], arrays[f"bnmerged_{name}_bias"], 1e-6)


def test_padding_of_the_strided_layer_is_symmetric(net):
    """ "SAME" would look one pixel further to the lower right instead."""
    x = np.zeros((1, 32, 32, 3), np.float32)
    changed = x.copy()
    changed[0, 31, 31] = 1
    moved = np.asarray(features(net, changed, "relu4") - features(net, x, "relu4"))
    assert np.abs(moved[0, 7, 7]).max() > 0
    assert np.abs(moved[0, :5]).max() == 0
