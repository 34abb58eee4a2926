"""VGG-16 against torchvision's sizes and PyTorch's arithmetic."""

import dataclasses

import jax
import numpy as np
import pytest
from test_resnet import check_layers, close, images, random_net, shapes, sizes, to_torch

from mixaug_jax.attribution import METHODS, iba_statistics
from mixaug_jax.models import MODELS
from mixaug_jax.models.vgg import averaging_matrix, grid_average


# torchvision's counts for 1000 classes.
@pytest.mark.parametrize(("name", "expected"), [("vgg16", 138_357_544), ("vgg16_bn", 138_365_992)])
def test_number_of_parameters(name, expected):
    assert sizes(shapes(MODELS[name](1000))["params"]) == expected


def test_layers_are_numbered_as_in_torchvision():
    plain, normed = (set(shapes(MODELS[name](10))["params"]) for name in ("vgg16", "vgg16_bn"))
    convs = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
    heads = {"classifier.0", "classifier.3", "classifier.6"}
    assert plain == {f"features.{i}" for i in convs} | heads
    convs = (0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40)
    assert normed == {f"features.{i + j}" for i in convs for j in (0, 1)} | heads


@pytest.mark.parametrize("stem", ["imagenet", "cifar"])
@pytest.mark.parametrize("name", ["vgg16", "vgg16_bn"])
def test_pytorch_gives_the_same_logits(name, stem):
    x = images(64, 41)
    batch = to_torch(x)
    from torch_oracle import vgg

    net = random_net(MODELS[name](5, width=2 / 64, stem=stem), 32)
    close(check_layers(net, x), vgg(net.variables, batch))


def test_layers_by_stem():
    blocks = ("conv1", "conv2", "conv3", "conv4", "conv5")
    assert MODELS["vgg16"](10).layers == (*blocks, "fc6", "fc7", "fc8")
    assert MODELS["vgg16"](10, stem="cifar").layers == (*blocks, "fc")
    assert shapes(MODELS["vgg16"](10, stem="cifar"))["params"]["classifier"]["kernel"].shape == (
        512,
        10,
    )


@pytest.mark.parametrize(("height", "width"), [(7, 7), (1, 2), (8, 13), (14, 21)])
def test_grid_average_is_pytorchs(height, width):
    x = images(height, width)
    torch = pytest.importorskip("torch", reason="the oracle is PyTorch's own layer")
    expected = torch.nn.functional.adaptive_avg_pool2d(to_torch(x), 7).permute(0, 2, 3, 1)
    close(grid_average(x), expected.numpy())


def test_averaging_matrix_rows_sum_to_one():
    for length in range(1, 30):
        np.testing.assert_allclose(averaging_matrix(length, 7).sum(1), 1, rtol=1e-6)


def test_dropout_only_trains():
    model = MODELS["vgg16"](3, width=1 / 64)
    x = images(32, 32, count=1)
    variables = jax.jit(model.init)(jax.random.key(0), x)
    h = np.ones((1, 64), np.float32)

    def head(key):
        return model.apply(variables, h, True, start="fc6", stop="fc7", rngs={"dropout": key})

    first, second = jax.jit(jax.vmap(head))(jax.random.split(jax.random.key(1)))
    assert np.abs(first - second).max() > 0


@pytest.mark.parametrize("name", ["vgg16", "vgg16_bn"])
def test_single_layers(name):
    """Other names for the same network: every bit of the logits, and the blocks' outputs under their ReLUs' names."""
    net = random_net(MODELS[name](5, width=1 / 64, stem="cifar"), 32)
    model = MODELS[name](5, width=1 / 64, stem="cifar", single_layers=True)
    single = dataclasses.replace(net, model=model)
    assert single.layers[:3] == ("conv1_1", "relu1_1", "conv1_2")
    assert single.layers[-3:] == ("conv5_3", "relu5_3", "fc")
    assert shapes(model)["params"].keys() == shapes(net.model)["params"].keys()
    x = images(32, 32)
    np.testing.assert_array_equal(single.logits(x), net.logits(x))
    found, blocks = single.capture(x, single.layers), net.capture(x, net.layers)
    for block, last in (("conv1", "relu1_2"), ("conv3", "relu3_3"), ("conv5", "relu5_3")):
        np.testing.assert_array_equal(found[last], blocks[block])
    np.testing.assert_array_equal(found["relu4_1"], np.maximum(found["conv4_1"], 0))
    assert found["conv4_1"].min() < 0
    again = single.logits(x, layer="conv4_1", value=found["conv4_1"])
    np.testing.assert_allclose(again, net.logits(x), rtol=1e-5, atol=1e-6)


def test_single_layers_are_torchvisions():
    """conv4_1 is what torchvision's features[17] gives."""
    torch = pytest.importorskip("torch", reason="the oracle is PyTorch's own layers")
    model = MODELS["vgg16"](5, width=2 / 64, stem="cifar", single_layers=True)
    net, x = random_net(model, 32), images(32, 32)
    h = to_torch(x)
    convs = (0, 2, 5, 7, 10, 12, 14, 17)
    for i in convs:
        h = torch.nn.functional.max_pool2d(h, 2) if i in (5, 10, 17) else h
        weights = net.variables["params"][f"features.{i}"]
        kernel = torch.from_numpy(np.array(weights["kernel"])).permute(3, 2, 0, 1)
        h = torch.nn.functional.conv2d(
            h, kernel, torch.from_numpy(np.array(weights["bias"])), padding=1
        )
        h = h if i == 17 else h.relu()
    close(net.features(x, "conv4_1"), h.permute(0, 2, 3, 1).numpy())


def test_per_sample_bottleneck_before_a_relu():
    """The paper's Gaussian estimator, and no clamp at 0: noise of both signs comes through."""
    model = MODELS["vgg16"](5, width=1 / 64, stem="cifar", single_layers=True)
    net, x = random_net(model, 32), np.asarray(images(32, 32, count=4))
    stats = iba_statistics(net, [x], layer="conv4_1", variant="paper")
    features = np.asarray(net.features(x, "conv4_1"), np.float64)
    np.testing.assert_allclose(stats[0], features.mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(stats[1], features.std(0), rtol=1e-3, atol=2e-3)
    options = {"stats": stats, "layer": "conv4_1", "variant": "paper", "steps": 2, "samples": 1}
    found = jax.jit(lambda image: METHODS["iba"](net, image, 1, **options))(x[0])
    assert np.isfinite(found).all()
    assert found.max() > 0
