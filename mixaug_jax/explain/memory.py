"""How much of the network's work fits into memory at once."""

import math
from typing import Any

import jax
import numpy as np

from mixaug_jax.core import checks
from mixaug_jax.core.types import Net

MOST = 64  # evaluations at once on a device; more are no faster
_JITTED = ("jit", "pjit")  # whose results are those of what is inside
# What a process holds before it computes anything: the interpreter, compiled programs, the compiler's own work.
RESIDENT = 1 << 30


def evaluation_bytes(net: Net, shape: tuple[int, ...]) -> int:
    """An upper bound of the memory that one image [h,w,C] of this `shape` takes in a forward and a backward pass.

    The sizes of all intermediate arrays of the forward pass, what a backward pass may have to keep; nothing is computed.
    """

    def total(count: Any):
        x = jax.ShapeDtypeStruct((count, *shape), np.float32)
        return _sizes(jax.make_jaxpr(lambda net, x: net.logits(x))(net, x).jaxpr)

    return total(2) - total(1)  # the difference leaves out what does not grow with the images


def _sizes(jaxpr) -> int:
    total = 0
    for equation in jaxpr.eqns:
        leaves = jax.tree.leaves(equation.params, is_leaf=_is_jaxpr)
        inner = [_sizes(getattr(p, "jaxpr", p)) for p in leaves if _is_jaxpr(p)]
        if equation.primitive.name == "cond":  # of which one is run, that of the platform
            total += max(inner)
            continue
        avals = [out.aval for out in equation.outvars]
        if equation.primitive.name not in _JITTED:
            total += sum(math.prod(a.shape) * a.dtype.itemsize for a in avals)
        total += sum(inner)
    return total


def _is_jaxpr(value) -> bool:
    return hasattr(value, "eqns") or hasattr(value, "jaxpr")


def at_once(net: Net, shape: tuple[int, ...], memory_gb: float, held: int = 0) -> int:
    """How many evaluations of the network may be in memory at once, from 1 to `MOST`.

    Args:
      net: the network.
      shape: of an image, [h,w,C].
      memory_gb: the bound in GiB, of the process on a CPU and of each device elsewhere; 0 is none.
      held: bytes of arrays that are there anyway.

    Raises:
      ValueError: a negative bound, or where not even the arrays fit.
    """
    checks.not_negative("memory_gb", memory_gb)
    if not memory_gb:
        return MOST
    bound = memory_gb * 2**30
    if held > bound / 2:
        raise ValueError(
            f"the images and maps take {held / 2**30:.1f} GiB, more than half of memory_gb={memory_gb:g}; "
            "take fewer images or raise memory_gb"
        )
    room = max(bound - RESIDENT, bound / 4) - held
    return int(np.clip(room // evaluation_bytes(net, shape), 1, MOST))
