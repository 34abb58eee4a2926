"""Cosine similarity convergence: does what flows back still know where it came from?

Sixt et al. 2020, "When Explanations Lie", arXiv 1912.09818, whose code this follows: several random relevances are drawn at a
layer and go down to the layers below it. Where a method multiplies by matrices without negative entries, their products
converge to rank 1: the cosine of any two goes to 1, and what the map shows of the layer above is its sum.
"""

import functools
import itertools
import math
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from mixaug_jax.core import checks
from mixaug_jax.core.types import AnyArray, Array, Bool, Count, Float, Seed

PERCENTILES = (1, 5, 50, 95, 99)
SIGNS = ("any", "relu", "positive")
VGG_WIDTHS = (512, 512, 512, 512, 512, 512, 256, 256, 256, 128, 128, 64, 64, 3)  # from the top down


def similarities(
    relevance: Float[AnyArray, "draws *positions C"], *, single: bool = True
) -> tuple[Float[Array, " pairs *positions"], Bool[Array, " pairs *positions"]]:
    """|cosine| of the channel vectors of every two draws at the same position, and whether it counts.

    Args:
      relevance: of several draws.
      single: whether a pair counts in which a vector has one channel alone that is not zero. Before a max pool nearly all are
        such, and every method shows 1 there.

    Returns:
      Pairs in the order (0,1), (0,2), ..., (1,2), ...; a pair with a vector of zeros does not count, and is 0.
    """
    first, second = map(list, zip(*itertools.combinations(range(len(relevance)), 2), strict=True))
    relevance = jnp.asarray(relevance)
    largest = jnp.abs(relevance).max(-1, keepdims=True)
    unit = relevance / jnp.where(
        largest > 0, largest, 1
    )  # squares of small numbers are flushed to 0
    length = jnp.linalg.norm(unit, axis=-1)
    cosine = jnp.abs((unit[jnp.array(first)] * unit[jnp.array(second)]).sum(-1))
    product = length[jnp.array(first)] * length[jnp.array(second)]
    channels = (relevance != 0).sum(-1)
    enough = (channels > 0) if single else (channels > 1)
    counts = enough[jnp.array(first)] & enough[jnp.array(second)]
    return jnp.where(counts, cosine / jnp.where(product > 0, product, 1), 0), counts


def summary(
    cosines: Float[np.ndarray, "..."], counts: Bool[np.ndarray, "..."]
) -> Float[np.ndarray, " percentiles"]:
    """`PERCENTILES` of the cosines that count; NaN where none does."""
    found = np.asarray(cosines)[np.asarray(counts)]
    return np.percentile(found, PERCENTILES) if found.size else np.full(len(PERCENTILES), np.nan)


def percentiles(found: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Of "WAY/cosine/START/LAYER" and "WAY/counts/START/LAYER" [images, ...]: "WAY/START/LAYER", the `summary` over all images,
    and "images/WAY/START/LAYER", in how many of them some pair counts."""
    told = {}
    for name in (name for name in found if "/cosine/" in name):
        counts, place = found[name.replace("/cosine/", "/counts/")], name.replace("/cosine/", "/")
        told[place] = summary(found[name], counts)
        told[f"images/{place}"] = np.array(counts.reshape(len(counts), -1).any(1).sum())
    return told


def chance(channels: Count) -> float:
    """The median |cosine| of two normal vectors: about .6745 / sqrt(C), here for any C.

    The squared cosine has the Beta distribution of 1/2 and (C - 1)/2.
    """
    checks.count("channels", channels, 1)
    if channels == 1:
        return 1.0
    return math.sqrt(special.betaincinv(0.5, (channels - 1) / 2, 0.5))


def through_matrices(
    relevance: Float[AnyArray, "draws *positions C"],
    matrices: Sequence[AnyArray],
    signs: str,
) -> list[Float[Array, "..."]]:
    """Relevances at the start and after each matrix.

    Args:
      relevance: of several draws.
      matrices: from the top down.
      signs: "any", the matrices as they are; "relu", as they are, with a random half of the channels set to 0 after each, as
        ReLUs do; "positive", their absolute values.

    Raises:
      ValueError: another word for `signs`.
    """
    checks.choice("signs", signs, SIGNS)
    found = [jnp.asarray(relevance)]
    for k, matrix in enumerate(matrices):
        down = found[-1] @ (jnp.abs(matrix) if signs == "positive" else matrix)
        if signs == "relu":
            down *= jax.random.bernoulli(jax.random.key(k), shape=down.shape[1:])
        found.append(down)
    return found


def matrix_products(
    widths: Sequence[int] = VGG_WIDTHS, *, draws: int = 5, positions: int = 24, seed: Seed = 0
) -> dict[str, Float[np.ndarray, " layers"]]:
    """The median |cosine| at the start and after each random normal matrix, by the signs of the matrices; no network."""
    rng = np.random.default_rng(seed)
    # Scaled, so that products neither vanish nor overflow; a cosine has no scale.
    matrices = [rng.normal(size=pair) / math.sqrt(pair[0]) for pair in itertools.pairwise(widths)]
    start = rng.normal(size=(draws, positions, widths[0]))

    @functools.partial(jax.jit, static_argnums=2)
    def every(start: Array, matrices: list, signs: str) -> list:
        return [similarities(r) for r in through_matrices(start, matrices, signs)]

    return {
        signs: np.array(
            [summary(*map(np.asarray, pair))[2] for pair in every(start, matrices, signs)]
        )
        for signs in SIGNS
    }
