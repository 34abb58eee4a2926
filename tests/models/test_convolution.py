"""Convolutions and pools have ways of their own on CPU and XLA's elsewhere, chosen when a program is lowered."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixaug_jax.models import convolution
from mixaug_jax.models.convolution import conv, plain_conv
from mixaug_jax.models.grouped import depthwise, grouped_conv
from mixaug_jax.models.pooling import max_pool, plain_max_pool


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def lowered(f, platform, *arrays):
    """The text of a function and its gradients for one platform, without the names of its parts."""

    def pull_back(*arrays):
        y, vjp = jax.vjp(f, *arrays)
        return y, vjp(jnp.cos(y))

    return jax.jit(pull_back).trace(*arrays).lower(lowering_platforms=(platform,)).as_text()


# A function of arrays, XLA's own, shapes of the arrays, and the operation that tells which way was taken.
WAYS = {
    "1x1": (lambda x, k: conv(x, k, 1, 0), lambda x, k: plain_conv(x, k, 1, 0),
            ((2, 5, 6, 3), (1, 1, 3, 4)), "stablehlo.convolution"),
    "pool": (lambda x: max_pool(x, 3, 2, 1), lambda x: plain_max_pool(x, 3, 2, 1),
             ((2, 9, 7, 3),), "stablehlo.select_and_scatter"),
    "depthwise": (lambda x, k: depthwise(x, k, 2), lambda x, k: grouped_conv(x, k, 2),
                  ((2, 9, 8, 5), (3, 3, 1, 5)), "stablehlo.convolution"),
}  # fmt: skip


@pytest.mark.parametrize("name", WAYS)
def test_the_platform_decides(name):
    ours, xlas, shapes, operation = WAYS[name]
    arrays = [normal(i, *shape) for i, shape in enumerate(shapes)]
    assert operation not in lowered(ours, "cpu", *arrays)
    for platform in ("cuda", "tpu"):
        found, expected = (lowered(f, platform, *arrays).count(operation) for f in (ours, xlas))
        assert found == expected > 0


def test_the_platform_decides_on_gradients(monkeypatch):
    """On CPU that of a kernel is a sum over parts of the batch."""
    monkeypatch.setattr(convolution, "MIN_PRODUCTS", 0)

    def f(x, k):
        return conv(x, k, 1, 1)

    arrays = normal(0, 8, 7, 5, 2), normal(1, 3, 3, 2, 6)
    assert "stablehlo.while" in lowered(f, "cpu", *arrays)
    for platform in ("cuda", "tpu"):
        text = lowered(f, platform, *arrays)
        assert "stablehlo.while" not in text
        assert text.count("stablehlo.convolution") == 3


@pytest.mark.parametrize("stride", [1, 2])
def test_forward_mode_of_1x1(stride):
    given = normal(0, 2, 5, 4, 3), normal(1, 1, 1, 3, 6)
    tangents = normal(2, 2, 5, 4, 3), normal(3, 1, 1, 3, 6)
    for ours, xlas in zip(
        *(
            jax.jvp(lambda x, k, f=f: f(x, k, stride, 0), given, tangents)
            for f in (conv, plain_conv)
        ),
        strict=True,
    ):
        np.testing.assert_allclose(ours, xlas, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("size", "padding"), [(1, 0), (3, 1)])
def test_reverse_mode_twice(size, padding):
    def penalty(f):
        def energy(x, k):
            return jnp.sin(f(x, k, 1, padding)).sum()

        return jax.jit(jax.grad(lambda x, k: jnp.square(jax.grad(energy)(x, k)).sum(), (0, 1)))

    x, k = normal(0, 2, 4, 5, 3), normal(1, size, size, 3, 2)
    for ours, xlas in zip(penalty(conv)(x, k), penalty(plain_conv)(x, k), strict=True):
        np.testing.assert_allclose(ours, xlas, rtol=1e-4, atol=1e-4)


def test_a_repeated_shape_is_traced_once(monkeypatch):
    """What keeps the tracing of a deep network short, though the ways of all platforms are traced."""
    traced = []

    def counted(x, *rest):
        traced.append(x.shape)
        return plain(x, *rest)

    plain = convolution._bordered
    monkeypatch.setattr(convolution, "_bordered", counted)
    x, k = normal(0, 1, 6, 4, 3), normal(1, 3, 3, 3, 3)
    jax.make_jaxpr(lambda x: conv(conv(conv(x, k, 1, 1), k, 1, 1), k, 1, 1))(x)
    assert traced == [x.shape]
