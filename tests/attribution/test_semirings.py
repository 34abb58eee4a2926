"""Statistics of gradient paths, against every path one by one."""

import functools
import itertools
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attribution_cases import close, explain, random_net

from mixaug_jax.attribution import METHODS, gradient_paths, layer_paths, path_entropy, semirings
from mixaug_jax.core import checks
from mixaug_jax.models import MODELS, Net, Preprocess, pooling, vgg
from mixaug_jax.models.layers import StagedModel

STATISTICS = ("abs", "top", "bottom", "entropy")


class Dense(StagedModel):
    """Three dense layers, the second with a shortcut."""

    layers: ClassVar = ("hidden", "sum", "fc")
    sizes: tuple[int, ...] = (5, 5, 3)
    branches: bool = True

    def run(self, layer, x, train):
        if layer == "hidden":
            return self.relu("relu1", self.dense("one", x.reshape(len(x), -1), self.sizes[0]))
        if layer == "sum":
            x, shortcut = self.branch("fork", x) if self.branches else (x, x)
            return self.relu("relu2", self.residual("add", self.dense("two", x, 5), shortcut))
        return self.dense("three", x, self.sizes[2])


@pytest.fixture(scope="module")
def arrays(golden):
    return dict(golden("mixers_net/backprop.npz"))


def net_of(arrays, **options):
    weights = [arrays[f"path_w{k}"].astype(np.float32) for k in range(3)]
    params = {
        name: {"kernel": w, "bias": np.zeros(w.shape[1], np.float32)}
        for name, w in zip(("one", "two", "three"), weights, strict=True)
    }
    return Net(Dense(**options), {"params": params}, Preprocess(1)), arrays["path_x"].astype(
        np.float32
    )


def explained(arrays):
    """The output whose gradient is stored."""
    net, x = net_of(arrays)
    jacobian = jax.jacrev(lambda x: net.logits(x.reshape(1, 1, 1, 4))[0])(x)
    return int(np.argmin(np.abs(jacobian - arrays["path_stats"][:, 0]).max(1)))


def test_every_path_of_a_small_network(arrays):
    net, x = net_of(arrays)
    image, label = x.reshape(1, 1, 4), explained(arrays)
    np.testing.assert_allclose(net.logits(image[None])[0], arrays["path_out"], rtol=1e-5)
    stats = arrays["path_stats"]
    for statistic, column in (("abs", 1), ("top", 2), ("bottom", 3)):
        ours = gradient_paths(net, image, label, statistic=statistic)
        np.testing.assert_allclose(ours.ravel(), stats[:, column], rtol=1e-5, atol=1e-7)
    # The stored entropies are those of single inputs; ours is of all channels of the pixel.
    shares = stats[:, 1] / stats[:, 1].sum()
    mixed = (shares * stats[:, 4]).sum() - (shares * np.log(shares)).sum()
    ours = gradient_paths(net, image, label, statistic="entropy")
    assert ours.shape == (1, 1, 1)
    np.testing.assert_allclose(ours.ravel(), mixed, rtol=1e-5)
    assert float(path_entropy(net, image, label)) == pytest.approx(mixed, rel=1e-5)


def test_a_shortcut_that_does_not_branch_is_refused(arrays):
    net, x = net_of(arrays, branches=False)
    image = x.reshape(1, 1, 4)
    with pytest.raises(checks.UnsupportedError, match="1 residual sums and 0 branches"):
        gradient_paths(net, image, 0, statistic="top")
    assert gradient_paths(net, image, 0, statistic="entropy").shape == (1, 1, 1)


