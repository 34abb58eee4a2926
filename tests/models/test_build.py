"""A network from settings, of whatever kind, and the settings that make it again."""

import functools
import inspect
import json
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
import toy
import wrapped_nets
from flax import nnx
from wrapped_nets import CNN, Deep, NnxCNN, images

from mixaug_jax import config as config_lib
from mixaug_jax.models import MODELS, Net, Preprocess, build


def resolved(classes=4, model=None, **settings):
    """`toy`'s settings for so many classes; `model` is put in the place of `resolved.model`."""
    config = toy.config()
    config.model.update(settings)
    names = tuple(str(k) for k in range(classes))
    config = config_lib.resolve(config, train_size=64, class_names=names)
    if model is not None:
        with config.unlocked():
            config.resolved.model = model
    return config_lib.from_json(config_lib.to_json(config))


@pytest.fixture
def mine(monkeypatch):
    """mine(entry) adds an entry to MODELS."""
    return functools.partial(monkeypatch.setitem, MODELS, "mine")


def no_options(num_classes):
    return CNN(num_classes)


def positional(k, *, width=1.0):
    return Deep(k, sizes=(round(4 * width), 6))


def with_stem(num_classes, *, width=1.0, stem="imagenet"):
    return wrapped_nets.Deep(
        num_classes, sizes=(round(12 * width),) * (2 if stem == "cifar" else 1)
    )


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (no_options, CNN(3)),
        (CNN, CNN(3)),
        (Deep, Deep(3)),
        (positional, Deep(3, sizes=(2, 6))),
        (with_stem, Deep(3, sizes=(6, 6))),
    ],
)
def test_entries_take_what_their_signatures_say(mine, entry, expected):
    mine(entry)
    model = build.build_model(resolved(3, name="mine", width=0.5, stem="cifar"))
    assert model.module == expected
    assert model.num_classes == 3
    names = build.layer_names(resolved(3, name="mine", width=0.5, stem="cifar"))
    assert names == model.layers


def test_an_nnx_entry(mine):
    mine(NnxCNN)
    config = resolved(4, name="mine")
    model = build.build_model(config)
    assert model.layers == ("Conv_0", "Conv_1", "Dense_0", "dropout", "Dense_1")
    shapes = build.variable_shapes(model, config)
    variables = Net.wrap(wrapped_nets.trained_nnx(), preprocess=wrapped_nets.VIEW).variables
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(lambda s: s.shape, shapes)


def two_arguments(num_features, depth):
    return CNN()


@pytest.mark.parametrize(
    ("entry", "settings", "message"),
    [
        (lambda: CNN(7), {}, "mine gives 7 logits, and the data has 4 classes"),
        (two_arguments, {}, "two_arguments needs num_features, depth"),
        (CNN, {"dtype": "bfloat16"}, "model.dtype='bfloat16' needs a field dtype of .*; CNN has"),
        (CNN, {"sync_bn": True}, "model.sync_bn=True needs a field axis_name of .*; CNN has none"),
        (Deep, {"remat": True}, "model.remat=True needs a field remat of the network; Deep has"),
        (NnxCNN, {"remat": True}, "model.remat=True needs a field remat"),
        (None, {"name": "tyny"}, "model.name must be one of .*did you mean 'tiny'"),
    ],
)
def test_what_cannot_be_built(mine, entry, settings, message):
    mine(entry)
    with pytest.raises(ValueError, match=message):
        build.build_model(resolved(4, **{"name": "mine"} | settings))


def test_the_body_is_set_where_it_has_fields(mine):
    mine(Deep)
    model = build.build_model(resolved(3, name="mine", dtype="bfloat16", sync_bn=True))
    assert model.module == Deep(3, dtype=jnp.dtype("bfloat16"), axis_name="data")
    tiny = build.build_model(resolved(3, dtype="bfloat16", remat=True))
    assert (tiny.dtype, tiny.remat, tiny.axis_name) == (jnp.bfloat16, True, "")
    assert build.build_model(resolved(3)) == MODELS["tiny"](3)


