"""Deep Taylor decomposition layer by layer, in all the ways that go by that name.

The relevance of the network's output is explained by relevance functions, one for each layer: R(h) at a layer's input h, from
the relevance function of the layer above it. Sixt and Landgraf 2022, arXiv 2211.08425, sections 3 to 5.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from mixaug_jax.core.types import AnyArray, Array, Bool, Float
from mixaug_jax.papers.deep_taylor import roots as roots_lib
from mixaug_jax.papers.deep_taylor.relu_stack import Layer, Stack, forward, inputs_of


@dataclasses.dataclass(frozen=True)
class Recursion:
    """How roots are found, and what of their derivatives is kept.

    Attributes:
      rule: of `roots.RULES`.
      gamma: of the rule of that name.
      delta: how much of the way to the root is left out, so that its slope is defined.
      exact: whether the slope at the root is differentiated by the layers below; the published code takes it for a number.
    """

    rule: str = "z_plus"
    gamma: float = 1.0
    delta: float = 0.01
    exact: bool = False


def explained(stack: Stack, output: int) -> Stack:
    """The stack with one output neuron left in its last layer."""
    last = stack[-1]
    one = slice(output, output + 1)
    return (*stack[:-1], Layer(last.kernel[:, one], last.bias[one]))


def train_free(
    stack: Stack, x: Float[AnyArray, " in"], rule: str, gamma: float = 1.0, output: int = 0
) -> tuple[list[Array], list[Array], list[Array]]:
    """What the rules in use compute: the relevance from above is taken for a constant, and no root is looked at.

    R_i = sum_j w_ij v_ji / (w_j.v_j) R_j, which conserves the sum while every neuron has a root. The rule "zero" is as in the
    published code: the weights times the input, whatever the relevance from above is.

    Returns:
      For each layer, the first one first: the relevance at its input [in]; the roots of its neurons for the relevance that they
      received [J,in]; and whether they have one [J]. The last layer has one neuron, the explained one.
    """
    stack = explained(stack, output)
    hidden = inputs_of(stack, x)
    relevance, found = hidden[-1], []
    for layer, h in zip(reversed(stack), reversed(hidden[:-1]), strict=True):
        points, has = roots_lib.root(rule, h, layer, relevance, gamma)
        slope = 1.0 if rule == "zero" else _slopes(rule, h, layer, relevance, has, gamma)
        v = roots_lib.direction(rule, h, layer.kernel, gamma)
        relevance = (jnp.asarray(layer.kernel).T * v * slope).sum(0)
        found.append((relevance, points, has))
    return tuple(map(list, zip(*reversed(found), strict=True)))


def _slopes(rule, h, layer, relevance, has, gamma):
    """What each neuron hands to its inputs, for each unit of its direction's share; nothing where it has no root."""
    v = roots_lib.direction(rule, h, layer.kernel, gamma)
    through = (jnp.asarray(layer.kernel).T * v).sum(-1)
    return jnp.where(has, relevance / jnp.where(has, through, 1), 0)[:, None]


def full_backward(
    stack: Stack, x: Float[AnyArray, " in"], how: Recursion, *, layer: int = 0, output: int = 0
) -> Float[Array, " in"]:
    """The relevance at the input of a layer, each relevance function expanded at the roots that the rule has for it.

    R_i(h) = sum over j with R_j(h) > 0 of dR_j/dh_i at the root times (h - root)_i, R_j the relevance functions of the layer
    above, as functions of h. A neuron without a root, or with a dead slope at it, loses what it received.

    Args:
      stack, x: the network and its input.
      how: see `Recursion`.
      layer: whose input the relevance is at.
      output: the explained neuron.
    """
    stack = explained(stack, output)

    def roots_of(k: int, h: Array, received: Array) -> tuple[Array, Array]:
        points, has = roots_lib.root(how.rule, h, stack[k], received, how.gamma)
        return roots_lib.off_the_hinge(h, points, how.delta), has

    return _expanded(stack, layer, roots_of, exact=how.exact)(inputs_of(stack, x)[layer])


