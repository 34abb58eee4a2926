"""`Net` as a value and an argument, its rules, and preprocessing against torchvision's definition of it."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from test_resnet import close, images, random_net, randomized

from mixaug_jax.attribution import METHODS
from mixaug_jax.attribution.target import map_shapes
from mixaug_jax.models import MODELS, Net, Preprocess
from mixaug_jax.models.layers import StagedModel


@pytest.fixture(scope="module")
def net():
    return random_net(MODELS["tiny"](4, width=0.5), 16)


def test_a_new_checkpoint_does_not_compile_again(net):
    traces = []

    @jax.jit
    def logits(net, x):
        traces.append(0)
        return net.logits(x)

    x = images(16, 16)
    first = logits(net, x)
    other = Net(MODELS["tiny"](4, width=0.5), randomized(net.variables, seed=9), Preprocess(16))
    second = logits(other, x)
    assert len(traces) == 1
    assert np.abs(first - second).max() > 1e-3
    logits(net.with_rules(act=leaky), x)
    logits(net.with_rules(act=leaky), x)
    assert len(traces) == 2


def leaky(name, x):
    return nn.leaky_relu(x, 0.5)


def plain_affine(name, linear, x, kernel, bias):
    return linear(x, kernel, bias)


def plain_add(name, x, y):
    return x + y


def plain_pool(name, plain, x):
    assert name.startswith(("max", "avg"))
    return plain(x)


def test_leaves_are_the_variables(net):
    leaves = jax.tree.leaves(net)
    assert len(leaves) == len(jax.tree.leaves(net.variables))
    doubled = jax.tree.map(lambda leaf: 2 * leaf, net)
    assert isinstance(doubled, Net)
    assert doubled.preprocess == net.preprocess
    with pytest.raises(AttributeError):
        net.variables = {}


@pytest.mark.parametrize(
    ("name", "stem"),
    [("resnet18", "imagenet"), ("resnet50", "cifar"), ("vgg16_bn", "imagenet"), ("vgg16", "cifar")],
)
def test_merged_layers_give_the_same_logits(name, stem):
    model = MODELS[name](4, width=3 / 64, stem=stem)
    if name.startswith("resnet"):
        model = model.clone(blocks=(1, 1, 1, 1))
    net = random_net(model, 32)
    x = images(33, 40)
    rules = net.with_rules(affine=plain_affine, act=named_relu, add=plain_add, pool=plain_pool)
    run = jax.jit(Net.logits)
    close(run(rules, x), run(net, x))


def named_relu(name, x):
    assert "relu" in name or name.startswith("features.")
    return nn.relu(x)


@pytest.mark.parametrize("name", ["preact_resnet18", "wide_resnet28_10"])
def test_norm_before_convolution_refuses_an_affine_rule(name):
    net = Net(MODELS[name](4, width=1 / 32), {}, Preprocess(16))
    with pytest.raises(ValueError, match="normalizes before its convolutions"):
        net.with_rules(affine=plain_affine)
    assert net.with_rules(act=leaky).model.act is leaky


def test_rules_can_be_taken_back(net):
    ruled = net.with_rules(affine=plain_affine, act=leaky)
    assert ruled.with_rules().model == net.model
    assert ruled.variables is net.variables


def test_unknown_layer(net):
    x = images(16, 16)
    calls = {
        "layer": lambda: net.features(x, "layer4"),
        "layers": lambda: net.capture(x, ("relu1", "layer4")),
        "start": lambda: net.between(x, "layer4"),
        "stop": lambda: net.between(x, "relu1", "layer4"),
    }
    for key, call in calls.items():
        with pytest.raises(
            ValueError, match=f"^{key} must be one of relu1, relu3, relu4, fc; got 'layer4'"
        ):
            call()
    with pytest.raises(ValueError, match=r"layer must be one of .*did you mean 'relu3'"):
        net.logits(x, layer="relu_3", value=x)


def test_all_layers_in_one_pass(net):
    net = jax.tree.map(jnp.asarray, net)
    x = images(16, 16)
    found = net.capture(x, ("fc", "relu3"))
    assert list(found) == ["relu3", "fc"]
    for layer, h in found.items():
        close(h, net.features(x, layer))
        assert net.maps(layer, h) is h
    close(net.logits(x, layer="relu3", value=found["relu3"]), found["fc"])


class Tokens(StagedModel):
    """Four tokens of an image's quarters, then their mean."""

    layers = ("tokens", "fc")

    def run(self, layer, x, train):
        if layer == "fc":
            return self.dense("fc", x.mean(1), 3)
        rows = [x[:, i : i + 8, j : j + 8].mean((1, 2)) for i in (0, 8) for j in (0, 8)]
        return jnp.stack(rows, 1)

    @nn.nowrap
    def maps(self, layer, h):
        return h.reshape(len(h), 2, 2, -1) if layer == "tokens" else h


def test_tokens_are_laid_out_as_maps():
    x = images(16, 16)
    net = Net(Tokens(), Tokens().init(jax.random.key(0), x), Preprocess(16))
    assert map_shapes(net, x[0]) == {"tokens": (2, 2, 3)}
    explained = METHODS["gradcam"](net, x[0], 1, resize="nearest")
    h = net.features(x[:1], "tokens")
    slope = jax.grad(lambda h: net.logits(x[:1], layer="tokens", value=h)[0, 1])(h)[0]
    expected = np.maximum(h[0] @ slope.mean(0), 0).reshape(2, 2)
    close(explained[::8, ::8, 0], expected)


