"""Scores of complexity: how few pixels a heat map needs. They need neither a network nor an object.

Each is f(heatmap [H,W]) -> a float32 scalar of its absolute values. A map of zeros, or with a value that is NaN or infinite,
scores as a constant one, the worst: a dead map is not a simple explanation.
"""

import jax.numpy as jnp

from mixaug_jax.core.types import Heatmap, Value
from mixaug_jax.scores.maps import checked, to_one


def _heat(heatmap):
    """Absolute values, flat, the largest 1; ones for a map that says nothing."""
    if jnp.ndim(heatmap) != 2 or 0 in jnp.shape(heatmap):
        raise ValueError(f"heatmap must be [H,W]; got {list(jnp.shape(heatmap))}")
    # The scale does not matter, and sums of large values would overflow.
    heat = to_one(jnp.abs(checked(heatmap, jnp.shape(heatmap), "image"))).ravel()
    return jnp.where(heat.max() > 0, heat, 1.0)


def sparseness(heatmap: Heatmap) -> Value:
    """The Gini coefficient of the absolute values, 0 (constant) to 1 - 1 / (H W) (one pixel), larger is simpler.

    Chalasani et al. 2018, arXiv 1810.06583.

    Args:
      heatmap: [H,W].
    """
    heat = jnp.sort(_heat(heatmap))
    n = heat.size
    weights = (2 * jnp.arange(1, n + 1, dtype=jnp.float32) - n - 1) / n
    return jnp.sum(weights * heat) / heat.sum()


def complexity(heatmap: Heatmap) -> Value:
    """The entropy in nats of the absolute values' shares, 0 (one pixel) to ln(H W) (constant), smaller is simpler.

    Bhatt et al. 2020, arXiv 2005.00631.

    Args:
      heatmap: [H,W].
    """
    heat = _heat(heatmap)
    share = heat / heat.sum()
    # 0 log 0 is 0, and not NaN.
    return -jnp.sum(share * jnp.log(jnp.where(share > 0, share, 1)))


def effective_complexity(heatmap: Heatmap, *, eps: float = 0.1) -> Value:
    """How many pixels have more than `eps` of the largest absolute value, smaller is simpler.

    After Nguyen and Martinez 2020, arXiv 2007.07584, with Quantus's fixed threshold. Quantus takes it of the largest value in
    the whole batch, so that an image's score depends on the others; here it is of the image's own.

    Args:
      heatmap: [H,W].
      eps: share of the maximum, 0..1.
    """
    if not 0 <= eps <= 1:
        raise ValueError(f"eps must be in 0..1; got {eps}")
    return (_heat(heatmap) > eps).sum().astype(jnp.float32)