def _expanded(stack, k, roots_of, *, exact=False, cut=True):
    """The relevance function at the input of layer k: h [in] -> [in]; above the last layer it is the output itself.

    cut: leave out neurons whose relevance is not above 0, as published, at every evaluation.
    """
    if k == len(stack):
        return lambda h: h
    # From the top down: what a layer receives is the relevance function of the layer above.
    over = _expanded(stack, k + 1, roots_of, exact=exact, cut=cut)

    def received(h: Array) -> Array:
        return over(forward((stack[k],), h))

    def relevance(h: Array) -> Array:
        r = received(h)
        points, has = roots_of(k, h, r)

        def slope(j: Array, point: Array) -> Array:
            return jax.grad(lambda at: received(at)[j])(point)

        slopes = jax.vmap(slope)(jnp.arange(len(r)), points)
        # As published the slope is a constant; exactly, it depends on h where the next layer below differentiates.
        slopes = slopes if exact else jax.lax.stop_gradient(slopes)
        used = (r > 0) & has if cut else has
        return jnp.where(used[:, None], slopes * (h - points), 0).sum(0)

    return relevance


def sampled(
    stack: Stack,
    x: Float[AnyArray, " in"],
    candidates: Sequence[Float[AnyArray, "n in"]],
    *,
    output: int = 0,
) -> tuple[Float[Array, " in"], list[Array]]:
    """The relevance at the network's input with roots chosen from candidates within the linear region; these are constants.

    Args:
      stack, x: the network and its input.
      candidates: for each layer, points of its input's space.
      output: the explained neuron.

    Returns:
      The relevance [in]; and, for each layer, the number of each neuron's root: the candidate that leaves it the least.
    """
    stack = explained(stack, output)
    points: dict[int, Array] = {}
    chosen = []

    def roots_of(k: int, h: Array, received: Array) -> tuple[Array, Bool[Array, " J"]]:
        return points[k], jnp.ones(len(received), bool)

    for k in reversed(range(len(stack))):
        over = _expanded(stack, k + 1, roots_of)
        # The candidate with the least relevance is nearest to being a root; layers above have chosen already.
        left = jax.vmap(lambda at, k=k, over=over: over(forward((stack[k],), at)))(candidates[k])
        chosen.append(left.argmin(0))
        points[k] = jnp.asarray(candidates[k])[chosen[-1]]
    relevance = _expanded(stack, 0, roots_of)(jnp.asarray(x))
    return relevance, chosen[::-1]


def locally_constant(
    stack: Stack,
    x: Float[AnyArray, " in"],
    points: Sequence[Float[AnyArray, " in"]],
    output: int = 0,
) -> Float[Array, " in"]:
    """The relevance at the network's input with one constant root for each layer, the same for all of its neurons.

    All neurons are expanded, those whose relevance is not above 0, too.
    """
    stack = explained(stack, output)

    def roots_of(k: int, h: Array, received: Array) -> tuple[Array, Bool[Array, " J"]]:
        shape = (len(received), *jnp.shape(points[k]))
        return jnp.broadcast_to(points[k], shape), jnp.ones(len(received), bool)

    return _expanded(stack, 0, roots_of, cut=False)(jnp.asarray(x))


def gradient_times(
    stack: Stack, x: Float[AnyArray, " in"], point: Float[AnyArray, " in"], output: int = 0
) -> Float[Array, " in"]:
    """The Taylor expansion of the output itself: its gradient at x times x - point."""
    return jax.grad(lambda at: forward(stack, at)[output])(jnp.asarray(x)) * (x - point)


def recursive(
    stack: Stack, h: Float[AnyArray, " in"], rule: str, gamma: float = 1.0, output: int = 0
) -> Float[Array, " leaves"]:
    """The output that recursive roots leave: of a tree of points, J1 x J2 x ... of them.

    Each neuron's root in the first layer goes through that layer; there each neuron of the second layer has its own root from
    it; and so on to the input of the last layer, where the output is what is left to explain. (The published code hands a root
    on without passing it through the layer.)
    """
    stack = explained(stack, output)
    if len(stack) == 1:
        return forward(stack, h)
    points, has, _ = roots_lib.own_roots(rule, h, stack[0], gamma)
    pushed = forward(stack[:1], jnp.where(has[:, None], points, h))
    return jax.vmap(lambda at: recursive(stack[1:], at, rule, gamma))(pushed).ravel()