def test_new_variables_are_those_of_init(net):
    fresh = net.reinitialized(jax.random.key(4), images(16, 16)[0])
    expected = net.model.init(jax.random.key(4), images(16, 16))
    jax.tree.map(np.testing.assert_array_equal, fresh.variables, expected)


def test_one_image_of_a_batch_at_a_time(net):
    x = images(16, 16, count=3)
    run = jax.jit(lambda net, x: jax.vmap(lambda image: net.logits(image[None])[0])(x))
    close(run(net, x), jax.jit(Net.logits)(net, x))


class TwoLayers(nn.Module):
    """Somebody's own network."""

    layers = ("hidden", "out")

    @nn.compact
    def __call__(self, x, train=False, start="", stop="", hidden=None):
        if start == "":
            x = nn.relu(nn.Dense(5, name="hidden")(x.reshape(len(x), -1)))
        return x if stop == "hidden" else nn.Dense(3, name="out")(x)


def test_wrapping_another_module():
    model, x = TwoLayers(), images(4, 4)
    net = Net(model, model.init(jax.random.key(0), x), Preprocess(4))
    close(net.between(net.features(x, "hidden"), "hidden"), net.logits(x))
    with pytest.raises(ValueError, match="TwoLayers has no fields affine, act, add and pool"):
        net.with_rules(act=leaky)


def photograph(height, width, channels=3):
    shape = (height, width, channels) if channels else (height, width)
    return np.random.default_rng(3).integers(0, 256, shape, np.uint8)


def torchvisions(image, resize, size):
    """Resize, CenterCrop and ToTensor in torchvision's arithmetic."""
    height, width = image.shape[:2]
    long = int(resize * max(height, width) / min(height, width))
    new = (resize, long) if width <= height else (long, resize)
    image = np.asarray(Image.fromarray(image).resize(new, Image.Resampling.BILINEAR))
    row, col = (int(round((n - size) / 2.0)) for n in image.shape[:2])  # noqa: RUF046
    return image[row : row + size, col : col + size] / np.float32(255)


@pytest.mark.parametrize(("height", "width"), [(40, 61), (61, 40), (36, 36), (500, 333), (20, 7)])
def test_preprocess_is_torchvisions(height, width):
    image = photograph(height, width)
    mean, std = np.float32([0.4, 0.5, 0.6]), np.float32([0.2, 0.3, 0.4])
    expected = (torchvisions(image, 36, 32) - mean) / std
    actual = Preprocess(32, 36, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))(image)
    assert actual.dtype == np.float32
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-6)


def test_preprocess_without_resizing_cuts_the_center():
    image = photograph(7, 9)
    plain = {"mean": (0.0,) * 3, "std": (1.0,) * 3}
    np.testing.assert_array_equal(Preprocess(5, **plain)(image), image[1:6, 2:7] / np.float32(255))
    bgr = Preprocess(5, **plain, order="bgr")(image)
    np.testing.assert_array_equal(bgr, image[1:6, 2:7, ::-1] / np.float32(255))


def test_mean_and_std_follow_the_outputs_order():
    image = np.zeros((4, 4, 3), np.uint8)
    image[..., 0] = 255
    out = Preprocess(4, mean=(0.1, 0.2, 0.3), std=(1.0, 1.0, 1.0), order="bgr")(image)
    np.testing.assert_allclose(out[0, 0], [-0.1, -0.2, 0.7], rtol=1e-6)


def test_gray_images():
    gray = photograph(10, 12, channels=0)
    preprocess = Preprocess(6, 8)
    expected = preprocess(np.stack([gray] * 3, -1))
    np.testing.assert_array_equal(preprocess(gray), expected)
    np.testing.assert_array_equal(preprocess(gray[..., None]), expected)
    one = Preprocess(6, 8, (0.5,), (0.25,))(gray)
    assert one.shape == (6, 6, 1)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((8, 8, 4), np.uint8), r"must be uint8 .*; got uint8 \[8, 8, 4\]"),
        (np.zeros((8, 8, 3), np.float32), "got float32"),
        (np.zeros((2, 8, 8, 3), np.uint8), r"\[2, 8, 8, 3\]"),
        (np.zeros((3, 8, 3), np.uint8), "3 x 8 pixels, smaller than the cut of 4"),
    ],
)
def test_preprocess_refuses(image, message):
    with pytest.raises(ValueError, match=message):
        Preprocess(4)(image)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resize": 16}, "resize must be 0 or at least size, 32 pixels; got 16"),
        ({"order": "hsv"}, "order must be one of rgb, bgr; got 'hsv'"),
        ({"interpolation": "lanczos"}, "interpolation must be one of nearest, bilinear, bicubic"),
        ({"mean": (0.5,)}, "mean and std must have 3 values each, or 1 each; got 1 and 3"),
    ],
)
def test_preprocess_options(options, message):
    with pytest.raises(ValueError, match=message):
        Preprocess(32, **options)


def test_preprocess_is_hashable():
    assert hash(Preprocess(32, 36)) == hash(Preprocess(32, 36))
