"""Networks that were not trained here: saved as a working directory, and users' modules trained from settings."""

import importlib
import json
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
import wrapped_nets
from flax import nnx
from wrapped_nets import CNN, VIEW, images

import mixaug_jax
from mixaug_jax import config as config_lib
from mixaug_jax import data
from mixaug_jax.models import MODELS, Net
from mixaug_jax.stages import weights
from mixaug_jax.training import checkpoint


def mine(num_classes):
    return wrapped_nets.NnxCNN(num_classes, rngs=nnx.Rngs(0))


def small():
    model = MODELS["resnet18"](5, width=1 / 32, stem="cifar")
    return Net(model, jax.jit(model.init)(jax.random.key(0), images()), VIEW)


def deep():
    module = wrapped_nets.Deep(3, sizes=[4, 6])
    return Net.wrap(module, module.init(jax.random.key(0), images()), VIEW)


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (wrapped_nets.staged, {}),
        (wrapped_nets.linen, {}),
        (wrapped_nets.wrapped_nnx, {"model": "mine"}),
        (small, {}),
        (deep, {}),
    ],
)
def test_saved_and_loaded(make, options, tmp_path, monkeypatch):
    monkeypatch.setitem(MODELS, "mine", mine)
    net = make()
    mixaug_jax.save(net, tmp_path, **options)
    loaded = mixaug_jax.load(tmp_path)
    assert loaded.model == net.model
    assert loaded.preprocess == net.preprocess
    jax.tree.map(np.testing.assert_array_equal, loaded.variables, net.variables)
    np.testing.assert_array_equal(loaded.logits(images()), net.logits(images()))
    names = config_lib.read(tmp_path).resolved.class_names
    assert names == tuple(str(k) for k in range(net.logits(images()).shape[1]))
    mixaug_jax.save(net, tmp_path, **options)  # the same again is no error
    assert checkpoint.steps(tmp_path, "all") == [0]


def test_another_network_is_not_written_over(tmp_path):
    mixaug_jax.save(wrapped_nets.linen(), tmp_path)
    with pytest.raises(ValueError, match="holds a run of other weights; use another folder"):
        mixaug_jax.save(wrapped_nets.linen(1), tmp_path)
    with pytest.raises(ValueError, match="holds a run of other settings"):
        mixaug_jax.save(wrapped_nets.linen(), tmp_path, config=toy.config())


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (
            Net.wrap(CNN(), wrapped_nets.variables(), type(VIEW)(16).__call__),
            "preprocess must be a models.Preprocess, whose values can be stored",
        ),
        (
            Net.wrap(CNN(), {**wrapped_nets.variables(), "cache": {"a": jnp.ones(2)}}, VIEW),
            r"the variable \['cache'\]\['a'\] is float32 in the network and not there",
        ),
        (wrapped_nets.wrapped_nnx(), "NnxCNN is a flax.nnx module, which cannot be made"),
    ],
)
def test_what_cannot_be_saved(net, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        mixaug_jax.save(net, tmp_path / "run")
    assert not (tmp_path / "run").exists()


FILE = """
import flax.linen as nn

class Mine(nn.Module):
    sizes: tuple = (2,)

    @nn.compact
    def __call__(self, x):
        for size in self.sizes:
            x = nn.relu(nn.Conv(size, (3, 3))(x))
        return nn.Dense(3)(x.mean((1, 2)))
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A saved network of a class in a file of the user's, which this process then forgets; and the file."""
    path = tmp_path / "own_net.py"
    path.write_text(FILE)
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    module = importlib.import_module("own_net").Mine((2, 3))
    net = Net.wrap(module, module.init(jax.random.key(0), images()), VIEW)
    mixaug_jax.save(net, tmp_path / "run")
    for name in set(sys.modules) - before:
        del sys.modules[name]
    yield path, np.asarray(net.logits(images()))
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_a_class_is_imported_from_where_it_was(own, tmp_path):
    path, logits = own
    stored = json.loads((tmp_path / "run" / "config.json").read_text())["resolved"]["model"]
    assert stored["module"] == "own_net:Mine"
    assert stored["file"] == str(path)
    assert stored["fields"] == {"sizes": [2, 3]}
    assert stored["layers"] == ["Conv_0", "Conv_1", "Dense_0"]
    net = mixaug_jax.load(tmp_path / "run")
    np.testing.assert_array_equal(net.logits(images()), logits)
    assert mixaug_jax.load(tmp_path / "run").model == net.model


def test_a_class_that_has_changed_is_taken_from_the_copy_where_that_is_asked_for(own, tmp_path):
    path, logits = own
    path.write_text(FILE.replace("relu", "tanh"))
    with pytest.raises(ValueError, match=r"own_net:Mine cannot be made: .*own_net.py has changed"):
        mixaug_jax.load(tmp_path / "run")
    path.unlink()
    with pytest.raises(ValueError, match=r"own_net.py is not there; .*--code=stored"):
        mixaug_jax.load(tmp_path / "run")
    net = mixaug_jax.load(tmp_path / "run", code="stored")
    np.testing.assert_array_equal(net.logits(images()), logits)


class Plain(nn.Module):
    """As in Flax's documentation: no field of ours, and the number of classes written down."""

    @nn.compact
    def __call__(self, x):
        x = nn.avg_pool(nn.relu(nn.Conv(4, (3, 3))(x)), (4, 4), strides=(4, 4))
        return nn.Dense(4)(x.reshape(len(x), -1))


class Dropping(nn.Module):
    """Batch statistics, dropout, noise of its own, and a variable that nothing changes."""

    num_classes: int

    @nn.compact
    def __call__(self, x, train=True):
        scale = self.variable("constants", "scale", lambda: jnp.float32(0.5))
        x = nn.BatchNorm(use_running_average=not train)(nn.Conv(4, (3, 3))(x))
        x = nn.Dropout(0.2, deterministic=not train)(nn.relu(x)).mean((1, 2))
        if train:
            x += 0.01 * jax.random.normal(self.make_rng("noise"), x.shape)
        return nn.Dense(self.num_classes)(x * scale.value)


def config(name, method="baseline", **train):
    settings = toy.config(method, **{"epochs": 1, "lr": 0.02} | train)
    settings.model.name = name
    return settings


@pytest.mark.parametrize(
    ("entry", "method", "train"),
    [
        (Plain, "cutmix", {}),
        (Dropping, "baseline", {"accumulate": 2, "ema": 0.9}),
    ],
)
def test_users_modules_are_trained(entry, method, train, tmp_path, monkeypatch):
    monkeypatch.setitem(MODELS, "mine", entry)
    monkeypatch.setattr(data, "open_splits", lambda config: toy.splits())
    mixaug_jax.train(config("mine", method, **train), tmp_path)
    net = mixaug_jax.load(tmp_path)
    assert net.name == entry.__name__
    settings = config_lib.read(tmp_path)
    start = net.reinitialized(jax.random.key(settings.seed), images()[0]).variables
    moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), net.variables, start)
    for name, change in jax.tree_util.tree_leaves_with_path(moved):
        assert (change > 0) == (name[0].key != "constants"), name
    assert np.isfinite(net.logits(images())).all()