def test_the_last_layer_may_keep_its_side():
    config = resolved(3, name="resnet18", width=1 / 16, last_stride=1)
    model = build.build_model(config)
    assert model == MODELS["resnet18"](3, width=1 / 16, last_stride=1)
    net = Net(model, build.variable_shapes(model, config), Preprocess(64))
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    found = jax.eval_shape(lambda net, x: net.features(x, "layer4"), net, image)
    assert found.shape == (1, 4, 4, 32)
    assert build.described(net)["last_stride"] == 1
    # Of a network that has no such layer it says nothing, as the stem.
    plain = build.build_model(resolved(3, name="tiny"))
    assert build.build_model(resolved(3, name="tiny", last_stride=1)) == plain


def again(net, name=""):
    """The model that is built from what `described` says of a network's, through JSON."""
    settings = json.loads(json.dumps(build.described(net, name)))
    return build.build_model(resolved(net_classes(net), settings))


def net_classes(net):
    return getattr(net.model, "num_classes", wrapped_nets.CLASSES)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("width", "stem"), [(1.0, "imagenet"), (0.25, "cifar"), (0.3, "imagenet")])
def test_our_own_models_are_found_by_their_fields(name, width, stem):
    model = MODELS[name](5, width=width, stem=stem)
    found = build.described(Net(model, {}, wrapped_nets.VIEW))
    assert found["name"] == name
    assert set(found) == {"name", *inspect.signature(MODELS[name]).parameters} - {"num_classes"}
    assert again(Net(model, {}, wrapped_nets.VIEW)) == model


def wrapped(module):
    return Net.wrap(module, jax.jit(module.init)(jax.random.key(0), images()), wrapped_nets.VIEW)


@pytest.mark.parametrize(
    "module",
    [
        CNN(),
        CNN(6),
        Deep(3, sizes=[4, 6], dtype=jnp.bfloat16),
        Deep(3, (6, 6)),
        MODELS["resnet18"](2, width=1 / 32).clone(blocks=(1, 1, 1, 1)),
        MODELS["tiny"](2).clone(dtype=jnp.dtype("bfloat16"), axis_name="data"),
        wrapped_nets.Staged(),
    ],
    ids=lambda module: type(module).__name__,
)
def test_linen_modules_are_made_again_from_their_class(module):
    net = wrapped(module)
    assert again(net) == net.model


def test_which_layers_are_seen_is_kept():
    module = Deep(3)
    layers = ("blocks_0.Conv_0", "head")
    values = module.init(jax.random.key(0), images())
    net = Net.wrap(module, values, wrapped_nets.VIEW, layers=layers)
    assert again(net).layers == layers


def test_nnx_modules_are_made_again_by_name(mine):
    net = wrapped_nets.wrapped_nnx()
    with pytest.raises(ValueError, match=r"NnxCNN is a flax.nnx module, .* save\(..., model="):
        build.described(net)
    with pytest.raises(ValueError, match="model must be one of"):
        build.described(net, "mine")
    mine(lambda num_classes: NnxCNN(num_classes, rngs=nnx.Rngs(3)))
    assert again(net, "mine") == net.model
    mine(lambda num_classes: CNN(num_classes))
    with pytest.raises(ValueError, match=r"MODELS\['mine'\] with 4 classes makes another network"):
        build.described(net, "mine")


class Odd(nn.Module):
    act: Any = nn.relu

    @nn.compact
    def __call__(self, x):
        return nn.Dense(2)(self.act(x).mean((1, 2)))


def test_what_cannot_be_made_again(monkeypatch):
    assert again(wrapped(Odd())).module == Odd()
    with pytest.raises(
        ValueError, match=r"the field act of Odd is .*; only numbers, texts, dtypes"
    ):
        build.described(wrapped(Odd(nn.tanh)))

    class Inside(CNN):
        pass

    with pytest.raises(ValueError, match="Inside is defined inside of a function"):
        build.described(wrapped(Inside()))
    monkeypatch.setattr(Odd, "__module__", "notebook")
    with pytest.raises(ValueError, match="Odd was defined at a prompt or in a notebook"):
        build.described(wrapped(Odd()))
