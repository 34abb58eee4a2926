"""The decoder of marker bits: its layers, its size, and what it refuses."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixaug_jax.core.checks import UnsupportedError
from mixaug_jax.models import MODELS


def shapes(name, side):
    model = MODELS[name](12)
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, side, side, 1)))
    outputs = {
        layer: jax.eval_shape(
            lambda v, x, layer=layer: model.apply(v, x, stop=layer),
            variables,
            jnp.zeros((2, side, side, 1)),
        ).shape
        for layer in model.layers
    }
    return variables, outputs


@pytest.mark.parametrize(
    ("name", "side", "maps", "blocks"),
    [("decoder", 32, (16, 16, 8, 4), 5), ("decoder34", 64, (32, 32, 16, 8, 4), 16)],
)
def test_layers(name, side, maps, blocks):
    variables, outputs = shapes(name, side)
    filters = (16, 16, 32, 64, 128)
    expected = [(2, n, n, f) for n, f in zip(maps, filters, strict=False)]
    assert list(outputs.values()) == [*expected, (2, 256), (2, 12)]
    assert sum(key.endswith(".conv2") for key in variables["params"]) == blocks
    assert variables["params"]["dense"]["kernel"].shape == (maps[-1] ** 2 * filters[len(maps) - 1], 256)  # fmt: skip


def test_layers_join_to_the_whole():
    model = MODELS["decoder"](12, width=0.25)
    x = jax.random.normal(jax.random.key(1), (3, 16, 16, 1))
    variables = model.init(jax.random.key(0), x)
    whole = jax.jit(model.apply)(variables, x)
    h = x
    for before, layer in zip(("", *model.layers[:-1]), model.layers, strict=True):
        part = jax.jit(functools.partial(model.apply, start=before, stop=layer))
        h = part(variables, h)
    np.testing.assert_allclose(h, whole, rtol=1e-5, atol=1e-5)
    # Dropout is drawn anew in training and off otherwise; the first norm uses the batch in training only.
    train = functools.partial(model.apply, variables, x, train=True, mutable=["batch_stats"])
    drop = jax.jit(lambda key: train(rngs={"dropout": key})[0])
    trained = [drop(jax.random.key(k)) for k in range(2)]
    assert np.abs(trained[0] - trained[1]).max() > 1e-3


def test_rules_of_relus_are_refused():
    with pytest.raises(UnsupportedError, match="Decoder has ELUs, and refuses rules of ReLUs"):
        MODELS["decoder"](12).clone(act=lambda name, x: x)
