"""The network and the helpers that the tests of attribution share."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from mixaug_jax.models import MODELS, Net, Preprocess


def golden_net(weights):
    """The tiny network with weights that other people's code was given, too: keys "conv1.weight", HWIO."""
    variables = {"params": {}, "batch_stats": {}}
    for key in weights:
        layer, name = key.rsplit(".", 1)
        if name == "weight":
            name = "scale" if layer.startswith("bn") else "kernel"
        collection = "batch_stats" if name.startswith("running_") else "params"
        variables[collection].setdefault(layer, {})[name.removeprefix("running_")] = weights[key]
    return Net(MODELS["tiny"](10), variables, Preprocess(32, mean=(0.5,) * 3, std=(0.25,) * 3))


def random_net(classes=5, side=12, width=0.5, seed=0):
    """A tiny network with random weights, biases and statistics, and two images."""
    model = MODELS["tiny"](classes, width=width)
    x = jax.random.normal(jax.random.key(seed), (2, side, side, 3))
    variables = model.init(jax.random.key(seed + 1), x, train=False)
    rng = np.random.default_rng(seed)

    def shake(leaf):
        return leaf + 0.2 * rng.normal(size=leaf.shape).astype(np.float32).clip(-2, 2)

    return Net(model, jax.tree.map(shake, variables), Preprocess(side)), x


def explain(method, net, images, labels, each=None, **options):
    """The method on every image, jitted with the net as an argument; `each` holds arrays with a row for each image."""
    each = each or {}

    def one(net, image, label, each):
        return method(net, image, label, **each, **options)

    return np.asarray(jax.jit(jax.vmap(one, (None, 0, 0, 0)))(net, images, labels, each))


def close(actual, expected, tolerance=1e-5):
    """Within `tolerance` of the largest expected value, everywhere."""
    expected = np.broadcast_to(expected, np.broadcast_shapes(np.shape(actual), expected.shape))
    np.testing.assert_allclose(
        np.broadcast_to(actual, expected.shape),
        expected,
        rtol=0,
        atol=tolerance * np.abs(expected).max(),
    )


@functools.partial(jax.jit, static_argnames="output")
def score(net, images, labels, output="logit"):
    """The explained number of each image, [n]."""
    logits = net.logits(images)
    logits = jax.nn.softmax(logits) if output == "prob" else logits
    return jnp.take_along_axis(logits, jnp.asarray(labels)[:, None], 1)[:, 0]
