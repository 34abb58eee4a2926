"""Whether the rest of a network is a mean over space and a dense layer, told from its program, and what weights it then has.

Where it is, a unit acts on the logits through its mean over space alone, and what its removal does needs no forward pass.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mixaug_jax.core.types import Features, Float, Images, Net

# Operations that commute with sums of their arguments.
_LINEAR = frozenset(
    (
        "add",
        "add_any",
        "sub",
        "neg",
        "reduce_sum",
        "reshape",
        "squeeze",
        "transpose",
        "slice",
        "copy",
    )
)
_LINEAR |= {"broadcast_in_dim", "concatenate", "expand_dims", "rev"}
_PRODUCTS = frozenset(("mul", "dot_general", "conv_general_dilated"))
_INNER = ("jaxpr", "call_jaxpr", "fun_jaxpr")  # where operations keep the program that they call
_SAME = 1e-5  # of the largest weight; places that differ by more are not averaged


def dense_rest(
    net: Net, layer: str, x: Images, h: Features
) -> tuple[Float[np.ndarray, "U K"], Float[np.ndarray, " K"]] | None:
    """The weights of each unit's mean over space on the logits, and the logits without any; None where the rest of the network
    is anything else.

    Args:
      net: the network.
      layer: whose units.
      x: [B,h,w,C], images; their values do not matter.
      h: [B,...,U], what the layer gives of them; likewise.
    """
    x, h = jnp.zeros_like(x[:1]), jnp.zeros_like(h[:1])
    closed = jax.make_jaxpr(lambda h: net.logits(x, layer=layer, value=h))(h)
    if _follow(closed.jaxpr, [True]) != [True]:
        return None
    total, spread, offset = map(np.asarray, _weights(net, x, h, layer=layer))
    # A dense layer of all places, without a mean, is affine, too.
    return (total.T, offset) if spread <= _SAME * np.abs(total).max() else None


@functools.partial(jax.jit, static_argnames="layer")
def _weights(net, x, h, *, layer):
    """For each logit the sum of its gradient over places [K,U], how far places differ from their mean, and logits of zeros."""
    logits, pull = jax.vjp(lambda h: net.logits(x, layer=layer, value=h), h)
    places = np.prod(h.shape[1:-1], dtype=int)

    def one(direction: jax.Array) -> tuple[jax.Array, jax.Array]:
        (gradient,) = pull(direction[None])
        total = gradient.sum(tuple(range(h.ndim - 1)))
        return total, jnp.abs(gradient * places - total).max()

    totals, spreads = jax.lax.map(one, jnp.eye(logits.shape[-1]))
    return totals, spreads.max(), logits[0]


def _follow(jaxpr: Any, given: list[bool]) -> list[bool | None]:
    """For each output of a program whether it depends on the inputs marked True; None where it does otherwise than affinely."""
    known = dict(zip(jaxpr.invars, given, strict=True))

    def state(value: Any) -> bool | None:
        return False if isinstance(value, jax.extend.core.Literal) else known.get(value, False)

    for equation in jaxpr.eqns:
        states = [state(value) for value in equation.invars]
        found = _outcome(equation, states) if any(s is not False for s in states) else [False]
        found = found * len(equation.outvars) if len(found) == 1 else found
        known |= zip(equation.outvars, found, strict=True)
    return [state(value) for value in jaxpr.outvars]


def _outcome(equation, states) -> list[bool | None]:
    name = equation.primitive.name
    if None in states:
        return [None]
    if name in _LINEAR:
        return [True]
    if name in _PRODUCTS:
        return [True if sum(states) == 1 else None]
    if name == "div":
        return [None if states[1] else True]
    if name == "convert_element_type":
        # bfloat16 rounds, which is not affine.
        return [True if equation.params["new_dtype"] == jnp.float32 else None]
    for key in _INNER:
        inner = equation.params.get(key)
        inner = getattr(inner, "jaxpr", inner)
        if inner is not None and len(inner.invars) == len(states):
            return _follow(inner, states)
    return [None]
