"""Layers, batch norm and layer ranges, against numpy and against XLA's own convolution."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixaug_jax.core import devices as devices_lib
from mixaug_jax.models import MODELS, convolution, layers, pooling
from mixaug_jax.models.convolution import conv, plain_conv


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def numpy_conv(x, kernel, stride, padding):
    k = len(kernel)
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (k, k), (1, 2))[:, ::stride, ::stride]
    return np.einsum("bhwcij,ijcf->bhwf", windows, kernel)


CONVS = [
    pytest.param(5, 7, 3, 4, 1, 1, id="1x1"),
    pytest.param(5, 7, 3, 4, 1, 2, id="1x1 stride 2"),
    pytest.param(1, 1, 1, 1, 1, 2, id="1x1 on one pixel"),
    pytest.param(5, 7, 3, 4, 3, 1, id="3x3"),
    pytest.param(6, 5, 2, 3, 3, 2, id="3x3 stride 2"),
    pytest.param(9, 8, 3, 2, 7, 2, id="7x7 stride 2"),
    pytest.param(2, 2, 3, 4, 3, 1, id="3x3 on 2x2"),
    pytest.param(3, 2, 3, 4, 3, 2, id="3x3 stride 2 on 3x2"),
]


@pytest.mark.parametrize(("height", "width", "channels", "filters", "size", "stride"), CONVS)
def test_conv(height, width, channels, filters, size, stride):
    x, kernel = normal(0, 2, height, width, channels), normal(1, size, size, channels, filters)
    expected = numpy_conv(x, kernel, stride, size // 2)
    actual = conv(x, kernel, stride, size // 2)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize(("height", "width", "channels", "filters", "size", "stride"), CONVS)
def test_gradients_are_xlas(height, width, channels, filters, size, stride, dtype, monkeypatch):
    monkeypatch.setattr(convolution, "MIN_PRODUCTS", 0)  # so that 8 images are two parts
    x = jnp.asarray(normal(0, 8, height, width, channels), dtype)
    kernel = jnp.asarray(normal(1, size, size, channels, filters), dtype)

    def pull_back(f):
        y, vjp = jax.vjp(lambda x, kernel: f(x, kernel, stride, size // 2), x, kernel)
        return y, *vjp(jnp.cos(y))

    tolerance = 1e-5 if dtype == jnp.float32 else 0.05
    found, expected = (jax.jit(pull_back, static_argnums=0)(f) for f in (conv, plain_conv))
    for ours, xlas in zip(found, expected, strict=True):
        assert ours.dtype == dtype
        ours, xlas = np.asarray(ours, np.float32), np.asarray(xlas, np.float32)
        np.testing.assert_allclose(ours, xlas, rtol=0, atol=tolerance * np.abs(xlas).max())


@pytest.mark.parametrize(("batch", "expected"), [(1, 1), (3, 3), (13, 13), (16, 4), (18, 6)])
def test_parts_of_a_batch(batch, expected):
    g, kernel = np.empty((batch, 50, 50, 64)), np.empty((3, 3, 64, 64))
    assert convolution._images_in_part(g, kernel) == expected


def test_small_batches_stay_whole():
    assert convolution._images_in_part(np.empty((64, 4, 4, 8)), np.empty((3, 3, 8, 8))) == 64


@pytest.mark.parametrize(("size", "stride"), [(1, 2), (3, 1), (3, 2)])
def test_conv_vmaps_and_differentiates_twice(size, stride):
    x, kernel = normal(0, 3, 2, 6, 6, 2), normal(1, size, size, 2, 3)

    def energy(x):
        return jnp.square(conv(x, kernel, stride, size // 2)).sum()

    def gradient_twice(x):
        # The energy is quadratic in x: its gradient's own pull-back of x is the gradient again.
        gradient, pull_back = jax.vjp(jax.grad(energy), x)
        return gradient, pull_back(x)[0]

    gradient, again = jax.jit(jax.vmap(gradient_twice))(x)
    np.testing.assert_allclose(gradient, again, rtol=1e-4, atol=1e-4)
    mapped = jax.vmap(lambda x: conv(x, kernel, stride, size // 2))(x)
    expected = numpy_conv(x[1], kernel, stride, size // 2)
    np.testing.assert_allclose(mapped[1], expected, rtol=1e-5, atol=1e-5)


def test_batch_norm_trains_as_in_pytorch():
    torch = pytest.importorskip("torch", reason="the oracle is PyTorch's own layer")
    x = 3 * normal(0, 4, 5, 3, 2) + 7
    norm = torch.nn.BatchNorm2d(2)
    expected = norm(torch.tensor(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).detach().numpy()

    module = layers.BatchNorm(2, "")
    variables = module.init(jax.random.key(0), None, False)
    (mean, multiplier, bias), updated = module.apply(variables, x, True, mutable="batch_stats")
    np.testing.assert_allclose((x - mean) * multiplier + bias, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(updated["batch_stats"]["mean"], norm.running_mean, rtol=1e-6)
    np.testing.assert_allclose(updated["batch_stats"]["var"], norm.running_var, rtol=1e-5)


def test_batch_statistics_far_from_zero():
    """E[x^2] - E[x]^2 would lose the variance of 1 against the mean of 10000 in float32."""
    x = normal(0, 64, 8, 8, 1) + 10_000
    mean, var, count = layers.batch_statistics(jnp.asarray(x))
    np.testing.assert_allclose(mean, x.astype(np.float64).mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(var, x.astype(np.float64).var((0, 1, 2)), rtol=1e-3)
    assert count == 64 * 64


def test_statistics_over_devices_are_those_of_the_whole_batch():
    x = normal(0, 8, 3, 3, 2) + np.arange(8).reshape(8, 1, 1, 1)

    def one_device(x):
        mean, var, count = layers.batch_statistics(x, devices_lib.AXIS)
        return mean, var, jnp.int32(count)

    mapped = devices_lib.pmap(one_device, (devices_lib.SHARDED,), devices_lib.REPLICATED)
    mean, var, count = mapped(devices_lib.shard_batch(x))
    np.testing.assert_allclose(mean, x.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(var, x.var((0, 1, 2)), rtol=1e-5)
    assert count == 8 * 9


def test_one_value_a_channel_has_no_variance():
    mean, var, count = layers.batch_statistics(jnp.full((1, 1, 1, 2), 5.0))
    assert (mean == 5).all()
    assert (var == 0).all()
    assert count == 1


def train_mode(model, variables, x):
    """Loss, gradients and new statistics of one training pass."""

    def loss(params):
        y, new = model.apply({**variables, "params": params}, x, True, mutable="batch_stats")
        return jnp.square(y).mean(), new

    (value, new), gradients = jax.value_and_grad(loss, has_aux=True)(variables["params"])
    return value, gradients, new["batch_stats"]


@pytest.fixture(scope="module")
def small():
    model = MODELS["resnet18"](3, width=2 / 64, stem="cifar").clone(blocks=(1, 1, 1, 1))
    x = normal(0, 8, 8, 8, 3)
    return model, jax.jit(model.init)(jax.random.key(0), x), x


def test_remat_changes_nothing(small):
    model, variables, x = small
    run = jax.jit(train_mode, static_argnums=0)
    plain, again = run(model, variables, x), run(model.clone(remat=True), variables, x)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), plain, again)


def test_batch_norm_over_devices_equals_one_device(small):
    model, variables, x = small

    def one_device(variables, x):
        value, gradients, stats = train_mode(model.clone(axis_name=devices_lib.AXIS), variables, x)
        return jax.lax.pmean((value, gradients, stats), devices_lib.AXIS)

    specs = (devices_lib.REPLICATED, devices_lib.SHARDED)
    mapped = devices_lib.pmap(one_device, specs, devices_lib.REPLICATED)
    ours = mapped(devices_lib.replicate(variables), devices_lib.shard_batch(x))
    whole = jax.jit(train_mode, static_argnums=0)(model, variables, x)

    def check(a, b):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * np.abs(b).max() + 1e-6)

    jax.tree.map(check, ours, whole)


def test_bfloat16_body_keeps_float32_where_it_matters(small):
    model, variables, x = small
    body = model.clone(dtype=jnp.bfloat16)
    value, gradients, stats = jax.jit(train_mode, static_argnums=0)(body, variables, x)
    leaves = jax.tree.leaves((value, gradients, stats))
    assert all(leaf.dtype == jnp.float32 for leaf in leaves)
    assert all(np.isfinite(leaf).all() for leaf in leaves)
    features = jax.eval_shape(lambda v, x: body.apply(v, x, stop="layer1"), variables, x)
    logits = jax.eval_shape(body.apply, variables, x)
    assert features.dtype == jnp.bfloat16
    assert logits.dtype == jnp.float32


def test_hidden_is_called_after_each_layer(small):
    model, variables, x = small
    calls = []

    def hidden(layer, h):
        calls.append((layer, h.shape))
        return 0 * h if layer in model.hidden_layers else h

    y = model.apply(variables, x, hidden=hidden)
    assert [layer for layer, _ in calls] == list(model.layers)
    assert calls[1:3] == [("layer1", (8, 8, 8, 2)), ("layer2", (8, 4, 4, 4))]
    np.testing.assert_allclose(y, np.broadcast_to(y[:1], y.shape), rtol=1e-6)


def test_max_pool_pads_with_minus_infinity():
    class Pool(layers.StagedModel):
        layers = ("pool",)

        def run(self, layer, x, train):
            return self.max_pool("maxpool", x, 3, 2, padding=1)

    x = -1 - np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)
    y = Pool().apply({}, x)
    np.testing.assert_array_equal(y[0, :, :, 0], [[-1, -2], [-5, -6]])


LAYERS = ("a", "b", "c")


@pytest.mark.parametrize(
    ("start", "stop", "expected"),
    [
        ("", "", "abc"),
        ("", "a", "a"),
        ("a", "", "bc"),
        ("a", "b", "b"),
        ("c", "", ""),
        ("b", "b", ""),
    ],
)
def test_layers_between(start, stop, expected):
    assert layers.layers_between(LAYERS, start, stop) == tuple(expected)


def test_unknown_layer_lists_the_right_ones():
    with pytest.raises(ValueError, match="layer must be one of a, b, c; got 'd'"):
        layers.layers_between(LAYERS, "d", "")
    with pytest.raises(ValueError, match="layer must be one of a, b, c; got 'layer1'"):
        layers.layers_between(LAYERS, "", "layer1")
    with pytest.raises(ValueError, match="'a' comes before layer 'b'"):
        layers.layers_between(LAYERS, "b", "a")


def plain_affine(name, linear, x, kernel, bias):
    return linear(x, kernel, bias)


def test_affine_rule_refuses_training(small):
    model, variables, x = small
    with pytest.raises(ValueError, match="train=False"):
        model.clone(affine=plain_affine).apply(variables, x, True, mutable="batch_stats")


def test_initial_kernels_have_the_stated_spread():
    kernel = layers.conv_init(jax.random.key(0), (3, 3, 32, 64))
    assert abs(float(kernel.std()) / np.sqrt(2 / (9 * 64)) - 1) < 0.02
    dense = layers.dense_init(jax.random.key(0), (400, 50))
    assert 0.045 < float(dense.max()) <= 0.05
    assert -0.05 <= float(dense.min()) < -0.045


def test_parameters_are_named_by_their_layer(small):
    _, variables, _ = small
    assert set(variables["params"]["layer2.0.downsample.0"]) == {"kernel"}
    assert set(variables["params"]["layer2.0.downsample.1"]) == {"scale", "bias"}
    assert set(variables["batch_stats"]["layer2.0.downsample.1"]) == {"mean", "var"}
    assert issubclass(type(MODELS["tiny"](2)), nn.Module)


POOLS = [(3, 2, 1), (2, 2, 0), (2, 1, 0), (3, 3, 1), (5, 2, 2)]


@pytest.mark.parametrize(("size", "stride", "padding"), POOLS)
@pytest.mark.parametrize(("height", "width"), [(7, 12), (8, 5)])
def test_max_pool_and_its_gradient_are_xlas_to_the_bit(height, width, size, stride, padding):
    """Small integers, so that there are many ties; more than one window wins at most pixels."""
    x = np.round(normal(0, 3, height, width, 2))

    def pull_back(f):
        y, vjp = jax.vjp(lambda x: f(x, size, stride, padding), x)
        return y, vjp(normal(1, *y.shape))[0]

    found, expected = (
        jax.jit(pull_back, static_argnums=0)(f) for f in (pooling.max_pool, pooling.plain_max_pool)
    )
    for ours, xlas in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, xlas)


def test_max_pool_vmaps_and_differentiates_twice():
    x = normal(0, 3, 2, 6, 6, 2)

    def energy(x):
        return jnp.square(pooling.max_pool(x, 3, 2, 1)).sum()

    def gradient_twice(x):
        # Between ties the energy is quadratic in x, as in the test of `conv`.
        gradient, pull_back = jax.vjp(jax.grad(energy), x)
        return gradient, pull_back(x)[0]

    gradient, again = jax.jit(jax.vmap(gradient_twice))(x)
    assert np.abs(gradient).max() > 0
    np.testing.assert_allclose(gradient, again, rtol=1e-6)


def test_running_statistics_move_a_tenth_towards_the_batch():
    """PyTorch's rule in NumPy: the unbiased variance, from a mean and a variance that are not where they begin."""
    x = 3 * normal(0, 2, 3, 1, 2) + 7
    start = {"mean": np.float32([1, -2]), "var": np.float32([4, 0.5])}
    module = layers.BatchNorm(2, "")
    variables = {**module.init(jax.random.key(0), None, False), "batch_stats": start}
    _, updated = module.apply(variables, jnp.asarray(x), True, mutable="batch_stats")
    found, wide = updated["batch_stats"], np.float64(x)
    mean, var = wide.mean((0, 1, 2)), wide.var((0, 1, 2), ddof=1)
    np.testing.assert_allclose(found["mean"], 0.9 * start["mean"] + 0.1 * mean, rtol=1e-6)
    np.testing.assert_allclose(found["var"], 0.9 * start["var"] + 0.1 * var, rtol=1e-5)


def test_a_models_max_pool_has_no_border_unless_asked():
    x = normal(0, 1, 6, 6, 2)
    model = layers.StagedModel().bind({})
    pooled = model.max_pool("maxpool", jnp.asarray(x), 2, 2)
    np.testing.assert_array_equal(pooled, x.reshape(1, 3, 2, 3, 2, 2).max((2, 4)))
