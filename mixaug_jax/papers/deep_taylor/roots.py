"""Roots of single neurons: the point at which deep Taylor decomposition says that a neuron's relevance is gone.

A neuron is z = w.h + b. Its root is h~ = h - (r / w.v) v: from the layer's input h along a direction v that the rule chooses,
as far as removes r, which is z itself or the relevance that the neuron received.
"""

import jax.numpy as jnp

from mixaug_jax.core import checks
from mixaug_jax.core.types import AnyArray, Array, Bool, Float, Numbers, Scalar
from mixaug_jax.papers.deep_taylor.relu_stack import Layer

RULES = ("z_plus", "w_squared", "gamma", "input", "zero")
SMALLEST = 1e-5  # |w.v|; below it a neuron has no root, and its relevance is lost


def direction(
    rule: str, h: Float[AnyArray, " in"], kernel: Float[AnyArray, "in J"], gamma: Scalar = 1.0
) -> Float[Array, "J in"]:
    """The direction v of each neuron's root, along which a share of the relevance goes back.

    Args:
      rule: "z_plus", h where the weight is not negative; "w_squared", the weights; "gamma", h (1 + gamma where the weight is
        not negative); "input" or "zero", h.
      h: the layer's input.
      kernel: the layer's weights.
      gamma: of that rule; the larger it is, the nearer to z_plus.

    Raises:
      ValueError: another rule.
    """
    checks.choice("rule", rule, RULES)
    w = jnp.asarray(kernel).T
    if rule == "w_squared":
        return w
    if rule == "z_plus":
        return h * (w >= 0)
    if rule == "gamma":
        return h * (1 + gamma * (w >= 0))
    return jnp.broadcast_to(h, w.shape)


def box_direction(
    h: Float[AnyArray, " in"], kernel: Float[AnyArray, "in J"], low: Numbers, high: Numbers
) -> Float[Array, "J in"]:
    """The direction of the z^B rule, for the first layer: away from the corner of the box that is worst for the neuron."""
    w = jnp.asarray(kernel).T
    return h - low * (w >= 0) - high * (w < 0)


def along(
    h: Float[AnyArray, " in"],
    kernel: Float[AnyArray, "in J"],
    v: Float[AnyArray, "J in"],
    r: Float[AnyArray, " J"],
) -> tuple[Float[Array, "J in"], Bool[Array, " J"]]:
    """Each neuron's root along its direction, and whether it has one; 0 where it has none.

    Args:
      h: the layer's input.
      kernel: the layer's weights.
      v: a direction for each neuron.
      r: what is to be removed from each.
    """
    slope = (jnp.asarray(kernel).T * v).sum(-1)
    has = jnp.abs(slope) > SMALLEST
    step = r / jnp.where(has, slope, 1)
    return jnp.where(has[:, None], h - step[:, None] * v, 0), has


def root(
    rule: str,
    h: Float[AnyArray, " in"],
    layer: Layer,
    r: Float[AnyArray, " J"],
    gamma: Scalar = 1.0,
) -> tuple[Float[Array, "J in"], Bool[Array, " J"]]:
    """Each neuron's root by a rule, and whether it has one; the rule "zero" has the root 0 for every neuron."""
    v = direction(rule, h, layer.kernel, gamma)
    if rule == "zero":
        return jnp.zeros_like(v), jnp.ones(len(v), bool)
    return along(h, layer.kernel, v, r)


def off_the_hinge(
    h: Float[AnyArray, " in"], roots: Float[AnyArray, "J in"], delta: Scalar
) -> Float[Array, "J in"]:
    """Roots moved back towards h by a share `delta` of the way: at the root itself the ReLU has no slope."""
    return h + (1 - delta) * (roots - h)


def own_roots(
    rule: str, h: Float[AnyArray, " in"], layer: Layer, gamma: Scalar = 1.0
) -> tuple[Float[Array, "J in"], Bool[Array, " J"], Bool[Array, " J"]]:
    """Roots for each neuron's own pre-activation, whether it has one, and whether the neuron is active."""
    z = jnp.asarray(h) @ layer.kernel + layer.bias
    return *root(rule, h, layer, z, gamma), z > 0
