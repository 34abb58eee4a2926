"""Which modules can be wrapped, what their layers are, and what is said where one cannot be."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import wrapped_nets
from flax import nnx
from wrapped_nets import VIEW, close, images

from mixaug_jax.core import checks
from mixaug_jax.models import Net, Preprocess


def test_fields_that_are_equal_but_not_the_same_compile_nothing():
    """Lists, dicts and partial functions are compared by what is in them."""

    class Made(nn.Module):
        sizes: list
        options: dict
        norm: functools.partial

        @nn.compact
        def __call__(self, x):
            for size in (*self.sizes, 3):
                x = nn.relu(nn.Conv(size, **self.options)(x))
            return nn.Dense(2)(self.norm(use_running_average=True)(x).mean((1, 2)))

    def made():
        norm = functools.partial(nn.BatchNorm, momentum=0.9)
        return Made([2, 4], {"kernel_size": (3, 3)}, norm)

    values = made().init(jax.random.key(0), images())
    nets = [Net.wrap(made(), values, VIEW) for _ in range(2)]
    assert nets[0].layers == ("Conv_0", "Conv_1", "Conv_2", "BatchNorm_0", "Dense_0")
    logits = jax.jit(lambda net, x: net.logits(x))
    for net in nets:
        logits(net, images())
    assert logits._cache_size() == 1


def deep(**fields):
    module = wrapped_nets.Deep(3, **fields)
    values = module.init({"params": jax.random.key(1), "dropout": jax.random.key(2)}, images())
    draw = np.random.default_rng(3)
    values["batch_stats"] = jax.tree.map(
        lambda x: jnp.asarray(draw.uniform(0.5, 2, x.shape), jnp.float32), values["batch_stats"]
    )
    return module, values


def test_nested_submodules_dropout_and_batch_statistics():
    module, values = deep()
    net = Net.wrap(module, values, VIEW)
    assert net.layers == ("blocks_0", "blocks_1", "again", "twice", "dropout", "head")
    x = images()
    close(net.logits(x), module.apply(values, x, training=False))
    inner = ("blocks_0.Conv_0", "blocks_1.BatchNorm_0", "blocks_1", "head")
    nested = Net.wrap(module, values, VIEW, layers=inner[::-1])
    assert nested.layers == inner
    found = nested.capture(x, inner)
    close(nn.relu(found["blocks_1.BatchNorm_0"]), found["blocks_1"])
    for layer in inner:
        close(nested.logits(x, layer=layer, value=found[layer]), net.logits(x))
    changed = nested.logits(x, layer="blocks_1.BatchNorm_0", value=-found["blocks_1.BatchNorm_0"])
    assert np.abs(changed - net.logits(x)).max() > 1e-3


def test_the_last_call_of_a_submodule_counts():
    module, values = deep()
    net, x = Net.wrap(module, values, VIEW), images()
    close(net.features(x, "twice"), net.features(x, "dropout"))
    value = jnp.ones((3, 6))
    head = values["params"]["head"]
    close(net.logits(x, layer="twice", value=value), value @ head["kernel"] + head["bias"])


class Training(nn.Module):
    @nn.compact
    def __call__(self, x, *, is_training):
        x = nn.Dropout(0.5)(nn.Conv(2, (3, 3))(x), deterministic=not is_training)
        return nn.Dense(3)(x.mean((1, 2)))


class Deterministic(nn.Module):
    @nn.compact
    def __call__(self, x, deterministic: bool):
        x = nn.Dropout(0.5)(nn.Conv(2, (3, 3))(x), deterministic)
        return nn.Dense(3)(x.mean((1, 2)))


class InField(nn.Module):
    train: bool = True

    @nn.compact
    def __call__(self, x):
        x = nn.BatchNorm(use_running_average=not self.train)(nn.Conv(2, (3, 3))(x))
        return nn.Dense(3)(nn.Dropout(0.5, deterministic=not self.train)(x).mean((1, 2)))


@pytest.mark.parametrize("kind", [Training, Deterministic, InField])
def test_a_module_is_told_that_it_is_not_trained(kind):
    """Twice the same, and gradients reach every place: no dropout; and no statistics of the batch."""
    rngs = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    told = {Training: {"is_training": True}, Deterministic: {"deterministic": False}}
    values = kind().init(rngs, images(), **told.get(kind, {}))
    net, x = Net.wrap(kind(), values, VIEW), images()
    assert net.layers[0] == "Conv_0"
    close(net.logits(x)[:1], net.logits(x[:1]))
    inside = net.capture(x, ("Conv_0", "Dropout_0"))
    assert (np.asarray(inside["Dropout_0"]) != 0).all()


def test_nnx_modules_are_left_as_they_were():
    module = wrapped_nets.trained_nnx()
    net = Net.wrap(module, preprocess=VIEW)
    assert not module.dropout.deterministic
    other = Net.wrap(module, nnx.state(wrapped_nets.trained_nnx(1)), VIEW)
    close(other.logits(images()), wrapped_nets.wrapped_nnx(1).logits(images()))
    module.eval()
    close(net.logits(images()), module(images()))


class Nested(nnx.Module):
    """Blocks in a list, one of them in two places, which asks what it calls."""

    def __init__(self, rngs):
        block = nnx.Sequential(nnx.Conv(3, 3, (3, 3), rngs=rngs), nnx.BatchNorm(3, rngs=rngs))
        self.blocks = nnx.List([block, nnx.Conv(3, 3, (3, 3), rngs=rngs)])
        self.first = block
        self.head = nnx.Linear(3, 2, rngs=rngs)

    def __call__(self, x, *, train: bool):
        assert not train
        for block in self.blocks:
            assert isinstance(block, (nnx.Sequential, nnx.Conv))
            x = nnx.relu(block(x))
        return self.head(self.first(x).mean((1, 2)))


def test_nested_and_shared_nnx_modules():
    module = Nested(nnx.Rngs(0))
    net, x = Net.wrap(module, preprocess=VIEW), images()
    assert net.layers == ("blocks.1", "blocks.0", "head")  # blocks.0 is called last, as `first`
    assert net.model.calls == (1, 2, 1)
    inner = Net.wrap(module, preprocess=VIEW, layers=("blocks.0.layers.0", "blocks.1"))
    assert inner.layers == ("blocks.1", "blocks.0.layers.0")
    h = inner.features(x, "blocks.0.layers.0")
    close(inner.logits(x, layer="blocks.0.layers.0", value=h), net.logits(x))
    assert np.abs(inner.logits(x, layer="blocks.0.layers.0", value=2 * h) - net.logits(x)).max() > 0


def test_new_variables():
    module, values = deep()
    net = Net.wrap(module, values, VIEW)
    fresh = net.reinitialized(jax.random.key(5), images()[0])
    expected = module.init(jax.random.key(5), images()[:1])
    jax.tree.map(np.testing.assert_array_equal, fresh.variables, expected)
    assert fresh.model == net.model
    nnx_net = wrapped_nets.wrapped_nnx()
    with pytest.raises(checks.UnsupportedError, match=r"NnxCNN is a flax\.nnx module"):
        nnx_net.reinitialized(jax.random.key(0), images()[0])


class NoLayers(nn.Module):
    @nn.compact
    def __call__(self, x):
        return x.reshape(len(x), -1) @ self.param("w", nn.initializers.ones, (SIZE, 2))


SIZE = 16 * 16 * 3


class Statistics(nn.Module):
    """Batch statistics of every batch, also when it is used."""

    @nn.compact
    def __call__(self, x):
        x = nn.BatchNorm(use_running_average=False)(nn.Conv(2, (3, 3))(x))
        return nn.Dense(2)(x.mean((1, 2)))


class Boxes(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Conv(2, (3, 3))(x)


class Colored(nn.Module):
    color: np.ndarray

    @nn.compact
    def __call__(self, x):
        return nn.Dense(2)((x - self.color).mean((1, 2)))


class Masked(nn.Module):
    @nn.compact
    def __call__(self, x, mask):
        return nn.Dense(2)((x * mask).mean((1, 2)))


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (NoLayers(), "NoLayers calls no submodules, so it has no layers"),
        (Statistics(), r"cannot be called on images \[2, 16, 16, 3\]: ModifyScopeVariableError"),
        (Boxes(), r"Boxes must return logits \[B,K\]; got \[2, 16, 16, 2\]"),
        (Colored(np.zeros(3)), r"Colored must be hashable, and its field color \(ndarray\) is not"),
        (Masked(), "Masked cannot be called .*missing 1 required positional argument: 'mask'"),
    ],
)
def test_modules_that_cannot_be_wrapped(module, message):
    given = {"mask": 1.0} if isinstance(module, Masked) else {}
    values = module.init(jax.random.key(0), images(), **given)
    with pytest.raises(ValueError, match=message):
        Net.wrap(module, values, VIEW)


def test_sentences_about_what_is_asked():
    net, x = wrapped_nets.linen(), images()
    values = wrapped_nets.variables()
    bad = [
        (lambda: net.features(x, "Conv_2"), "layer must be one of Conv_0, .*did you mean 'Conv_1'"),
        (lambda: net.capture(x, ("conv_1",)), "layers must be one of Conv_0"),
        (lambda: net.logits(x, layer="fc", value=x), "layer must be one of Conv_0"),
        (lambda: net.logits(x, layer="Conv_0", value=x), r"\[n, 16, 16, 4\] of layer 'Conv_0'"),
        (lambda: net.between(x, "Conv_0"), "CNN is wrapped, and its layers need not form a chain"),
        (lambda: net.with_rules(act=nn.relu), "CNN has no fields affine, act, add and pool"),
        (lambda: Net.wrap(wrapped_nets.CNN(), values), "preprocess must say how"),
        (lambda: Net.wrap(wrapped_nets.CNN(), values["params"], VIEW), "must be {'params': ...}"),
        (lambda: Net.wrap(wrapped_nets.CNN(), values, Preprocess(32)), "CNN cannot be called on"),
        (lambda: Net.wrap(wrapped_nets.CNN(), values, VIEW, layers=("Conv_",)), "layers must be"),
        (lambda: Net.wrap(len, values, VIEW), "must be a flax.linen or a flax.nnx module"),
        (
            lambda: Net.wrap(wrapped_nets.Staged(), values, VIEW, layers=("Conv_0",)),
            "Staged names its layers itself",
        ),
        (
            lambda: Net.wrap(wrapped_nets.trained_nnx(), {"Conv_0.kernel": x}, VIEW),
            "variables of NnxCNN lack",
        ),
        (
            lambda: wrapped_nets.wrapped_nnx().with_rules(act=nn.relu),
            "NnxCNN has no fields affine",
        ),
    ]
    for call, message in bad:
        with pytest.raises(ValueError, match=message):
            call()


def test_a_chain_stays_one():
    twin = wrapped_nets.staged()
    again = Net.wrap(wrapped_nets.Staged(), twin.variables, VIEW)
    assert again.model == twin.model
    assert again.has_rules
    assert not wrapped_nets.linen().has_rules


def test_equal_numbers_of_different_types_are_different_functions():
    """1, 1.0 and True compare equal, and a network with one of them is not that with another."""

    class Scaled(nn.Module):
        scale: functools.partial

        @nn.compact
        def __call__(self, x):
            return nn.Dense(2)(self.scale(x.mean((1, 2))))

    def kind(x, by):
        return x * {int: 1, float: 2, bool: 3}[type(by)]

    logits = []
    for by in (1, 1.0, True):
        module = Scaled(functools.partial(kind, by=by))
        values = module.init(jax.random.key(0), images())
        logits.append(np.asarray(Net.wrap(module, values, VIEW).logits(images())))
    bias = np.asarray(values["params"]["Dense_0"]["bias"])
    close(logits[1] - bias, 2 * (logits[0] - bias))
    close(logits[2] - bias, 3 * (logits[0] - bias))
