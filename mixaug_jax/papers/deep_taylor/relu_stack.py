"""The study's own networks: stacks of dense layers, each with a ReLU after it, the last one too."""

import importlib.resources
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mixaug_jax.core import checks
from mixaug_jax.core.types import AnyArray, Array, Float, Numbers, Seed

PUBLISHED_SEED, PUBLISHED_DEPTH, PUBLISHED_WIDTH = 1, 3, 10
OUTPUTS = 2
# Of the published test bed: its scaling visits every nested module, so that it is applied three times; positive biases change
# their sign.
POSITIVE_WEIGHTS, POSITIVE_BIASES = 1.4**3, -(1.4**2)


class Layer(NamedTuple):
    """A dense layer: kernel [in,out], bias [out]."""

    kernel: Numbers
    bias: Numbers


Stack = tuple[Layer, ...]


def forward(stack: Stack, h: Float[AnyArray, "*n in"]) -> Float[Array, "*n out"]:
    """The output of layers one after the other, each relu(h @ kernel + bias)."""
    for layer in stack:
        h = jax.nn.relu(h @ layer.kernel + layer.bias)
    return h


def inputs_of(stack: Stack, x: Float[AnyArray, "*n in"]) -> list[Float[Array, "..."]]:
    """The input of every layer, and the output after the last one."""
    found = [jnp.asarray(x)]
    for layer in stack:
        found.append(forward((layer,), found[-1]))
    return found


def scaled(stack: Stack) -> Stack:
    """A drawn stack as the published code scales it: weights that are positive times 2.744, biases times -1.96."""
    return tuple(
        Layer(
            np.where(layer.kernel > 0, POSITIVE_WEIGHTS * layer.kernel, layer.kernel),
            np.where(layer.bias > 0, POSITIVE_BIASES * layer.bias, layer.bias),
        )
        for layer in stack
    )


def bed_stack(
    seed: int = PUBLISHED_SEED, depth: int = PUBLISHED_DEPTH, width: int = PUBLISHED_WIDTH
) -> Stack:
    """The test bed of the study (Sixt and Landgraf 2022, arXiv 2211.08425): `depth` layers, `width` wide, two outputs.

    Seed 1 at depth 3 and width 10 is the published one, drawn by PyTorch, whose weights come with the package. Any other is
    drawn here, as PyTorch does it: weights and biases uniform within 1 / sqrt(inputs).

    Returns:
      Layers in float64, with the published scaling.

    Raises:
      ValueError: no layer, or a width below 1.
    """
    checks.count("depth", depth)
    checks.count("width", width)
    if (seed, depth, width) == (PUBLISHED_SEED, PUBLISHED_DEPTH, PUBLISHED_WIDTH):
        return scaled(_published())
    draw, stack = np.random.default_rng(seed), []
    for k in range(depth):
        out, limit = OUTPUTS if k == depth - 1 else width, width**-0.5
        stack.append(
            Layer(draw.uniform(-limit, limit, (width, out)), draw.uniform(-limit, limit, out))
        )
    return scaled(tuple(stack))


def _published() -> Stack:
    path = importlib.resources.files("mixaug_jax.papers.deep_taylor") / "test_bed.npz"
    with path.open("rb") as file, np.load(file) as found:
        return tuple(
            Layer(*(found[f"{k}/{part}"].astype(np.float64) for part in Layer._fields))
            for k in range(PUBLISHED_DEPTH)
        )


def points(
    stack: Stack, count: int, seed: Seed = 0, *, least: float = 0.0
) -> Float[np.ndarray, "n in"]:
    """Inputs |N(0,1)| whose first output is above `least`: [count,in] float64.

    Raises:
      ValueError: hardly any input has such an output.
    """
    draw, found = np.random.default_rng(seed), []
    for _ in range(100):
        x = np.abs(draw.normal(size=(max(count, 100), len(stack[0].kernel))))
        output = x
        for layer in stack:
            output = np.maximum(output @ layer.kernel + layer.bias, 0)
        found.extend(x[output[:, 0] > least])
        if len(found) >= count:
            return np.array(found[:count])
    raise ValueError(
        f"fewer than {count} of {100 * max(count, 100)} random inputs have a first output above {least:g}; choose another "
        "taylor.torch_seed, depth or width"
    )