def test_a_convolution_against_its_dense_twin():
    """Strides, padding and overlapping pools: layers of edges as matrices, all their paths one by one."""

    class Convolved(StagedModel):
        layers: ClassVar = ("conv", "pool", "fc")

        def run(self, layer, x, train):
            if layer == "conv":
                return self.relu("relu", self.conv("conv", x, 2, 3, 2, bias=True))
            if layer == "pool":
                return self.max_pool("maxpool", x, 3, 2, padding=1)
            return self.dense("fc", self.global_average("avgpool", x), 3)

    model, rng = Convolved(), np.random.default_rng(0)
    image = rng.normal(size=(6, 6, 2)).astype(np.float32)
    variables = model.init(jax.random.key(0), image[None])
    net = Net(model, variables, Preprocess(6))

    parts = (
        lambda x: net.features(x, "conv"),
        lambda h: net.between(h, "conv", "pool"),
        lambda h: net.between(h, "pool", "fc"),
    )
    first = parts[0](image[None])
    second = parts[1](first)
    # Plain derivatives of layers of edges are the edges themselves: 0 where there is none.
    third, middle, lowest = (
        np.asarray(jax.jacrev(part)(x)).reshape(-1, x.size)
        for part, x in zip(reversed(parts), (second, first, image[None]), strict=True)
    )
    edges = [third[1:2], middle, lowest]
    stats = {name: np.zeros(image.size) for name in STATISTICS}
    for i in range(image.size):
        values = np.array(
            [
                edges[0][0, a] * edges[1][a, b] * edges[2][b, i]
                for a, b in itertools.product(range(second.size), range(first.size))
                if edges[1][a, b]
            ]
        )
        size = np.abs(values[values != 0])
        stats["abs"][i] = size.sum()
        stats["top"][i], stats["bottom"][i] = values.max(), values.min()
        stats["entropy"][i] = -(size * np.log(size)).sum()
    for statistic in ("abs", "top", "bottom"):
        ours = np.asarray(gradient_paths(net, image, 1, statistic=statistic)).ravel()
        expected = stats[statistic]
        # Where no open path leads, a pixel that all windows miss has 0 either way.
        np.testing.assert_allclose(np.where(expected == 0, 0, ours), expected, atol=1e-6)
    total, mixed = (stats[name].reshape(6, 6, 2).sum(-1) for name in ("abs", "entropy"))
    expected = np.where(
        total > 0, mixed / np.maximum(total, 1e-30) + np.log(np.maximum(total, 1e-30)), 0
    )
    ours = gradient_paths(net, image, 1, statistic="entropy")
    np.testing.assert_allclose(ours[..., 0], expected, atol=1e-5)


class Averaged(StagedModel):
    """An adaptive average, of overlapping windows where `cells` does not divide the side, and a dense layer."""

    layers: ClassVar = ("pool", "fc")
    cells: int = 2

    def run(self, layer, x, train):
        if layer == "fc":
            return self.dense("fc", x.reshape(len(x), -1), 2)
        plain = functools.partial(vgg.grid_average, cells=self.cells)
        return plain(x) if self.pool is None else self.pool("avgpool", plain, x)


@pytest.mark.parametrize(("side", "cells"), [(3, 2), (5, 3), (1, 3), (4, 2)])
def test_overlapping_windows_of_an_average(side, cells):
    model, rng = Averaged(cells=cells), np.random.default_rng(side)
    image = rng.normal(size=(side, side, 2)).astype(np.float32)
    net = Net(model, model.init(jax.random.key(0), image[None]), Preprocess(side))
    kernel = np.asarray(net.variables["params"]["fc"]["kernel"])[:, 1]
    edges = np.kron(*[vgg.averaging_matrix(side, cells)] * 2)
    paths = kernel.reshape(-1, 1, 2) * edges[:, :, None]  # [windows,pixels,channels]
    open_ = edges[:, :, None] > 0
    expected = {
        "abs": np.abs(paths).sum(0),
        "top": np.where(open_, paths, -np.inf).max(0),
        "bottom": np.where(open_, paths, np.inf).min(0),
    }
    for statistic, values in expected.items():
        ours = gradient_paths(net, image, 1, statistic=statistic)
        np.testing.assert_allclose(ours.reshape(-1, 2), values, rtol=1e-5)
    shares = np.abs(paths) / np.abs(paths).sum((0, 2), keepdims=True)
    expected = -(shares * np.log(np.where(shares > 0, shares, 1))).sum((0, 2))
    ours = gradient_paths(net, image, 1, statistic="entropy")
    np.testing.assert_allclose(ours.ravel(), expected, rtol=1e-4)


