"""Anybody's linen and nnx modules as networks of named layers, against the same network as a chain of this package."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import wrapped_nets
from flax import nnx
from wrapped_nets import LAYERS, NETS, VIEW, images

import mixaug_jax
from mixaug_jax import dissection
from mixaug_jax.attribution import METHODS, iba_statistics
from mixaug_jax.attribution.target import cam_layer, map_shapes
from mixaug_jax.core import checks
from mixaug_jax.explain.job import Options
from mixaug_jax.models import MODELS, Net, Preprocess
from mixaug_jax.scores import stability


@pytest.fixture(params=list(NETS))
def net(request):
    return NETS[request.param]()


@pytest.fixture
def twin():
    return wrapped_nets.staged()


def close(actual, expected, tolerance=1e-5):
    assert np.shape(actual) == np.shape(expected)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def test_layers_are_the_submodules_in_the_order_of_their_calls(net, twin):
    assert net.layers == LAYERS
    every = Net.wrap(wrapped_nets.trained_nnx(), preprocess=VIEW)
    assert every.layers == ("Conv_0", "Conv_1", "Dense_0", "dropout", "Dense_1")
    assert net.name in ("CNN", "NnxCNN")
    assert twin.name == "Staged"


def test_logits_features_and_gradients_are_those_of_the_chain(net, twin):
    x = images()
    logits, captured = (jax.jit(f) for f in (Net.logits, lambda n, x: n.capture(x, LAYERS)))
    close(logits(net, x), logits(twin, x))
    found, expected = captured(net, x), captured(twin, x)
    for layer in LAYERS:
        close(found[layer], expected[layer])
        close(net.features(x, layer), expected[layer])
        assert found[layer].dtype == np.float32
    for layer in ("Conv_1", "Dense_0"):
        value = expected[layer] * 1.5 - 0.1

        def replaced(net, h, layer=layer):
            return net.logits(x, layer=layer, value=h)

        def slope(net, h):
            return jax.grad(lambda h: replaced(net, h)[:, 1].sum())(h)

        close(jax.jit(replaced)(net, value), jax.jit(replaced)(twin, value))
        close(jax.jit(slope)(net, value), jax.jit(slope)(twin, value))

    def inputs(net, x):
        return jax.grad(lambda x: jnp.square(net.features(x, "Conv_1")).sum())(x)

    close(jax.jit(inputs)(net, x), jax.jit(inputs)(twin, x))


def test_what_leads_to_a_replaced_output_costs_nothing(net):
    def flops(f, *args):
        return jax.jit(f).lower(*args).compile().cost_analysis()["flops"]

    x, value = images(), net.features(images(), "Dense_0")
    after = flops(lambda net, h: net.logits(x, layer="Dense_0", value=h), net, value)
    assert after < 0.05 * flops(Net.logits, net, x)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("gradcam", {}),
        ("gradcam", {"layer": "Conv_0"}),
        ("hirescam", {"output": "prob"}),
        ("scorecam", {}),
        ("integrated_gradients", {"steps": 4}),
        ("occlusion", {"window": 4, "stride": 4}),
        ("iba", {"layer": "Conv_1", "steps": 3, "samples": 2}),
    ],
)
def test_explanations_are_those_of_the_chain(net, twin, method, options):
    x, labels = images(), jnp.arange(3)

    def maps(net):
        given = options
        if method == "iba":
            given = given | {"stats": iba_statistics(net, [images(8)], layer="Conv_1")}
        f = functools.partial(METHODS[method], **given)
        return jax.jit(jax.vmap(f, (None, 0, 0)))(net, x, labels)

    found, expected = maps(net), maps(twin)
    assert np.abs(expected).max() > 0
    close(found, expected)


def test_dissection_counts_are_those_of_the_chain(net, twin):
    options = dissection.Options(shuffles=2, replicates=2, random_baseline=False, iou=(0.01, 0.05))
    found, expected = (
        dissection.dissect(n, wrapped_nets.source(), ("Conv_1", "Conv_0"), options)
        for n in (net, twin)
    )
    for layer in ("Conv_0", "Conv_1"):
        assert expected[layer].counts.any()
        np.testing.assert_array_equal(found[layer].counts, expected[layer].counts)
        np.testing.assert_array_equal(found[layer].null, expected[layer].null)
        np.testing.assert_array_equal(found[layer].replicates, expected[layer].replicates)
        np.testing.assert_array_equal(found[layer].tally.concept, expected[layer].tally.concept)
        close(found[layer].threshold, expected[layer].threshold)


def test_evaluation_is_that_of_the_chain(net, twin):
    options = Options(label="predicted", entries={"deletion": {"window": 4}})
    found, expected = (
        mixaug_jax.evaluate(
            n,
            wrapped_nets.source(6),
            methods=("gradcam",),
            scores=("deletion", "pointing_game"),
            options=options,
        )
        for n in (net, twin)
    )
    assert list(found) == list(expected)
    for name, result in expected.items():
        close(found[name].heat, result.heat)
        close(found[name].curves["deletion"], result.curves["deletion"])
        np.testing.assert_array_equal(
            found[name].scores["pointing_game"], result.scores["pointing_game"]
        )


@pytest.mark.parametrize("kind", NETS)
def test_another_checkpoint_of_an_equal_module_compiles_nothing(kind):
    logits = jax.jit(lambda net, x: net.logits(x))
    first, second = NETS[kind](0), NETS[kind](1)
    assert first.model == second.model
    values = [logits(n, images()) for n in (first, second)]
    assert np.abs(values[0] - values[1]).max() > 1e-3
    assert logits._cache_size() == 1


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


def test_class_activation_maps_take_the_last_layer_with_four_by_four_nodes():
    net = Net.wrap(wrapped_nets.CNN(), wrapped_nets.variables(), VIEW)
    assert map_shapes(net, images()[0]) == {"Conv_0": (16, 16, 4), "Conv_1": (8, 8, 6)}
    assert cam_layer(net, images()[0]) == "Conv_1"
    tiny = MODELS["tiny"](4, width=0.5)
    chain = Net(tiny, tiny.init(jax.random.key(0), images()), VIEW)
    assert cam_layer(chain, jax.ShapeDtypeStruct((16, 16, 3), np.float32)) == "relu4"  # 4 x 4
    small = images()[0, :12, :12]
    assert cam_layer(chain, small) == "relu3"  # relu4 has 3 x 3
    assert cam_layer(chain, small, "relu4") == "relu4"
    assert cam_layer(chain, small[:4, :4]) == "relu1"  # 4 x 4, then 2 x 2
    assert cam_layer(chain, small[:2, :2]) == "relu4"  # none has so many: the last
    explain = jax.jit(METHODS["gradcam"], static_argnames="layer")
    close(explain(chain, small, 1, layer=""), explain(chain, small, 1, layer="relu3"))


def test_features_are_traced_once_for_all_layers():
    calls = []

    class Counted(nn.Module):
        @nn.compact
        def __call__(self, x):
            calls.append(0)
            x = nn.Conv(2, (3, 3))(nn.Conv(2, (3, 3))(x))
            return nn.Dense(3)(x.mean((1, 2)))

    net = Net.wrap(Counted(), Counted().init(jax.random.key(0), images()), VIEW)
    calls.clear()
    map_shapes(net, images()[0])
    assert len(calls) == 1


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


def test_parameters_are_randomized_from_the_top():
    """The gradient of a network whose one layer is new is that network's; `cascading` makes all above new, too."""
    net, image, key = wrapped_nets.linen(), images()[0], jax.random.key(7)
    fresh = net.reinitialized(key, image).variables["params"]
    explain = jax.jit(METHODS["gradient"])

    def similarity(*layers):
        params = net.variables["params"] | {name: fresh[name] for name in layers}
        changed = dataclasses.replace(net, variables={"params": params})
        heat = [np.abs(explain(n, image, 1)).sum(-1) for n in (net, changed)]
        return np.corrcoef(*(h.ravel() for h in heat))[0, 1]

    for mode in ("cascading", "independent"):

        def score(net, image, mode=mode):
            randomization = stability.Randomization(mode, "pearson")
            return stability.randomized_similarities(explain, net, image, 1, randomization, key=key)

        found = jax.jit(score)(net, image)
        top = LAYERS[::-1]
        expected = [
            similarity(*(top[: k + 1] if mode == "cascading" else top[k : k + 1])) for k in range(4)
        ]
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_random_baseline_where_there_can_be_one():
    source, options = wrapped_nets.source(), dissection.Options(shuffles=0, replicates=0)
    found = {
        kind: dissection.dissect(make(), source, ("Conv_0",), options)["Conv_0"]
        for kind, make in NETS.items()
    }
    assert (found["linen"].random >= 0).all()
    assert (found["nnx"].random == -1).all()


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


def test_a_chain_stays_one(twin):
    again = Net.wrap(wrapped_nets.Staged(), twin.variables, VIEW)
    assert again.model == twin.model
    assert again.has_rules
    assert not wrapped_nets.linen().has_rules