def test_hidden_features_of_users_modules_are_not_mixed(tmp_path, monkeypatch):
    monkeypatch.setitem(MODELS, "mine", Plain)
    monkeypatch.setattr(data, "open_splits", lambda config: toy.splits())
    with pytest.raises(ValueError, match=r"manifold mixup mixes between .* and Plain is none"):
        mixaug_jax.train(config("mine", "manifold_mixup"), tmp_path)
    monkeypatch.setitem(MODELS, "mine", mine)
    with pytest.raises(ValueError, match=r"NnxCNN is a flax\.nnx module"):
        mixaug_jax.train(config("mine"), tmp_path)
    settings = config("tiny")
    settings.dissect.layers = ("relu9",)
    with pytest.raises(ValueError, match=r"dissect\.layers must be one of relu1, relu3, relu4, fc"):
        mixaug_jax.train(settings, tmp_path)


def test_nothing_is_trained_where_a_network_was_saved(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(data, "open_splits", lambda config: toy.splits())
    settings = config("tiny")
    settings.stages = ("train", "train")  # what is asked for as "all"
    mixaug_jax.save(wrapped_nets.linen(), tmp_path, config=settings)
    mixaug_jax.run(settings, tmp_path)
    assert "holds a network that was not trained here" in capsys.readouterr().out
    assert checkpoint.steps(tmp_path, "all") == [0]


def test_a_network_that_was_saved_has_its_page_and_can_be_exported(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "open_splits", lambda config: toy.splits())
    mixaug_jax.save(wrapped_nets.linen(), tmp_path)
    page = mixaug_jax.write_report(tmp_path).read_text()
    assert "trained elsewhere" in page
    assert "The augmentation" not in page
    with pytest.raises(ValueError, match="checkpoint='all' is many, and one is asked for"):
        mixaug_jax.load(tmp_path, "all")
    with pytest.raises(ValueError, match="checkpoint='all' is many, and one is asked for"):
        weights.export_run(tmp_path, "all")