def test_a_leaky_network_has_no_entropy():
    net, images = random_net()
    leaky = Net(net.model.clone(slope=0.1), net.variables, net.preprocess)
    with pytest.raises(checks.UnsupportedError, match=r"leaky ReLUs \(slope 0.1\).* entropy"):
        path_entropy(leaky, images[0], 0)
    jax.eval_shape(lambda x: gradient_paths(leaky, x, 0, statistic="abs"), images[0])


def test_bounds():
    net, images = random_net()
    labels = np.arange(2)
    found = {
        s: explain(METHODS["gradient_paths"], net, images, labels, statistic=s) for s in STATISTICS
    }
    gradient = explain(METHODS["gradient"], net, images, labels)
    assert (found["abs"] >= np.abs(gradient) * (1 - 1e-5)).all()
    assert (found["top"] <= found["abs"] + 1e-6).all()
    assert (found["bottom"] >= -found["abs"] - 1e-6).all()
    assert (found["top"] >= found["bottom"]).all()
    assert (found["entropy"] >= -1e-4).all()
    # A factor of one layer is one of all paths, and changes no share.
    params = dict(net.variables["params"])
    params["fc"] = jax.tree.map(lambda a: 3 * a, params["fc"])
    larger = Net(net.model, {**net.variables, "params": params}, net.preprocess)
    for statistic, factor in (("abs", 3), ("top", 3), ("entropy", 1)):
        ours = explain(METHODS["gradient_paths"], larger, images, labels, statistic=statistic)
        close(ours, factor * found[statistic], 1e-4)


def test_open_gates_and_weights_of_one_count_the_paths():
    model = Dense(sizes=(5, 5, 3))
    params = {
        name: {"kernel": np.ones(shape, np.float32), "bias": np.zeros(shape[1], np.float32)}
        for name, shape in (("one", (4, 5)), ("two", (5, 5)), ("three", (5, 3)))
    }
    net, image = Net(model, {"params": params}, Preprocess(1)), np.ones((1, 1, 4), np.float32)
    each = 5 * 5 + 5  # through the layer and through the shortcut
    np.testing.assert_allclose(
        gradient_paths(net, image, 0, statistic="abs"), np.full((1, 1, 4), each)
    )
    entropy = gradient_paths(net, image, 0, statistic="entropy")
    np.testing.assert_allclose(entropy, np.full((1, 1, 1), np.log(4 * each)), rtol=1e-6)
    np.testing.assert_allclose(gradient_paths(net, image, 0, statistic="top"), np.ones((1, 1, 4)))


def test_a_layer_in_between(arrays):
    net, x = net_of(arrays)
    image, label = x.reshape(1, 1, 4), explained(arrays)
    last = np.asarray(layer_paths(net, image, label, statistic="top", layer="sum"))
    np.testing.assert_allclose(last.ravel(), arrays["path_w2"][:, label], rtol=1e-6)


def test_what_cannot_be_told():
    net, images = random_net()
    with pytest.raises(ValueError, match="statistic must be one of abs, top, bottom, entropy"):
        gradient_paths(net, images[0], 0, statistic="max")
    grouped = Net(
        MODELS["efficientnet_lite0"](3, width=1 / 8).clone(blocks=(1,) * 7), {}, Preprocess(32)
    )
    x = jnp.zeros((32, 32, 3))
    variables = jax.eval_shape(lambda x: grouped.model.init(jax.random.key(0), x[None]), x)
    grouped = Net(grouped.model, variables, grouped.preprocess)
    with pytest.raises(checks.UnsupportedError, match="is a grouped convolution"):
        jax.eval_shape(lambda n, x: gradient_paths(n, x, 0, statistic="top"), grouped, x)
    assert semirings.STATISTICS == STATISTICS


