"""Binarized networks: activations and kernels of 1 and -1 (XNOR-Net, Rastegari et al. 2016, arXiv 1603.05279).

Their derivative is 0 almost everywhere, so what is called gradient is a surrogate's: it is what training used, and which one it
is may be chosen anew for an explanation (`net.with_rules(act=bireal_act)`). Widdicombe and Julier 2021 (arXiv 2106.12569)
compare explanations of such networks with those of full precision.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from mixaug_jax.core.types import AnyArray, Array
from mixaug_jax.models.resnet import ResNet


def sign(x: AnyArray) -> Array:
    """1 for x >= 0, -1 below, NaN for NaN."""
    return jnp.where(jnp.isnan(x), x, jnp.where(x >= 0, 1, -1).astype(x.dtype))


@jax.custom_jvp
def clipped(x: AnyArray) -> Array:
    """`sign` with the derivative of a line that is clipped at -1 and 1 (Hubara et al. 2016)."""
    return sign(x)


@jax.custom_jvp
def bireal(x: AnyArray) -> Array:
    """`sign` with the derivative of two parabolas, 2 - 2 |x| within -1..1 (Bi-Real Net, Liu et al. 2018)."""
    return sign(x)


@jax.custom_jvp
def identity(x: AnyArray) -> Array:
    """`sign` with the derivative of the identity."""
    return sign(x)


@clipped.defjvp
def _clipped(primals, tangents):
    (x,), (t,) = primals, tangents
    return sign(x), jnp.where(jnp.abs(x) <= 1, t, 0)


@bireal.defjvp
def _bireal(primals, tangents):
    (x,), (t,) = primals, tangents
    return sign(x), t * jnp.maximum(0, 2 - 2 * jnp.abs(x))


@identity.defjvp
def _identity(primals, tangents):
    (x,), (t,) = primals, tangents
    return sign(x), t


def clipped_act(name: str, x: AnyArray) -> Array:
    """The rule of a sign's activation in training: `clipped`."""
    return clipped(x)


def bireal_act(name: str, x: AnyArray) -> Array:
    """The rule of a sign's activation with the surrogate `bireal`."""
    return bireal(x)


def identity_act(name: str, x: AnyArray) -> Array:
    """The rule of a sign's activation with the surrogate `identity`: relevance passes through."""
    return identity(x)


def binarized(kernel: AnyArray) -> Array:
    """sign(w) times the mean |w| of each output channel; the gradient is that of the sign's surrogate, none beyond 1."""
    scale = jnp.abs(kernel).mean(tuple(range(kernel.ndim - 1)))
    return clipped(kernel) * jax.lax.stop_gradient(scale)


class BinaryResNet(ResNet):
    """A ResNet of basic blocks whose 3x3 convolutions have binary inputs and kernels.

    The first convolution, the shortcuts and the dense layer have full precision, and each sum stays as it is: a ReLU before a
    sign would leave nothing but 1. Every norm follows its convolution, so affine rules see the binarized kernel; where a sum of
    signs is 0, rounding of the merged norm may turn it. `act` is the rule of the signs, the last part of whose name is "sign".
    """

    def relu(self, name: str, x: jax.Array):
        """The identity: signs stand before convolutions instead."""
        return x

    def _wide(self, name, x, filters, steps, norm, train):
        act: Callable[[str, Any], Any] = clipped_act if self.act is None else self.act
        signs = act(f"{name}.sign", x)
        return super()._wide(name, signs, filters, steps, norm, train)

    def _affine(self, name, linear, x, weights, norm="", train=False):
        binary = name.startswith("layer") and "downsample" not in name

        def given() -> tuple:
            kernel, bias = weights()
            return (binarized(kernel), bias) if binary else (kernel, bias)

        return super()._affine(name, linear, x, given, norm, train)
