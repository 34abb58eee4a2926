"""ResNets: torchvision's sizes, PyTorch's arithmetic, and a layer's features leading on to the same logits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixaug_jax.models import MODELS, Net, Preprocess

STEMS = ["imagenet", "cifar"]


def sizes(tree):
    return sum(np.prod(leaf.shape, dtype=int) for leaf in jax.tree.leaves(tree))


def shapes(model, side=32):
    return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, side, side, 3)))


def randomized(variables, seed=0):
    """Variables whose batch norms do something: PyTorch's initial ones hide mistakes in them."""
    rng = np.random.default_rng(seed)
    spread = {"scale": (0.5, 1.5), "var": (0.5, 1.5), "mean": (-0.3, 0.3), "bias": (-0.3, 0.3)}

    def draw(path, leaf):
        if path[-1].key == "kernel":
            return np.asarray(leaf)
        return rng.uniform(*spread[path[-1].key], leaf.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, variables)


def random_net(model, side):
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, side, side, 3)))
    return Net(model, randomized(variables), Preprocess(side))


def images(height, width, count=2):
    x = np.random.default_rng(1).normal(size=(count, height, width, 3))
    return x.astype(np.float32)


def close(actual, expected, tolerance=1e-5):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * np.abs(expected).max())


@jax.jit
def by_every_layer(net, x):
    return net.logits(x), {s: net.between(net.features(x, s), s) for s in net.layers}


def check_layers(net, x):
    """Stopping after any layer and going on from there is running straight through."""
    logits, by_layer = by_every_layer(net, x)
    assert logits.dtype == jnp.float32
    assert tuple(sorted(by_layer)) == tuple(sorted(net.layers))
    for ours in by_layer.values():
        close(ours, logits, 1e-6)
    return logits


def to_torch(x):
    torch = pytest.importorskip("torch", reason="the oracle is PyTorch's own arithmetic")
    return torch.tensor(x).permute(0, 3, 1, 2)


# Counted by torchvision for 1000 classes; for the CIFAR stem with 10, as its users report it.
PARAMETERS = [
    ("resnet18", "imagenet", 1000, 11_689_512),
    ("resnet34", "imagenet", 1000, 21_797_672),
    ("resnet50", "imagenet", 1000, 25_557_032),
    ("resnet101", "imagenet", 1000, 44_549_160),
    ("resnet152", "imagenet", 1000, 60_192_808),
    ("resnet18", "cifar", 10, 11_173_962),
    ("preact_resnet18", "cifar", 10, 11_171_146),
    ("wide_resnet28_10", "cifar", 10, 36_479_194),
]


@pytest.mark.parametrize(("name", "stem", "classes", "expected"), PARAMETERS)
def test_number_of_parameters(name, stem, classes, expected):
    variables = shapes(MODELS[name](classes, stem=stem))
    assert sizes(variables["params"]) == expected


def test_feature_maps_of_resnet50():
    model = MODELS["resnet50"](1000)
    x = jax.ShapeDtypeStruct((2, 224, 224, 3), jnp.float32)
    variables = shapes(model)
    expected = {
        "conv1": (2, 112, 112, 64),
        "layer1": (2, 56, 56, 256),
        "layer2": (2, 28, 28, 512),
        "layer3": (2, 14, 14, 1024),
        "layer4": (2, 7, 7, 2048),
        "fc": (2, 1000),
    }
    for layer, shape in expected.items():
        found = jax.eval_shape(lambda v, x, s=layer: model.apply(v, x, stop=s), variables, x)
        assert found.shape == shape
    assert model.layers == tuple(expected)


def test_stride_of_the_bottleneck_is_in_its_3x3():
    model = MODELS["resnet50"](2, width=4 / 64, stem="cifar")
    seen = {}

    def linear_sizes(name, linear, x, kernel, bias):
        y = linear(x, kernel, bias)
        seen[name] = (x.shape[1], y.shape[1]) if y.ndim == 4 else None
        return y

    jax.eval_shape(model.clone(affine=linear_sizes).apply, shapes(model), jnp.zeros((1, 32, 32, 3)))
    assert seen["layer2.0.conv1"] == (32, 32)
    assert seen["layer2.0.conv2"] == (32, 16)
    assert seen["layer2.0.conv3"] == (16, 16)
    assert seen["layer2.0.downsample.0"] == (32, 16)


@pytest.mark.parametrize("stem", STEMS)
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_pytorch_gives_the_same_logits(name, stem):
    x = images(37, 50)
    batch = to_torch(x)
    from torch_oracle import resnet

    # Fewer blocks than published, to compile faster; the number of parameters holds the rest.
    model = MODELS[name](5, width=4 / 64, stem=stem).clone(blocks=(1, 2, 1, 1))
    net = random_net(model, 32)
    close(check_layers(net, x), resnet(net.variables, batch, model.blocks, stem))


def test_pytorch_gives_the_same_logits_preact():
    x = images(19, 24)
    batch = to_torch(x)
    from torch_oracle import preact_resnet

    net = random_net(MODELS["preact_resnet18"](5, width=1 / 16, stem="cifar"), 16)
    close(check_layers(net, x), preact_resnet(net.variables, batch))


def test_pytorch_gives_the_same_logits_wide():
    x = images(19, 24)
    batch = to_torch(x)
    from torch_oracle import wide_resnet

    net = random_net(MODELS["wide_resnet28_10"](5, width=1 / 40, stem="cifar").clone(blocks=1), 16)
    close(check_layers(net, x), wide_resnet(net.variables, batch))


@pytest.mark.parametrize("name", ["preact_resnet18", "wide_resnet28_10"])
def test_preactivated_networks_with_the_imagenet_stem(name):
    model = MODELS[name](5, width=1 / 16, stem="imagenet")
    found = jax.eval_shape(
        lambda v, x: model.apply(v, x, stop=model.layers[-2]), shapes(model), images(64, 64)
    )
    assert found.shape[1:3] == ((2, 2) if name == "preact_resnet18" else (4, 4))


def test_dropout_only_trains():
    model = MODELS["wide_resnet28_10"](3, width=1 / 160, stem="cifar").clone(blocks=1)
    x = images(8, 8)
    variables = jax.jit(model.init)(jax.random.key(0), x)

    def train(key):
        return model.apply(variables, x, True, mutable="batch_stats", rngs={"dropout": key})[0]

    first, second = jax.jit(jax.vmap(train))(jax.random.split(jax.random.key(1)))
    assert np.abs(first - second).max() > 1e-6
    np.testing.assert_array_equal(model.apply(variables, x), model.apply(variables, x))


def test_one_image_and_one_filter():
    model = MODELS["resnet18"](2, width=0.001, stem="imagenet").clone(blocks=(1, 1, 1, 1))
    net = random_net(model, 32)
    assert net.variables["params"]["conv1"]["kernel"].shape == (7, 7, 3, 1)
    assert np.isfinite(jax.jit(Net.logits)(net, images(5, 3, count=1))).all()


@pytest.mark.parametrize("name", list(MODELS))
def test_bad_options(name):
    with pytest.raises(
        ValueError, match=r"model\.stem must be one of imagenet, cifar(, strided)?; got 'vit'"
    ):
        MODELS[name](10, stem="vit")
    with pytest.raises(ValueError, match=r"model\.width must be a positive factor, .*; got 0"):
        MODELS[name](10, width=0)