def test_every_path_of_an_inception():
    """On one pixel a branch is a chain of matrices, whose paths can be written down."""
    rng = np.random.default_rng(0)
    model = MODELS["googlenet"](2).clone(filters=(2, 2, 3), blocks=(("3a", (2, 2, 2, 2, 2, 2)),))
    shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 13, 13, 3), np.float32))
    params = jax.tree.map(lambda x: rng.normal(size=x.shape).astype("f4"), shapes["params"])
    moments = {
        name: {
            "mean": np.zeros(leaves["mean"].shape, "f4"),
            "var": np.ones(leaves["var"].shape, "f4"),
        }
        for name, leaves in shapes["batch_stats"].items()
    }
    net = Net(model, {"params": params, "batch_stats": moments}, Preprocess(13))
    image, label = rng.normal(size=(13, 13, 3)).astype(np.float32), 1
    # The 3 x 3 pixels of conv3 are pooled to one.
    before = np.asarray(net.features(image[None], "conv3")).reshape(9, 3)
    h, winners = before.max(0), before.argmax(0)

    def unit(name, x):
        """The edges [in,out] of a convolution with its norm, a shut ReLU's being 0, and its output."""
        kernel, norm = params[f"{name}.conv"]["kernel"], params[f"{name}.bn"]
        side = kernel.shape[0] // 2
        edges = np.asarray(kernel[side, side] * norm["scale"] / np.sqrt(1 + 1e-3))
        y = x @ edges + np.asarray(norm["bias"])
        return edges * (y > 0), np.maximum(y, 0)

    paths, start = [], 0
    for chain in (
        ["branch1"],
        ["branch2.0", "branch2.1"],
        ["branch3.0", "branch3.1"],
        ["branch4.1"],
    ):
        x, steps = h, []
        for name in chain:
            edges, x = unit(f"inception3a.{name}", x)
            steps.append(edges)
        steps.append(np.asarray(params["fc"]["kernel"])[start : start + 2, [label]])
        start += 2
        sizes = (range(step.shape[1]) for step in steps)
        paths += [
            [
                np.prod([s[i, j] for s, i, j in zip(steps, (c, *to[:-1]), to, strict=True)])
                for c in range(3)
            ]
            for to in itertools.product(*sizes)
        ]
    found = {
        s: np.asarray(layer_paths(net, image, label, statistic=s, layer="conv3")).reshape(9, 3)[
            winners, np.arange(3)
        ]
        for s in ("abs", "top", "bottom")
    }
    np.testing.assert_allclose(found["abs"], np.abs(paths).sum(0), rtol=1e-5)
    np.testing.assert_allclose(found["top"], np.max(paths, 0), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(found["bottom"], np.min(paths, 0), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("size", "stride", "padding"), [(3, 1, 1), (3, 2, 1), (2, 2, 0)])
def test_the_extremes_of_overlapping_windows(size, stride, padding):
    rng = np.random.default_rng(1)
    x = np.repeat(rng.permutation(36).reshape(1, 6, 6, 1), 2, 0).astype(np.float32)
    plain = functools.partial(pooling.max_pool, size=size, stride=stride, padding=padding)
    r = rng.normal(size=plain(x).shape).astype(np.float32)
    r[1] = r[0]
    _, vjp = jax.vjp(lambda x: semirings.extreme_pool("maxpool", plain, x), x)
    found = np.asarray(vjp(r)[0])[..., 0]
    padded = np.pad(x[0, ..., 0], padding, constant_values=-np.inf)
    won = {}
    for i, j in itertools.product(*map(range, r.shape[1:3])):
        window = padded[i * stride :][:size, j * stride :][:, :size]
        won.setdefault(window.max(), []).append(r[0, i, j, 0])
    for place, value in np.ndenumerate(x[0, ..., 0]):
        got = won.get(value, [np.nan])
        expected = (max(got), min(got)) if value in won else (-np.inf, np.inf)
        assert (found[0][place], found[1][place]) == pytest.approx(expected)
