"""Anybody's linen and nnx modules as networks of named layers, against the same network as a chain of this package."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import wrapped_nets
from wrapped_nets import LAYERS, NETS, VIEW, close, images

import mixaug_jax
from mixaug_jax import dissection
from mixaug_jax.attribution import METHODS, iba_statistics
from mixaug_jax.attribution.target import cam_layer, map_shapes
from mixaug_jax.explain.job import Options
from mixaug_jax.models import MODELS, Net
from mixaug_jax.scores import stability


@pytest.fixture(params=list(NETS))
def net(request):
    return NETS[request.param]()


@pytest.fixture
def twin():
    return wrapped_nets.staged()


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
    options = dissection.Options(shuffles=2, random_baseline=False, iou=(0.01, 0.05))
    found, expected = (
        dissection.dissect(n, wrapped_nets.source(), ("Conv_1", "Conv_0"), options)
        for n in (net, twin)
    )
    for layer in ("Conv_0", "Conv_1"):
        assert expected[layer].counts.any()
        np.testing.assert_array_equal(found[layer].counts, expected[layer].counts)
        np.testing.assert_array_equal(found[layer].null, expected[layer].null)
        np.testing.assert_array_equal(found[layer].halves, expected[layer].halves)
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
    source, options = wrapped_nets.source(), dissection.Options(shuffles=0)
    found = {
        kind: dissection.dissect(make(), source, ("Conv_0",), options)["Conv_0"]
        for kind, make in NETS.items()
    }
    assert (found["linen"].random >= 0).all()
    assert (found["nnx"].random == -1).all()
