"""One small network as a StagedModel, and as the linen and nnx CNNs of Flax's documentation; and what users make of these."""

import functools
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mixaug_jax.data.source import Source
from mixaug_jax.models import Net, Preprocess
from mixaug_jax.models.layers import StagedModel

LAYERS = ("Conv_0", "Conv_1", "Dense_0", "Dense_1")
SIDE, CLASSES = 16, 4
VIEW = Preprocess(SIDE)


def pool(x):
    return nn.avg_pool(x, window_shape=(2, 2), strides=(2, 2))


class Staged(StagedModel):
    """The reference: the same points have the same names."""

    layers: ClassVar = LAYERS

    def run(self, layer, x, train):
        if layer == "Conv_0":
            return self.conv(layer, x, 4, 3, bias=True)
        x = nn.relu(x)
        if layer == "Conv_1":
            return self.conv(layer, pool(x), 6, 3, bias=True)
        if layer == "Dense_0":
            return self.dense(layer, pool(x).reshape(len(x), -1), 8)
        return self.dense(layer, x, CLASSES)


class CNN(nn.Module):
    """As in Flax's documentation of linen."""

    num_classes: int = CLASSES

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(features=4, kernel_size=(3, 3))(x)
        x = nn.relu(x)
        x = nn.avg_pool(x, window_shape=(2, 2), strides=(2, 2))
        x = nn.Conv(features=6, kernel_size=(3, 3))(x)
        x = nn.relu(x)
        x = nn.avg_pool(x, window_shape=(2, 2), strides=(2, 2))
        x = x.reshape((x.shape[0], -1))
        x = nn.Dense(features=8)(x)
        x = nn.relu(x)
        return nn.Dense(features=self.num_classes)(x)


class NnxCNN(nnx.Module):
    """As in Flax's documentation of nnx."""

    def __init__(self, num_classes=CLASSES, *, rngs):
        self.Conv_0 = nnx.Conv(3, 4, kernel_size=(3, 3), rngs=rngs)
        self.Conv_1 = nnx.Conv(4, 6, kernel_size=(3, 3), rngs=rngs)
        self.dropout = nnx.Dropout(rate=0.5, rngs=rngs)
        self.avg_pool = functools.partial(nnx.avg_pool, window_shape=(2, 2), strides=(2, 2))
        self.Dense_0 = nnx.Linear(6 * SIDE * SIDE // 16, 8, rngs=rngs)
        self.Dense_1 = nnx.Linear(8, num_classes, rngs=rngs)

    def __call__(self, x):
        x = self.avg_pool(nnx.relu(self.Conv_0(x)))
        x = self.avg_pool(nnx.relu(self.Conv_1(x)))
        x = x.reshape(x.shape[0], -1)
        x = nnx.relu(self.dropout(self.Dense_0(x)))
        return self.Dense_1(x)


class Block(nn.Module):
    """A part of a network with a part of its own, and batch statistics."""

    features: int

    @nn.compact
    def __call__(self, x, train):
        x = nn.Conv(self.features, (3, 3))(x)
        x = nn.BatchNorm(use_running_average=not train)(x)
        return nn.relu(x)


class Deep(nn.Module):
    """Blocks, dropout, a submodule that is called twice, a list and a dtype among the fields."""

    num_classes: int
    sizes: Any = (4, 6)
    dtype: Any = jnp.float32
    axis_name: str | None = None

    def setup(self):
        self.blocks = [Block(size) for size in self.sizes]
        self.twice = nn.Dense(6, dtype=self.dtype)
        self.again = nn.Dense(6)
        self.head = nn.Dense(self.num_classes)
        self.dropout = nn.Dropout(0.5)

    def __call__(self, x, training: bool = False):
        for block in self.blocks:
            x = nn.avg_pool(block(x, training), (2, 2), strides=(2, 2))
        x = nn.relu(self.twice(x.mean((1, 2))))
        x = self.twice(nn.relu(self.again(x)))
        return self.head(self.dropout(x, deterministic=not training))


def variables(seed=0):
    """Random weights, drawn by NumPy, for `Staged` and `CNN`."""
    draw = np.random.default_rng(seed)
    inner = 6 * SIDE * SIDE // 16
    shapes = {"Conv_0": (3, 3, 3, 4), "Conv_1": (3, 3, 4, 6)}
    shapes |= {"Dense_0": (inner, 8), "Dense_1": (8, CLASSES)}
    params = {}
    for name, shape in shapes.items():
        scale = np.sqrt(2 / np.prod(shape[:-1]))
        kernel = scale * draw.standard_normal(shape, np.float32)
        bias = 0.1 * draw.standard_normal(shape[-1], np.float32)
        params[name] = {"kernel": jnp.asarray(kernel, jnp.float32), "bias": jnp.asarray(bias)}
    return {"params": params}


def staged(seed=0):
    return Net(Staged(), variables(seed), VIEW)


def linen(seed=0):
    return Net.wrap(CNN(), variables(seed), VIEW)


def trained_nnx(seed=0):
    """An nnx module, in training mode, as after a loop of the user's own."""
    module = NnxCNN(rngs=nnx.Rngs(seed))
    for name, values in variables(seed)["params"].items():
        for key, value in values.items():
            getattr(getattr(module, name), key)[...] = value
    return module


def wrapped_nnx(seed=0):
    return Net.wrap(trained_nnx(seed), preprocess=VIEW, layers=LAYERS)


NETS = {"linen": linen, "nnx": wrapped_nnx}


def images(count=3, seed=1):
    """[count,16,16,3] as if they were preprocessed."""
    draw = np.random.default_rng(seed)
    return jnp.asarray(draw.standard_normal((count, SIDE, SIDE, 3), np.float32))


def source(size=12):
    """Pictures of squares, whose places and colors are concepts."""
    draw = np.random.default_rng(5)
    labels = draw.integers(CLASSES, size=size)
    corners = draw.integers(0, 8, (size, 2))

    def read(i):
        row, col = corners[i]
        concepts = np.zeros((SIDE, SIDE, 1), np.uint8)
        concepts[row : row + 8, col : col + 8] = 1 + labels[i] % 2
        image = np.full((SIDE, SIDE, 3), 40, np.uint8)
        image[concepts[..., 0] > 0] = 60 + 40 * np.arange(3) + 20 * labels[i]
        return {"image": image, "label": int(labels[i]), "concepts": concepts}

    names = (("none", "none"), ("even", "object"), ("odd", "object"))
    return Source(read, size, tuple(f"class {k}" for k in range(CLASSES)), names)


def close(actual, expected, tolerance=1e-5):
    """Within `tolerance` of the largest expected value, everywhere, and of the same shape."""
    assert np.shape(actual) == np.shape(expected)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * np.abs(expected).max())
