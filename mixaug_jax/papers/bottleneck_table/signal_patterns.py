"""PatternAttribution (Kindermans et al. 2017, arXiv 1705.05598) in its closed form, for networks without residual sums.

The table of the bottleneck's paper has it for VGG-16, and its public code does not: what is here is recalled from that other
paper and compared with nobody's numbers.
"""

import dataclasses
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mixaug_jax.attribution import rules
from mixaug_jax.attribution.target import nan_like, outputs
from mixaug_jax.core import checks
from mixaug_jax.core.types import Array, Attribution, Image, Images, Label, Net, Tree


def pattern_attribution(net: Net, image: Image, label: Label, *, stats: Any = ()) -> Attribution:
    """Relevance of the logit through weights times patterns, signed [h,w,C]: what of the input is signal, not noise that the
    weights cancel (Kindermans et al. 2017).

    Args:
      net, image, label: see `mixaug_jax.attribution`.
      stats: {layer: pattern}, from `patterns` for this network; required.

    Raises:
      ValueError: without patterns, or (`checks.UnsupportedError`) a network with residual sums or without rules.
    """
    image = checks.image(image)
    if not isinstance(stats, dict):
        raise ValueError("pattern_attribution needs stats=, the patterns of this network's layers")
    ruled = net.with_rules(affine=_Patterned(stats), add=_refuse)
    logit, vjp = jax.vjp(lambda x: outputs(ruled, x, label), image[None])
    return nan_like(logit, vjp(logit)[0][0])


def patterns(net: Net, batches: Iterable[Images]) -> dict[str, np.ndarray]:
    """{layer: pattern}, in the shape of the layer's kernel, over the inputs of positive outputs.

    a = (E[x y] - E[x] E[y]) / (w' (E[x y] - E[x] E[y])), the expectations over those places and images where y > 0; zeros where
    no output is positive.

    Args:
      net: whose affine rules can be replaced.
      batches: of preprocessed images [B,h,w,C].
    """
    sums: dict[str, Any] = {}
    for batch in batches:
        found = jax.device_get(sums_of(net, jnp.asarray(batch)))
        found = jax.tree.map(np.float64, found)
        sums = found if not sums else jax.tree.map(np.add, sums, found)
    kernels = jax.device_get(_kernels(net, jax.ShapeDtypeStruct(jnp.shape(batch), jnp.float32)))
    return {name: _pattern(sums[name], kernels[name]) for name in sums}


def _pattern(sums, kernel):
    count = np.maximum(sums["count"], 1)
    covariance = sums["xy"] / count - sums["x"] / count * (sums["y"] / count)
    axes = tuple(range(kernel.ndim - 1))
    size = (kernel * covariance).sum(axes)
    return np.float32(np.where(size == 0, 0, covariance / np.where(size == 0, 1, size)))


@dataclasses.dataclass(frozen=True, eq=False)
class _Patterned:
    """An affine rule whose backward pass goes through kernel times pattern."""

    patterns: Tree

    def __call__(self, name, linear, x, kernel, bias):
        pattern = self.patterns[name]

        def backward(x: Any, kernel: Any, bias: Any, r: Any) -> tuple[Array, Array, Array]:
            none = jnp.zeros_like(bias)
            _, vjp = jax.vjp(lambda x: linear(x, kernel * pattern, none), x)
            return vjp(r)[0], jnp.zeros_like(kernel), none

        return rules.replaced(linear, backward, x, kernel, bias)


@dataclasses.dataclass(frozen=True, eq=False)
class _Gather:
    """An affine rule that notes what a layer's pattern is made of."""

    found: dict

    def __call__(self, name, linear, x, kernel, bias):
        y, back = jax.vjp(lambda kernel: linear(x, kernel, bias), kernel)
        on = (y > 0).astype(y.dtype)
        axes = tuple(range(y.ndim - 1))
        # The gradient by the kernel sums inputs times what comes back over all places.
        self.found[name] = {
            "xy": back(y * on)[0],
            "x": back(on)[0],
            "y": (y * on).sum(axes),
            "count": on.sum(axes),
        }
        return y


@dataclasses.dataclass(frozen=True, eq=False)
class _Kernel:
    """An affine rule that notes the kernels, batch norms merged in."""

    found: dict

    def __call__(self, name, linear, x, kernel, bias):
        self.found[name] = kernel
        return linear(x, kernel, bias)


def _refuse(name, x, shortcut):
    raise checks.UnsupportedError(
        "pattern_attribution is for networks without residual sums, as VGG"
    )


@jax.jit
def sums_of(net: Net, images: Images) -> dict[str, Any]:
    """{layer: what its pattern is made of}, added up over images [B,h,w,C].

    Raises:
      checks.UnsupportedError: a network with residual sums.
    """
    found: dict[str, Any] = {}
    net.with_rules(affine=_Gather(found), add=_refuse).logits(images)
    return found


def _kernels(net, shape):
    def noted(net: Net):
        found: dict[str, Any] = {}
        net.with_rules(affine=_Kernel(found)).logits(jnp.zeros((1, *shape.shape[1:])))
        return found

    return jax.jit(noted)(net)
